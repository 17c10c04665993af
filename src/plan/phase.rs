//! A phase is a row of a `const` table: the order of the rows is the order of the work. From the table come subcommands,
//! help, `--skip-phases`, journal keys, events and the list of power-cut tests.

use anyhow::{Result, bail};

/// One step of a plan.
pub struct Phase<C> {
    /// Public name, as kubeadm's: `certs/apiserver` is the child `apiserver` of `certs`. Also the journal's key.
    pub name: &'static str,
    /// One line for help and docs.
    pub about: &'static str,
    /// The worst that it does.
    pub hazard: Hazard,
    /// Whether it applies at all; a pure look at the context.
    pub when: fn(&C) -> bool,
    /// What an error means for the rest of the plan.
    pub on_error: OnError,
    /// Probe, apply, verify. A rerun finds its work done and returns [`Change::Unchanged`].
    pub run: fn(&mut C) -> Result<Change>,
}

/// The worst that a phase does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hazard {
    /// Only looks.
    Reads,
    /// Writes local files, which a rerun would write the same.
    Writes,
    /// Changes something over the network.
    Network,
    /// Destroys data. Never repeated once the journal says that it is done.
    Erases,
}

/// What an error in a phase means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The plan stops, to be resumed at this phase.
    Stop,
    /// The error is reported and the plan goes on.
    Record,
}

/// What a phase did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Everything was in place.
    Unchanged,
    /// Something new was made.
    Created,
    /// Something present was changed.
    Updated,
    /// Something was taken away.
    Removed,
}

impl Change {
    /// `Created` or `Unchanged`.
    #[must_use]
    pub fn created_if(changed: bool) -> Change {
        if changed { Change::Created } else { Change::Unchanged }
    }

    /// The more telling of two changes.
    #[must_use]
    pub fn or(self, other: Change) -> Change {
        if self == Change::Unchanged { other } else { self }
    }
}

impl<C> std::fmt::Debug for Phase<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Phase")
            .field("name", &self.name)
            .field("hazard", &self.hazard)
            .finish_non_exhaustive()
    }
}

/// Shorthand for a condition that always holds.
pub fn always<C>(_: &C) -> bool {
    true
}

/// The phases that a user leaves out, checked against a table. Naming a parent leaves out its children
/// (kubeadm's `--skip-phases`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skip(Vec<String>);

impl Skip {
    /// Checks the names against `phases`.
    ///
    /// # Errors
    /// A name is neither a phase nor the parent of one; the text is kubeadm's.
    pub fn new<C>(names: &[String], phases: &[Phase<C>]) -> Result<Skip> {
        for name in names {
            if !phases.iter().any(|p| covers(name, p.name)) {
                bail!("invalid phase name: {name}");
            }
        }
        Ok(Skip(names.to_vec()))
    }

    /// Whether `phase` is left out.
    #[must_use]
    pub fn skips(&self, phase: &str) -> bool {
        self.0.iter().any(|name| covers(name, phase))
    }
}

/// Whether `name` is `phase` or its parent.
#[must_use]
pub fn covers(name: &str, phase: &str) -> bool {
    phase.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str) -> Phase<()> {
        Phase {
            name,
            about: "",
            hazard: Hazard::Reads,
            when: always,
            on_error: OnError::Stop,
            run: |()| Ok(Change::Unchanged),
        }
    }

    #[test]
    fn skipping_a_parent_skips_its_children_and_unknown_names_are_refused() {
        let table = [row("certs/ca"), row("certs/ca-extra"), row("etcd/local"), row("kubelet-start")];
        let skip = Skip::new(&["certs".into(), "kubelet-start".into()], &table).unwrap();
        for (name, skipped) in
            [("certs/ca", true), ("certs/ca-extra", true), ("etcd/local", false), ("kubelet-start", true)]
        {
            assert_eq!(skip.skips(name), skipped, "failed testcase: {name}");
        }
        assert!(!Skip::new(&["certs/ca".into()], &table).unwrap().skips("certs/ca-extra"));
        let refused = Skip::new(&["cert".into()], &table).unwrap_err().to_string();
        assert_eq!(refused, "invalid phase name: cert");
    }
}
