//! What a boot does, decided from facts alone. The whole policy is this table, first match wins:
//!
//! | booted entry | order on COS_OEM            | node            | configuration | Action  |
//! |--------------|-----------------------------|-----------------|---------------|---------|
//! | any          | unfinished, attempts < max  |                 |               | Reset   |
//! | any          | unfinished, attempts used up|                 |               | Recover |
//! | any          | not understood              |                 |               | Recover |
//! | statereset   | none                        |                 |               | Reset   |
//! | recovery     | none                        |                 |               | Recover |
//! | other        | none                        | not yet known   |               | Boot    |
//! | other        | none                        | provisioned     |               | Boot    |
//! | other        | none                        | not provisioned | broken        | Boot    |
//! | other        | none                        | not provisioned | no `cluster:` | Boot    |
//! | other        | none                        | not provisioned | role init     | Init    |
//! | other        | none                        | not provisioned | another role  | Join    |
//!
//! It is asked twice in a boot: in the initramfs, where the node's state cannot be known yet, and by
//! `rekindle provision` on the running system.

use super::cmdline::Mode;
use crate::plan::intent::{MAX_ATTEMPTS, Pending};

/// What a boot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Starts the system, nothing else.
    Boot,
    /// Makes this node the first of a cluster.
    Init,
    /// Makes this node a member of a cluster.
    Join,
    /// Wipes the state, lays the images anew, then boots.
    Reset,
    /// Starts the recovery system, which says why.
    Recover,
}

/// What the node knows of its own provisioning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Its persistent partition is not mounted yet.
    Unknown,
    /// The sentinel is there.
    Provisioned,
    /// The sentinel is not there; what the configuration asks for.
    Fresh(Wanted),
}

/// What the configuration asks of a fresh node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// No `cluster:` block.
    Nothing,
    /// Something in the files is wrong that could concern provisioning; why.
    Broken(String),
    /// `role: init`.
    Init,
    /// `role: controlplane` or `role: worker`.
    Join,
}

/// Everything that the decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The booted entry.
    pub mode: Mode,
    /// What is pending on COS_OEM.
    pub pending: Pending,
    /// The node's provisioning.
    pub node: Node,
}

/// Decides. Returns the Action and the reason in words.
#[must_use]
pub fn decide(facts: &Facts) -> (Action, String) {
    match &facts.pending {
        Pending::Order(order) if order.attempts < MAX_ATTEMPTS => {
            let (id, by, done) = (&order.id, &order.by, order.attempts);
            return (Action::Reset, format!("order {id} by {by} is not finished after {done} attempts"));
        }
        Pending::Order(order) => {
            let (id, done) = (&order.id, order.attempts);
            return (Action::Recover, format!("order {id} did not finish in {done} attempts"));
        }
        Pending::Unreadable(why) => {
            return (Action::Recover, format!("a pending order is not understood: {why}"));
        }
        Pending::Nothing => {}
    }
    match facts.mode {
        Mode::AutoReset => return (Action::Reset, "the boot entry state reset was chosen".to_owned()),
        Mode::Recovery => return (Action::Recover, "the boot entry recovery was chosen".to_owned()),
        _ => {}
    }
    match &facts.node {
        Node::Unknown => (Action::Boot, "no reset is pending".to_owned()),
        Node::Provisioned => (Action::Boot, "this node is provisioned".to_owned()),
        Node::Fresh(Wanted::Broken(why)) => {
            (Action::Boot, format!("not provisioned, and the configuration is broken: {why}"))
        }
        Node::Fresh(Wanted::Nothing) => {
            (Action::Boot, "not provisioned, and no cluster: block says how to be".to_owned())
        }
        Node::Fresh(Wanted::Init) => (Action::Init, "first boot, role init".to_owned()),
        Node::Fresh(Wanted::Join) => (Action::Join, "first boot, role says to join".to_owned()),
    }
}

/// The boot entry after `failed` did not work, as GRUB's ids (Kairos' fallback order); `None` when none is left.
#[must_use]
pub fn next_entry(failed: Mode) -> Option<&'static str> {
    match failed {
        Mode::Active | Mode::AutoReset | Mode::Live | Mode::Unknown => Some("fallback"),
        Mode::Passive => Some("recovery"),
        Mode::Recovery => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::intent::Intent;

    fn order(attempts: u32) -> Pending {
        Pending::Order(Intent {
            v: 1,
            id: "o".into(),
            what: "state-reset".into(),
            by: "menu".into(),
            at: 0,
            image_sha256: String::new(),
            attempts,
        })
    }

    #[test]
    fn the_table() {
        use Action::{Boot, Init, Join, Recover, Reset};
        let none = || Pending::Nothing;
        let broken = || Node::Fresh(Wanted::Broken("x".into()));
        let unreadable = || Pending::Unreadable("x".into());
        for (name, mode, pending, node, wanted) in [
            ("plain", Mode::Active, none(), Node::Unknown, Boot),
            ("an order wins over any entry", Mode::Active, order(1), Node::Provisioned, Reset),
            ("and over recovery", Mode::Recovery, order(1), Node::Unknown, Reset),
            ("last attempt", Mode::AutoReset, order(MAX_ATTEMPTS - 1), Node::Unknown, Reset),
            ("attempts used up", Mode::AutoReset, order(MAX_ATTEMPTS), Node::Unknown, Recover),
            ("not understood", Mode::Active, unreadable(), Node::Provisioned, Recover),
            ("menu", Mode::AutoReset, none(), Node::Unknown, Reset),
            ("recovery", Mode::Recovery, none(), Node::Unknown, Recover),
            ("recovery never provisions", Mode::Recovery, none(), Node::Fresh(Wanted::Init), Recover),
            ("fallback", Mode::Passive, none(), Node::Unknown, Boot),
            ("provisioned", Mode::Active, none(), Node::Provisioned, Boot),
            ("broken", Mode::Active, none(), broken(), Boot),
            ("nothing wanted", Mode::Passive, none(), Node::Fresh(Wanted::Nothing), Boot),
            ("init", Mode::Active, none(), Node::Fresh(Wanted::Init), Init),
            ("init from the fallback", Mode::Passive, none(), Node::Fresh(Wanted::Init), Init),
            ("join", Mode::Active, none(), Node::Fresh(Wanted::Join), Join),
        ] {
            let (action, why) = decide(&Facts { mode, pending, node });
            assert_eq!(action, wanted, "failed testcase: {name}");
            assert!(!why.is_empty(), "failed testcase: {name}");
        }
    }
}
