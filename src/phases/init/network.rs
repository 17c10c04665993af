//! `pod-network` and `ready`: from an initialised control plane to a node that runs pods.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::InitCtx;
use super::bootstrap::node;
use crate::cluster::Cluster;
use crate::host::clock::Deadline;
use crate::kubeadm::Config;
use crate::kubeadm::net::{Cidr, subnets};
use crate::plan::Change;

/// Where the container runtime looks for networks.
const CNI_DIR: &str = "/etc/cni/net.d";
const OURS: &str = "10-rekindle.conflist";

/// Longest wait for the node and its addons. Generous: under software emulation everything takes twenty times as long.
const READY: Duration = Duration::from_secs(900);

/// The network of one node's pods: a bridge, addresses from the node's own subnets, ports of the host.
fn conflist(subnets: &[String]) -> String {
    let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let routes: Vec<_> = subnets
        .iter()
        .map(|subnet| json!({"dst": if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" }}))
        .collect();
    let value = json!({
        "cniVersion": "1.0.0",
        "name": "rekindle",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{value:#}\n")
}

/// Whether somebody else brought a network.
fn foreign(names: &[String]) -> bool {
    names.iter().any(|n| n != OURS && [".conf", ".conflist", ".json"].iter().any(|end| n.ends_with(end)))
}

fn pod_subnets(node: &Value) -> Vec<String> {
    let all = node["spec"]["podCIDRs"].as_array().into_iter().flatten();
    all.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The subnets that the controller manager gives the first node of a cluster: of each of the cluster's subnets the first
/// of a node's size. `None` where the user decides about that size, or about who gives them out.
fn first_subnets(config: &Config) -> Option<Vec<String>> {
    let decided = ["node-cidr-mask-size", "allocate-node-cidrs", "cidr-allocator-type", "cluster-cidr"];
    let manager = &config.cluster.controller_manager.extra_args;
    if manager.iter().any(|a| decided.iter().any(|d| a.name.starts_with(d))) {
        return None;
    }
    let all = subnets(&config.cluster.networking.pod_subnet).ok()?;
    let first = |c: &Cidr| format!("{}/{}", c.base, if c.base.is_ipv4() { 24 } else { 64 });
    (!all.is_empty()).then(|| all.iter().map(first).collect())
}

/// Writes the network that this node will most likely get before the kubelet starts: it looks for one only every few
/// seconds, and the node is Ready so much sooner. `pod-network` checks it against what the cluster says.
pub(super) fn expect_pod_network(c: &InitCtx) -> Result<()> {
    let names = c.host.root.list(CNI_DIR)?;
    let Some(subnets) =
        first_subnets(&c.config).filter(|_| !foreign(&names) && !names.iter().any(|n| n == OURS))
    else {
        return Ok(());
    };
    c.host.root.create_dir_all(CNI_DIR, 0o755)?;
    c.host.root.write_atomic(&format!("{CNI_DIR}/{OURS}"), conflist(&subnets).as_bytes(), 0o644)
}

pub(super) fn pod_network(c: &mut InitCtx) -> Result<Change> {
    if foreign(&c.host.root.list(CNI_DIR)?) {
        c.events.info(format!("a network for pods is there already in {CNI_DIR}"));
        return Ok(Change::Unchanged);
    }
    if c.config.cluster.networking.pod_subnet.is_empty() {
        c.events.warn(format!(
            "networking.podSubnet is not set: pods wait until a network plugin writes into {CNI_DIR}"
        ));
        return Ok(Change::Unchanged);
    }
    let like = node(c);
    let deadline = c.host.clock.deadline(READY);
    let missing = |_: &Value| "the controller manager has given this node no subnet for its pods".to_owned();
    let found = c.cluster()?.watch(&like, deadline, missing, |n| !pod_subnets(n).is_empty())?;
    let root = &c.host.root;
    root.create_dir_all(CNI_DIR, 0o755)?;
    let text = conflist(&pod_subnets(&found));
    let there = root.exists(&format!("{CNI_DIR}/{OURS}"));
    let wrote = root.write_if_changed(&format!("{CNI_DIR}/{OURS}"), text.as_bytes(), 0o644)?;
    Ok(if wrote && there { Change::Updated } else { Change::created_if(wrote) })
}

/// The condition `kind` of an object: its status and message.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    let all = object["status"]["conditions"].as_array()?;
    let found = all.iter().find(|c| c["type"] == kind)?;
    Some((found["status"].as_str().unwrap_or_default(), found["message"].as_str().unwrap_or_default()))
}

pub(super) fn is_ready(node: &Value) -> bool {
    condition(node, "Ready").is_some_and(|(status, _)| status == "True")
}

pub(super) fn not_ready(node: &Value) -> String {
    match condition(node, "Ready") {
        Some((_, why)) => format!("the node is not Ready: {why}"),
        None => "the kubelet has not reported on the node: see `journalctl -u kubelet`".to_owned(),
    }
}

fn deployment_ready(d: &Value) -> bool {
    let seen = d["status"]["observedGeneration"] == d["metadata"]["generation"];
    let wanted = d["spec"]["replicas"].as_u64().unwrap_or(1);
    seen && d["status"]["availableReplicas"].as_u64().unwrap_or(0) >= wanted
}

fn daemon_set_ready(d: &Value) -> bool {
    let seen = d["status"]["observedGeneration"] == d["metadata"]["generation"];
    let number = |key: &str| d["status"][key].as_u64().unwrap_or(0);
    seen && number("desiredNumberScheduled") > 0
        && number("numberAvailable") >= number("desiredNumberScheduled")
}

fn addon(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "kube-system"}})
}

/// Tells of an object whether it is as wanted.
pub(super) type Done = fn(&Value) -> bool;

/// The DaemonSet of kube-proxy and the Deployment of the DNS addon, with what tells that they are available.
pub(super) fn addons() -> [(Value, Done); 2] {
    [(addon("DaemonSet", "kube-proxy"), daemon_set_ready), (addon("Deployment", "coredns"), deployment_ready)]
}

/// Waits until an addon is available. The message of a failure ends with what the cluster says went wrong lately.
pub(super) fn addon_ready(
    cluster: &Cluster,
    like: &Value,
    done: Done,
    deadline: Deadline,
    after: Deadline,
) -> Result<()> {
    let waited = cluster.watch(like, deadline, |_| "its pods are not available".to_owned(), done);
    let Err(error) = waited else { return Ok(()) };
    let events = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "kube-system"}});
    let lately = match cluster.list(&events, "type=Warning", after) {
        Ok(warnings) => latest(warnings),
        Err(why) => format!("they cannot be read: {why:#}"),
    };
    Err(error.context(format!("the cluster's latest warnings: {lately}")))
}

