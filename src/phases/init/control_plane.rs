//! `etcd/local` and `control-plane/*`: the manifests that the kubelet starts Pods from.

use anyhow::Result;
use serde_json::Value;

use super::InitCtx;
use crate::kubeadm::{MANIFESTS_DIR, go_yaml};
use crate::manifests::{control_plane, etcd};
use crate::plan::Change;

fn write(c: &InitCtx, name: &str, pod: &Value) -> Result<Change> {
    let root = &c.host.root;
    root.create_dir_all(MANIFESTS_DIR, 0o700)?;
    let path = format!("{MANIFESTS_DIR}/{name}.yaml");
    let there = root.exists(&path);
    let wrote = root.write_if_changed(&path, go_yaml::write(pod).as_bytes(), 0o600)?;
    Ok(if wrote && there { Change::Updated } else { Change::created_if(wrote) })
}

pub(super) fn etcd(c: &mut InitCtx) -> Result<Change> {
    if let Some(local) = &c.config.cluster.etcd.local {
        c.host.root.create_dir_all(&local.data_dir, 0o700)?;
    }
    write(c, "etcd", &etcd::etcd(&c.config))
}

pub(super) fn apiserver(c: &mut InitCtx) -> Result<Change> {
    write(c, "kube-apiserver", &control_plane::kube_apiserver(&c.config, &c.host_facts()))
}

pub(super) fn manager(c: &mut InitCtx) -> Result<Change> {
    write(c, "kube-controller-manager", &control_plane::kube_controller_manager(&c.config, &c.host_facts()))
}

pub(super) fn scheduler(c: &mut InitCtx) -> Result<Change> {
    write(c, "kube-scheduler", &control_plane::kube_scheduler(&c.config, &c.host_facts()))
}
