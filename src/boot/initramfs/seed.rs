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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test looks at files itself")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::host::Effects;

    #[test]
    fn fills_what_is_missing_and_touches_nothing_else() {
        let dir = std::env::temp_dir().join(format!("rekindle-seed-{}", std::process::id()));
        let (image, state) = (dir.join("image"), dir.join("state"));
        fs::create_dir_all(image.join("sub")).unwrap();
        fs::create_dir_all(&state).unwrap();
        fs::write(image.join("sub/new"), "image").unwrap();
        fs::set_permissions(image.join("sub/new"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(image.join("changed"), "image").unwrap();
        fs::write(state.join("changed"), "user").unwrap();
        // A link into nowhere is a link all the same: blobs of the image are such until the root is there.
        symlink("/usr/lib/rekindle/blob", image.join("blob")).unwrap();
        symlink("elsewhere", image.join("link")).unwrap();
        symlink("/user/s", state.join("link")).unwrap();
        let root = |path: &std::path::Path| Root::open(path, Effects::default()).unwrap();
        for _ in 0..2 {
            missing(&root(&image), &root(&state)).unwrap();
            assert_eq!(fs::read_to_string(state.join("sub/new")).unwrap(), "image");
            assert_eq!(fs::metadata(state.join("sub/new")).unwrap().permissions().mode() & 0o777, 0o640);
            assert_eq!(fs::read_to_string(state.join("changed")).unwrap(), "user");
            assert_eq!(fs::read_link(state.join("blob")).unwrap().to_str(), Some("/usr/lib/rekindle/blob"));
            assert_eq!(fs::read_link(state.join("link")).unwrap().to_str(), Some("/user/s"));
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 4);
        fs::remove_dir_all(&dir).unwrap();
    }
}
