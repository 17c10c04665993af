"""Checks that ask upstream's kubeadm whether it would have done the same: files byte for byte, objects of the cluster one by one. And first boot."""
import json, re, time
from lab import UPSTREAM, CONFIG, Failed, run, tail

# Beside plain defaults, what changes the manifests in other ways: two address families, arguments, volumes, variables, other images and folders.
PLAIN = "networking: {podSubnet: 10.244.0.0/16}"
RICH = """networking: {podSubnet: "10.244.0.0/16,fd00:1::/56", serviceSubnet: "10.96.0.0/16,fd00:2::/112", dnsDomain: k.example}
controlPlaneEndpoint: cp.example:8443
certificatesDir: /etc/other/pki
clusterName: other
encryptionAlgorithm: ECDSA-P256
imageRepository: registry.example/k8s
etcd: {local: {dataDir: /data/etcd, imageTag: 3.6.9-0, extraArgs: [{name: listen-metrics-urls, value: "http://0.0.0.0:2381"}, {name: quota-backend-bytes, value: "1"}]}}
apiServer:
  certSANs: [API.example, 10.9.9.9]
  extraArgs: [{name: authorization-mode, value: "Node,RBAC,Webhook"}, {name: v, value: "2"}, {name: v, value: "3"}]
  extraEnvs: [{name: Z, value: "1"}, {name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
  extraVolumes: [{name: ca-certs, hostPath: /a, mountPath: /b}, {name: x, hostPath: /x, mountPath: /y, readOnly: true, pathType: File}]
controllerManager: {extraArgs: [{name: bind-address, value: 0.0.0.0}]}
scheduler: {extraArgs: [{name: bind-address, value: "::"}]}"""
V6 = "networking: {podSubnet: fd00:1::/56, serviceSubnet: fd00:2::/112}"
PHASES = ["certs all", "kubeconfig all", "etcd local", "control-plane all"]


def check_same_files(node):
    """Manifests and kubeconfigs are upstream's to the byte (but for keys and certificates), and all files have upstream's modes."""
    for name, address, cluster in (("plain", node.ip, PLAIN), ("rich", node.ip, RICH), ("ipv6", "fd00::5", V6)):
        text = f"""apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: "{address}"}}
nodeRegistration: {{name: node-x, criSocket: unix:///run/containerd/containerd.sock}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.3
{cluster}
"""
        seen = []
        for who, program in (("ours", "kubeadm"), ("upstream", UPSTREAM)):
            root = f"/tmp/same/{name}/{who}"
            node.exec("sh", "-c", f"mkdir -p {root}/etc/ssl/certs {root}/usr/share/ca-certificates && cat >{root}/c.yaml", stdin=text)
            for phase in PHASES:
                node.exec(program, "init", "phase", *phase.split(), "--config", "/c.yaml", "--rootfs", root, timeout=120)
            files = node.exec("sh", "-c", f"cd {root} && find etc data -printf '%p %m %y\\n' 2>/dev/null | sort")
            files += node.exec("sh", "-c", f"cd {root}/etc/kubernetes && for f in manifests/*.yaml *.conf; do echo \"== $f\"; cat $f; done")
            seen.append(re.sub(r"-data: .*", "-data: …", files).splitlines())
        if different := sorted(set(seen[0]) ^ set(seen[1])) or seen[0] != seen[1]:
            raise Failed(f"{name}: ours and upstream's differ in: {different}")


KINDS = "configmap,serviceaccount,service,deployment,daemonset,role,rolebinding,clusterrole,clusterrolebinding,node,secret"
AGAIN = ["upload-config all", "mark-control-plane", "bootstrap-token", "addon all"]


def objects(node):
    found = {}
    for thing in json.loads(node.kubectl("get", KINDS, "-A", "-o", "json"))["items"]:
        meta = thing["metadata"]
        for key in ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"):
            meta.pop(key, None)
        thing.pop("status", None)
        # Upstream makes itself a token each time, and the controller manager signs for it.
        if thing["kind"] == "Secret" or thing["kind"] == "ServiceAccount" and meta["name"] not in ("coredns", "kube-proxy"):
            continue
        thing["data"] = {key: value for key, value in (thing.get("data") or {}).items() if not key.startswith("jws-")}
        found[f"{thing['kind']} {meta.get('namespace', '')}/{meta['name']}"] = thing
    return found


def check_same_objects(node):
    """Upstream's phases, run over the cluster that we made, find nothing to change in it."""
    before = objects(node)
    for phase in AGAIN:
        node.exec(UPSTREAM, "init", "phase", *phase.split(), "--config", CONFIG, timeout=120)
    after = objects(node)
    if changed := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        raise Failed(f"upstream changed {changed}")
    return [f"{len(before)} objects compared"]


def check_rerun_all(node):
    """A whole second init finds everything in place."""
    start = time.monotonic()
    lines = node.exec("kubeadm", "init", "--config", CONFIG).splitlines()
    if changed := [line for line in lines if re.match(r"\[[a-z-]+\] .*(created|updated|removed) \(", line)]:
        raise Failed(f"changed: {changed}")
    return [f"rerun: {time.monotonic() - start:.2f} s"]


