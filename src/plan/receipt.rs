//! The statement of what was done, written once all of it is done and read back before the order is cleared.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::PhaseReport;
use super::intent::{DIR, Intent};
use crate::host::Root;
use crate::host::clock::rfc3339;

/// Format version that this code writes and reads.
pub const VERSION: u32 = 1;
const FILE: &str = "/.rekindle/receipt.json";

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Format version.
    pub v: u32,
    /// The order.
    pub order: Intent,
    /// `done`, or `refused` with nothing erased.
    pub outcome: String,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it ended, RFC 3339 in UTC by the node's clock.
    pub finished: String,
    /// What was erased, and how.
    pub erased: Vec<Erased>,
    /// What was kept, with the digest of its content.
    pub kept: Vec<Kept>,
    /// How each phase went, in this boot.
    pub phases: Vec<PhaseReport>,
}

/// Something that was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Partition label or image path.
    pub what: String,
    /// `mkfs`, or `replaced`.
    pub how: String,
    /// What proves it: the new file system's UUID, the image's SHA-256.
    pub proof: String,
}

/// Something that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Partition label.
    pub what: String,
    /// How many files.
    pub files: u64,
    /// SHA-256 over path, length and content of each file in order of path; our own records and the environment block,
    /// which a reset itself writes, are left out.
    pub sha256: String,
}

impl Receipt {
    /// A receipt for `order`, to be filled in.
    #[must_use]
    pub fn new(order: Intent, outcome: &str, unix: u64) -> Receipt {
        Receipt {
            v: VERSION,
            order,
            outcome: outcome.to_owned(),
            why: None,
            finished: rfc3339(unix),
            erased: Vec::new(),
            kept: Vec::new(),
            phases: Vec::new(),
        }
    }
}

/// Writes the receipt and reads it back.
///
/// # Errors
/// It cannot be written, or does not read back the same.
pub fn write(oem: &Root, receipt: &Receipt) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(receipt).context("encoding the receipt")?;
    oem.create_dir_all(DIR, 0o700)?;
    oem.write_atomic(FILE, &bytes, 0o644).context("writing the receipt")?;
    if last(oem)?.as_ref() != Some(receipt) {
        bail!("the receipt does not read back as written: COS_OEM may be failing");
    }
    Ok(())
}

/// The receipt of the last order, if there was one.
///
/// # Errors
/// It cannot be read, or a newer version of this program wrote it.
pub fn last(oem: &Root) -> Result<Option<Receipt>> {
    let Some(bytes) = oem.read_opt(FILE)? else { return Ok(None) };
    let receipt: Receipt = serde_json::from_slice(&bytes).with_context(|| {
        format!("parsing {}: remove the file to go on without it", oem.host_path(FILE).display())
    })?;
    if receipt.v > VERSION {
        bail!("the receipt has version {}, and this program knows up to {VERSION}", receipt.v);
    }
    Ok(Some(receipt))
}
