//! The static Pod of a local etcd.

use serde_json::{Value, json};

use super::static_pod::{Container, HostFacts, Mount, Probe, arg, command, env, pod};
use crate::kubeadm::{Config, net, version};

/// etcd as the first member of its cluster.
#[must_use]
pub fn etcd(config: &Config) -> Value {
    let local = config.cluster.etcd.local.clone().unwrap_or_default();
    let loopback = if config.is_v6() { "::1" } else { "127.0.0.1" };
    let url = |host: &str, port| format!("https://{}", net::host_port(host, port));
    let (client, peer) = (url(config.advertise(), 2379), url(config.advertise(), 2380));
    let pki = |file: &str| config.pki(&format!("etcd/{file}"));
    let text = str::to_owned;
    let defaults = vec![
        ("advertise-client-urls", client.clone()),
        ("cert-file", pki("server.crt")),
        ("client-cert-auth", text("true")),
        ("data-dir", local.data_dir.clone()),
        ("feature-gates", text("InitialCorruptCheck=true")),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("{}={peer}", config.node())),
        ("key-file", pki("server.key")),
        ("listen-client-urls", format!("{},{client}", url(loopback, 2379))),
        ("listen-metrics-urls", format!("http://{}", net::host_port(loopback, 2381))),
        ("listen-peer-urls", peer),
        ("name", text(config.node())),
        ("peer-cert-file", pki("peer.crt")),
        ("peer-client-cert-auth", text("true")),
        ("peer-key-file", pki("peer.key")),
        ("peer-trusted-ca-file", pki("ca.crt")),
        ("snapshot-count", text("10000")),
        ("trusted-ca-file", pki("ca.crt")),
        ("watch-progress-notify-interval", text("5s")),
    ];
    let (host, port, scheme) = metrics(arg(&local.extra_args, "listen-metrics-urls"), loopback);
    pod(Container {
        name: "etcd",
        image: version::etcd_image(config),
        command: command("etcd", defaults, &local.extra_args),
        port,
        probe: Probe { host, scheme, live: "/livez", ready: Some("/readyz"), start: "/readyz" },
        requests: json!({"cpu": "100m", "memory": "100Mi"}),
        // Proxies are none of etcd's business: upstream does not pass them on to it.
        env: env(&local.extra_envs, &HostFacts::default()),
        mounts: vec![
            Mount::new("etcd-data", &local.data_dir, false, "DirectoryOrCreate"),
            Mount::new("etcd-certs", &config.pki("etcd"), false, "DirectoryOrCreate"),
        ],
        annotation: Some((text("kubeadm.kubernetes.io/etcd.advertise-client-urls"), client)),
        startup_seconds: config
            .timeouts()
            .control_plane_component_health_check
            .map_or(240, |d| d.0.as_secs()),
    })
}

/// Where the probes ask: at the first of the user's metrics addresses, or else at the loopback.
fn metrics(user: Option<&str>, loopback: &str) -> (String, u16, &'static str) {
    let first = user.and_then(|urls| urls.split(',').next()).unwrap_or_default();
    let (scheme, rest) = first.split_once("://").unwrap_or(("http", ""));
    match net::split_host_port(rest.trim_end_matches('/')) {
        Ok((host, port)) => (host, port.unwrap_or(2381), if scheme == "https" { "HTTPS" } else { "HTTP" }),
        Err(_) => (loopback.to_owned(), 2381, "HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_ask_where_metrics_are_served() {
        for (user, wanted) in [
            (None, ("127.0.0.1", 2381, "HTTP")),
            (Some("https://10.0.0.1:9000,http://x:1"), ("10.0.0.1", 9000, "HTTPS")),
            (Some("http://0.0.0.0:2381"), ("0.0.0.0", 2381, "HTTP")),
            (Some("http://[::1]:7"), ("::1", 7, "HTTP")),
        ] {
            let (host, port, scheme) = metrics(user, "127.0.0.1");
            assert_eq!((host.as_str(), port, scheme), wanted, "failed testcase: {user:?}");
        }
    }
}
