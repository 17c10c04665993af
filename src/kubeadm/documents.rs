//! Splits a file into its documents and gives each to its type by apiVersion and kind.
//!
//! Stricter than upstream's init, which only warns of unknown fields: a provisioner that nobody watches must not ignore
//! half of an order. The text is upstream's `config validate` in spirit, with file, line and column.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::v1beta4::{API_VERSION, ClusterConfiguration, InitConfiguration};
use crate::oem::yaml;

/// What a file holds. Each kind at most once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documents {
    /// `InitConfiguration`.
    pub init: Option<InitConfiguration>,
    /// `ClusterConfiguration`.
    pub cluster: Option<ClusterConfiguration>,
    /// `KubeletConfiguration`, passed through.
    pub kubelet: Option<Map<String, Value>>,
    /// `KubeProxyConfiguration`, passed through.
    pub proxy: Option<Map<String, Value>>,
    /// Documents that an init does not read, as `apiVersion, Kind=kind`.
    pub ignored: Vec<String>,
}

#[derive(Deserialize)]
struct TypeMeta {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// One document, before its type is known.
struct Part<'a> {
    /// Where it is, for messages: file and line, or file and number.
    place: String,
    file: &'a str,
    body: Body,
}

enum Body {
    Text(String),
    Json(Value),
}

impl Part<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T> {
        match &self.body {
            Body::Text(text) => yaml::parse(text, self.file),
            Body::Json(value) => T::deserialize(value).with_context(|| self.place.clone()),
        }
    }

    /// Puts the document into its place; tells whether there was one before.
    fn put<T: DeserializeOwned>(&self, place: &mut Option<T>) -> Result<bool> {
        Ok(place.replace(self.read()?).is_some())
    }
}

/// Reads the documents of a file (or of a text of which `file` says where it comes from).
///
/// # Errors
/// One is no YAML, names no kind, has an unknown field, comes twice, or is of a version that is not read.
pub fn parse(text: &str, file: &str) -> Result<Documents> {
    let mut found = Documents::default();
    for text in split(text) {
        if yaml::documents(&text, file)?.iter().all(Value::is_null) {
            continue;
        }
        let line = text.lines().take_while(|l| l.trim().is_empty()).count() + 1;
        found.add(&Part { place: format!("{file}:{line}"), file, body: Body::Text(text) })?;
    }
    Ok(found)
}

/// As [`parse`], of documents that were read already; `file` says where they come from.
///
/// # Errors
/// As [`parse`].
pub fn from_values(documents: Vec<Value>, file: &str) -> Result<Documents> {
    let mut found = Documents::default();
    for value in documents {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        found.add(&Part { place: format!("{file}: {kind}"), file, body: Body::Json(value) })?;
    }
    Ok(found)
}

impl Documents {
    fn add(&mut self, part: &Part<'_>) -> Result<()> {
        let (meta, place): (TypeMeta, _) = (part.read()?, &part.place);
        if meta.api_version.is_empty() || meta.kind.is_empty() {
            bail!("{place}: a document without apiVersion or kind: name both");
        }
        let (group, version) = meta.api_version.split_once('/').unwrap_or(("", &meta.api_version));
        let again = match (group, version, meta.kind.as_str()) {
            ("kubeadm.k8s.io", version, kind) if meta.api_version != API_VERSION => {
                bail!("{place}: {kind}: {}", version_refused(version))
            }
            ("kubeadm.k8s.io", _, "InitConfiguration") => part.put(&mut self.init)?,
            ("kubeadm.k8s.io", _, "ClusterConfiguration") => part.put(&mut self.cluster)?,
            ("kubelet.config.k8s.io", "v1beta1", "KubeletConfiguration") => part.put(&mut self.kubelet)?,
            ("kubeproxy.config.k8s.io", "v1alpha1", "KubeProxyConfiguration") => part.put(&mut self.proxy)?,
            _ => {
                self.ignored.push(format!("{}, Kind={}", meta.api_version, meta.kind));
                false
            }
        };
        if again {
            bail!("{place}: a second {}: each kind may come once", meta.kind);
        }
        Ok(())
    }
}

