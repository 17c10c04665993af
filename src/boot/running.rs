//! What our two units do on the running system: stages, and first boot's provisioning. The sentinel is written last, so a
//! cut at any point makes the next boot go on.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::decide::{Action, Facts, Node, Wanted, decide};
use super::status::mode;
use crate::host::Host;
use crate::host::Root;
use crate::host::clock::rfc3339;
use crate::oem::{self, Oem, Role};
use crate::phases::init;
use crate::plan::intent::{self, Pending};
use crate::plan::{Event, Events};

/// Says that first boot is complete (Kairos' name and place; removing it makes the node provision itself again).
pub const SENTINEL: &str = "/usr/local/.kairos/sentinel_firstboot";
/// Progress of first boot's provisioning.
pub const JOURNAL: &str = "/usr/local/.kairos/provision.jsonl";
/// What this boot decided.
const DECIDED: &str = "/run/rekindle/decided.json";
/// How long a node may take to be Ready before its unit fails and says so.
const READY: Duration = Duration::from_secs(20 * 60);

/// What a boot decided, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Name of the Action.
    pub action: String,
    /// Why, in words.
    pub why: String,
}

/// Runs the stages `fs` and `boot`.
///
/// # Errors
/// Something was not done. Each failure was told when it happened, and the other steps ran.
pub fn stages(host: &Host, events: &Events) -> Result<()> {
    events.reached("userspace", None);
    let found = oem::load(&host.root);
    oem::tell_findings(events, &found);
    let failed: usize = ["fs", "boot"]
        .iter()
        .map(|stage| oem::run_stage(host, &found, stage, events))
        .filter(|report| !report.is_clean())
        .map(|report| report.findings.len())
        .sum();
    if failed > 0 {
        bail!("{failed} things that the configuration asks for were not done; each was told above");
    }
    Ok(())
}

/// Runs the stage `network`, then does what the table of [`decide`] says for this node.
///
/// # Errors
/// Provisioning failed (the next start of the unit resumes it), or the node did not become Ready in time.
pub fn provision(host: &Host, events: &Events) -> Result<()> {
    let found = oem::load(&host.root);
    // What goes wrong in a step was told by it; whether the node may be provisioned is a question of its own.
    oem::run_stage(host, &found, "network", events);
    let facts = Facts { mode: mode(&host.root), pending: pending(&host.root)?, node: node(host, &found) };
    let (action, why) = decide(&facts);
    tell(host, events, action, &why)?;
    match action {
        Action::Init => first(host, events, &found),
        Action::Join => bail!("joining a cluster is not supported yet: only cluster.role init is"),
        Action::Boot if facts.node == Node::Provisioned => {
            init::wait_ready(host, events, READY)?;
            events.reached("ready", None);
            Ok(())
        }
        Action::Boot if matches!(facts.node, Node::Fresh(Wanted::Broken(_))) => bail!("{why}"),
        Action::Boot | Action::Recover | Action::Reset => Ok(()),
    }
}

fn first(host: &Host, events: &Events, found: &Oem) -> Result<()> {
    let cluster = found.cluster.as_ref().context("role init without a cluster: block")?;
    let watch = host.clock.start();
    let result = init::provision(host, events, cluster, JOURNAL);
    let (outcome, why) = match &result {
        Ok(_) => ("done", None),
        Err(e) => ("resumable", Some(format!("{e:#}"))),
    };
    if result.is_ok() {
        let when = rfc3339(host.clock.unix_seconds());
        host.root.write_atomic(
            SENTINEL,
            format!("{{\"v\":1,\"provisioned\":\"{when}\"}}\n").as_bytes(),
            0o644,
        )?;
    }
    events.tell(&Event::Outcome { plan: "init".into(), outcome: outcome.into(), why, ms: watch.ms() });
    result?;
    events.reached("ready", None);
    Ok(())
}

fn pending(root: &Root) -> Result<Pending> {
    if !root.exists("/oem") {
        return Ok(Pending::Nothing);
    }
    intent::pending(&root.sub("/oem")?)
}

fn node(host: &Host, found: &Oem) -> Node {
    if host.root.exists(SENTINEL) {
        return Node::Provisioned;
    }
    Node::Fresh(wanted(found))
}

fn wanted(found: &Oem) -> Wanted {
    match (&found.provisioning_blocked, &found.cluster) {
        (Some(why), _) => Wanted::Broken(why.clone()),
        (None, None) => Wanted::Nothing,
        (None, Some(cluster)) if cluster.role == Role::Init => Wanted::Init,
        (None, Some(_)) => Wanted::Join,
    }
}

/// Tells what this boot is going to do, and leaves it for `status`.
///
/// # Errors
/// The record cannot be written.
pub fn tell(host: &Host, events: &Events, action: Action, why: &str) -> Result<()> {
    let decided = Decided { action: format!("{action:?}"), why: why.to_owned() };
    host.root.create_dir_all("/run/rekindle", 0o755)?;
    host.root.write_atomic(DECIDED, &serde_json::to_vec(&decided)?, 0o644)?;
    events.tell(&Event::Action { action: decided.action, why: decided.why });
    Ok(())
}

/// What this boot decided; `None` before it did.
///
/// # Errors
/// The record cannot be read.
pub fn decided(root: &Root) -> Result<Option<Decided>> {
    let Some(bytes) = root.read_opt(DECIDED)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).context("reading what this boot decided")
}
