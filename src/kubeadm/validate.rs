//! All that is wrong with a configuration, at once, with the path of each field as upstream names it.
//!
//! Also refuses by name what is not built yet, so that nothing is silently left undone.

use std::net::IpAddr;

use super::net::{self, Cidr};
use super::v1beta4::{Arg, BootstrapToken};
use super::{Config, version};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where, as `networking.podSubnet`.
    pub path: String,
    /// What, without secret values.
    pub msg: String,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.msg)
    }
}

/// The algorithms of keys.
pub const ALGORITHMS: [&str; 5] = ["RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384"];

struct Findings(Vec<FieldError>);

impl Findings {
    fn add(&mut self, path: impl Into<String>, msg: impl Into<String>) {
        self.0.push(FieldError { path: path.into(), msg: msg.into() });
    }

    fn check(&mut self, good: bool, path: &str, msg: &str) {
        if !good {
            self.add(path, msg);
        }
    }
}

/// Looks at a completed configuration.
#[must_use]
pub fn validate(config: &Config) -> Vec<FieldError> {
    let mut found = Findings(Vec::new());
    node(config, &mut found);
    networking(config, &mut found);
    cluster(config, &mut found);
    etcd(config, &mut found);
    for (n, token) in config.init.bootstrap_tokens.iter().enumerate() {
        bootstrap_token(token, n, &mut found);
    }
    not_supported_yet(config, &mut found);
    found.0
}

fn node(config: &Config, found: &mut Findings) {
    let node = &config.init.node_registration;
    found.check(
        net::is_dns1123_subdomain(&node.name),
        "nodeRegistration.name",
        "want a DNS name in lower case, such as node-1",
    );
    found.check(
        node.cri_socket.starts_with("unix:///"),
        "nodeRegistration.criSocket",
        "want unix:// and an absolute path",
    );
    args(&node.kubelet_extra_args, "nodeRegistration.kubeletExtraArgs", found);
    for (n, taint) in node.taints.iter().flatten().enumerate() {
        let good = !taint.key.is_empty()
            && ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str());
        if !good {
            found.add(
                format!("nodeRegistration.taints[{n}]"),
                "want a key, and NoSchedule, PreferNoSchedule or NoExecute as effect",
            );
        }
    }
    let policy = ["Always", "IfNotPresent", "Never"].contains(&node.image_pull_policy.as_str());
    found.check(policy, "nodeRegistration.imagePullPolicy", "want Always, IfNotPresent or Never");
    let path = "localAPIEndpoint.advertiseAddress";
    match config.advertise().parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() => {
            found.add(path, "want an address that other machines reach this node at");
        }
        Ok(_) => {}
        Err(_) if config.advertise().is_empty() => {
            found.add(path, "there is no default route to take an address from: name one");
        }
        Err(_) => found.add(path, "want an IP address"),
    }
    let key = &config.init.certificate_key;
    let good = key.is_empty() || (key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()));
    found.check(
        good,
        "certificateKey",
        "want 64 hexadecimal digits (make one with `kubeadm certs certificate-key`)",
    );
}

fn networking(config: &Config, found: &mut Findings) {
    let networking = &config.cluster.networking;
    found.check(
        net::is_dns1123_subdomain(&networking.dns_domain),
        "networking.dnsDomain",
        "want a DNS name in lower case",
    );
    for subnet in family_list(&networking.service_subnet, "networking.serviceSubnet", found) {
        let (few, many) = (subnet.nth(10).is_none(), subnet.host_bits() > 20);
        found.check(!few, "networking.serviceSubnet", "want at least 10 addresses");
        found.check(!many, "networking.serviceSubnet", "want a prefix of at least /12 (IPv6: /108)");
    }
    if networking.pod_subnet.is_empty() {
        return;
    }
    for subnet in family_list(&networking.pod_subnet, "networking.podSubnet", found) {
        let (node, flag) = if subnet.base.is_ipv4() {
            (24, "node-cidr-mask-size-ipv4")
        } else {
            (64, "node-cidr-mask-size-ipv6")
        };
        let manager = &config.cluster.controller_manager.extra_args;
        if manager.iter().any(|a| a.name == "allocate-node-cidrs" && a.value == "false") {
            continue;
        }
        let given =
            |name: &str| manager.iter().rev().find(|a| a.name == name).and_then(|a| a.value.parse().ok());
        let node: u8 = given(flag).or_else(|| given("node-cidr-mask-size")).unwrap_or(node);
        found.check(
            subnet.prefix <= node,
            "networking.podSubnet",
            "too small for even one node: each gets a /24 (IPv6: /64) of it",
        );
        found.check(
            node.saturating_sub(subnet.prefix) <= 16,
            "networking.podSubnet",
            "too large: want at most 65536 node subnets",
        );
    }
}

