//! The durable order for something that destroys. It is written before the first byte is erased, lies where the erasing
//! does not reach, and is cleared last. While it exists, every boot goes on with it.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::Root;

/// Format version that this code writes and reads.
pub const VERSION: u32 = 1;

/// After this many boots that did not finish it, a reset is left to a person, with the reason.
pub const MAX_ATTEMPTS: u32 = 10;

/// Folder of our records on COS_OEM. What else is on that partition is the user's.
pub const DIR: &str = "/.rekindle";
const FILE: &str = "/.rekindle/intent.json";

/// An order to reset this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Format version.
    pub v: u32,
    /// Names this order; the journal and the receipt carry the same.
    pub id: String,
    /// What is ordered: `state-reset`.
    pub what: String,
    /// Who ordered it: `grubenv`, `menu`.
    pub by: String,
    /// When, seconds since 1970 by the node's clock.
    pub at: u64,
    /// SHA-256 that the recovery image must have.
    pub image_sha256: String,
    /// How many boots have worked on it, this one included.
    pub attempts: u32,
}

/// Proof that an intent lies durable on the disk. Everything that erases asks for it, so that a wrong order does not
/// compile; it can be had only from [`arm`].
#[derive(Debug)]
pub struct Armed {
    intent: Intent,
}

impl Armed {
    /// The order.
    #[must_use]
    pub fn intent(&self) -> &Intent {
        &self.intent
    }
}

/// What COS_OEM says is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// An order that is not finished.
    Order(Intent),
    /// Something that cannot be understood, and why. It was written whole (rename), so it is not a torn write.
    Unreadable(String),
}

/// Reads what is pending on `oem`.
///
/// # Errors
/// The partition cannot be read.
pub fn pending(oem: &Root) -> Result<Pending> {
    let Some(bytes) = oem.read_opt(FILE)? else { return Ok(Pending::Nothing) };
    Ok(match parse(&bytes) {
        Ok(intent) => Pending::Order(intent),
        Err(why) => Pending::Unreadable(format!("{FILE} on COS_OEM: {why:#}")),
    })
}

fn parse(bytes: &[u8]) -> Result<Intent> {
    let value: serde_json::Value = serde_json::from_slice(bytes).context("parsing JSON")?;
    let v = value.get("v").and_then(serde_json::Value::as_u64);
    if v != Some(u64::from(VERSION)) {
        let found = v.map_or("none".to_owned(), |v| v.to_string());
        bail!(
            "the order has version {found}, this program knows {VERSION}: boot the image that wrote it, or remove the file"
        );
    }
    serde_json::from_value(value).context("reading the fields")
}

/// Makes `intent` durable, counting one more attempt. From here on every boot goes on with it.
///
/// # Errors
/// It cannot be written or read back; nothing may be erased then.
pub fn arm(oem: &Root, mut intent: Intent) -> Result<Armed> {
    intent.attempts += 1;
    let bytes = serde_json::to_vec_pretty(&intent).context("encoding the intent")?;
    oem.create_dir_all(DIR, 0o700)?;
    oem.write_atomic(FILE, &bytes, 0o600).context("writing the intent")?;
    if pending(oem)? != Pending::Order(intent.clone()) {
        bail!("the intent does not read back as written: COS_OEM may be failing");
    }
    Ok(Armed { intent })
}

/// Clears the order. The last step of all.
///
/// # Errors
/// It cannot be removed; the next boot then finds its work done and tries again.
pub fn disarm(oem: &Root, armed: Armed) -> Result<()> {
    oem.remove_file(FILE).with_context(|| format!("clearing order {}", armed.intent.id)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_version_is_understood() {
        let intent = Intent {
            v: 1,
            id: "a".into(),
            what: "state-reset".into(),
            by: "menu".into(),
            at: 7,
            image_sha256: "00".into(),
            attempts: 2,
        };
        assert_eq!(parse(&serde_json::to_vec(&intent).unwrap()).unwrap(), intent);
        for text in ["", "{", "[]", "{\"v\":2}", "{\"v\":1}", "{\"v\":\"1\"}", "null"] {
            assert!(parse(text.as_bytes()).is_err(), "failed testcase: {text}");
        }
    }
}
