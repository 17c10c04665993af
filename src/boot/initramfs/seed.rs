//! Fills a state folder on the persistent partition with what the image has for it. Present files are never touched, and
//! a file appears only whole, so that a cut in the middle is made good by the next boot.

use std::io::Read;

use anyhow::{Context, Result};

use crate::host::{Root, WriteMode};

/// Copies what is missing below `to` from below `from`: folders, files and links with mode and owner.
pub(super) fn missing(from: &Root, to: &Root) -> Result<()> {
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for name in from.list(if dir.is_empty() { "/" } else { &dir })? {
            let path = format!("{dir}/{name}");
            if let Some(target) = from.read_link(&path)? {
                if to.read_link(&path)?.is_none() && !to.exists(&path) {
                    to.symlink(&target.to_string_lossy(), &path)?;
                }
                continue;
            }
            let stat = from.stat(&path)?;
            if stat.is_dir {
                if !to.exists(&path) {
                    to.create_dir_all(&path, stat.mode)?;
                    to.chown(&path, stat.uid, stat.gid)?;
                }
                todo.push(path);
            } else if !to.exists(&path) && !to.is_link(&path) {
                let mut bytes = Vec::new();
                from.open_file(&path)?.read_to_end(&mut bytes).with_context(|| format!("reading {path}"))?;
                let mode = WriteMode { mode: stat.mode, owner: Some((stat.uid, stat.gid)) };
                to.write_atomic(&path, &bytes, mode)?;
            }
        }
    }
    Ok(())
}
