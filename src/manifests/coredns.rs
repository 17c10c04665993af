//! The DNS addon.

use serde_json::{Value, json};

use super::rbac;
use crate::kubeadm::{Config, version};

/// CoreDNS's configuration for a cluster domain.
fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

/// The addon's objects, in the order in which they are applied.
#[must_use]
pub fn objects(config: &Config, replicas: u32) -> Vec<Value> {
    let metadata = json!({"name": "coredns", "namespace": "kube-system"});
    let watch = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    vec![
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": {"Corefile": corefile(&config.cluster.networking.dns_domain)},
        }),
        rbac::cluster_role(
            "system:coredns",
            json!([
                watch("", &["endpoints", "services", "pods", "namespaces"]),
                watch("discovery.k8s.io", &["endpointslices"]),
            ]),
        ),
        rbac::cluster_role_binding(
            "system:coredns",
            "system:coredns",
            json!({"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}),
        ),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        deployment(config, replicas),
        service(config),
    ]
}

fn deployment(config: &Config, replicas: u32) -> Value {
    let port = |number: u16, name: &str, protocol: &str| json!({"containerPort": number, "name": name, "protocol": protocol});
    let get = |path: &str, port: &str| json!({"path": path, "port": port, "scheme": "HTTP"});
    let container = json!({
        "name": "coredns",
        "image": version::coredns_image(config),
        "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}],
        "ports": [
            port(53, "dns", "UDP"), port(53, "dns-tcp", "TCP"), port(9153, "metrics", "TCP"),
            port(8080, "liveness-probe", "TCP"), port(8181, "readiness-probe", "TCP"),
        ],
        "livenessProbe": {
            "httpGet": get("/health", "liveness-probe"),
            "initialDelaySeconds": 60, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 5,
        },
        "readinessProbe": {"httpGet": get("/ready", "readiness-probe")},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
    });
    let apart = json!({
        "weight": 100,
        "podAffinityTerm": {
            "labelSelector": {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns"]}]},
            "topologyKey": "kubernetes.io/hostname",
        },
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "template": {
                "metadata": {"labels": {"k8s-app": "kube-dns"}},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}},
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "containers": [container],
                    "dnsPolicy": "Default",
                    "volumes": [{"name": "config-volume", "configMap": {
                        "name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}}],
                },
            },
        },
    })
}

fn service(config: &Config) -> Value {
    let port = |name: &str, number: u16, protocol: &str| json!({"name": name, "port": number, "protocol": protocol, "targetPort": number});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": config.dns_address(),
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
            "selector": {"k8s-app": "kube-dns"},
        },
    })
}
