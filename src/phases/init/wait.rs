//! `wait-control-plane`.

use anyhow::{Context, Result};

use super::InitCtx;
use super::bootstrap::kubeconfig;
use crate::cluster::{Cluster, Health, health};
use crate::kubeadm::net::host_port;
use crate::kubeadm::v1beta4::Arg;
use crate::plan::Change;

pub(super) fn control_plane(c: &mut InitCtx) -> Result<Change> {
    let timeouts = c.config.timeouts();
    let deadline = c.deadline(timeouts.control_plane_component_health_check);
    let local = c.config.local_endpoint();
    let server = Cluster::new(&kubeconfig(c, "admin.conf")?, Some(&local))?;
    if let Err(error) = server.wait_ready("/livez", deadline) {
        return Err(error).context(diagnosis(c));
    }
    let cluster = &c.config.cluster;
    for component in [
        component("kube-controller-manager", &cluster.controller_manager.extra_args, 10257, "/healthz"),
        component("kube-scheduler", &cluster.scheduler.extra_args, 10259, "/livez"),
    ] {
        health(&component, deadline)
            .context("a component does not become healthy: see its log in /var/log/pods")?;
    }
    Ok(Change::Unchanged)
}

fn component(name: &str, user: &[Arg], port: u16, path: &str) -> Health {
    let value = |wanted: &str| user.iter().rev().find(|a| a.name == wanted).map(|a| a.value.clone());
    // One that listens on all addresses also listens on the loopback.
    let host = value("bind-address")
        .filter(|a| a != "0.0.0.0" && a != "::")
        .unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = value("secure-port").and_then(|p| p.parse().ok()).unwrap_or(port);
    Health {
        name: name.to_owned(),
        url: format!("https://{}", host_port(&host, port)),
        path: path.to_owned(),
    }
}

/// Where to look when the API server does not come up: at the kubelet first, as it starts everything else.
fn diagnosis(c: &InitCtx) -> String {
    let kubelet =
        Health { name: "kubelet".into(), url: "http://127.0.0.1:10248".into(), path: "/healthz".into() };
    match health(&kubelet, c.host.clock.deadline(std::time::Duration::ZERO)) {
        Ok(()) => "the kubelet is healthy, but the control plane it should start is not: see the logs in /var/log/pods".into(),
        Err(why) => format!("the kubelet, which starts the control plane, is not healthy ({why:#}): see `journalctl -u kubelet`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_where_the_component_listens() {
        let arg = |n: &str, v: &str| Arg { name: n.into(), value: v.into() };
        for (user, url) in [
            (vec![], "https://127.0.0.1:10257"),
            (vec![arg("bind-address", "0.0.0.0")], "https://127.0.0.1:10257"),
            (vec![arg("bind-address", "10.0.0.1"), arg("secure-port", "9")], "https://10.0.0.1:9"),
            (vec![arg("bind-address", "fd00::1")], "https://[fd00::1]:10257"),
        ] {
            assert_eq!(component("x", &user, 10257, "/healthz").url, url, "failed testcase: {user:?}");
        }
    }
}
