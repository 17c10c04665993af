//! The kube-proxy addon.

use serde_json::{Value, json};

use super::rbac;
use super::static_pod::HostFacts;
use crate::kubeadm::defaults::NODE_TOKEN_GROUP;
use crate::kubeadm::{Config, component, go_yaml, version};

/// The addon's objects, in the order in which they are applied.
#[must_use]
pub fn objects(config: &Config, host: &HostFacts) -> Vec<Value> {
    let metadata = json!({"name": "kube-proxy", "namespace": "kube-system"});
    let account = json!({"kind": "ServiceAccount", "name": "kube-proxy", "namespace": "kube-system"});
    let mut objects = vec![
        config_map(config),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        rbac::cluster_role_binding("kubeadm:node-proxier", "system:node-proxier", account),
    ];
    objects.extend(rbac::reader(
        "kube-system",
        "kube-proxy",
        "configmaps",
        "kube-proxy",
        &[rbac::group(NODE_TOKEN_GROUP)],
    ));
    objects.push(daemon_set(config, host));
    objects
}

fn config_map(config: &Config) -> Value {
    // Upstream fills a text template, so the order of its keys is not alphabetical.
    let kubeconfig = format!(
        "apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: {}
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token",
        config.control_plane_url()
    );
    let mut map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system", "labels": {"app": "kube-proxy"}},
        "data": {"config.conf": go_yaml::write(&component::proxy(config)).trim_end(), "kubeconfig.conf": kubeconfig},
    });
    if config.proxy.is_empty() {
        rbac::sign(&mut map);
    }
    map
}

fn daemon_set(config: &Config, host: &HostFacts) -> Value {
    let mut env =
        vec![json!({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})];
    env.extend(host.proxy_env.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let mount = |path: &str, name: &str, read_only: bool| json!({"mountPath": path, "name": name, "readOnly": read_only});
    let container = json!({
        "name": "kube-proxy",
        "image": version::component_image(config, "kube-proxy"),
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf", "--hostname-override=$(NODE_NAME)",
        ],
        "securityContext": {"privileged": true},
        "volumeMounts": [
            mount("/var/lib/kube-proxy", "kube-proxy", false),
            mount("/run/xtables.lock", "xtables-lock", false),
            mount("/lib/modules", "lib-modules", true),
        ],
        "env": env,
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system", "labels": {"k8s-app": "kube-proxy"}},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "kube-proxy"}},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": {"k8s-app": "kube-proxy"}},
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "containers": [container],
                    "hostNetwork": true,
                    "serviceAccountName": "kube-proxy",
                    "volumes": [
                        {"name": "kube-proxy", "configMap": {"name": "kube-proxy"}},
                        {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
                        {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
                    ],
                    "tolerations": [{"operator": "Exists"}],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                },
            },
        },
    })
}
