//! `addon/*`.

use anyhow::Result;
use serde_json::json;

use super::InitCtx;
use crate::manifests::{coredns, kube_proxy};
use crate::plan::Change;

pub(super) fn coredns(c: &mut InitCtx) -> Result<Change> {
    let deadline = c.api_deadline();
    let like = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "coredns", "namespace": "kube-system"}});
    let found = c.cluster()?.get(&like, deadline)?;
    // Somebody may have scaled it.
    let replicas =
        found.and_then(|d| d["spec"]["replicas"].as_u64()).and_then(|n| u32::try_from(n).ok()).unwrap_or(2);
    let objects = coredns::objects(&c.config, replicas);
    c.cluster()?.apply_all(&objects, deadline)
}

pub(super) fn kube_proxy(c: &mut InitCtx) -> Result<Change> {
    let deadline = c.api_deadline();
    let objects = kube_proxy::objects(&c.config, &c.host_facts());
    c.cluster()?.apply_all(&objects, deadline)
}
