//! The machine id: /etc lives in memory, so the id is kept on the persistent partition (Kairos' place for it).

use anyhow::{Context, Result};

use crate::host::Root;
use crate::host::copy::hex;

/// Puts the kept id into the new root's /etc, or a new one into both (machine-id(5): 32 hex digits).
pub(super) fn place(sysroot: &Root) -> Result<()> {
    let kept = sysroot.read_text_opt("/usr/local/etc/machine-id")?.filter(|id| is_id(id.trim()));
    let id = match kept {
        Some(id) => id,
        None => {
            let mut bytes = [0; 16];
            aws_lc_rs::rand::fill(&mut bytes)
                .map_err(|_| anyhow::anyhow!("asking the kernel for random bytes"))?;
            let id = format!("{}\n", hex(&bytes));
            sysroot.create_dir_all("/usr/local/etc", 0o755)?;
            sysroot
                .write_atomic("/usr/local/etc/machine-id", id.as_bytes(), 0o444)
                .context("keeping the machine id")?;
            id
        }
    };
    sysroot
        .write_if_changed("/etc/machine-id", id.as_bytes(), 0o444)
        .context("setting the machine id")
        .map(drop)
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0')
}
