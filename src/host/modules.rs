//! Kernel modules in the initramfs, where no udev and no modprobe is: the same index files (`modules.alias`,
//! `modules.dep`, written by depmod), the same matching by glob.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::Root;

/// The index of the modules below `/lib/modules/RELEASE`.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    dir: String,
    aliases: Vec<(String, String)>,
    files: BTreeMap<String, Vec<String>>,
    loaded: BTreeSet<String>,
}

impl Modules {
    /// Reads the index. An initramfs without modules (all built into the kernel) has an empty one.
    ///
    /// # Errors
    /// The files are there but cannot be read.
    pub fn read(root: &Root, release: &str) -> Result<Modules> {
        let dir = format!("/lib/modules/{release}");
        let aliases = root.read_text_opt(&format!("{dir}/modules.alias"))?.unwrap_or_default();
        let dep = root.read_text_opt(&format!("{dir}/modules.dep"))?.unwrap_or_default();
        Ok(Modules { dir, aliases: parse_aliases(&aliases), files: parse_dep(&dep), loaded: BTreeSet::new() })
    }

    /// Loads every module that matches a device's alias.
    ///
    /// # Errors
    /// The first module that the kernel refuses; the others are still loaded.
    pub fn load_alias(&mut self, root: &Root, alias: &str) -> Result<()> {
        let names: Vec<String> =
            self.aliases.iter().filter(|(p, _)| glob(p, alias)).map(|(_, n)| n.clone()).collect();
        let results: Vec<Result<()>> = names.iter().map(|name| self.load(root, name)).collect();
        results.into_iter().collect()
    }

    /// Loads a module by name, what it needs first. A name that the index does not know is taken as built in.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(&mut self, root: &Root, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        let Some(files) = self.files.get(&name).cloned() else { return Ok(()) };
        for file in files {
            if !self.loaded.insert(file.clone()) {
                continue;
            }
            let path = format!("{}/{file}", self.dir);
            let opened = root.open_file(&path)?;
            match finit_module(&opened, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                // A driver whose device is not there.
                Err(Errno::ENODEV) => {}
                Err(e) => return Err(e).with_context(|| format!("loading kernel module {path}")),
            }
        }
        Ok(())
    }
}

/// The aliases of the devices that are there now, from sysfs.
///
/// # Errors
/// sysfs cannot be listed.
pub fn present_aliases(root: &Root) -> Result<BTreeSet<String>> {
    let (mut found, mut todo) = (BTreeSet::new(), vec!["/sys/devices".to_owned()]);
    while let Some(dir) = todo.pop() {
        for name in root.list(&dir)? {
            let path = format!("{dir}/{name}");
            if name == "modalias" {
                // A device may vanish between the listing and the read.
                if let Ok(Some(alias)) = root.read_text_opt(&path) {
                    found.insert(alias.trim().to_owned());
                }
            } else if !root.is_link(&path) && root.stat(&path).is_ok_and(|s| s.is_dir) {
                todo.push(path);
            }
        }
    }
    found.remove("");
    Ok(found)
}

fn parse_aliases(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "alias").then(|| Some((words.next()?.to_owned(), words.next()?.to_owned())))?
        })
        .collect()
}

/// Module name to files, what it needs first. A line is `file: direct and indirect needs`, nearest first.
fn parse_dep(text: &str) -> BTreeMap<String, Vec<String>> {
    text.lines()
        .filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let base = file.rsplit('/').next()?;
            let name = base.split_once(".ko").map_or(base, |(name, _)| name).replace('-', "_");
            let mut files: Vec<String> = needs.split_whitespace().rev().map(str::to_owned).collect();
            files.push(file.to_owned());
            Some((name, files))
        })
        .collect()
}

/// Shell-like match with `*`, `?` and `[a-z]`, as in `modules.alias`.
fn glob(pattern: &str, text: &str) -> bool {
    fn go(p: &[u8], t: &[u8]) -> bool {
        match p.first() {
            None => t.is_empty(),
            // Runs of `*` are one `*`; the recursion is as deep as the pattern has stars.
            Some(b'*') => {
                let rest = &p[p.iter().take_while(|b| **b == b'*').count()..];
                rest.is_empty() || (0..=t.len()).any(|at| go(rest, &t[at..]))
            }
            Some(b'[') => match (p.iter().position(|b| *b == b']'), t.first()) {
                (Some(end), Some(c)) => in_class(&p[1..end], *c) && go(&p[end + 1..], &t[1..]),
                _ => false,
            },
            Some(b'?') => !t.is_empty() && go(&p[1..], &t[1..]),
            Some(c) => t.first() == Some(c) && go(&p[1..], &t[1..]),
        }
    }
    go(pattern.as_bytes(), text.as_bytes())
}

fn in_class(class: &[u8], c: u8) -> bool {
    let mut at = 0;
    while at < class.len() {
        if class.get(at + 1) == Some(&b'-') && at + 2 < class.len() {
            if (class[at]..=class[at + 2]).contains(&c) {
                return true;
            }
            at += 3;
        } else {
            if class[at] == c {
                return true;
            }
            at += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_modprobe_does() {
        for (pattern, text, wanted) in [
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000003v00001AF4", false),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", true),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*00A[0-9]*",
                "cpu:type:x86,ven0fam6mod6:feature:,00A7,",
                true,
            ),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[b", "ab", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), wanted, "failed testcase: {pattern} {text}");
        }
    }

    #[test]
    fn loads_what_is_needed_first() {
        let dep =
            "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\nkernel/lib/crc-itu.ko:\n";
        let files = parse_dep(dep);
        assert_eq!(
            files["ext4"],
            ["kernel/lib/crc16.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko"]
        );
        assert_eq!(files["crc_itu"], ["kernel/lib/crc-itu.ko"]);
    }
}
