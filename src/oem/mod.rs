//! Our own documents: cloud-config files from `/system/oem`, `/oem` and `/usr/local/cloud-config`.
//!
//! ```text
//! load    files in order                       reads
//! tree    text -> nodes with places            yaml, the only file that names the YAML crate
//! decode  nodes -> steps, findings             decode, entries, cluster, keys        pure
//! merge   documents -> one configuration       merge                                 pure
//! run     a stage's steps, in file order       stages, steps, accounts, template     effects through Host
//! ```
//!
//! The formats are those of yip, cloud-init and Kairos. What they drop without a word (a file that does not parse, a
//! mistyped key, a step that fails) is a [`Finding`] here, with file and line; its neighbours still count. A node is not
//! provisioned from documents that could not all be read: see [`Oem::provisioning_blocked`].

pub mod accounts;
pub mod cluster;
pub mod decode;
pub mod entries;
pub mod finding;
pub mod keys;
pub mod load;
pub mod merge;
pub mod stages;
pub mod steps;
pub mod template;
pub mod types;
pub mod yaml;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

pub use finding::{Finding, Level};
pub use load::load;
pub use merge::Origin;
pub use stages::{StageReport, run_stage, run_stage_on, tell_findings};
pub use steps::Machine;
pub use types::{Cluster, Role};

/// All documents of a node.
#[derive(Clone, Default)]
pub struct Oem {
    /// Steps with their stage, in order of files. Stages are not merged: all steps of a stage run.
    pub steps: Vec<(String, types::Step)>,
    /// What the node is in its cluster; `None` if no document says so, or if it is said wrongly.
    pub cluster: Option<Cluster>,
    /// The merged configuration, without `stages`. Holds secrets.
    pub config: Map<String, Json>,
    /// What is to be said about the documents, in order of files.
    pub findings: Vec<Finding>,
    /// Where each value of [`Oem::config`] came from.
    pub provenance: BTreeMap<String, Origin>,
    /// Why the node must not be provisioned as things are: what it should be is not wholly known.
    pub provisioning_blocked: Option<String>,
    secrets: Vec<types::Secret>,
}

impl Oem {
    /// `text` without the secrets of the documents.
    #[must_use]
    pub fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(&secret.0, "***"))
    }
}

impl std::fmt::Debug for Oem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oem")
            .field("steps", &self.steps)
            .field("cluster", &self.cluster)
            .field("findings", &self.findings)
            .field("provenance", &self.provenance)
            .field("provisioning_blocked", &self.provisioning_blocked)
            .finish_non_exhaustive()
    }
}
