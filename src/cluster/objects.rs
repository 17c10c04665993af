//! Objects by kind and name.

use anyhow::{Context, Result, bail};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;

use crate::plan::Change;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) api: String,
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Named {
    pub(super) fn new(api: &str, kind: &str, namespace: Option<&str>, name: &str) -> Named {
        let (api, kind, name) = (api.to_owned(), kind.to_owned(), name.to_owned());
        Named { api, kind, namespace: namespace.map(str::to_owned), name }
    }

    /// Reads what an object calls itself.
    pub(super) fn of(object: &Value) -> Result<Named> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let (Some(api), Some(kind), Some(name)) =
            (text("/apiVersion"), text("/kind"), text("/metadata/name"))
        else {
            bail!("an object needs apiVersion, kind and metadata.name");
        };
        Ok(Named::new(api, kind, text("/metadata/namespace"), name))
    }

    pub(super) fn api(&self, client: &Client) -> Api<DynamicObject> {
        let (group, version) = self.api.split_once('/').unwrap_or(("", &self.api));
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(group, version, &self.kind),
            &plural(&self.kind),
        );
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        }
    }
}

/// The resource's name in URLs. Holds for every kind that Kubernetes itself defines and that we use.
fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.as_str() {
        k if k.ends_with("endpoints") => kind,
        k if k.ends_with('s') => format!("{kind}es"),
        k if k.ends_with('y') => format!("{}ies", &kind[..kind.len() - 1]),
        _ => format!("{kind}s"),
    }
}

pub(super) async fn get(client: &Client, what: &Named) -> Result<Option<Value>> {
    match what.api(client).get_opt(&what.name).await? {
        Some(object) => serde_json::to_value(object).context("encoding an object").map(Some),
        None => Ok(None),
    }
}

pub(super) async fn apply(client: &Client, what: &Named, object: &Value) -> Result<Change> {
    let api = what.api(client);
    let wanted: DynamicObject = serde_json::from_value(object.clone()).context("reading the object")?;
    match api.create(&PostParams::default(), &wanted).await {
        Ok(_) => return Ok(Change::Created),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(e) => return Err(e.into()),
    }
    let found = get(client, what).await?.with_context(|| format!("{what} is there and is not"))?;
    if contains(&found, object) {
        return Ok(Change::Unchanged);
    }
    let mut update = wanted;
    update.metadata.resource_version =
        found.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned);
    api.replace(&what.name, &PostParams::default(), &update).await?;
    Ok(Change::Updated)
}

pub(super) async fn patch(client: &Client, what: &Named, patch: &Value) -> Result<Value> {
    let patched =
        what.api(client).patch(&what.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    serde_json::to_value(patched).context("encoding an object")
}

pub(super) async fn delete(client: &Client, what: &Named) -> Result<bool> {
    match what.api(client).delete(&what.name, &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether `found` says everything that `wanted` says; the server's own additions are not looked at. A field that is
/// wanted empty may be absent, as the server drops such fields.
pub(super) fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(f), Value::Object(w)) => w.iter().all(|(key, w)| match f.get(key) {
            Some(f) => contains(f, w),
            None => is_empty(w),
        }),
        (Value::Array(f), Value::Array(w)) => {
            f.len() == w.len() && f.iter().zip(w).all(|(found, wanted)| contains(found, wanted))
        }
        _ => found == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_in_urls() {
        for (kind, wanted) in [
            ("ConfigMap", "configmaps"),
            ("DaemonSet", "daemonsets"),
            ("Ingress", "ingresses"),
            ("NetworkPolicy", "networkpolicies"),
            ("Endpoints", "endpoints"),
            ("ClusterRoleBinding", "clusterrolebindings"),
        ] {
            assert_eq!(plural(kind), wanted, "failed testcase: {kind}");
        }
    }

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let found = json!({"a": {"x": 1, "uid": "u"}, "l": [{"n": 1, "d": 0}], "t": "x"});
        for (wanted, same) in [
            (json!({"a": {"x": 1}}), true),
            (json!({"a": {"x": 2}}), false),
            (json!({"l": [{"n": 1}]}), true),
            (json!({"l": []}), false),
            (json!({"status": {}, "e": null, "s": ""}), true),
            (json!({"missing": 1}), false),
            (json!({"missing": false}), false),
        ] {
            assert_eq!(contains(&found, &wanted), same, "failed testcase: {wanted}");
        }
    }
}
