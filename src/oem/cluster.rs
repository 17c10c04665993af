//! The `cluster:` block of Kairos' provider-kubeadm: which role the node has, and its kubeadm documents. Pure.

use serde_json::{Map, Value as Json};

use super::decode::Decoder;
use super::finding::{Finding, Level};
use super::keys;
use super::types::{Cluster, Role, Secret};
use super::yaml::{self, Entry, Node, Value};

/// Keys of `config`, with the kind of document that each holds, in the order that kubeadm prints them.
const KINDS: [(&str, &str, &str); 5] = [
    ("clusterConfiguration", KUBEADM, "ClusterConfiguration"),
    ("initConfiguration", KUBEADM, "InitConfiguration"),
    ("joinConfiguration", KUBEADM, "JoinConfiguration"),
    ("kubeletConfiguration", "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"),
    ("kubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"),
];

/// Stands for kubeadm's API, whose version follows from that of Kubernetes.
const KUBEADM: &str = "kubeadm.k8s.io";

impl Decoder {
    /// Reads the merged block. `None` if anything in it is wrong: a node must not be provisioned from half of it.
    pub fn cluster(&mut self, entry: &Entry) -> Option<Cluster> {
        let before = self.findings.len();
        let (mut token, mut host, mut role, mut documents) = (None, None, None, Vec::new());
        for part in self.entries(&entry.node, "cluster") {
            let value = &part.node;
            match part.key.as_str() {
                "cluster_token" => token = self.text(value, "cluster_token").filter(|t| !t.is_empty()),
                "control_plane_host" => host = self.host(value),
                "role" => role = self.role(value),
                "config" => documents = self.kubeadm_documents(value),
                _ => self.not_done(part, &keys::CLUSTER),
            }
        }
        let mut missing = |key: &str| {
            let text = format!("cluster needs {key}");
            self.findings.push(Finding::at_key(entry, Level::Error, text));
        };
        let said =
            |key: &str| matches!(&entry.node.value, Value::Map(all) if all.iter().any(|e| e.key == key));
        if token.is_none() {
            missing("cluster_token");
        }
        if role.is_none() && !said("role") {
            missing("role: init, controlplane or worker");
        }
        if host.is_none()
            && !said("control_plane_host")
            && matches!(role, Some(Role::ControlPlane | Role::Worker))
        {
            missing("control_plane_host to join");
        }
        let wrong = self.findings[before..].iter().any(|f| f.level == Level::Error);
        if wrong {
            return None;
        }
        Some(Cluster { token: Secret(token?), control_plane_host: host, role: role?, documents })
    }

    fn role(&mut self, node: &Node) -> Option<Role> {
        match self.text(node, "role")?.as_str() {
            "init" => Some(Role::Init),
            "controlplane" => Some(Role::ControlPlane),
            "worker" => Some(Role::Worker),
            _ => {
                self.error(node, "role has to be init, controlplane or worker");
                None
            }
        }
    }

    /// A host name or address, with or without a port.
    fn host(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "control_plane_host")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if text.is_empty() || text.len() > 259 || !text.chars().all(plain) {
            self.error(node, "control_plane_host has to be a host name or address, or that with :PORT");
            return None;
        }
        Some(text)
    }

    fn kubeadm_documents(&mut self, node: &Node) -> Vec<Map<String, Json>> {
        let mut found = Vec::new();
        match &node.value {
            Value::Scalar(scalar) => match yaml::documents(&scalar.text, "config") {
                Ok(documents) => documents.into_iter().for_each(|d| self.config_text(node, d, &mut found)),
                Err(e) => {
                    let why = e.downcast_ref::<yaml::Problem>().map_or_else(String::new, |p| {
                        format!("line {} of this text, column {}: {}", p.line, p.col, p.reason)
                    });
                    self.error(node, format!("config is no YAML: {why}"));
                }
            },
            _ => {
                for entry in self.entries(node, "config") {
                    match entry.node.json() {
                        Json::Object(map) if keys::CLUSTER_CONFIG.done.contains(&entry.key.as_str()) => {
                            found.push((entry.key.clone(), map));
                        }
                        _ if keys::CLUSTER_CONFIG.done.contains(&entry.key.as_str()) => {
                            self.error(&entry.node, format!("{} has to be a map", entry.key));
                        }
                        _ => self.unknown_document(&entry.node, &entry.key),
                    }
                }
            }
        }
        typed(found)
    }

    /// One document of `config` as text: provider-kubeadm's map of keys, or a kubeadm document as it is.
    fn config_text(&mut self, node: &Node, document: Json, found: &mut Vec<(String, Map<String, Json>)>) {
        let Json::Object(map) = document else {
            return self.error(node, "config has to hold maps");
        };
        if map.contains_key("kind") {
            return found.push((String::new(), map));
        }
        for (key, value) in map {
            match value {
                Json::Object(map) if keys::CLUSTER_CONFIG.done.contains(&key.as_str()) => {
                    found.push((key, map))
                }
                Json::Null if keys::CLUSTER_CONFIG.done.contains(&key.as_str()) => {}
                _ if keys::CLUSTER_CONFIG.done.contains(&key.as_str()) => {
                    self.error(node, format!("{key} in this text has to be a map"));
                }
                _ => self.unknown_document(node, &key),
            }
        }
    }

    /// Always an error: kubeadm's settings must not be dropped for a slip of the pen.
    fn unknown_document(&mut self, node: &Node, key: &str) {
        let nearest = keys::CLUSTER_CONFIG.nearest(key);
        let hint = nearest.map_or_else(String::new, |n| format!("; did you mean {n}?"));
        self.error(node, format!("unknown key {key} in config{hint}"));
    }
}

/// Gives each document its apiVersion and kind, unless it has them.
fn typed(found: Vec<(String, Map<String, Json>)>) -> Vec<Map<String, Json>> {
    let version = found
        .iter()
        .find(|(key, map)| key == KINDS[0].0 || map.get("kind").is_some_and(|k| k == KINDS[0].2))
        .and_then(|(_, map)| map.get("kubernetesVersion")?.as_str())
        .unwrap_or_default();
    let kubeadm = format!("{KUBEADM}/{}", if is_before_1_31(version) { "v1beta3" } else { "v1beta4" });
    let mut documents = Vec::new();
    for (key, api, kind) in KINDS {
        for (_, map) in found.iter().filter(|(k, _)| k == key) {
            let mut document = Map::new();
            let api = if api == KUBEADM { kubeadm.as_str() } else { api };
            document.insert("apiVersion".into(), api.into());
            document.insert("kind".into(), kind.into());
            document.extend(map.clone());
            documents.push(document);
        }
    }
    documents.extend(found.into_iter().filter(|(key, _)| key.is_empty()).map(|(_, map)| map));
    documents
}

/// provider-kubeadm writes v1beta3 for Kubernetes before 1.31. Without a version, ours is newer.
fn is_before_1_31(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map(|p| p.parse::<u32>().ok());
    matches!((parts.next(), parts.next()), (Some(Some(1)), Some(Some(minor))) if minor < 31)
}