/// The subnets of a list; a finding if they are not one, or one of each family.
fn family_list(list: &str, path: &str, found: &mut Findings) -> Vec<Cidr> {
    match net::subnets(list) {
        Ok(subnets) if subnets.len() == 1 => subnets,
        Ok(subnets) if subnets.len() == 2 && subnets[0].base.is_ipv4() != subnets[1].base.is_ipv4() => {
            subnets
        }
        Ok(_) => {
            found.add(path, "want one subnet, or an IPv4 and an IPv6 one");
            Vec::new()
        }
        Err(msg) => {
            found.add(path, msg);
            Vec::new()
        }
    }
}

fn cluster(config: &Config, found: &mut Findings) {
    let cluster = &config.cluster;
    match version::minor(&cluster.kubernetes_version) {
        Some((1, 35 | 36)) => {}
        Some(_) => found.add(
            "kubernetesVersion",
            format!("want 1.35 or 1.36: this program is made for {}", version::KUBERNETES),
        ),
        None => found.add("kubernetesVersion", format!("want a version such as {}", version::KUBERNETES)),
    }
    found.check(cluster.certificates_dir.starts_with('/'), "certificatesDir", "want an absolute path");
    found.check(
        ALGORITHMS.contains(&cluster.encryption_algorithm.as_str()),
        "encryptionAlgorithm",
        &format!("want one of {}", ALGORITHMS.join(", ")),
    );
    let repository = |r: &str| {
        !r.is_empty()
            && !r.ends_with('/')
            && r.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b))
    };
    found.check(
        repository(&cluster.image_repository),
        "imageRepository",
        "want a registry and path such as registry.k8s.io",
    );
    found.check(!cluster.cluster_name.is_empty(), "clusterName", "want a name");
    if !cluster.control_plane_endpoint.is_empty() {
        match net::split_host_port(&cluster.control_plane_endpoint) {
            Ok((host, _)) if host.parse::<IpAddr>().is_ok() || net::is_dns1123_subdomain(&host) => {}
            Ok(_) => found.add(
                "controlPlaneEndpoint",
                "want an IP address or a DNS name in lower case, and perhaps a port",
            ),
            Err(msg) => found.add("controlPlaneEndpoint", msg),
        }
    }
    sans(&cluster.api_server.cert_sans, "apiServer.certSANs", found);
    args(&cluster.api_server.extra_args, "apiServer.extraArgs", found);
    args(&cluster.controller_manager.extra_args, "controllerManager.extraArgs", found);
    args(&cluster.scheduler.extra_args, "scheduler.extraArgs", found);
    for gate in cluster.feature_gates.keys() {
        found.add(
            format!("featureGates.{gate}"),
            "unrecognized feature-gate key, or one that is not supported yet by rekindle",
        );
    }
}

fn etcd(config: &Config, found: &mut Findings) {
    let etcd = &config.cluster.etcd;
    found.check(
        etcd.local.is_none() || etcd.external.is_none(),
        "etcd",
        "want either local or external, not both",
    );
    if let Some(local) = &etcd.local {
        found.check(local.data_dir.starts_with('/'), "etcd.local.dataDir", "want an absolute path");
        args(&local.extra_args, "etcd.local.extraArgs", found);
        sans(&local.server_cert_sans, "etcd.local.serverCertSANs", found);
        sans(&local.peer_cert_sans, "etcd.local.peerCertSANs", found);
    }
}

fn args(args: &[Arg], path: &str, found: &mut Findings) {
    found.check(args.iter().all(|a| !a.name.is_empty()), path, "an argument has no name");
}

fn sans(sans: &[String], path: &str, found: &mut Findings) {
    for (n, san) in sans.iter().enumerate() {
        let name = san.strip_prefix("*.").unwrap_or(san);
        if san.parse::<IpAddr>().is_err() && !net::is_dns1123_subdomain(name) {
            found.add(format!("{path}[{n}]"), "want an IP address or a DNS name");
        }
    }
}

/// Whether `text` is `[a-z0-9]{6}.[a-z0-9]{16}`.
#[must_use]
pub fn is_token(text: &str) -> bool {
    let part =
        |p: &str, len| p.len() == len && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once('.').is_some_and(|(id, secret)| part(id, 6) && part(secret, 16))
}

