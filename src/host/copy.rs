//! Whole files: digest and copy.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use aws_lc_rs::digest;

use super::{Effects, Root};

const CHUNK: usize = 1 << 20;

/// SHA-256 of everything that `file` holds, in lower-case hex.
///
/// # Errors
/// It cannot be read.
pub fn sha256(mut file: impl Read) -> Result<String> {
    let (mut context, mut buffer) = (digest::Context::new(&digest::SHA256), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer).context("reading")? {
            0 => return Ok(hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

/// Copies `from` into the new file `to` and returns it. The caller flushes it.
///
/// # Errors
/// Reading or writing (the disk is full) fails. The unfinished copy is left for the next try to replace.
pub fn copy(effects: &Effects, mut from: impl Read, root: &Root, to: &str) -> Result<File> {
    let mut target = root.create(to)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = from.read(&mut buffer).context("reading the source")?;
        if n == 0 {
            return Ok(target);
        }
        effects.next()?;
        target
            .write_all(&buffer[..n])
            .with_context(|| format!("writing {}", root.host_path(to).display()))?;
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        // Writing into a String cannot fail.
        write!(text, "{b:02x}").unwrap_or_default();
        text
    })
}
