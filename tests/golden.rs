//! Golden roots: each folder of `tests/roots` is a file tree in and a file tree out.
//!
//! ```text
//! in/             the tree before; folders 0755, files 0644, all of root, but for what in.list says
//! in.list         optional: MODE UID:GID PATH
//! expect/         every file and link after the documents were loaded and the stages initramfs and boot were run
//! expect.list     MODE UID:GID PATH of everything that is then there
//! expect.report   findings, provenance, cluster, how the stages went
//! ```
//!
//! `BLESS=1` writes the expectations anew. Every scenario is then run once more, which must change nothing, and with the
//! power cut before each single effect, after which a rerun must lead to the same tree. Needs root, for owners.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test looks at files itself, fails by panic and prints what it blessed"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rekindle::host::{Effects, Host};
use rekindle::oem::{self, StageReport};
use rekindle::plan::Events;

/// A word that stands for every secret of the fixtures. It must not come out anywhere but in the files that it is meant for.
const SECRET: &str = "hunter2";

#[derive(Debug, PartialEq, Clone)]
struct Tree {
    /// Content of files, target of links.
    files: BTreeMap<String, Vec<u8>>,
    list: String,
}

fn roots() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/roots");
    let mut roots: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    roots.sort();
    assert!(roots.len() >= 8, "only {} golden roots found", roots.len());
    roots
}

/// A fresh copy of the scenario's `in`, on a file system in memory where there is one: the cuts flush thousands of times.
fn fresh(scenario: &Path, purpose: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.into() } else { PathBuf::from(env!("CARGO_TARGET_TMPDIR")) };
    let name = scenario.file_name().unwrap().to_string_lossy();
    let dir = base.join(format!("rekindle-golden-{}-{purpose}-{name}", std::process::id()));
    if dir.exists() {
        fs::remove_dir_all(&dir).unwrap();
    }
    copy(&scenario.join("in"), &dir);
    let list = scenario.join("in.list");
    for line in if list.exists() { fs::read_to_string(list).unwrap() } else { String::new() }.lines() {
        let [mode, owner, path] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("in.list: {line}") };
        let (uid, gid) = owner.split_once(':').unwrap();
        let path = dir.join(path.trim_start_matches('/'));
        lchown(&path, Some(uid.parse().unwrap()), Some(gid.parse().unwrap())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(u32::from_str_radix(mode, 8).unwrap()))
            .unwrap();
    }
    dir
}

fn copy(from: &Path, to: &Path) {
    let kind = fs::symlink_metadata(from).unwrap().file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from).unwrap(), to).unwrap();
    }
    if kind.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            // Git keeps no empty folders.
            if name != ".gitkeep" {
                copy(&from.join(&name), &to.join(&name));
            }
        }
    } else {
        fs::copy(from, to).unwrap();
    }
    let mode = if kind.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
}

