//! kubeadm's `init` as a table: its phases by their public names, in their order, and what a first boot wants besides.
//!
//! Every phase looks before it writes, so that the same call again finds its work done: after a cut at any edge a rerun
//! ends well and keeps the authorities and keys that were made.

mod addons;
mod bootstrap;
mod certs;
mod control_plane;
mod kubelet;
mod network;
mod preflight;
mod provision;
mod rebooted;
mod show;
mod upload;
mod wait;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::host::Host;
use crate::host::clock::Deadline;
use crate::host::console::Port;
use crate::kubeadm::{Config, GoDuration, KUBERNETES_DIR};
use crate::manifests::static_pod::{CA_DIRS, HostFacts};
use crate::pki::keys::Keys;
use crate::plan::{Events, Hazard, OnError, Phase, phase::always};

pub use provision::{configuration, first_boot, provision, run_init, wait_ready};

/// What the phases work with.
pub struct InitCtx {
    /// The machine.
    pub host: Host,
    /// Where they tell what happens.
    pub events: Events,
    /// What is wanted.
    pub config: Config,
    /// How this run was asked for.
    pub options: Options,
    /// When the process started, in seconds since 1970: the time that all certificates reckon from.
    pub started: u64,
    /// Phases that the journal of an earlier run of the same plan names: what they made is no obstacle.
    pub begun: Vec<String>,
    keys: Option<Keys>,
    cluster: Option<Cluster>,
}

/// How a run was asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// Preflight checks whose failure is only a warning, in lower case; `all` for every one.
    pub ignore_preflight_errors: Vec<String>,
    /// Hand the authorities to later control-plane nodes, encrypted, through the cluster.
    pub upload_certs: bool,
    /// The secret that holds them does not expire (as provider-kubeadm's).
    pub keep_uploaded_certs: bool,
    /// A network for pods comes with it.
    pub first_boot: bool,
    /// The bootstrap token was not named by the user but made for this run.
    pub token_made: bool,
    /// The DNS addon is left out.
    pub skip_coredns: bool,
    /// The proxy addon is left out.
    pub skip_kube_proxy: bool,
    /// Proxy variables of the environment, for the Pods.
    pub proxy_env: Vec<(String, String)>,
    /// Where the join command is shown; nowhere on a first boot, whose console must not show a token.
    pub out: Option<Port>,
    /// Do not show the token.
    pub skip_token_print: bool,
    /// Do not show the certificate key.
    pub skip_certificate_key_print: bool,
}

impl std::fmt::Debug for InitCtx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitCtx").field("node", &self.config.node()).finish_non_exhaustive()
    }
}

impl InitCtx {
    /// A context whose work has not begun.
    #[must_use]
    pub fn new(
        host: &Host,
        events: &Events,
        config: Config,
        options: Options,
        begun: Vec<String>,
    ) -> InitCtx {
        let started = host.clock.unix_seconds();
        let (host, events) = (host.clone(), events.clone());
        InitCtx { host, events, config, options, started, begun, keys: None, cluster: None }
    }

    /// Whether an earlier run got as far as this phase.
    fn began(&self, phase: &str) -> bool {
        self.begun.iter().any(|name| name == phase)
    }

    /// A deadline from now; upstream's default where the timeout is not set.
    fn deadline(&self, timeout: Option<GoDuration>) -> Deadline {
        self.host.clock.deadline(timeout.map_or(Duration::from_secs(60), |t| t.0))
    }

    /// The deadline of one write to the API server.
    fn api_deadline(&self) -> Deadline {
        self.deadline(self.config.timeouts().kubernetes_api_call)
    }

    /// A client of this node's API server that may do everything.
    fn cluster(&mut self) -> Result<&Cluster> {
        if self.cluster.is_none() {
            self.cluster = Some(bootstrap::connect(self)?.0);
        }
        self.cluster.as_ref().context("connecting to the API server")
    }

    /// What the Pods' forms depend on besides the configuration.
    fn host_facts(&self) -> HostFacts {
        let ca_dirs = CA_DIRS.into_iter().filter(|dir| self.host.root.exists(dir)).collect();
        HostFacts { ca_dirs, proxy_env: self.options.proxy_env.clone() }
    }
}

/// A file below `/etc/kubernetes`.
fn kubernetes_file(name: &str) -> String {
    format!("{KUBERNETES_DIR}/{name}")
}

macro_rules! phase {
    ($name:literal, $hazard:ident, $about:literal, $run:expr) => {
        phase!($name, $hazard, $about, always, $run)
    };
    ($name:literal, $hazard:ident, $about:literal, $when:expr, $run:expr) => {
        Phase {
            name: $name,
            about: $about,
            hazard: Hazard::$hazard,
            when: $when,
            on_error: OnError::Stop,
            run: $run,
        }
    };
}

