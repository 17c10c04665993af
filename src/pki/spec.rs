//! The table of certificates of a control-plane node (kubeadm 1.36, `cmd/kubeadm/app/phases/certs`).

use std::net::IpAddr;

use crate::kubeadm::{Config, net};

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Signs others.
    Authority,
    /// A server's.
    Server,
    /// A client's.
    Client,
    /// A server's that is a client of its peers, too.
    ServerAndClient,
}

/// One certificate and its key.
#[derive(Debug)]
pub struct Spec {
    /// Name of the phase under `certs/`.
    pub name: &'static str,
    /// Files, without `.crt` and `.key`, below `certificatesDir`.
    pub base: &'static str,
    /// `base` of the authority that signs it; `None` for an authority.
    pub authority: Option<&'static str>,
    /// What it is for.
    pub usage: Usage,
    /// Common name.
    pub cn: fn(&Config) -> &str,
    /// Names and addresses.
    pub sans: fn(&Config) -> Vec<San>,
}

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl std::fmt::Display for San {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            San::Dns(name) => f.write_str(name),
            San::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Every certificate below `certificatesDir`, in the order of kubeadm's phases.
pub const SPECS: &[Spec] = &[
    authority("ca", "ca", |_| "kubernetes"),
    leaf("apiserver", "apiserver", "ca", Usage::Server, |_| "kube-apiserver", apiserver_sans),
    client("apiserver-kubelet-client", "apiserver-kubelet-client", "ca", |_| "kube-apiserver-kubelet-client"),
    authority("front-proxy-ca", "front-proxy-ca", |_| "front-proxy-ca"),
    client("front-proxy-client", "front-proxy-client", "front-proxy-ca", |_| "front-proxy-client"),
    authority("etcd-ca", "etcd/ca", |_| "etcd-ca"),
    leaf("etcd-server", "etcd/server", "etcd/ca", Usage::ServerAndClient, Config::node, etcd_server_sans),
    leaf("etcd-peer", "etcd/peer", "etcd/ca", Usage::ServerAndClient, Config::node, etcd_peer_sans),
    client(
        "etcd-healthcheck-client",
        "etcd/healthcheck-client",
        "etcd/ca",
        |_| "kube-etcd-healthcheck-client",
    ),
    client("apiserver-etcd-client", "apiserver-etcd-client", "etcd/ca", |_| "kube-apiserver-etcd-client"),
];

/// Files of the key pair that signs service account tokens; it has no certificate.
pub const SERVICE_ACCOUNT: (&str, &str) = ("sa.key", "sa.pub");

const fn authority(name: &'static str, base: &'static str, cn: fn(&Config) -> &str) -> Spec {
    Spec { name, base, authority: None, usage: Usage::Authority, cn, sans: |_| Vec::new() }
}

const fn client(
    name: &'static str,
    base: &'static str,
    authority: &'static str,
    cn: fn(&Config) -> &str,
) -> Spec {
    Spec { name, base, authority: Some(authority), usage: Usage::Client, cn, sans: |_| Vec::new() }
}

const fn leaf(
    name: &'static str,
    base: &'static str,
    authority: &'static str,
    usage: Usage,
    cn: fn(&Config) -> &str,
    sans: fn(&Config) -> Vec<San>,
) -> Spec {
    Spec { name, base, authority: Some(authority), usage, cn, sans }
}

/// The row of a phase.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Spec> {
    SPECS.iter().find(|spec| spec.name == name)
}

impl Spec {
    /// Common name, and names and addresses, as wanted of this node's certificate. An authority bears its own name.
    #[must_use]
    pub fn wanted(&self, config: &Config) -> (String, Vec<San>) {
        let cn = (self.cn)(config).to_owned();
        let sans =
            if self.usage == Usage::Authority { vec![San::Dns(cn.clone())] } else { (self.sans)(config) };
        (cn, sans)
    }
}

fn apiserver_sans(config: &Config) -> Vec<San> {
    let domain = &config.cluster.networking.dns_domain;
    let mut names = vec![
        config.node().to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{domain}"),
    ];
    names.extend(net::nth_address(config.service_subnet(), 1).map(|ip| ip.to_string()));
    names.push(config.advertise().to_owned());
    if !config.cluster.control_plane_endpoint.is_empty() {
        names.push(config.endpoint().0);
    }
    names.extend(config.cluster.api_server.cert_sans.iter().cloned());
    sans(names)
}

fn etcd_server_sans(config: &Config) -> Vec<San> {
    etcd_sans(config, |etcd| &etcd.server_cert_sans)
}

fn etcd_peer_sans(config: &Config) -> Vec<San> {
    etcd_sans(config, |etcd| &etcd.peer_cert_sans)
}

fn etcd_sans(config: &Config, more: fn(&crate::kubeadm::v1beta4::LocalEtcd) -> &Vec<String>) -> Vec<San> {
    let mut names: Vec<String> =
        [config.node(), "localhost", config.advertise(), "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(config.cluster.etcd.local.iter().flat_map(more).cloned());
    sans(names)
}

/// DNS names sorted, then addresses in the order given, each once.
fn sans(names: Vec<String>) -> Vec<San> {
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    for name in names {
        match name.parse() {
            Ok(ip) if !ips.contains(&San::Ip(ip)) => ips.push(San::Ip(ip)),
            Ok(_) => {}
            Err(_) => dns.push(San::Dns(name)),
        }
    }
    dns.sort();
    dns.dedup();
    dns.extend(ips);
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_come_once() {
        let given = ["b", "10.0.0.2", "a", "b", "10.0.0.1", "10.0.0.2"].map(str::to_owned).to_vec();
        let shown: Vec<_> = sans(given).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", "b", "10.0.0.2", "10.0.0.1"]);
    }

    #[test]
    fn every_authority_comes_before_what_it_signs() {
        for (n, spec) in SPECS.iter().enumerate() {
            if let Some(authority) = spec.authority {
                assert!(SPECS[..n].iter().any(|s| s.base == authority), "failed testcase: {}", spec.name);
            }
        }
    }
}
