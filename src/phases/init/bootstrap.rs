//! The first access to a new cluster, `mark-control-plane` and `bootstrap-token`.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{InitCtx, certs, kubernetes_file};
use crate::cluster::Cluster;
use crate::host::clock::rfc3339;
use crate::kubeadm::defaults::CONTROL_PLANE_TAINT;
use crate::kubeadm::{documents, v1beta4};
use crate::manifests::rbac;
use crate::plan::Change;

/// How a token that nobody asked for by name is recognised by a rerun.
const MADE_HERE: &str = "made by kubeadm init";

/// The text of a kubeconfig below `/etc/kubernetes`.
pub(super) fn kubeconfig(c: &InitCtx, file: &str) -> Result<String> {
    c.host.root.read_text(&kubernetes_file(file))
}

/// A client that may do everything. The group of admin.conf gets its rights from a binding that the first client has to
/// make; only super-admin.conf may before. Where an earlier run made it, admin.conf is enough.
pub(super) fn connect(c: &InitCtx) -> Result<(Cluster, Change)> {
    let binding = rbac::cluster_role_binding(
        "kubeadm:cluster-admins",
        "cluster-admin",
        rbac::group("kubeadm:cluster-admins"),
    );
    let local = c.config.local_endpoint();
    for file in ["admin.conf", "super-admin.conf"] {
        let Some(text) = c.host.root.read_text_opt(&kubernetes_file(file))? else { continue };
        let cluster = Cluster::new(&text, Some(&local))?;
        if let Some(change) = cluster.may_create(&binding, c.api_deadline())? {
            return Ok((cluster, change));
        }
    }
    bail!("neither admin.conf nor super-admin.conf may administer the cluster at {local}")
}

/// Makes the binding of the administrators' group.
pub(super) fn cluster_admins(c: &mut InitCtx) -> Result<Change> {
    let (cluster, change) = connect(c)?;
    c.cluster = Some(cluster);
    Ok(change)
}

/// The Node object, as far as it is needed to name it.
pub(super) fn node(c: &InitCtx) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": c.config.node()}})
}

const LABELS: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"];

pub(super) fn mark_control_plane(c: &mut InitCtx) -> Result<Change> {
    let like = node(c);
    let wanted = c.config.init.node_registration.taints.clone().unwrap_or_default();
    let deadline = c.deadline(c.config.timeouts().tls_bootstrap);
    let registered = |n: &Value| n["metadata"]["labels"]["kubernetes.io/hostname"].is_string();
    let missing =
        |_: &Value| "the kubelet has not registered this node: see `journalctl -u kubelet`".to_owned();
    for _ in 0..10 {
        let found = c.cluster()?.watch(&like, deadline, missing, registered)?;
        let Some(patch) = mark(&found, &wanted) else { return Ok(Change::Unchanged) };
        if c.cluster()?.patch(&like, &patch, deadline)? {
            return Ok(Change::Updated);
        }
    }
    bail!("somebody else changes node {} all the time", c.config.node())
}

/// The patch that gives a Node its labels and taints, or `None` if it has them. The version in it makes the server
/// refuse the patch if the taints changed in between.
fn mark(node: &Value, wanted: &[v1beta4::Taint]) -> Option<Value> {
    let mut patch = json!({"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}});
    let mut changed = false;
    for label in LABELS {
        if node["metadata"]["labels"][label] != "" {
            patch["metadata"]["labels"][label] = json!("");
            changed = true;
        }
    }
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let before = taints.len();
    for taint in wanted {
        if !taints.iter().any(|t| t["key"] == taint.key.as_str() && t["effect"] == taint.effect.as_str()) {
            taints.push(json!({"key": taint.key, "value": taint.value, "effect": taint.effect}));
        }
    }
    if taints.len() > before {
        patch["spec"]["taints"] = taints.into();
        changed = true;
    }
    changed.then_some(patch)
}

/// A token that nobody can guess.
pub(super) fn random_token() -> Result<String> {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut token = String::new();
    while token.len() < 23 {
        let mut byte = [0];
        aws_lc_rs::rand::fill(&mut byte).context("drawing a token")?;
        if token.len() == 6 {
            token.push('.');
        }
        // Values past the last multiple of 36 would make some letters likelier.
        if byte[0] < 252 {
            token.push(char::from(LETTERS[usize::from(byte[0]) % 36]));
        }
    }
    Ok(token)
}

/// The Secret of a bootstrap token.
pub(super) fn token_secret(
    token: &str,
    description: &str,
    usages: &[String],
    groups: &[String],
    expires: Option<u64>,
) -> Value {
    let (id, secret) = token.split_once('.').unwrap_or((token, ""));
    let mut data = Map::new();
    let mut put = |key: &str, value: &str| data.insert(key.to_owned(), Value::String(STANDARD.encode(value)));
    put("token-id", id);
    put("token-secret", secret);
    if !description.is_empty() {
        put("description", description);
    }
    if let Some(expires) = expires {
        put("expiration", &rfc3339(expires));
    }
    for usage in usages {
        put(&format!("usage-bootstrap-{usage}"), "true");
    }
    if !groups.is_empty() {
        put("auth-extra-groups", &groups.join(","));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": data,
    })
}

fn plain(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// The token that an earlier run made without being asked for one by name, if it has not expired.
fn made_before(c: &mut InitCtx) -> Result<Option<String>> {
    let now = rfc3339(c.started);
    let like = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "kube-system"}});
    let deadline = c.api_deadline();
    let all = c.cluster()?.list(&like, "type=bootstrap.kubernetes.io/token", deadline)?;
    let fresh = |secret: &&Value| {
        let expires = plain(secret, "expiration");
        // RFC 3339 in UTC sorts as text.
        plain(secret, "description") == MADE_HERE && (expires.is_empty() || expires > now)
    };
    Ok(all.iter().find(fresh).map(|s| format!("{}.{}", plain(s, "token-id"), plain(s, "token-secret"))))
}

