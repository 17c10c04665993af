//! `kubelet-start` and `kubelet-finalize`.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{InitCtx, kubernetes_file, network};
use crate::host::{Cmd, net};
use crate::kubeadm::{KUBELET_DIR, component, documents, go_yaml, merge, sorted};
use crate::oem::yaml;
use crate::plan::Change;

/// Where systemd-resolved keeps the resolvers that pods can reach.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

impl InitCtx {
    /// The kubelet's configuration as all nodes share it.
    pub(super) fn kubelet_configuration(&self) -> Value {
        component::kubelet(&self.config, self.host.root.exists(RESOLVED))
    }

    fn systemctl(&self, args: &[&str]) -> Result<()> {
        self.host.exec.run(&Cmd::new("systemctl").args(args)).map(|_| ())
    }
}

/// The line of `kubeadm-flags.env`.
fn flags(c: &InitCtx) -> Result<String> {
    let node = &c.config.init.node_registration;
    let hostname = net::hostname()?;
    let mut flags = Vec::new();
    if node.name != hostname.trim().to_lowercase() {
        flags.push(format!("--hostname-override={}", node.name));
    }
    flags.extend(node.kubelet_extra_args.iter().map(|a| format!("--{}={}", a.name, a.value)));
    let text = flags.join(" ");
    if text.contains(['\n', '\0']) {
        bail!("nodeRegistration.kubeletExtraArgs: an argument with a line break");
    }
    Ok(format!("KUBELET_KUBEADM_ARGS=\"{}\"\n", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

pub(super) fn start(c: &mut InitCtx) -> Result<Change> {
    let root = &c.host.root;
    root.create_dir_all(KUBELET_DIR, 0o700)?;
    let instance = component::kubelet_instance(&c.config);
    let mut whole = c.kubelet_configuration();
    merge(&mut whole, &instance);
    let mut wrote = false;
    for (file, text) in [
        ("kubeadm-flags.env", flags(c)?),
        ("instance-config.yaml", go_yaml::write(&instance)),
        ("config.yaml", go_yaml::write(&sorted(whole))),
    ] {
        wrote |= root.write_if_changed(&format!("{KUBELET_DIR}/{file}"), text.as_bytes(), 0o644)?;
    }
    let active =
        c.host.exec.output(&Cmd::new("systemctl").args(["is-active", "--quiet", "kubelet"]))?.code == 0;
    if active && !wrote {
        return Ok(Change::Unchanged);
    }
    if c.options.first_boot {
        network::expect_pod_network(c)?;
    }
    c.systemctl(&["daemon-reload"]).context("starting the kubelet")?;
    c.systemctl(&["restart", "kubelet"]).context("starting the kubelet")?;
    Ok(Change::Created)
}

/// Once the kubelet renews its certificate itself, its kubeconfig must name the file that it renews.
pub(super) fn finalize(c: &mut InitCtx) -> Result<Change> {
    let renewed = format!("{KUBELET_DIR}/pki/kubelet-client-current.pem");
    if !c.host.root.exists(&renewed) {
        c.events.info(format!("{renewed} is not there: the kubelet keeps the certificate in its kubeconfig"));
        return Ok(Change::Unchanged);
    }
    let path = kubernetes_file("kubelet.conf");
    let mut value: Value = yaml::parse(&c.host.root.read_text(&path)?, &path)?;
    let wanted = json!({"client-certificate": renewed, "client-key": renewed});
    let mut changed = false;
    for user in value["users"].as_array_mut().into_iter().flatten() {
        if user["user"] != wanted {
            user["user"] = wanted.clone();
            changed = true;
        }
    }
    if !changed {
        return Ok(Change::Unchanged);
    }
    c.host.root.write_atomic(&path, documents::write(&value)?.as_bytes(), 0o600)?;
    c.systemctl(&["restart", "kubelet"]).context("restarting the kubelet")?;
    Ok(Change::Updated)
}