/// kubeadm's init.
pub const INIT: &[Phase<InitCtx>] = &[
    phase!("preflight", Reads, "look for all that would stand in the way", preflight::run),
    phase!("certs/ca", Writes, "the cluster's authority", |c| certs::certificate(c, "ca")),
    phase!("certs/apiserver", Writes, "the API server's certificate", |c| certs::certificate(c, "apiserver")),
    phase!("certs/apiserver-kubelet-client", Writes, "its certificate as a client of kubelets", |c| {
        certs::certificate(c, "apiserver-kubelet-client")
    }),
    phase!("certs/front-proxy-ca", Writes, "the front proxy's authority", |c| certs::certificate(
        c,
        "front-proxy-ca"
    )),
    phase!("certs/front-proxy-client", Writes, "the front proxy's certificate", |c| {
        certs::certificate(c, "front-proxy-client")
    }),
    phase!("certs/etcd-ca", Writes, "etcd's authority", |c| certs::certificate(c, "etcd-ca")),
    phase!("certs/etcd-server", Writes, "etcd's certificate", |c| certs::certificate(c, "etcd-server")),
    phase!("certs/etcd-peer", Writes, "etcd's certificate among its peers", |c| certs::certificate(
        c,
        "etcd-peer"
    )),
    phase!("certs/etcd-healthcheck-client", Writes, "the certificate that asks etcd for its health", |c| {
        certs::certificate(c, "etcd-healthcheck-client")
    }),
    phase!("certs/apiserver-etcd-client", Writes, "the API server's certificate as a client of etcd", |c| {
        certs::certificate(c, "apiserver-etcd-client")
    }),
    phase!("certs/sa", Writes, "the keys that sign service account tokens", certs::service_account),
    phase!("kubeconfig/admin", Writes, "admin.conf", |c| certs::kubeconfig(c, "admin")),
    phase!("kubeconfig/super-admin", Writes, "super-admin.conf", |c| certs::kubeconfig(c, "super-admin")),
    phase!("kubeconfig/kubelet", Writes, "kubelet.conf", |c| certs::kubeconfig(c, "kubelet")),
    phase!("kubeconfig/controller-manager", Writes, "controller-manager.conf", |c| {
        certs::kubeconfig(c, "controller-manager")
    }),
    phase!("kubeconfig/scheduler", Writes, "scheduler.conf", |c| certs::kubeconfig(c, "scheduler")),
    phase!("etcd/local", Writes, "etcd's static Pod", control_plane::etcd),
    phase!("control-plane/apiserver", Writes, "the API server's static Pod", control_plane::apiserver),
    phase!(
        "control-plane/controller-manager",
        Writes,
        "the controller manager's static Pod",
        control_plane::manager
    ),
    phase!("control-plane/scheduler", Writes, "the scheduler's static Pod", control_plane::scheduler),
    phase!("kubelet-start", Writes, "the kubelet's files, and its start", kubelet::start),
    phase!("wait-control-plane", Network, "until the control plane answers", wait::control_plane),
    phase!("upload-config/kubeadm", Network, "ConfigMap kubeadm-config", upload::kubeadm_config),
    phase!("upload-config/kubelet", Network, "ConfigMap kubelet-config", upload::kubelet_config),
    phase!("upload-certs", Network, "Secret kubeadm-certs", |c| c.options.upload_certs, upload::certs),
    phase!("mark-control-plane", Network, "the node's labels and taints", bootstrap::mark_control_plane),
    phase!("bootstrap-token", Network, "what joining nodes need", bootstrap::token),
    phase!(
        "kubelet-finalize/enable-client-cert-rotation",
        Writes,
        "the kubelet renews its own certificate",
        kubelet::finalize
    ),
    phase!("addon/coredns", Network, "the DNS addon", |c| !c.config.cluster.dns.disabled, addons::coredns),
    phase!(
        "addon/kube-proxy",
        Network,
        "the proxy addon",
        |c| !c.config.cluster.proxy.disabled,
        addons::kube_proxy
    ),
    phase!(
        "show-join-command",
        Reads,
        "how other nodes join",
        |c| c.options.out.is_some(),
        show::join_command
    ),
];

/// What a first boot wants after kubeadm's init.
pub const PROVISION_EXTRA: &[Phase<InitCtx>] = &[
    phase!("pod-network", Writes, "the pods' network on this node", network::pod_network),
    phase!("ready", Network, "until the node and its addons are ready", network::ready),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_and_kubeconfig_has_its_phase() {
        let names: Vec<_> = INIT.iter().map(|p| p.name).collect();
        for spec in crate::pki::spec::SPECS {
            let name = format!("certs/{}", spec.name);
            assert!(names.contains(&name.as_str()), "failed testcase: {name}");
        }
        for spec in crate::pki::kubeconfig::SPECS {
            let name = format!("kubeconfig/{}", spec.name);
            assert!(names.contains(&name.as_str()), "failed testcase: {name}");
        }
    }
}
