//! The `cluster:` block of a cloud-config, as Kairos' provider-kubeadm reads it, turned into kubeadm documents.
//!
//! Kept: the bootstrap token and the certificate key that are derived from `cluster_token`, so that nodes of both kinds
//! join one cluster; `control_plane_host` as endpoint and name in the certificate. Left out: what the provider forces on
//! every cluster beyond kubeadm's own defaults.

use anyhow::{Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::defaults::NODE_TOKEN_GROUP;
use super::documents::{self, Documents};
use super::v1beta4::BootstrapToken;
use super::{GoDuration, net};

/// What a node is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first control-plane node.
    Init,
    /// A further control-plane node.
    ControlPlane,
    /// A worker.
    Worker,
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        match text {
            "init" => Ok(Role::Init),
            "controlplane" => Ok(Role::ControlPlane),
            "worker" => Ok(Role::Worker),
            _ => Err("want init, controlplane or worker".to_owned()),
        }
    }
}

/// The block's values.
#[derive(Clone)]
pub struct Cluster<'a> {
    /// `cluster_token`: any text; a secret.
    pub token: &'a str,
    /// `control_plane_host`: host or host:port.
    pub host: &'a str,
    /// `role`.
    pub role: Role,
    /// `config`: kubeadm documents, each with its apiVersion and kind.
    pub documents: Vec<Value>,
}

impl std::fmt::Debug for Cluster<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("host", &self.host).field("role", &self.role).finish_non_exhaustive()
    }
}

fn sha256_hex(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The bootstrap token of a cluster token: of its SHA-256 in hex the last 6 digits, a dot, the first 16.
#[must_use]
pub fn bootstrap_token(cluster_token: &str) -> String {
    let sha = sha256_hex(cluster_token);
    format!("{}.{}", &sha[58..], &sha[..16])
}

/// The certificate key of a cluster token: the SHA-256 in hex of its bootstrap token.
#[must_use]
pub fn certificate_key(cluster_token: &str) -> String {
    sha256_hex(&bootstrap_token(cluster_token))
}

/// The kubeadm documents of a block whose role is `init`.
///
/// # Errors
/// The role is not built yet, the host is no host, or `config` is wrong.
pub fn documents(cluster: &Cluster<'_>) -> Result<Documents> {
    if cluster.role != Role::Init {
        bail!("cluster.role: only init is supported yet by rekindle: joining comes later");
    }
    let mut documents = documents::from_values(cluster.documents.clone(), "cluster.config")?;
    let init = documents.init.get_or_insert_default();
    if !cluster.token.is_empty() {
        let token = bootstrap_token(cluster.token);
        if init.bootstrap_tokens.iter().all(|t| t.token != token) {
            // It does not expire: a node may come to the cluster years later with the same cloud-config.
            let ttl = Some(GoDuration::default());
            let groups = vec![NODE_TOKEN_GROUP.to_owned()];
            init.bootstrap_tokens.push(BootstrapToken { token, ttl, groups, ..BootstrapToken::default() });
        }
        if init.certificate_key.is_empty() {
            init.certificate_key = certificate_key(cluster.token);
        }
    }
    let names = documents.cluster.get_or_insert_default();
    if !cluster.host.is_empty() {
        let (host, port) = net::split_host_port(cluster.host)
            .map_err(|why| anyhow::anyhow!("cluster.control_plane_host: {why}"))?;
        if names.control_plane_endpoint.is_empty() {
            names.control_plane_endpoint = net::host_port(&host, port.unwrap_or(6443));
        }
        if !names.api_server.cert_sans.contains(&host) {
            names.api_server.cert_sans.push(host);
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_what_provider_kubeadm_derives() {
        // printf secrettoken | sha256sum; printf ID.SECRET | sha256sum
        assert_eq!(bootstrap_token("secrettoken"), "f8289e.a78dd2126c3ef3a0");
        assert_eq!(
            certificate_key("secrettoken"),
            "fc5a5176dd770453cf698c699d8ff81e757b6d238343188f8c312300846bd517"
        );
    }

    #[test]
    fn the_host_is_endpoint_and_name_unless_the_config_says_otherwise() {
        let config = serde_json::json!({"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "controlPlaneEndpoint": "lb:8443"});
        for (host, given, endpoint, sans) in [
            ("10.0.0.5", vec![], "10.0.0.5:6443", vec!["10.0.0.5"]),
            ("cp.example:7443", vec![], "cp.example:7443", vec!["cp.example"]),
            ("cp.example", vec![config], "lb:8443", vec!["cp.example"]),
            ("", vec![], "", vec![]),
        ] {
            let block = Cluster { token: "t", host, role: Role::Init, documents: given };
            let found = documents(&block).unwrap().cluster.unwrap();
            assert_eq!(found.control_plane_endpoint, endpoint, "failed testcase: {host}");
            assert_eq!(found.api_server.cert_sans, sans, "failed testcase: {host}");
        }
        let worker = Cluster { token: "t", host: "h", role: Role::Worker, documents: vec![] };
        assert!(documents(&worker).unwrap_err().to_string().contains("only init is supported yet"));
    }
}
