//! The static Pods of the control plane's components.

use serde_json::{Value, json};

use super::static_pod::{Container, HostFacts, Mount, Probe, arg, command, env, pod};
use crate::kubeadm::v1beta4::{Arg, HostPathMount};
use crate::kubeadm::{Config, KUBERNETES_DIR, version};

/// The mounts of API server and controller manager for certificates.
fn certificate_mounts(config: &Config, host: &HostFacts) -> Vec<Mount> {
    let folder = "DirectoryOrCreate";
    let mut mounts = vec![
        Mount::new("k8s-certs", &config.cluster.certificates_dir, true, folder),
        Mount::new("ca-certs", "/etc/ssl/certs", true, folder),
    ];
    mounts.extend(host.ca_dirs.iter().map(|dir| Mount::new(&dir[1..].replace('/', "-"), dir, true, folder)));
    mounts
}

/// Ours and the user's mounts by name; the user's win.
fn all_mounts(mut ours: Vec<Mount>, user: &[HostPathMount]) -> Vec<Mount> {
    ours.retain(|m| user.iter().all(|u| u.name != m.name));
    ours.extend(user.iter().map(Mount::from_user));
    ours.sort_by(|a, b| a.name.cmp(&b.name));
    ours
}

/// Where a component is asked for its health. One that listens on every address is asked at the Pod's own: empty.
fn bind_address(user: &[Arg]) -> String {
    match arg(user, "bind-address") {
        Some("0.0.0.0" | "::") => String::new(),
        given => given.unwrap_or("127.0.0.1").to_owned(),
    }
}

fn startup_seconds(config: &Config) -> u64 {
    config.timeouts().control_plane_component_health_check.map_or(240, |d| d.0.as_secs())
}

