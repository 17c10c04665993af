//! Roles and their bindings, and the mark that tells an upgrade that a ConfigMap is not the user's own.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value, json};

use crate::kubeadm::defaults::NODE_TOKEN_GROUP;

const API: &str = "rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";

/// A group as the subject of a binding.
#[must_use]
pub fn group(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "Group", "name": name})
}

/// A user as the subject of a binding.
#[must_use]
pub fn user(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "User", "name": name})
}

/// A ClusterRole.
#[must_use]
pub fn cluster_role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": API, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

/// A ClusterRoleBinding of one subject.
#[must_use]
pub fn cluster_role_binding(name: &str, role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": API, "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    })
}

/// A Role to get one object of a namespace, and its RoleBinding.
#[must_use]
pub fn reader(namespace: &str, name: &str, resources: &str, object: &str, subjects: &[Value]) -> [Value; 2] {
    let metadata = json!({"name": name, "namespace": namespace});
    [
        json!({
            "apiVersion": API, "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": [resources], "resourceNames": [object], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": API, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
            "subjects": subjects,
        }),
    ]
}

/// What lets nodes join with a bootstrap token, and lets the kubelets' certificates be signed and renewed.
#[must_use]
pub fn bootstrap() -> Vec<Value> {
    let get_nodes = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]);
    let csr = "system:certificates.k8s.io:certificatesigningrequests";
    let joining = || group(NODE_TOKEN_GROUP);
    vec![
        cluster_role("kubeadm:get-nodes", get_nodes),
        cluster_role_binding("kubeadm:get-nodes", "kubeadm:get-nodes", joining()),
        cluster_role_binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", joining()),
        cluster_role_binding("kubeadm:node-autoapprove-bootstrap", &format!("{csr}:nodeclient"), joining()),
        cluster_role_binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            &format!("{csr}:selfnodeclient"),
            group("system:nodes"),
        ),
    ]
}

/// Marks a ConfigMap that holds only generated values with their digest; an upgrade may then replace it.
pub fn sign(config_map: &mut Value) {
    let mut context = Context::new(&SHA256);
    let mut values: Vec<(&String, &str)> = config_map["data"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k, v.as_str()?)))
        .collect();
    values.sort_unstable();
    for (_, value) in values {
        context.update(value.as_bytes());
    }
    let hash: String = context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    config_map["metadata"]["annotations"]["kubeadm.kubernetes.io/component-config.hash"] =
        json!(format!("sha256:{hash}"));
}
