//! Runs a stage: `NAME.before`, `NAME`, `NAME.after`, each with the steps of all documents in the order of the files. One
//! step after the other: which one wins is then the same on every boot.

use super::Oem;
use super::finding::{Finding, Level};
use super::steps::{self, Machine};
use super::template::Facts;
use crate::host::{Host, Root};
use crate::plan::Events;

/// How a stage went.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// How many steps ran.
    pub ran: usize,
    /// How many steps their conditions left out.
    pub skipped: usize,
    /// What went wrong, in order.
    pub findings: Vec<Finding>,
}

impl StageReport {
    /// Whether everything that the documents ask for was done.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|f| f.level < Level::Error)
    }
}

/// Runs a stage on the running system.
pub fn run_stage(host: &Host, oem: &Oem, stage: &str, events: &Events) -> StageReport {
    run_stage_on(Machine { host, chroot: None }, oem, stage, events)
}

/// Runs a stage, on a system that is not running yet too. What goes wrong is told at once, and does not stop the stage.
pub fn run_stage_on(machine: Machine<'_>, oem: &Oem, stage: &str, events: &Events) -> StageReport {
    let mut report = StageReport { stage: stage.to_owned(), ..StageReport::default() };
    for part in [format!("{stage}.before"), stage.to_owned(), format!("{stage}.after")] {
        for (_, step) in oem.steps.iter().filter(|(of, _)| *of == part) {
            // Anew for each step, as the one before may have made a machine-id or a name.
            let ran = steps::run(machine, oem, step, &facts(&machine.host.root));
            for finding in ran.findings {
                tell(events, &part, &finding);
                report.findings.push(finding);
            }
            *(if ran.wanted { &mut report.ran } else { &mut report.skipped }) += 1;
        }
    }
    report
}

/// Tells the findings of the documents, and whether they keep the node from being provisioned.
pub fn tell_findings(events: &Events, oem: &Oem) {
    for finding in &oem.findings {
        tell(events, "configuration", finding);
    }
    if let Some(why) = &oem.provisioning_blocked {
        events.error(format!("this node is not provisioned until its configuration is right: {why}"));
    }
}

fn tell(events: &Events, what: &str, finding: &Finding) {
    let text = format!("{what}: {finding}");
    match finding.level {
        Level::Warning => events.warn(text),
        Level::Error => events.error(text),
    }
}

/// What templates may ask for. A file that is missing or cannot be read is a fact that is not known.
fn facts(root: &Root) -> Facts {
    let line = |path: &str| {
        let text = root.read_text_opt(path).unwrap_or_default()?;
        Some(text.trim().to_owned()).filter(|t| !t.is_empty())
    };
    let is_id = |id: &String| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    Facts {
        // systemd writes "uninitialized" into it before the first boot.
        machine_id: line("/etc/machine-id").filter(is_id),
        uuid: line("/sys/class/dmi/id/product_uuid"),
        random: line("/proc/sys/kernel/random/uuid").map(|id| id.replace('-', "")),
        hostname: line("/proc/sys/kernel/hostname").or_else(|| line("/etc/hostname")),
    }
}
