//! What a plan tells while it runs: text lines for people, JSON lines for machines. No event carries a secret.

use std::cell::RefCell;
use std::rc::Rc;

use serde::Serialize;

use super::Change;
use crate::host::Clock;
use crate::host::console::Port;

/// Version of the JSON form.
pub const VERSION: u32 = 1;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Event {
    /// What this boot is going to do, and why.
    Action {
        /// Name of the Action.
        action: String,
        /// The reason, in words.
        why: String,
    },
    /// A phase began or ended.
    Phase {
        /// Which table.
        plan: String,
        /// Name of the phase.
        phase: String,
        /// Began, or how it ended.
        state: State,
        /// What it did, once done.
        #[serde(skip_serializing_if = "Option::is_none")]
        change: Option<Change>,
        /// How long it took, in milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        ms: Option<u64>,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Something worth knowing that changes nothing: a wait and what for, a file that could not be read.
    Note {
        /// `info`, `warning` or `error`.
        level: &'static str,
        /// The text.
        text: String,
    },
    /// A milestone: `kernel`, `root`, `switch-root`, `userspace`, `ready`.
    Reached {
        /// Name of the milestone.
        what: String,
        /// Details for a person.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// How a plan ended.
    Outcome {
        /// Which table.
        plan: String,
        /// `done`, `resumable` or `refused`.
        outcome: String,
        /// Why, unless done.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// The whole time, in milliseconds.
        ms: u64,
    },
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It begins.
    Begin,
    /// It was done.
    Done,
    /// Left out by its condition, by the user, or because the journal says that it was done.
    Skipped,
    /// It failed.
    Failed,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    /// Seconds since the kernel started.
    t: f64,
    #[serde(flatten)]
    event: &'a Event,
}

/// Where events go. Clones share the outlets.
#[derive(Debug, Clone)]
pub struct Events {
    clock: Clock,
    outlets: Rc<RefCell<Vec<Outlet>>>,
}

#[derive(Debug)]
struct Outlet {
    port: Port,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Json,
    Kubeadm,
}

impl Events {
    /// No outlet yet: events are dropped.
    #[must_use]
    pub fn new(clock: Clock) -> Events {
        Events { clock, outlets: Rc::new(RefCell::new(Vec::new())) }
    }

    /// Adds an outlet for text lines.
    pub fn add_text(&self, port: Port) {
        self.outlets.borrow_mut().push(Outlet { port, form: Form::Text });
    }

    /// Adds an outlet for JSON lines.
    pub fn add_json(&self, port: Port) {
        self.outlets.borrow_mut().push(Outlet { port, form: Form::Json });
    }

    /// Adds an outlet for lines that begin with the phase in brackets, as upstream's kubeadm prints its progress.
    pub fn add_kubeadm(&self, port: Port) {
        self.outlets.borrow_mut().push(Outlet { port, form: Form::Kubeadm });
    }

    /// Tells `event` to every outlet. An outlet that cannot be written to is closed: a full or unplugged console must
    /// not stop the machine from booting.
    pub fn tell(&self, event: &Event) {
        let t = (self.clock.since_boot() * 1000.0).round() / 1000.0;
        self.outlets.borrow_mut().retain_mut(|outlet| {
            let line = match outlet.form {
                Form::Text => text_line(t, event, outlet.port.colour),
                Form::Json => json_line(t, event),
                Form::Kubeadm => kubeadm_line(event),
            };
            line.is_none_or(|line| outlet.port.write_line(&line).is_ok())
        });
    }

    /// Tells a [`Event::Note`] of level `info`.
    pub fn info(&self, text: impl Into<String>) {
        self.tell(&Event::Note { level: "info", text: text.into() });
    }

    /// Tells a [`Event::Note`] of level `warning`.
    pub fn warn(&self, text: impl Into<String>) {
        self.tell(&Event::Note { level: "warning", text: text.into() });
    }

    /// Tells a [`Event::Note`] of level `error`.
    pub fn error(&self, text: impl Into<String>) {
        self.tell(&Event::Note { level: "error", text: text.into() });
    }

    /// Tells a milestone.
    pub fn reached(&self, what: &str, detail: Option<String>) {
        self.tell(&Event::Reached { what: what.to_owned(), detail });
    }
}

fn json_line(t: f64, event: &Event) -> Option<String> {
    // Serialising these types cannot fail: no map with other keys than strings, no foreign type.
    serde_json::to_string(&Line { v: VERSION, t, event }).ok()
}

/// One line for a person; `None` for events that a person need not see.
fn text_line(t: f64, event: &Event, colour: bool) -> Option<String> {
    let (mark, code, text) = match event {
        Event::Phase { state: State::Begin | State::Skipped, .. } => return None,
        Event::Phase { plan, phase, state: State::Failed, why, .. } => {
            ("✗", 31, format!("{plan}: {phase}: {}", why.as_deref().unwrap_or("failed")))
        }
        Event::Phase { plan, phase, change, ms, .. } => {
            let kept = if *change == Some(Change::Unchanged) { " (kept)" } else { "" };
            ("✓", 32, format!("{plan}: {phase}{kept} {}", seconds(ms.unwrap_or(0))))
        }
        Event::Action { action, why } => ("▶", 36, format!("{action}: {why}")),
        Event::Note { level: "info", text } => ("·", 0, text.clone()),
        Event::Note { level: "warning", text } => ("!", 33, text.clone()),
        Event::Note { text, .. } => ("✗", 31, text.clone()),
        Event::Reached { what, detail } => {
            ("●", 36, detail.as_ref().map_or_else(|| what.clone(), |d| format!("{what}: {d}")))
        }
        Event::Outcome { plan, outcome, why, ms } => {
            let why = why.as_ref().map(|w| format!(": {w}")).unwrap_or_default();
            let code = if outcome == "done" { 32 } else { 31 };
            ("■", code, format!("{plan} {outcome} in {}{why}", seconds(*ms)))
        }
    };
    let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
    Some(if colour && code != 0 {
        format!("[{t:8.3}] \x1b[{code}m{mark}\x1b[0m {text}")
    } else {
        format!("[{t:8.3}] {mark} {text}")
    })
}

/// `[certs] apiserver: created (0.012 s)`; `None` for events that kubeadm has no line for.
fn kubeadm_line(event: &Event) -> Option<String> {
    let text = match event {
        Event::Phase { phase, state: State::Done, change, ms, .. } => {
            let (parent, child) = phase.split_once('/').map_or((phase.as_str(), ""), |(p, c)| (p, c));
            // Upstream's lines say addons where the phase is addon.
            let parent = if parent == "addon" { "addons" } else { parent };
            let child = if child.is_empty() { String::new() } else { format!("{child}: ") };
            let change = match change {
                Some(Change::Created) => "created",
                Some(Change::Updated) => "updated",
                Some(Change::Removed) => "removed",
                Some(Change::Unchanged) | None => "nothing to change",
            };
            format!("[{parent}] {child}{change} ({})", seconds(ms.unwrap_or(0)))
        }
        Event::Note { level: "info", text } => format!("[init] {text}"),
        Event::Note { text, .. } => text.clone(),
        _ => return None,
    };
    Some(text.replace(|c: char| c.is_control() && c != '\n', " "))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_machines_and_one_for_people() {
        let event = Event::Phase {
            plan: "init".into(),
            phase: "certs/ca".into(),
            state: State::Done,
            change: Some(Change::Created),
            ms: Some(1234),
            why: None,
        };
        let json: serde_json::Value = serde_json::from_str(&json_line(1.5, &event).unwrap()).unwrap();
        let wanted = serde_json::json!({"v":1,"t":1.5,"kind":"phase","plan":"init","phase":"certs/ca","state":"done",
            "change":"created","ms":1234});
        assert_eq!(json, wanted);
        assert_eq!(text_line(1.5, &event, false).unwrap(), "[   1.500] ✓ init: certs/ca 1.234 s");
    }

    #[test]
    fn kubeadms_lines_begin_with_the_phase() {
        for (phase, line) in [
            ("certs/apiserver", "[certs] apiserver: created (0.007 s)"),
            ("kubelet-start", "[kubelet-start] created (0.007 s)"),
            ("addon/coredns", "[addons] coredns: created (0.007 s)"),
        ] {
            let (plan, phase, change, ms) = ("init".into(), phase.into(), Some(Change::Created), Some(7));
            let event = Event::Phase { plan, phase, state: State::Done, change, ms, why: None };
            assert_eq!(kubeadm_line(&event).as_deref(), Some(line));
        }
    }

    #[test]
    fn a_note_cannot_smuggle_terminal_codes() {
        let note = Event::Note { level: "error", text: "bad \x1b[2J name".into() };
        assert!(!text_line(0.0, &note, false).unwrap().contains('\x1b'));
    }
}