fn bootstrap_token(token: &BootstrapToken, n: usize, found: &mut Findings) {
    let path = |field: &str| format!("bootstrapTokens[{n}].{field}");
    found.check(
        is_token(&token.token),
        &path("token"),
        "want 6 and 16 letters a-z or digits with a dot between (not shown: it is a secret)",
    );
    let known = token.usages.iter().all(|u| u == "signing" || u == "authentication");
    found.check(known, &path("usages"), "want signing, authentication");
    let group = |g: &String| {
        g.strip_prefix("system:bootstrappers:").is_some_and(|r| {
            (1..=256).contains(&r.len())
                && r.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-')
                && r.ends_with(|c: char| c.is_ascii_alphanumeric())
        })
    };
    found.check(
        token.groups.iter().all(group),
        &path("groups"),
        "want names that begin with system:bootstrappers:",
    );
    let authenticates = token.usages.iter().any(|u| u == "authentication");
    found.check(
        token.groups.is_empty() || authenticates,
        &path("groups"),
        "a token with groups needs the usage authentication",
    );
    found.check(
        token.ttl.is_none() || token.expires.is_none(),
        &path("ttl"),
        "want ttl or expires, not both",
    );
}

fn not_supported_yet(config: &Config, found: &mut Findings) {
    let yet = "not supported yet by rekindle: leave it out";
    found.check(config.cluster.etcd.external.is_none(), "etcd.external", yet);
    found.check(config.init.patches.is_none(), "patches", yet);
    found.check(!config.init.dry_run, "dryRun", yet);
    let pull = &config.init.node_registration;
    found.check(
        pull.image_pull_policy != "Always",
        "nodeRegistration.imagePullPolicy",
        "Always is not supported yet by rekindle: want IfNotPresent",
    );
    for (n, token) in config.init.bootstrap_tokens.iter().enumerate() {
        found.check(
            token.expires.is_none(),
            &format!("bootstrapTokens[{n}].expires"),
            "not supported yet by rekindle: want ttl",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::{defaults, documents};
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let parsed = documents::parse(text, "f").unwrap();
        let facts = defaults::Facts {
            hostname: "n1".into(),
            address: Some("10.0.0.1".parse().unwrap()),
            token: "abcdef.0123456789abcdef".into(),
            ..defaults::Facts::default()
        };
        validate(&defaults::apply(parsed, &facts)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_wrong_with_the_defaults() {
        assert_eq!(findings(""), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_field_is_named_and_all_at_once() {
        for (kind, fields, paths) in [
            (
                "Init",
                "nodeRegistration: {name: A_b, criSocket: tcp://x}",
                &["nodeRegistration.name", "nodeRegistration.criSocket"][..],
            ),
            (
                "Init",
                "localAPIEndpoint: {advertiseAddress: 127.0.0.1}",
                &["localAPIEndpoint.advertiseAddress"],
            ),
            ("Init", "localAPIEndpoint: {advertiseAddress: host}", &["localAPIEndpoint.advertiseAddress"]),
            (
                "Init",
                "bootstrapTokens: [{token: short.x, usages: [sign], groups: [a]}]",
                &[
                    "bootstrapTokens[0].token",
                    "bootstrapTokens[0].usages",
                    "bootstrapTokens[0].groups",
                    "bootstrapTokens[0].groups",
                ],
            ),
            ("Init", "certificateKey: abc", &["certificateKey"]),
            ("Init", "dryRun: true\npatches: {directory: /x}", &["patches", "dryRun"]),
            (
                "Cluster",
                "networking: {serviceSubnet: 10.0.0.0/30, podSubnet: 10.1.0.0/25, dnsDomain: A}",
                &["networking.dnsDomain", "networking.serviceSubnet", "networking.podSubnet"],
            ),
            (
                "Cluster",
                "networking: {serviceSubnet: 10.0.0.0/8, podSubnet: '10.0.0.0/7,fd00::/48'}",
                &["networking.serviceSubnet", "networking.podSubnet"],
            ),
            ("Cluster", "networking: {podSubnet: '10.0.0.0/16,10.1.0.0/16'}", &["networking.podSubnet"]),
            (
                "Cluster",
                "kubernetesVersion: v1.20.0\nencryptionAlgorithm: RSA-1024\ncertificatesDir: pki",
                &["kubernetesVersion", "certificatesDir", "encryptionAlgorithm"],
            ),
            (
                "Cluster",
                "controlPlaneEndpoint: 'host:0'\napiServer: {certSANs: ['*.ok.example', 'b ad'], extraArgs: [{value: x}]}",
                &["controlPlaneEndpoint", "apiServer.certSANs[1]", "apiServer.extraArgs"],
            ),
            ("Cluster", "featureGates: {NoSuch: true}", &["featureGates.NoSuch"]),
            ("Cluster", "etcd: {external: {endpoints: [https://e:2379]}}", &["etcd.external"]),
            ("Cluster", "etcd: {local: {dataDir: x}}", &["etcd.local.dataDir"]),
        ] {
            let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: {kind}Configuration\n{fields}\n");
            let found = findings(&text);
            let found: Vec<_> = found.iter().map(|f| f.split(": ").next().unwrap()).collect();
            assert_eq!(found, paths, "failed testcase: {fields}");
        }
    }
}
