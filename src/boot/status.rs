//! What the node can tell of itself: mode, what this boot did, progress of its plans, the last receipt. Only reads.

use anyhow::Result;
use serde::Serialize;

use super::cmdline::Mode;
use super::running;
use crate::host::Root;
use crate::plan::Change;
use crate::plan::intent::{self, Pending};
use crate::plan::journal::{Journal, Line, Mark};
use crate::plan::receipt::{self, Receipt};

/// Everything that `rekindle status` prints; the JSON form is this.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Version of the JSON form.
    pub v: u32,
    /// How the node was booted, in the words of `kairos-agent state boot`.
    pub mode: String,
    /// What this boot decided to do.
    pub action: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// Whether first boot's provisioning is complete.
    pub provisioned: bool,
    /// An order that is not finished.
    pub pending: Option<String>,
    /// The plans whose journals are there.
    pub plans: Vec<PlanStatus>,
    /// The last reset's receipt.
    pub receipt: Option<Receipt>,
}

/// Progress of one plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanStatus {
    /// Which table.
    pub plan: String,
    /// Its phases, in the order in which they last ended or began.
    pub phases: Vec<PhaseStatus>,
}

/// How one phase stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseStatus {
    /// Name.
    pub phase: String,
    /// `begin`, `done` or `failed`.
    pub state: String,
    /// What it did.
    pub change: Option<Change>,
    /// Milliseconds.
    pub ms: u64,
    /// Why it failed.
    pub why: Option<String>,
}

/// Reads it all from the running system below `root`.
///
/// # Errors
/// A record is there but cannot be read.
pub fn read(root: &Root) -> Result<Status> {
    let oem = root.exists("/oem").then(|| root.sub("/oem")).transpose()?;
    let mut plans = Vec::new();
    for (at, path) in [(oem.as_ref(), "/.rekindle/journal.jsonl"), (Some(root), running::JOURNAL)] {
        if let Some((head, lines)) = at.map_or(Ok(None), |root| Journal::peek(root, path))? {
            plans.push(PlanStatus { plan: head.plan, phases: latest(&lines) });
        }
    }
    let pending = match oem.as_ref().map_or(Ok(Pending::Nothing), intent::pending)? {
        Pending::Nothing => None,
        Pending::Order(order) => {
            Some(format!("{} ordered by {}, attempt {}", order.what, order.by, order.attempts))
        }
        Pending::Unreadable(why) => Some(why),
    };
    let decided = running::decided(root)?;
    Ok(Status {
        v: 1,
        mode: mode(root).state().to_owned(),
        action: decided.as_ref().map(|d| d.action.clone()),
        why: decided.map(|d| d.why),
        provisioned: root.exists(running::SENTINEL),
        pending,
        plans,
        receipt: oem.as_ref().map_or(Ok(None), receipt::last)?,
    })
}

/// How the node was booted, by the sentinel that the initramfs left: a reset boot goes on as an active one, which the
/// kernel command line does not show.
#[must_use]
pub fn mode(root: &Root) -> Mode {
    [Mode::Active, Mode::Passive, Mode::Recovery, Mode::AutoReset, Mode::Live]
        .into_iter()
        .find(|mode| root.exists(&format!("/run/cos/{}", mode.sentinel())))
        .unwrap_or(Mode::Unknown)
}

/// The last line of each phase, in the order of these last lines.
fn latest(lines: &[Line]) -> Vec<PhaseStatus> {
    let is_last = |at: usize, line: &Line| !lines[at + 1..].iter().any(|l| l.phase == line.phase);
    lines
        .iter()
        .enumerate()
        .filter(|(at, line)| is_last(*at, line))
        .map(|(_, line)| PhaseStatus {
            phase: line.phase.clone(),
            state: match line.state {
                Mark::Begin => "begin",
                Mark::Done => "done",
                Mark::Failed => "failed",
            }
            .to_owned(),
            change: line.change,
            ms: line.ms,
            why: line.why.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_each_phase() {
        let line = |phase: &str, state, ms| Line { phase: phase.into(), state, change: None, ms, why: None };
        let lines = [
            line("a", Mark::Begin, 0),
            line("a", Mark::Failed, 5),
            line("a", Mark::Begin, 0),
            line("a", Mark::Done, 7),
            line("b", Mark::Begin, 0),
        ];
        let got: Vec<_> = latest(&lines).into_iter().map(|p| (p.phase, p.state, p.ms)).collect();
        assert_eq!(got, [("a".into(), "done".into(), 7), ("b".into(), "begin".to_owned(), 0)]);
    }
}
