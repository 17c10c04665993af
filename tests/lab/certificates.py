"""What kubeadm 1.36 must leave under /etc/kubernetes, typed out from its documentation and checked with openssl: an oracle that shares no code with ours."""
import base64, json, re, tempfile
from pathlib import Path
from lab import Failed, run

CLIENT, SERVER = "TLS Web Client Authentication", "TLS Web Server Authentication"
PAIR_USE = {"Digital Signature", "Key Encipherment"}
DAYS, CA_DAYS = 365, 3650
AUTHORITIES = {"ca": "kubernetes", "front-proxy-ca": "front-proxy-ca", "etcd/ca": "etcd-ca"}


def leaves(node, ip):
    """name: (authority, subject, extended usage, alternative names)"""
    etcd = {f"DNS:{node}", "DNS:localhost", f"IP:{ip}", "IP:127.0.0.1", "IP:::1"}
    service = {f"DNS:kubernetes{tail}" for tail in ("", ".default", ".default.svc", ".default.svc.cluster.local")}
    return {
        "apiserver": ("ca", {"CN=kube-apiserver"}, {SERVER}, service | {f"DNS:{node}", "IP:10.96.0.1", f"IP:{ip}"}),
        "apiserver-kubelet-client": ("ca", {"CN=kube-apiserver-kubelet-client"}, {CLIENT}, set()),
        "front-proxy-client": ("front-proxy-ca", {"CN=front-proxy-client"}, {CLIENT}, set()),
        "etcd/server": ("etcd/ca", {f"CN={node}"}, {SERVER, CLIENT}, etcd),
        "etcd/peer": ("etcd/ca", {f"CN={node}"}, {SERVER, CLIENT}, etcd),
        "etcd/healthcheck-client": ("etcd/ca", {"CN=kube-etcd-healthcheck-client"}, {CLIENT}, set()),
        "apiserver-etcd-client": ("etcd/ca", {"CN=kube-apiserver-etcd-client"}, {CLIENT}, set()),
    }


def kubeconfigs(node):
    """file: (user, subject); every one points at this node's own API server, for want of a controlPlaneEndpoint."""
    return {
        "admin.conf": ("kubernetes-admin", {"CN=kubernetes-admin", "O=kubeadm:cluster-admins"}),
        "super-admin.conf": ("kubernetes-super-admin", {"CN=kubernetes-super-admin", "O=system:masters"}),
        "kubelet.conf": (f"system:node:{node}", {f"CN=system:node:{node}", "O=system:nodes"}),
        "controller-manager.conf": ("system:kube-controller-manager", {"CN=system:kube-controller-manager"}),
        "scheduler.conf": ("system:kube-scheduler", {"CN=system:kube-scheduler"}),
    }


def extension(text, name):
    found = re.search(rf"X509v3 {name}: *(critical)?\n +(.+)", text)
    return {re.sub("^IP Address:", "IP:", item).replace("0:0:0:0:0:0:0:1", "::1") for item in found[2].split(", ")} if found else set()


def expect(what, seen, wanted):
    if seen != wanted:
        raise Failed(f"{what}: {seen or 'nothing'} instead of {wanted or 'nothing'}")


def check_one(path, what, authority, subject, usage, names, is_ca=False):
    text = run("openssl", "x509", "-in", path, "-noout", "-text")
    expect(f"{what}: subject", set(run("openssl", "x509", "-in", path, "-noout", "-subject", "-nameopt", "RFC2253").strip().removeprefix("subject=").split(",")), subject)
    expect(f"{what}: extended key usage", extension(text, "Extended Key Usage"), usage)
    expect(f"{what}: alternative names", extension(text, "Subject Alternative Name"), names)
    expect(f"{what}: key usage", extension(text, "Key Usage"), PAIR_USE | ({"Certificate Sign"} if is_ca else set()))
    expect(f"{what}: basic constraints", extension(text, "Basic Constraints"), {"CA:TRUE" if is_ca else "CA:FALSE"})
    # -x509_strict is what newer clients (Python 3.13) ask for: key identifiers must be there, too.
    for purpose in ["any"] if is_ca else ["sslclient"] * (CLIENT in usage) + ["sslserver"] * (SERVER in usage):
        run("openssl", "verify", "-x509_strict", "-CAfile", authority, "-purpose", purpose, path)
    days = CA_DAYS if is_ca else DAYS
    for ahead, alive in ((0, True), (days * 86400 - 3600, True), (days * 86400 + 3600, False)):
        expect(f"{what}: valid in {ahead} s", "will not expire" in check_end(path, ahead), alive)