fn version_refused(version: &str) -> String {
    let with = match version {
        "v1beta3" => {
            return format!(
                "kubeadm.k8s.io/{version} is not supported yet by rekindle: migrate the file with `kubeadm config migrate`"
            );
        }
        "v1beta2" => "v1.22",
        "v1beta1" => "v1.15",
        "v1alpha3" => "v1.14",
        "v1alpha2" => "v1.12",
        "v1alpha1" => "v1.11",
        _ => return format!("kubeadm.k8s.io/{version} is unknown: want {API_VERSION}"),
    };
    format!(
        "kubeadm.k8s.io/{version} is too old: migrate the file with kubeadm {with} and its successors to {API_VERSION}"
    )
}

/// The documents of a text, each behind as many empty lines as stand before it in the file, so that line numbers in
/// errors are those of the file. A line that begins with `---` at its first column ends a document, whatever it is in.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for (n, line) in text.lines().enumerate() {
        let marker = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if marker {
            parts.push("\n".repeat(n));
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(if marker { line.trim_start_matches('-') } else { line });
            part.push('\n');
        }
    }
    parts
}

/// Writes `value` as upstream writes YAML: keys in alphabetical order.
///
/// # Errors
/// It has no YAML form.
pub fn write<T: serde::Serialize>(value: &T) -> Result<String> {
    let value = serde_json::to_value(value).context("encoding as JSON")?;
    Ok(super::go_yaml::write(&super::sorted(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n";

    #[test]
    fn gives_each_document_to_its_kind() {
        let text = format!(
            "# comment\n---\n{INIT}nodeRegistration: {{name: n1, taints: []}}\n--- \n\
             {{\"apiVersion\":\"kubelet.config.k8s.io/v1beta1\",\"kind\":\"KubeletConfiguration\",\"failSwapOn\":false}}\n\
             ---\napiVersion: v1\nkind: Secret\n"
        );
        let found = parse(&text, "f").unwrap();
        let init = found.init.unwrap();
        assert_eq!(
            (init.node_registration.name.as_str(), init.node_registration.taints),
            ("n1", Some(vec![]))
        );
        assert_eq!(found.kubelet.unwrap()["failSwapOn"], Value::Bool(false));
        assert_eq!(found.ignored, ["v1, Kind=Secret"]);
        assert!(found.cluster.is_none());
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, wanted) in [
            (format!("{INIT}---\n{INIT}nodeRegistraton: {{}}\n"), "f:6:"),
            (format!("{INIT}---\n{INIT}"), "f:4: a second InitConfiguration"),
            ("kind: InitConfiguration\n".to_owned(), "f:1: a document without apiVersion or kind"),
            ("\n---\na: b\n".to_owned(), "f:3: a document without apiVersion or kind"),
            (INIT.replace("v1beta4", "v1beta3"), "not supported yet"),
            (INIT.replace("v1beta4", "v1beta1"), "kubeadm v1.15"),
            (INIT.replace("v1beta4", "v2"), "v2 is unknown"),
            (format!("{INIT}certificateKey: a\ncertificateKey: b\n"), "f:4:"),
            (format!("{INIT}bootstrapTokens: [{{ttl: soon}}]\n"), "want a duration"),
        ] {
            let error = format!("{:#}", parse(&text, "f").unwrap_err());
            assert!(error.contains(wanted), "failed testcase: {text}: {error}");
        }
        let value = serde_json::json!({"apiVersion": API_VERSION, "kind": "ClusterConfiguration", "dns": {"tag": "x"}});
        let error = format!("{:#}", from_values(vec![value], "cloud-config").unwrap_err());
        assert!(error.starts_with("cloud-config: ClusterConfiguration: unknown field `tag`"), "{error}");
    }
}
