//! What golden roots cannot hold: salted passwords, files that Git does not keep, programs that run inside another root.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test looks at files itself, fails by panic, starts its oracles and prints its seed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle::host::Host;
use rekindle::oem::{self, Level, Machine};
use rekindle::plan::Events;

/// A root with one document.
fn root(name: &str, document: &str) -> (PathBuf, Host) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oem-{name}"));
    if dir.exists() {
        fs::remove_dir_all(&dir).unwrap();
    }
    for folder in ["etc", "oem", "root"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\n").unwrap();
    fs::write(dir.join("etc/shadow"), "root:*:20000:0:99999:7:::\n").unwrap();
    fs::write(dir.join("oem/10.yaml"), document).unwrap();
    let host = Host::at(&dir).unwrap();
    (dir, host)
}

/// The error findings of loading and of the stage boot.
fn run(host: &Host, chroot: Option<&Path>) -> Vec<String> {
    let oem = oem::load(&host.root);
    let events = Events::new(host.clock.clone());
    let report = oem::run_stage_on(Machine { host, chroot }, &oem, "boot", &events);
    let all = oem.findings.iter().chain(&report.findings);
    all.filter(|f| f.level == Level::Error).map(ToString::to_string).collect()
}

#[test]
fn a_plain_password_is_hashed_so_that_the_system_can_check_it() {
    assert!(nix::unistd::geteuid().is_root(), "chpasswd changes its root: run the tests as root");
    let (dir, host) = root("password", "#cloud-config\nusers: [{name: ann, passwd: \"pass word$\"}]\n");
    assert_eq!(run(&host, None), Vec::<String>::new());
    let shadow = fs::read_to_string(dir.join("etc/shadow")).unwrap();
    let hash = shadow.lines().find_map(|l| l.strip_prefix("ann:")).unwrap().split(':').next().unwrap();
    let salt = hash.split('$').nth(2).unwrap_or_else(|| panic!("no hash in {shadow}"));
    let oracle = Command::new("openssl").args(["passwd", "-6", "-salt", salt, "pass word$"]).output();
    let oracle = oracle.expect("starting openssl (apt-get install openssl)");
    assert_eq!(hash, String::from_utf8(oracle.stdout).unwrap().trim());
}

#[test]
fn a_file_that_cannot_be_a_document_is_named_and_keeps_the_node_from_being_provisioned() {
    for (name, make) in [
        ("long", (|path| fs::write(path, "#cloud-config\n".repeat(100_000)).unwrap()) as fn(&Path)),
        ("binary", |path| fs::write(path, b"#cloud-config\nhostname: \xff\xfe\n").unwrap()),
        ("pipe", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap()),
        ("link", |path| std::os::unix::fs::symlink("/absent", path).unwrap()),
    ] {
        let cluster = "#cloud-config\ncluster: {cluster_token: t, role: init}\n";
        let (dir, host) = root(&format!("not-a-document-{name}"), cluster);
        make(&dir.join("oem/20.yaml"));
        let oem = oem::load(&host.root);
        let findings: Vec<_> = oem.findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings.len(), 1, "failed testcase: {name}: {findings:?}");
        assert!(findings[0].contains("/oem/20.yaml"), "failed testcase: {name}: {findings:?}");
        assert_eq!(oem.provisioning_blocked.as_ref(), Some(&findings[0]), "failed testcase: {name}");
        assert!(oem.cluster.is_some(), "failed testcase: {name}");
    }
}

#[test]
fn commands_find_the_other_root() {
    assert!(nix::unistd::geteuid().is_root(), "changing the root needs it: run the tests as root");
    let document = "#cloud-config\nstages:\n  boot:\n  - if: '[ -e /oem/10.yaml ]'\n    commands: ['echo here > /etc/made']\n\
                    \x20   directories: [{path: /etc/dir}]\n";
    let (dir, host) = root("chroot", document);
    copy_with_libraries(Path::new("/bin/sh"), &dir);
    assert_eq!(run(&host, Some(&dir)), Vec::<String>::new());
    assert_eq!(fs::read_to_string(dir.join("etc/made")).unwrap(), "here\n");
    assert!(dir.join("etc/dir").is_dir());
    assert!(!Path::new("/etc/made").exists());
}

#[test]
fn no_text_makes_reading_panic_or_tell_a_secret() {
    let clock =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut state = std::env::var("REKINDLE_SEED").map_or_else(|_| clock(), |s| s.parse().unwrap()) | 1;
    println!("REKINDLE_SEED={state}");
    // Marsaglia's xorshift64: enough for test data, and no dependency.
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let mut texts = Vec::new();
    for scenario in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/roots")).unwrap() {
        let oem = scenario.unwrap().path().join("in/oem");
        let files = fs::read_dir(oem).into_iter().flatten().map(|f| f.unwrap().path());
        texts.extend(
            files.filter(|f| f.extension().is_some_and(|e| e == "yaml")).map(|f| fs::read(f).unwrap()),
        );
    }
    assert!(texts.len() > 10, "only {} documents found", texts.len());
    let pieces: [&[u8]; 12] =
        [b"\n", b": ", b"- ", b"{", b"]", b"\"", b"&a ", b"*a", b"<<: ", b"|\n", b"\xff", b"\t"];
    let (dir, host) = root("mutations", "");
    for _ in 0..2000 {
        let mut text = texts[below(texts.len())].clone();
        for _ in 0..=below(4) {
            let at = below(text.len().max(1)).min(text.len());
            match below(3) {
                0 => drop(text.splice(at..at, pieces[below(pieces.len())].iter().copied())),
                1 => drop(text.drain(at..(at + 1 + below(8)).min(text.len()))),
                _ => {
                    let from = texts[below(texts.len())].clone();
                    let cut = below(from.len().max(1)).min(from.len());
                    drop(text.splice(at.., from[cut..].iter().copied()));
                }
            }
        }
        fs::write(dir.join("oem/10.yaml"), &text).unwrap();
        let oem = oem::load(&host.root);
        for finding in &oem.findings {
            // Keys are shown, and a mutation may make a key of anything.
            let told = finding.text.contains("hunter2") && !finding.text.contains("key");
            assert!(!told, "{finding}\n{}", String::from_utf8_lossy(&text));
        }
    }
}

/// Copies a program and the libraries that it names to the same places below `dir`.
fn copy_with_libraries(program: &Path, dir: &Path) {
    let listed =
        Command::new("ldd").arg(program).output().expect("starting ldd (apt-get install libc-bin)").stdout;
    let listed = String::from_utf8(listed).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let to = dir.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, &to).unwrap();
    }
}
