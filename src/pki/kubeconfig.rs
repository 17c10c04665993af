//! Kubeconfigs: a client certificate, the authority to trust and the address, in one file.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::kubeadm::{Config, documents};
use crate::oem::yaml;

/// One kubeconfig of a control-plane node.
#[derive(Debug)]
pub struct Spec {
    /// Name of the phase under `kubeconfig/`.
    pub name: &'static str,
    /// File below `/etc/kubernetes`.
    pub file: &'static str,
    /// The user's name, and the certificate's common name.
    pub user: fn(&Config) -> String,
    /// The user's group.
    pub group: Option<&'static str>,
    /// Goes to this node's API server rather than to the control plane's endpoint.
    pub local: bool,
}

/// The kubeconfigs, in the order of kubeadm's phases.
pub const SPECS: &[Spec] = &[
    row("admin", "admin.conf", |_| "kubernetes-admin".into(), Some("kubeadm:cluster-admins"), false),
    row(
        "super-admin",
        "super-admin.conf",
        |_| "kubernetes-super-admin".into(),
        Some("system:masters"),
        false,
    ),
    row("kubelet", "kubelet.conf", |c| format!("system:node:{}", c.node()), Some("system:nodes"), true),
    row(
        "controller-manager",
        "controller-manager.conf",
        |_| "system:kube-controller-manager".into(),
        None,
        true,
    ),
    row("scheduler", "scheduler.conf", |_| "system:kube-scheduler".into(), None, true),
];

const fn row(
    name: &'static str,
    file: &'static str,
    user: fn(&Config) -> String,
    group: Option<&'static str>,
    local: bool,
) -> Spec {
    Spec { name, file, user, group, local }
}

/// The row of a phase.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Spec> {
    SPECS.iter().find(|spec| spec.name == name)
}

/// The file's text.
///
/// # Errors
/// It has no YAML form.
pub fn text(
    cluster: &str,
    server: &str,
    authority: &str,
    user: &str,
    certificate: &str,
    key: &str,
) -> Result<String> {
    let context = format!("{user}@{cluster}");
    documents::write(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"certificate-authority-data": STANDARD.encode(authority), "server": server}}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key)}}],
    }))
}

/// The parts of a kubeconfig that matter when it is found.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    /// The authority's certificate, PEM; empty if it is not in the file itself.
    pub authority: String,
    /// Address of the API server.
    pub server: String,
    /// The client's certificate, PEM; empty if it is not in the file itself.
    pub certificate: String,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Reads a kubeconfig: the cluster and user of its current context.
///
/// # Errors
/// It is no YAML, or has no current context.
pub fn read(text: &str, file: &str) -> Result<Found> {
    let value: Value = yaml::parse(text, file)?;
    let named = |list: &str, name: &Value, part: &str| -> Option<Value> {
        let item = value[list].as_array()?.iter().find(|item| &item["name"] == name)?;
        Some(item[part].clone())
    };
    let context = named("contexts", &value["current-context"], "context")
        .with_context(|| format!("{file}: no current context in it"))?;
    let cluster = named("clusters", &context["cluster"], "cluster").unwrap_or_default();
    let user = named("users", &context["user"], "user").unwrap_or_default();
    let data = |value: &Value| -> Result<String> {
        let bytes = STANDARD
            .decode(value.as_str().unwrap_or_default())
            .with_context(|| format!("{file}: damaged base64"))?;
        String::from_utf8(bytes).with_context(|| format!("{file}: damaged PEM"))
    };
    Ok(Found {
        authority: data(&cluster["certificate-authority-data"])?,
        server: cluster["server"].as_str().unwrap_or_default().to_owned(),
        certificate: data(&user["client-certificate-data"])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = text("kubernetes", "https://10.0.0.1:6443", "CA", "me", "CERT", "KEY").unwrap();
        let found = read(&text, "f").unwrap();
        assert_eq!((found.authority.as_str(), found.server.as_str()), ("CA", "https://10.0.0.1:6443"));
        assert_eq!(found.certificate, "CERT");
        assert!(read("apiVersion: v1\n", "f").is_err());
        assert!(read(&text.replace("Q0E=", "%"), "f").is_err());
    }
}
