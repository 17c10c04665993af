//! What all static Pods share.

use serde_json::{Map, Value, json};

use crate::kubeadm::sorted;
use crate::kubeadm::v1beta4::{Arg, EnvVar, HostPathMount};

/// Folders with certificates of authorities that Linux distributions use; mounted where the host has them.
pub const CA_DIRS: [&str; 5] = [
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// What the host tells besides the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Those of [`CA_DIRS`] that exist.
    pub ca_dirs: Vec<&'static str>,
    /// The proxy variables of the environment.
    pub proxy_env: Vec<(String, String)>,
}

/// A folder or file of the host in a Pod.
pub(super) struct Mount {
    pub(super) name: String,
    host: String,
    path: String,
    read_only: bool,
    kind: String,
}

impl Mount {
    pub(super) fn new(name: &str, path: &str, read_only: bool, kind: &str) -> Mount {
        let (path, kind) = (path.to_owned(), kind.to_owned());
        Mount { name: name.to_owned(), host: path.clone(), path, read_only, kind }
    }

    pub(super) fn from_user(mount: &HostPathMount) -> Mount {
        Mount {
            name: mount.name.clone(),
            host: mount.host_path.clone(),
            path: mount.mount_path.clone(),
            read_only: mount.read_only,
            kind: mount.path_type.clone(),
        }
    }
}

pub(super) struct Probe {
    pub host: String,
    pub scheme: &'static str,
    pub live: &'static str,
    pub ready: Option<&'static str>,
    pub start: &'static str,
}

pub(super) struct Container<'a> {
    pub name: &'a str,
    pub image: String,
    pub command: Vec<String>,
    pub port: u16,
    pub probe: Probe,
    pub requests: Value,
    pub env: Vec<Value>,
    pub mounts: Vec<Mount>,
    pub annotation: Option<(String, String)>,
    pub startup_seconds: u64,
}

/// The Pod as it stands in the manifest file.
pub(super) fn pod(c: Container<'_>) -> Value {
    let probe = |path: &str, delay: u32, failures: u64, period: u32| {
        let mut get = json!({"path": path, "port": "probe-port", "scheme": c.probe.scheme});
        if !c.probe.host.is_empty() {
            get["host"] = json!(c.probe.host);
        }
        let mut probe = json!({"failureThreshold": failures, "httpGet": get, "periodSeconds": period, "timeoutSeconds": 15});
        if delay > 0 {
            probe["initialDelaySeconds"] = json!(delay);
        }
        probe
    };
    let mut container = json!({
        "command": c.command,
        "image": c.image,
        "imagePullPolicy": "IfNotPresent",
        "livenessProbe": probe(c.probe.live, 10, 8, 10),
        "name": c.name,
        "ports": [{"containerPort": c.port, "name": "probe-port", "protocol": "TCP"}],
        "resources": {"requests": c.requests},
        "startupProbe": probe(c.probe.start, 10, c.startup_seconds.div_ceil(10), 10),
        "volumeMounts": c.mounts.iter().map(mount).collect::<Vec<_>>(),
    });
    if let Some(path) = c.probe.ready {
        container["readinessProbe"] = probe(path, 0, 3, 1);
    }
    if !c.env.is_empty() {
        container["env"] = Value::Array(c.env);
    }
    let mut volumes: Vec<_> = c.mounts.iter().map(volume).collect();
    volumes.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut metadata = json!({
        "labels": {"component": c.name, "tier": "control-plane"},
        "name": c.name,
        "namespace": "kube-system",
    });
    if let Some((key, value)) = c.annotation {
        metadata["annotations"] = Map::from_iter([(key, Value::String(value))]).into();
    }
    sorted(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [container],
            "hostNetwork": true,
            "priority": 2_000_001_000,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": volumes,
        },
        "status": {},
    }))
}

fn mount(m: &Mount) -> Value {
    let mut value = json!({"mountPath": m.path, "name": m.name});
    if m.read_only {
        value["readOnly"] = json!(true);
    }
    value
}

fn volume(m: &Mount) -> Value {
    json!({"hostPath": {"path": m.host, "type": m.kind}, "name": m.name})
}

/// A command line: the defaults in alphabetical order without those that the user names, then the user's as they come.
pub(super) fn command(name: &str, defaults: Vec<(&str, String)>, user: &[Arg]) -> Vec<String> {
    let mut defaults: Vec<_> =
        defaults.into_iter().filter(|(name, _)| user.iter().all(|a| a.name != *name)).collect();
    defaults.sort();
    let mut command = vec![name.to_owned()];
    command.extend(defaults.iter().map(|(name, value)| format!("--{name}={value}")));
    command.extend(user.iter().map(|a| format!("--{}={}", a.name, a.value)));
    command
}

/// The last value that the user gives an argument.
pub(super) fn arg<'a>(user: &'a [Arg], name: &str) -> Option<&'a str> {
    user.iter().rev().find(|a| a.name == name).map(|a| a.value.as_str())
}

/// The user's variables, and the proxy variables of the host below them, sorted by name.
pub(super) fn env(user: &[EnvVar], host: &HostFacts) -> Vec<Value> {
    let mut all: Vec<(String, Value)> = host
        .proxy_env
        .iter()
        .filter(|(name, _)| user.iter().all(|e| e.name != *name))
        .map(|(name, value)| (name.clone(), json!({"name": name, "value": value})))
        .collect();
    all.extend(user.iter().map(|e| {
        let mut value = json!({"name": e.name});
        if !e.value.is_empty() {
            value["value"] = json!(e.value);
        }
        if let Some(from) = &e.value_from {
            value["valueFrom"] = from.clone();
            // As the API server would default it.
            if value["valueFrom"]["fieldRef"].is_object()
                && value["valueFrom"]["fieldRef"]["apiVersion"].is_null()
            {
                value["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
            }
        }
        (e.name.clone(), value)
    }));
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_arguments_replace_and_follow() {
        let user = |pairs: &[(&str, &str)]| -> Vec<Arg> {
            pairs.iter().map(|(n, v)| Arg { name: (*n).into(), value: (*v).into() }).collect()
        };
        let defaults = || vec![("b", "1".to_owned()), ("a", "2".to_owned())];
        for (given, wanted) in [
            (&[][..], "x --a=2 --b=1"),
            (&[("b", "9"), ("a", "8"), ("a", "7")], "x --b=9 --a=8 --a=7"),
            (&[("c", "")], "x --a=2 --b=1 --c="),
        ] {
            assert_eq!(
                command("x", defaults(), &user(given)).join(" "),
                wanted,
                "failed testcase: {given:?}"
            );
        }
    }
}
