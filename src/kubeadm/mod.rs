//! kubeadm's configuration API: its types, its documents, what a missing value stands for, what is refused.
//!
//! [`documents`] reads the text, [`defaults`] completes it with facts of the machine, [`validate`] says all that is wrong
//! with it at once. What comes out is a [`Config`], which the phases and the pure functions below them work from.

pub mod component;
pub mod defaults;
pub mod documents;
pub mod duration;
pub mod go_yaml;
pub mod net;
pub mod provider;
pub mod v1beta4;
pub mod validate;
pub mod version;

use serde_json::{Map, Value};

pub use duration::GoDuration;
pub use v1beta4::{ClusterConfiguration, InitConfiguration};

/// Where kubeadm keeps its kubeconfigs.
pub const KUBERNETES_DIR: &str = "/etc/kubernetes";
/// Where the kubelet looks for static Pods.
pub const MANIFESTS_DIR: &str = "/etc/kubernetes/manifests";
/// The kubelet's folder.
pub const KUBELET_DIR: &str = "/var/lib/kubelet";

/// The whole configuration of an init, complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What concerns this node and this run.
    pub init: InitConfiguration,
    /// What concerns the cluster.
    pub cluster: ClusterConfiguration,
    /// The user's `KubeletConfiguration`, or an empty map.
    pub kubelet: Map<String, Value>,
    /// The user's `KubeProxyConfiguration`, or an empty map.
    pub proxy: Map<String, Value>,
}

impl Config {
    /// Name of this node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.init.node_registration.name
    }

    /// Address that the API server advertises.
    #[must_use]
    pub fn advertise(&self) -> &str {
        &self.init.local_api_endpoint.advertise_address
    }

    /// Whether the API server advertises an IPv6 address.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.advertise().contains(':')
    }

    /// `https://` and the API server of this node.
    #[must_use]
    pub fn local_endpoint(&self) -> String {
        format!("https://{}", net::host_port(self.advertise(), self.init.local_api_endpoint.bind_port))
    }

    /// Host and port that clients reach the control plane at: `controlPlaneEndpoint`, or else this node.
    #[must_use]
    pub fn endpoint(&self) -> (String, u16) {
        let local = &self.init.local_api_endpoint;
        match net::split_host_port(&self.cluster.control_plane_endpoint) {
            Ok((host, port)) => (host, port.unwrap_or(local.bind_port)),
            Err(_) => (local.advertise_address.clone(), local.bind_port),
        }
    }

    /// `https://` and [`Config::endpoint`].
    #[must_use]
    pub fn control_plane_url(&self) -> String {
        let (host, port) = self.endpoint();
        format!("https://{}", net::host_port(&host, port))
    }

    /// A file of the PKI.
    #[must_use]
    pub fn pki(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster.certificates_dir)
    }

    /// The timeouts, complete after [`defaults`].
    #[must_use]
    pub fn timeouts(&self) -> v1beta4::Timeouts {
        self.init.timeouts.clone().unwrap_or_default()
    }

    /// The subnet that Services get their addresses from.
    #[must_use]
    pub fn service_subnet(&self) -> &str {
        &self.cluster.networking.service_subnet
    }

    /// Address of the DNS Service: the tenth of the subnet; empty if the subnet is too small (refused by [`validate`]).
    #[must_use]
    pub fn dns_address(&self) -> String {
        net::nth_address(self.service_subnet(), 10).map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// `value` with the keys of all its maps in alphabetical order, as upstream writes YAML.
#[must_use]
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// Lays `over` on `base`: maps merge key by key, anything else is replaced.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}