def check_end(path, seconds):
    return run("sh", "-c", 'openssl x509 -in "$1" -noout -checkend "$2" || true', "sh", path, seconds)


def check_certificates(node):
    pki = node.etc / "pki"
    table = leaves(node.name, node.ip)
    for name, cn in AUTHORITIES.items():
        check_one(pki / f"{name}.crt", name, pki / f"{name}.crt", {f"CN={cn}"}, set(), {f"DNS:{cn}"}, is_ca=True)
    for name, (authority, subject, usage, names) in table.items():
        check_one(pki / f"{name}.crt", name, pki / f"{authority}.crt", subject, usage, names)
    for name in (*AUTHORITIES, *table, "sa"):
        key = pki / f"{name}.key"
        if "BEGIN RSA PRIVATE KEY" not in key.read_text() or "(2048 bit" not in run("openssl", "pkey", "-in", key, "-noout", "-text"):
            raise Failed(f"{name}.key is no RSA-2048 key in PKCS#1")
        public = (pki / "sa.pub").read_text() if name == "sa" else run("openssl", "x509", "-in", pki / f"{name}.crt", "-noout", "-pubkey")
        if run("openssl", "pkey", "-in", key, "-pubout") != public:
            raise Failed(f"{name}.key does not belong to its public half")


def check_kubeconfigs(node):
    authority = node.etc / "pki/ca.crt"
    for file, (user, subject) in kubeconfigs(node.name).items():
        view = json.loads(node.exec("kubectl", "config", "view", "--raw", "-o", "json", f"--kubeconfig=/etc/kubernetes/{file}"))
        cluster, context = view["clusters"][0], view["contexts"][0]
        expect(f"{file}: server", cluster["cluster"]["server"], f"https://{node.ip}:6443")
        expect(f"{file}: names", (cluster["name"], context["name"], view["current-context"]), ("kubernetes", f"{user}@kubernetes", f"{user}@kubernetes"))
        expect(f"{file}: context", (context["context"]["cluster"], context["context"]["user"]), ("kubernetes", view["users"][0]["name"]))
        if base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode() != authority.read_text():
            raise Failed(f"{file}: its CA is not pki/ca.crt")
        credential = view["users"][0]["user"]
        if file == "kubelet.conf":  # kubelet-finalize has pointed it at what the kubelet rotates
            expect(f"{file}: certificate", credential.get("client-certificate"), "/var/lib/kubelet/pki/kubelet-client-current.pem")
            pem = node.exec("cat", credential["client-certificate"])
        else:
            pem = base64.b64decode(credential["client-certificate-data"]).decode()
        with tempfile.NamedTemporaryFile("w", suffix=".crt") as certificate:
            certificate.write(pem[pem.index("-----BEGIN CERTIFICATE"):])
            certificate.flush()
            check_one(certificate.name, file, authority, subject, {CLIENT}, set())


def check_modes(node):
    """Names, too: a file that upstream does not write is as wrong as a missing one."""
    etc, table = node.etc, leaves(node.name, node.ip)
    wanted = {f"pki/{name}.{kind}": mode for name in (*AUTHORITIES, *table) for kind, mode in (("crt", 0o644), ("key", 0o600))}
    wanted |= {"pki/sa.key": 0o600, "pki/sa.pub": 0o600, "pki": 0o755, "pki/etcd": 0o755, "manifests": 0o700}
    wanted |= {file: 0o600 for file in kubeconfigs(node.name)}
    wanted |= {f"manifests/{name}.yaml": 0o600 for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")}
    seen = {str(path.relative_to(etc)): path.stat().st_mode & 0o7777 for path in etc.rglob("*") if not str(path.relative_to(etc)).startswith("tmp")}
    wrong = [f"{name} {'missing' if name not in seen else 'not expected' if name not in wanted else f'{seen[name]:o} instead of {wanted[name]:o}'}"
             for name in sorted(wanted.keys() | seen.keys()) if seen.get(name) != wanted.get(name)]
    for name in ("config.yaml", "instance-config.yaml", "kubeadm-flags.env"):
        if (mode := (node.dir / "data/kubelet" / name).stat().st_mode & 0o7777) != 0o644:
            wrong.append(f"/var/lib/kubelet/{name} {mode:o} instead of 644")
    if wrong:
        raise Failed("; ".join(wrong))