pub(super) fn token(c: &mut InitCtx) -> Result<Change> {
    let deadline = c.api_deadline();
    if c.options.token_made
        && let Some(before) = made_before(c)?
        && let Some(first) = c.config.init.bootstrap_tokens.first_mut()
    {
        first.token = before;
    }
    let mut change = Change::Unchanged;
    for (n, token) in c.config.init.bootstrap_tokens.clone().into_iter().enumerate() {
        let made = n == 0 && c.options.token_made && token.description.is_empty();
        let description = if made { MADE_HERE } else { &token.description };
        let ttl = token.ttl.unwrap_or_default().0.as_secs();
        let expires = (ttl > 0).then_some(c.started + ttl);
        let mut secret = token_secret(&token.token, description, &token.usages, &token.groups, expires);
        // A rerun does not prolong the token's life.
        if let Some(found) = c.cluster()?.get(&secret, deadline)?
            && plain(&found, "expiration") > rfc3339(c.started)
            && expires.is_some()
        {
            secret["data"]["expiration"] = found["data"]["expiration"].clone();
        }
        change = change.or(c.cluster()?.apply(&secret, deadline)?);
    }
    let mut objects = rbac::bootstrap();
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": cluster_info(c)?},
    }));
    let anyone = [rbac::user("system:anonymous")];
    objects.extend(rbac::reader(
        "kube-public",
        "kubeadm:bootstrap-signer-clusterinfo",
        "configmaps",
        "cluster-info",
        &anyone,
    ));
    Ok(change.or(c.cluster()?.apply_all(&objects, deadline)?))
}

/// What a joining node reads without any right: where the cluster is and which authority it has.
fn cluster_info(c: &InitCtx) -> Result<String> {
    documents::write(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": {
            "certificate-authority-data": STANDARD.encode(certs::authority_pem(c)?),
            "server": c.config.control_plane_url(),
        }}],
        "contexts": null,
        "current-context": "",
        "users": null,
    }))
}

/// Whether the node keeps ordinary pods away.
pub(super) fn tainted(c: &InitCtx) -> bool {
    c.config.init.node_registration.taints.iter().flatten().any(|t| t.key == CONTROL_PLANE_TAINT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeadm::validate::is_token;

    #[test]
    fn random_tokens_have_their_form_and_differ() {
        let (a, b) = (random_token().unwrap(), random_token().unwrap());
        assert!(is_token(&a) && is_token(&b) && a != b);
    }

    #[test]
    fn marks_a_node_once_and_keeps_what_others_set() {
        let taint = v1beta4::Taint {
            key: CONTROL_PLANE_TAINT.into(),
            effect: "NoSchedule".into(),
            ..Default::default()
        };
        let fresh = json!({"metadata": {"resourceVersion": "7", "labels": {"a": "b"}}, "spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}});
        let patch = mark(&fresh, std::slice::from_ref(&taint)).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["spec"]["taints"].as_array().unwrap().len(), 2);
        let mut marked = fresh.clone();
        crate::kubeadm::merge(&mut marked, &patch);
        assert_eq!(mark(&marked, &[taint]), None);
        assert!(mark(&fresh, &[]).unwrap()["spec"].is_null());
    }
}