/// The three latest messages of Events, each once.
fn latest(mut events: Vec<Value>) -> String {
    let time = |e: &Value| {
        let known = [&e["lastTimestamp"], &e["eventTime"], &e["metadata"]["creationTimestamp"]];
        known.into_iter().find_map(|t| t.as_str()).unwrap_or_default().to_owned()
    };
    events.sort_by_key(|e| std::cmp::Reverse(time(e)));
    let mut texts: Vec<String> = Vec::new();
    for event in &events {
        let message: String = event["message"].as_str().unwrap_or_default().chars().take(300).collect();
        let text = format!("{}: {message}", event["involvedObject"]["name"].as_str().unwrap_or_default());
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.truncate(3);
    if texts.is_empty() { "none".to_owned() } else { texts.join("; ") }
}

pub(super) fn ready(c: &mut InitCtx) -> Result<Change> {
    let like = node(c);
    let deadline = c.host.clock.deadline(READY);
    c.cluster()?.watch(&like, deadline, not_ready, is_ready)?;
    let (cluster, options) = (&c.config.cluster, &c.options);
    let wanted =
        [!cluster.proxy.disabled && !options.skip_kube_proxy, !cluster.dns.disabled && !options.skip_coredns];
    for ((like, done), wanted) in addons().into_iter().zip(wanted) {
        if wanted {
            let after = c.host.clock.deadline(READY + Duration::from_secs(10));
            addon_ready(c.cluster()?, &like, done, deadline, after)?;
        }
    }
    if super::bootstrap::tainted(c) {
        c.events.info(
            "this node runs no ordinary pods (its control-plane taint); nodeRegistration.taints: [] lets it",
        );
    }
    Ok(Change::Unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_for_one_family_and_for_two() {
        for (subnets, routes) in [
            (vec!["10.244.0.0/24"], vec!["0.0.0.0/0"]),
            (vec!["10.244.0.0/24", "fd00::/64"], vec!["0.0.0.0/0", "::/0"]),
        ] {
            let subnets: Vec<String> = subnets.into_iter().map(str::to_owned).collect();
            let value: Value = serde_json::from_str(&conflist(&subnets)).unwrap();
            let ipam = &value["plugins"][0]["ipam"];
            let found: Vec<_> =
                ipam["ranges"].as_array().unwrap().iter().map(|r| r[0]["subnet"].as_str().unwrap()).collect();
            assert_eq!(found, subnets);
            let found: Vec<_> =
                ipam["routes"].as_array().unwrap().iter().map(|r| r["dst"].as_str().unwrap()).collect();
            assert_eq!(found, routes);
        }
    }

    #[test]
    fn expects_the_first_subnet_unless_the_user_decides() {
        use crate::kubeadm::{defaults, documents};
        for (pods, arg, wanted) in [
            ("10.244.0.0/16", "", Some(vec!["10.244.0.0/24"])),
            ("10.0.0.0/14,fd00:1::/48", "", Some(vec!["10.0.0.0/24", "fd00:1::/64"])),
            ("10.244.0.0/16", "node-cidr-mask-size-ipv4", None),
            ("", "", None),
        ] {
            let text = format!(
                "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking: {{podSubnet: '{pods}'}}\n\
                 controllerManager: {{extraArgs: [{{name: 'x{arg}', value: '20'}}, {{name: '{arg}', value: '20'}}]}}\n"
            );
            let config = defaults::apply(documents::parse(&text, "f").unwrap(), &defaults::Facts::default());
            let wanted = wanted.map(|w| w.into_iter().map(str::to_owned).collect());
            assert_eq!(first_subnets(&config), wanted, "failed testcase: {pods} {arg}");
        }
    }

    #[test]
    fn the_latest_warnings_come_first_and_once() {
        let event = |time: &str, text: &str| json!({"lastTimestamp": time, "message": text, "involvedObject": {"name": "p"}});
        let all = vec![
            event("2026-01-01", "a"),
            event("2026-01-03", "b"),
            event("2026-01-02", "c"),
            event("2026-01-04", "b"),
            event("2025-01-01", "d"),
        ];
        assert_eq!(latest(all), "p: b; p: c; p: a");
        assert_eq!(latest(vec![]), "none");
    }

    #[test]
    fn availability() {
        for (status, wanted) in [
            (json!({"observedGeneration": 1, "availableReplicas": 2}), true),
            (json!({"observedGeneration": 1, "availableReplicas": 1}), false),
            (json!({"availableReplicas": 2}), false),
        ] {
            let object = json!({"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status});
            assert_eq!(deployment_ready(&object), wanted, "failed testcase: {object}");
        }
        for (status, wanted) in [
            (json!({"observedGeneration": 1, "desiredNumberScheduled": 1, "numberAvailable": 1}), true),
            (json!({"observedGeneration": 1, "desiredNumberScheduled": 0}), false),
            (json!({"observedGeneration": 0, "desiredNumberScheduled": 1, "numberAvailable": 1}), false),
        ] {
            let object = json!({"metadata": {"generation": 1}, "status": status});
            assert_eq!(daemon_set_ready(&object), wanted, "failed testcase: {object}");
        }
        assert!(foreign(&["10-calico.conflist".into()]) && !foreign(&[OURS.into(), ".keep".into()]));
    }
}