/// kube-apiserver.
#[must_use]
pub fn kube_apiserver(config: &Config, host: &HostFacts) -> Value {
    let (cluster, local) = (&config.cluster, &config.init.local_api_endpoint);
    let pki = |file: &str| config.pki(file);
    let text = str::to_owned;
    let user = authorization_modes(&cluster.api_server.extra_args);
    let etcd_local = cluster.etcd.local.as_ref().and_then(|e| arg(&e.extra_args, "advertise-client-urls"));
    let loopback = if config.is_v6() { "https://[::1]:2379" } else { "https://127.0.0.1:2379" };
    let mut defaults = vec![
        ("advertise-address", local.advertise_address.clone()),
        ("allow-privileged", text("true")),
        ("client-ca-file", pki("ca.crt")),
        ("enable-admission-plugins", text("NodeRestriction")),
        ("enable-bootstrap-token-auth", text("true")),
        ("etcd-cafile", pki("etcd/ca.crt")),
        ("etcd-certfile", pki("apiserver-etcd-client.crt")),
        ("etcd-keyfile", pki("apiserver-etcd-client.key")),
        ("etcd-servers", text(etcd_local.unwrap_or(loopback))),
        ("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        ("kubelet-preferred-address-types", text("InternalIP,ExternalIP,Hostname")),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        ("requestheader-allowed-names", text("front-proxy-client")),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("requestheader-extra-headers-prefix", text("X-Remote-Extra-")),
        ("requestheader-group-headers", text("X-Remote-Group")),
        ("requestheader-username-headers", text("X-Remote-User")),
        ("secure-port", local.bind_port.to_string()),
        (
            "service-account-issuer",
            format!("https://kubernetes.default.svc.{}", cluster.networking.dns_domain),
        ),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("service-cluster-ip-range", cluster.networking.service_subnet.clone()),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
    ];
    if arg(&user, "authorization-config").is_none() {
        defaults.push(("authorization-mode", text("Node,RBAC")));
    }
    let endpoint = crate::kubeadm::net::host_port(&local.advertise_address, local.bind_port);
    pod(Container {
        name: "kube-apiserver",
        image: version::component_image(config, "kube-apiserver"),
        command: command("kube-apiserver", defaults, &user),
        port: local.bind_port,
        probe: Probe {
            host: local.advertise_address.clone(),
            scheme: "HTTPS",
            live: "/livez",
            ready: Some("/readyz"),
            start: "/livez",
        },
        requests: json!({"cpu": "250m"}),
        env: env(&cluster.api_server.extra_envs, host),
        mounts: all_mounts(certificate_mounts(config, host), &cluster.api_server.extra_volumes),
        annotation: Some((text("kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"), endpoint)),
        startup_seconds: startup_seconds(config),
    })
}

/// The user's arguments, with unknown authorization modes left out as upstream does; none left means the default.
fn authorization_modes(user: &[Arg]) -> Vec<Arg> {
    const KNOWN: [&str; 6] = ["Node", "RBAC", "Webhook", "ABAC", "AlwaysAllow", "AlwaysDeny"];
    let keep = |a: &Arg| -> Option<Arg> {
        if a.name != "authorization-mode" {
            return Some(a.clone());
        }
        let modes: Vec<_> = a.value.split(',').filter(|m| KNOWN.contains(m)).collect();
        (!modes.is_empty()).then(|| Arg { name: a.name.clone(), value: modes.join(",") })
    };
    user.iter().filter_map(keep).collect()
}

/// kube-controller-manager.
#[must_use]
pub fn kube_controller_manager(config: &Config, host: &HostFacts) -> Value {
    let cluster = &config.cluster;
    let component = &cluster.controller_manager;
    let kubeconfig = format!("{KUBERNETES_DIR}/controller-manager.conf");
    let text = str::to_owned;
    let mut defaults = vec![
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig.clone()),
        ("bind-address", text("127.0.0.1")),
        ("client-ca-file", config.pki("ca.crt")),
        ("cluster-name", cluster.cluster_name.clone()),
        ("cluster-signing-cert-file", config.pki("ca.crt")),
        ("cluster-signing-key-file", config.pki("ca.key")),
        ("controllers", text("*,bootstrapsigner,tokencleaner")),
        ("kubeconfig", kubeconfig.clone()),
        ("leader-elect", text("true")),
        ("requestheader-client-ca-file", config.pki("front-proxy-ca.crt")),
        ("root-ca-file", config.pki("ca.crt")),
        ("service-account-private-key-file", config.pki("sa.key")),
        ("use-service-account-credentials", text("true")),
    ];
    if !cluster.networking.pod_subnet.is_empty() {
        defaults.push(("allocate-node-cidrs", text("true")));
        defaults.push(("cluster-cidr", cluster.networking.pod_subnet.clone()));
        defaults.push(("service-cluster-ip-range", cluster.networking.service_subnet.clone()));
    }
    let mut mounts = certificate_mounts(config, host);
    mounts.push(Mount::new("kubeconfig", &kubeconfig, true, "FileOrCreate"));
    pod(Container {
        name: "kube-controller-manager",
        image: version::component_image(config, "kube-controller-manager"),
        command: command("kube-controller-manager", defaults, &component.extra_args),
        port: 10257,
        probe: Probe {
            host: bind_address(&component.extra_args),
            scheme: "HTTPS",
            live: "/healthz",
            ready: None,
            start: "/healthz",
        },
        requests: json!({"cpu": "200m"}),
        env: env(&component.extra_envs, host),
        mounts: all_mounts(mounts, &component.extra_volumes),
        annotation: None,
        startup_seconds: startup_seconds(config),
    })
}

/// kube-scheduler.
#[must_use]
pub fn kube_scheduler(config: &Config, host: &HostFacts) -> Value {
    let component = &config.cluster.scheduler;
    let kubeconfig = format!("{KUBERNETES_DIR}/scheduler.conf");
    let text = str::to_owned;
    let defaults = vec![
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig.clone()),
        ("bind-address", text("127.0.0.1")),
        ("kubeconfig", kubeconfig.clone()),
        ("leader-elect", text("true")),
    ];
    pod(Container {
        name: "kube-scheduler",
        image: version::component_image(config, "kube-scheduler"),
        command: command("kube-scheduler", defaults, &component.extra_args),
        port: 10259,
        probe: Probe {
            host: bind_address(&component.extra_args),
            scheme: "HTTPS",
            live: "/livez",
            ready: Some("/readyz"),
            start: "/livez",
        },
        requests: json!({"cpu": "100m"}),
        env: env(&component.extra_envs, host),
        mounts: all_mounts(
            vec![Mount::new("kubeconfig", &kubeconfig, true, "FileOrCreate")],
            &component.extra_volumes,
        ),
        annotation: None,
        startup_seconds: startup_seconds(config),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_authorization_modes_are_left_out() {
        for (given, wanted) in [("Node,Foo", Some("Node")), ("Foo", None)] {
            let user = [Arg { name: "authorization-mode".into(), value: given.into() }];
            let found = authorization_modes(&user);
            assert_eq!(found.first().map(|a| a.value.as_str()), wanted, "failed testcase: {given}");
        }
    }
}