fn tree(dir: &Path) -> Tree {
    let mut tree = Tree { files: BTreeMap::new(), list: String::new() };
    let mut paths = Vec::new();
    walk(dir, &mut paths);
    for path in paths {
        let shown = format!("/{}", path.strip_prefix(dir).unwrap().display());
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_symlink() {
            tree.files.insert(shown, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
            continue;
        }
        writeln!(tree.list, "{:04o} {}:{} {shown}", meta.mode() & 0o7777, meta.uid(), meta.gid()).unwrap();
        if meta.is_file() {
            tree.files.insert(shown, fs::read(&path).unwrap());
        }
    }
    tree
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) {
    let mut here: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    here.sort();
    for path in here {
        paths.push(path.clone());
        if path.is_dir() && !path.is_symlink() {
            walk(&path, paths);
        }
    }
}

/// Loads the documents, runs both stages, and tells what there is to be told.
fn run(dir: &Path, effects: Effects) -> String {
    let host = Host::with_effects(dir, effects).unwrap();
    let oem = oem::load(&host.root);
    let events = Events::new(host.clock.clone());
    let mut report = String::from("findings\n");
    for finding in &oem.findings {
        writeln!(report, "  {:?} {finding}", finding.level).unwrap();
    }
    writeln!(report, "provisioning blocked\n  {}", oem.provisioning_blocked.as_deref().unwrap_or("no"))
        .unwrap();
    writeln!(report, "cluster\n  {:?}", oem.cluster).unwrap();
    for document in oem.cluster.iter().flat_map(|c| &c.documents) {
        writeln!(report, "  {}", serde_json::to_string(document).unwrap()).unwrap();
    }
    writeln!(report, "provenance").unwrap();
    for (path, origin) in &oem.provenance {
        writeln!(report, "  {path} {}:{}", origin.file, origin.line).unwrap();
    }
    for stage in ["initramfs", "boot"] {
        let StageReport { stage, ran, skipped, findings } = oem::run_stage(&host, &oem, stage, &events);
        writeln!(report, "stage {stage}: {ran} ran, {skipped} skipped").unwrap();
        for finding in findings {
            writeln!(report, "  {:?} {finding}", finding.level).unwrap();
        }
    }
    assert!(!format!("{oem:?}").contains(SECRET), "a secret in the Debug form: {oem:?}");
    // Messages of the system name the tree's place on this machine.
    report.replace(&format!("{}/", dir.display()), "/")
}

fn bless(scenario: &Path, after: &Tree, report: &str) {
    let expect = scenario.join("expect");
    if expect.exists() {
        fs::remove_dir_all(&expect).unwrap();
    }
    fs::create_dir(&expect).unwrap();
    for (path, content) in &after.files {
        let path = expect.join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }
    fs::write(scenario.join("expect.list"), &after.list).unwrap();
    fs::write(scenario.join("expect.report"), report).unwrap();
    println!("blessed {}", scenario.display());
}

fn expected(scenario: &Path) -> (Tree, String) {
    let files = tree(&scenario.join("expect")).files;
    let text = |name: &str| fs::read_to_string(scenario.join(name)).unwrap();
    (Tree { files, list: text("expect.list") }, text("expect.report"))
}

/// Shows what differs, and nothing else.
fn assert_same(got: &Tree, wanted: &Tree, what: &str) {
    let lines = |tree: &Tree| {
        let files =
            tree.files.iter().map(|(path, bytes)| format!("{path}: {}", String::from_utf8_lossy(bytes)));
        files.chain(tree.list.lines().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (got, wanted) = (lines(got), lines(wanted));
    let only = |a: &[String], b: &[String]| {
        a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(got == wanted, "{what}\ngot\n{}\nwanted\n{}", only(&got, &wanted), only(&wanted, &got));
}

fn needs_root() {
    assert!(nix::unistd::geteuid().is_root(), "golden roots check owners: run the tests as root");
}

#[test]
fn a_tree_in_gives_the_tree_out() {
    needs_root();
    for scenario in roots() {
        let dir = fresh(&scenario, "out");
        let report = run(&dir, Effects::default());
        let after = tree(&dir);
        assert!(!report.contains(SECRET), "{}: a secret in the report:\n{report}", scenario.display());
        if std::env::var("BLESS").is_ok_and(|v| v == "1") {
            bless(&scenario, &after, &report);
        }
        let (wanted, wanted_report) = expected(&scenario);
        assert_eq!(report, wanted_report, "{}:\n{report}", scenario.display());
        assert_same(&after, &wanted, &scenario.display().to_string());
        run(&dir, Effects::default());
        assert_same(&tree(&dir), &after, &format!("{}: a second run changed it", scenario.display()));
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_power_cut_before_any_effect_is_made_good_by_the_next_run() {
    needs_root();
    for scenario in roots() {
        let dir = fresh(&scenario, "count");
        let effects = Effects::default();
        run(&dir, effects.clone());
        fs::remove_dir_all(&dir).unwrap();
        for cut in 0..effects.count() {
            let dir = fresh(&scenario, "cut");
            run(&dir, Effects::cut_after(cut));
            run(&dir, Effects::default());
            let (wanted, _) = expected(&scenario);
            assert_same(&tree(&dir), &wanted, &format!("{}: cut before effect {cut}", scenario.display()));
            fs::remove_dir_all(&dir).unwrap();
        }
    }
}
