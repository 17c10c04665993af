//! Kinds of objects, and whether an object already is as wanted.

use anyhow::{Result, bail};
use kube::core::ApiResource;
use serde_json::Value;

/// The kinds that this program reads or writes, with their plurals in the API's paths.
const KINDS: [(&str, &str, &str); 13] = [
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "Secret", "secrets"),
    ("v1", "Service", "services"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("v1", "Event", "events"),
    ("v1", "Node", "nodes"),
    ("v1", "Pod", "pods"),
    ("apps/v1", "DaemonSet", "daemonsets"),
    ("apps/v1", "Deployment", "deployments"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    ("rbac.authorization.k8s.io/v1", "Role", "roles"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
];

/// Where the API keeps objects of a kind.
///
/// # Errors
/// The kind is none of those that this program writes.
pub fn resource(api_version: &str, kind: &str) -> Result<ApiResource> {
    let Some((_, _, plural)) = KINDS.iter().find(|(v, k, _)| *v == api_version && *k == kind) else {
        bail!("{api_version} {kind}: an unknown kind of object");
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Ok(ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: (*plural).to_owned(),
    })
}

/// Whether `found` has all that is in `wanted`. The server adds defaults to objects, and leaves out empty values.
#[must_use]
pub fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| contains(found.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| contains(f, w))
        }
        (Value::Null, wanted) => is_empty(wanted),
        (found, wanted) => found == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_or_leaves_out_makes_no_difference() {
        for (found, wanted, same) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 1}), json!({"a": 1, "b": false, "c": [], "d": {"e": ""}}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({"a": 1}), json!({"b": 1}), false),
            (json!([{"a": 1, "b": 1}]), json!([{"a": 1}]), true),
            (json!([1, 2]), json!([1]), false),
            (json!({"a": "x"}), json!({"a": ""}), false),
        ] {
            assert_eq!(contains(&found, &wanted), same, "failed testcase: {found} {wanted}");
        }
    }
}
