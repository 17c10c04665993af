//! Runs a table of phases, one after the other, each journalled at both edges.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::journal::{Line, Mark};
use super::{Change, Event, Events, Hazard, Journal, OnError, Phase, Skip, State};
use crate::host::Clock;

/// How one phase went, for receipts and `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Name of the phase.
    pub phase: String,
    /// What it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// Why it failed, where the plan went on all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Runs `phases` in order: deliberately sequential. A phase that erases is not repeated once the journal says that it
/// is done; every other phase runs again after a cut, and finds its work done.
///
/// # Errors
/// A phase failed whose `on_error` is [`OnError::Stop`]; the text is kubeadm's `error execution phase NAME`. The same
/// call again resumes.
pub fn run<C>(
    plan: &str,
    phases: &[Phase<C>],
    ctx: &mut C,
    skip: &Skip,
    mut journal: Option<&mut Journal>,
    events: &Events,
    clock: &Clock,
) -> Result<Vec<PhaseReport>> {
    let mut reports = Vec::new();
    for phase in phases {
        let tell = |state, change, ms, why: Option<String>| {
            let (plan, phase) = (plan.to_owned(), phase.name.to_owned());
            events.tell(&Event::Phase { plan, phase, state, change, ms, why });
        };
        let erased_before =
            phase.hazard == Hazard::Erases && journal.as_ref().is_some_and(|j| j.done(phase.name));
        if skip.skips(phase.name) || erased_before || !(phase.when)(ctx) {
            tell(State::Skipped, None, None, None);
            continue;
        }
        tell(State::Begin, None, None, None);
        record(&mut journal, phase.name, Mark::Begin, None, 0, None)?;
        let watch = clock.start();
        match (phase.run)(ctx) {
            Ok(change) => {
                let ms = watch.ms();
                record(&mut journal, phase.name, Mark::Done, Some(change), ms, None)?;
                tell(State::Done, Some(change), Some(ms), None);
                let name = phase.name.to_owned();
                reports.push(PhaseReport { phase: name, change: Some(change), ms, why: None });
            }
            Err(error) => {
                let (ms, why) = (watch.ms(), format!("{error:#}"));
                tell(State::Failed, None, Some(ms), Some(why.clone()));
                record(&mut journal, phase.name, Mark::Failed, None, ms, Some(why.clone()))?;
                if phase.on_error == OnError::Stop {
                    return Err(error).with_context(|| format!("error execution phase {}", phase.name));
                }
                reports.push(PhaseReport { phase: phase.name.to_owned(), change: None, ms, why: Some(why) });
            }
        }
    }
    Ok(reports)
}

fn record(
    journal: &mut Option<&mut Journal>,
    phase: &str,
    state: Mark,
    change: Option<Change>,
    ms: u64,
    why: Option<String>,
) -> Result<()> {
    let Some(journal) = journal else { return Ok(()) };
    journal.record(Line { phase: phase.to_owned(), state, change, ms, why })
}
