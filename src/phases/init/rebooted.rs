//! Later boots. The API server answers before the kubelet has reported, and until then tells how things were before the
//! reboot: what it says of the node and its system pods counts only once it is of this boot.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::network::is_ready;
use crate::cluster::Cluster;
use crate::host::Root;
use crate::host::clock::{Deadline, rfc3339};

/// This boot, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    /// Random for each boot; the kubelet reports it in `nodeInfo.bootID`.
    id: String,
    /// When it began, in the form of Kubernetes' times.
    since: String,
}

impl Boot {
    pub(super) fn read(root: &Root) -> Result<Boot> {
        let id = root.read_text("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let since = began(&root.read_text("/proc/stat")?).context("/proc/stat has no btime")?;
        Ok(Boot { id, since: rfc3339(since) })
    }

    /// The kubelet of this boot says that the node is Ready.
    pub(super) fn has_node(&self, node: &Value) -> bool {
        node["status"]["nodeInfo"]["bootID"] == self.id.as_str() && is_ready(node)
    }

    /// All containers of the pod run since this boot, and are ready.
    fn has_pod(&self, pod: &Value) -> bool {
        let all = pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let runs = |c: &Value| {
            let started = c["state"]["running"]["startedAt"].as_str();
            c["ready"] == true && started.is_some_and(|t| t >= self.since.as_str())
        };
        !all.is_empty() && all.iter().all(runs)
    }
}

/// Waits until each pod of the control plane and of the addons on this node runs in this boot.
pub(super) fn system_pods(cluster: &Cluster, boot: &Boot, node: &str, deadline: Deadline) -> Result<()> {
    let pods = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "kube-system"}});
    for pod in cluster.list(&pods, &format!("spec.nodeName={node}"), deadline)? {
        if is_system(&pod) {
            let name = pod["metadata"]["name"].clone();
            let like = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "kube-system", "name": name}});
            let missing = |_: &Value| "its containers are not ready since the reboot".to_owned();
            cluster.watch(&like, deadline, missing, |pod| boot.has_pod(pod))?;
        }
    }
    Ok(())
}

/// Of the pods of kube-system, those that make the node: others are their owners' business.
fn is_system(pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    labels["tier"] == "control-plane" || labels["k8s-app"] == "kube-dns" || labels["k8s-app"] == "kube-proxy"
}

/// Seconds since 1970 at which the kernel started (proc_stat(5): `btime`).
fn began(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_this_boot_counts() {
        assert_eq!(began("cpu 1 2\nbtime 1767225600\nctxt 5\n"), Some(1_767_225_600));
        let boot = Boot { id: "b".into(), since: "2026-01-01T00:00:00Z".into() };
        let node = |id: &str, ready: &str| json!({"status": {"nodeInfo": {"bootID": id}, "conditions": [{"type": "Ready", "status": ready}]}});
        for (id, ready, wanted) in [("b", "True", true), ("b", "False", false), ("a", "True", false)] {
            assert_eq!(boot.has_node(&node(id, ready)), wanted, "failed testcase: {id} {ready}");
        }
        let container = |started: &str, ready: bool| json!({"ready": ready, "state": {"running": {"startedAt": started}}});
        let (new, old) = ("2026-01-01T00:00:09Z", "2025-12-31T23:59:59Z");
        for (name, containers, wanted) in [
            ("all new", vec![container(new, true), container(new, true)], true),
            ("one old", vec![container(new, true), container(old, true)], false),
            ("not ready", vec![container(new, false)], false),
            ("none", vec![], false),
            ("waiting", vec![json!({"ready": false, "state": {"waiting": {}}})], false),
        ] {
            let pod = json!({"status": {"containerStatuses": containers}});
            assert_eq!(boot.has_pod(&pod), wanted, "failed testcase: {name}");
        }
        assert!(is_system(&json!({"metadata": {"labels": {"k8s-app": "kube-dns"}}})));
        assert!(!is_system(&json!({"metadata": {"labels": {"k8s-app": "mine"}}})));
    }
}