OEM = """#cloud-config
cluster:
  cluster_token: lab-token
  role: init
  config: |
    apiVersion: kubeadm.k8s.io/v1beta4
    kind: InitConfiguration
    nodeRegistration: {taints: []}
    ---
    apiVersion: kubelet.config.k8s.io/v1beta1
    kind: KubeletConfiguration
    failCgroupV1: false
    cgroupDriver: cgroupfs
    failSwapOn: false
    ---
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    conntrack: {maxPerCore: 0, min: 0}
"""
SENTINEL = "/usr/local/.kairos/sentinel_firstboot"


def check_first_boot(node):
    """`rekindle provision` makes a Ready node of a cloud-config, brings the pods' network, and leaves the sentinel last; no secret is said."""
    node.exec("sh", "-c", "rm -f /etc/cni/net.d/*; mkdir -p /oem /usr/local/.kairos; cat >/oem/90_custom.yaml", stdin=OEM)
    start = time.monotonic()
    said = node.exec("rekindle", "provision", timeout=400)
    took = time.monotonic() - start
    node.exec("test", "-e", SENTINEL)
    subnet = json.loads(node.kubectl("get", "node", node.name, "-o", "json"))["spec"]["podCIDR"]
    network = json.loads(node.exec("cat", "/etc/cni/net.d/10-rekindle.conflist"))
    if network["plugins"][0]["ipam"]["ranges"] != [[{"subnet": subnet}]]:
        raise Failed(f"the pods' network is not that of the node, {subnet}: {network}")
    # sha256 of the cluster token, as provider-kubeadm derives from it.
    sha = run("sha256sum", stdin="lab-token").split()[0]
    token = f"{sha[-6:]}.{sha[:16]}"
    if not any(line.startswith(token) for line in node.exec(UPSTREAM, "token", "list").splitlines()):
        raise Failed("the derived bootstrap token is not in the cluster")
    key = run("sha256sum", stdin=token).split()[0]
    if leaked := [secret for secret in (sha[:16], key, "lab-token", "PRIVATE KEY") if secret in said]:
        raise Failed(f"{len(leaked)} secrets were said")
    certificate = node.exec("openssl", "x509", "-in", "/etc/kubernetes/pki/ca.crt", "-noout", "-text") if node.exec("sh", "-c", "command -v openssl || true") else run(
        "openssl", "x509", "-noout", "-text", stdin=node.exec("cat", "/etc/kubernetes/pki/ca.crt"))
    if "prime256v1" not in certificate:
        raise Failed("the first boot's keys are not of the curve P-256")
    return [f"power-on's share, from the start of provisioning to Ready: {took:.1f} s"]


def check_first_boot_again(node):
    """Without the sentinel the same call finds everything in place; with it, it only waits."""
    node.exec("rm", SENTINEL)
    said = node.exec("rekindle", "provision", timeout=400)
    if changed := [line for line in said.splitlines() if "✓ init:" in line and "(kept)" not in line]:
        raise Failed(f"changed: {tail(chr(10).join(changed))}")
    node.exec("test", "-e", SENTINEL)
    said = node.exec("rekindle", "provision", timeout=400)
    if "✓ init:" in said:
        raise Failed(f"a provisioned node was provisioned: {tail(said)}")


def check_uploaded_certificates(node):
    """Upstream's kubeadm, joining with the derived token and key, downloads and decrypts the authorities that first boot uploaded."""
    sha = run("sha256sum", stdin="lab-token").split()[0]
    token = f"{sha[-6:]}.{sha[:16]}"
    key = run("sha256sum", stdin=token).split()[0]
    shared = "ca.crt ca.key front-proxy-ca.crt front-proxy-ca.key sa.pub sa.key etcd/ca.crt etcd/ca.key"
    digests = f"cd /etc/kubernetes/pki && sha256sum {shared}"
    before = node.exec("sh", "-c", digests)
    # Gone from the node's disk, kept aside: what is there afterwards came through the cluster. admin.conf would be used instead of the token.
    node.exec("sh", "-c", f"cd /etc/kubernetes && mkdir /tmp/aside && cp -a pki admin.conf /tmp/aside/ && rm admin.conf && cd pki && rm {shared}")
    try:
        node.exec(UPSTREAM, "join", "phase", "control-plane-prepare", "download-certs", f"{node.ip}:6443", "--control-plane", "--token", token,
                  "--certificate-key", key, "--discovery-token-unsafe-skip-ca-verification", timeout=120)
        after = node.exec("sh", "-c", digests)
    finally:
        node.exec("sh", "-c", "cp -a /tmp/aside/pki /tmp/aside/admin.conf /etc/kubernetes/ && rm -r /tmp/aside")
    if before != after:
        raise Failed("what was downloaded differs from what was there")
