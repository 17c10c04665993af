//! What kubeadm makes of the configurations of kubelet and kube-proxy: its defaults below the user's values, and every
//! duration and counter that upstream's types write even when it is zero.

use serde_json::{Value, json};

use super::{Config, MANIFESTS_DIR, merge, sorted};

/// The kubelet's configuration for ConfigMap `kubelet-config`, the same for all nodes.
#[must_use]
pub fn kubelet(config: &Config, resolved: bool) -> Value {
    let mut value = kubelet_zeroes();
    merge(
        &mut value,
        &json!({
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": config.pki("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "systemd",
            "clusterDNS": [config.dns_address()],
            "clusterDomain": config.cluster.networking.dns_domain,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": 10248,
            "staticPodPath": MANIFESTS_DIR,
        }),
    );
    if resolved {
        // The file at /etc/resolv.conf names a resolver on the loopback, which no pod can reach.
        merge(&mut value, &json!({"resolvConf": "/run/systemd/resolve/resolv.conf"}));
    }
    merge(&mut value, &Value::Object(config.kubelet.clone()));
    merge(&mut value, &json!({"rotateCertificates": true}));
    sorted(value)
}

/// What differs between nodes: written beside the kubelet's configuration, and laid over it.
#[must_use]
pub fn kubelet_instance(config: &Config) -> Value {
    json!({"containerRuntimeEndpoint": config.init.node_registration.cri_socket})
}

/// The configuration of kube-proxy for its ConfigMap.
#[must_use]
pub fn proxy(config: &Config) -> Value {
    let mut value = proxy_zeroes();
    merge(
        &mut value,
        &json!({
            "bindAddress": if config.is_v6() { "::" } else { "0.0.0.0" },
            "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
            "clusterCIDR": config.cluster.networking.pod_subnet,
        }),
    );
    merge(&mut value, &Value::Object(config.proxy.clone()));
    sorted(value)
}

fn logging_zeroes() -> Value {
    let none = json!({"infoBufferSize": "0"});
    json!({"flushFrequency": 0, "options": {"json": none, "text": none}, "verbosity": 0})
}

fn kubelet_zeroes() -> Value {
    let mut value = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"webhook": {"cacheTTL": "0s"}},
        "authorization": {"webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}},
        "containerRuntimeEndpoint": "",
        "crashLoopBackOff": {},
        "logging": logging_zeroes(),
        "memorySwap": {},
    });
    for key in [
        "cpuManagerReconcilePeriod",
        "evictionPressureTransitionPeriod",
        "fileCheckFrequency",
        "httpCheckFrequency",
        "imageMaximumGCAge",
        "imageMinimumGCAge",
        "nodeStatusReportFrequency",
        "nodeStatusUpdateFrequency",
        "runtimeRequestTimeout",
        "shutdownGracePeriod",
        "shutdownGracePeriodCriticalPods",
        "streamingConnectionIdleTimeout",
        "syncFrequency",
        "volumeStatsAggPeriod",
    ] {
        value[key] = json!("0s");
    }
    value
}

fn proxy_zeroes() -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddressHardFail": false,
        "clientConnection": {"acceptContentTypes": "", "burst": 0, "contentType": "", "qps": 0},
        "configSyncPeriod": "0s",
        "conntrack": {
            "maxPerCore": null, "min": null, "tcpBeLiberal": false, "tcpCloseWaitTimeout": null,
            "tcpEstablishedTimeout": null, "udpStreamTimeout": "0s", "udpTimeout": "0s",
        },
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
        "detectLocalMode": "",
        "enableProfiling": false,
        "healthzBindAddress": "",
        "hostnameOverride": "",
        "iptables": {
            "localhostNodePorts": null, "masqueradeAll": false, "masqueradeBit": null, "minSyncPeriod": "0s",
            "syncPeriod": "0s",
        },
        "ipvs": {
            "excludeCIDRs": null, "minSyncPeriod": "0s", "scheduler": "", "strictARP": false, "syncPeriod": "0s",
            "tcpFinTimeout": "0s", "tcpTimeout": "0s", "udpTimeout": "0s",
        },
        "logging": logging_zeroes(),
        "metricsBindAddress": "",
        "mode": "",
        "nftables": {"masqueradeAll": false, "masqueradeBit": null, "minSyncPeriod": "0s", "syncPeriod": "0s"},
        "nodePortAddresses": null,
        "oomScoreAdj": null,
        "portRange": "",
        "showHiddenMetricsForVersion": "",
        "winkernel": {
            "enableDSR": false, "forwardHealthCheckVip": false, "networkName": "", "rootHnsEndpointName": "",
            "sourceVip": "",
        },
    })
}
