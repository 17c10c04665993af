//! Our reading and writing of GRUB's environment block against GRUB's own `grub-editenv` (Debian package grub-common),
//! both ways, with random content and with damaged blocks. Without that program the tests fail.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test looks at files itself, fails by panic and prints its seed"
)]

use std::path::PathBuf;
use std::process::Command;

use rekindle::boot::grubenv::{self, Damage, GrubEnv, HEADER, SIZE};
use rekindle::cli::grubenv::{Ending, run};
use rekindle::host::{Effects, Root};

/// Sebastiano Vigna's splitmix64: enough for test data, and no dependency.
struct Random(u64);

impl Random {
    /// From `REKINDLE_SEED`, else from the clock. Printed, so that a failed run can be repeated.
    fn seeded() -> Random {
        let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let seed = std::env::var("REKINDLE_SEED").map_or_else(|_| clock() as u64, |s| s.parse().unwrap());
        println!("REKINDLE_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn text(&mut self, alphabet: &str, longest: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..self.below(longest + 1)).map(|_| letters[self.below(letters.len())]).collect()
    }

    fn key(&mut self) -> String {
        format!("k{}", self.text("abc_.-", 2))
    }

    fn value(&mut self) -> String {
        self.text("ab=# \\\\\\\n\n\t\"'$é", 30)
    }
}

struct Folder {
    dir: PathBuf,
    root: Root,
}

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        std::fs::create_dir_all(&dir).unwrap();
        let root = Root::open(&dir, Effects::default()).unwrap();
        Folder { dir, root }
    }

    /// GRUB's command on `file`.
    fn grub(&self, file: &str, args: &[&str]) -> Ending {
        let out = Command::new("grub-editenv").arg(file).args(args).current_dir(&self.dir).output();
        let out = out.expect("starting grub-editenv (apt-get install grub-common)");
        Ending {
            stdout: out.stdout,
            stderr: String::from_utf8(out.stderr).unwrap(),
            code: u8::try_from(out.status.code().unwrap()).unwrap(),
        }
    }

    /// Ours on `file`.
    fn ours(&self, file: &str, args: &[&str]) -> Ending {
        let argv: Vec<String> = ["grub-editenv", file].iter().chain(args).map(|s| (*s).to_owned()).collect();
        run(&argv, &self.root, |file| format!("/{file}"))
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.dir.join(file)).unwrap()
    }
}

fn block(text: &[u8]) -> Vec<u8> {
    let mut bytes = [HEADER.as_bytes(), text].concat();
    bytes.resize(SIZE, b'#');
    bytes
}

#[test]
fn one_writes_and_the_other_reads() {
    let mut random = Random::seeded();
    let folder = Folder::new("grubenv-both-ways");
    for round in 0..80 {
        // Either program starts the block, then they take turns at random on the same file.
        let ours_first = random.below(2) == 0;
        let made = if ours_first { folder.ours("e", &["create"]) } else { folder.grub("e", &["create"]) };
        assert_eq!(made, Ending::default());
        let mut wanted: Vec<(String, String)> = Vec::new();
        for _ in 0..random.below(12) {
            let (key, value, by_us) = (random.key(), random.value(), random.below(2) == 0);
            let (verb, word) =
                if random.below(4) == 0 { ("unset", key.clone()) } else { ("set", format!("{key}={value}")) };
            let args = [verb, word.as_str()];
            let ending = if by_us { folder.ours("e", &args) } else { folder.grub("e", &args) };
            if ending.code != 0 {
                assert!(ending.stderr.contains("environment block too small"), "{args:?}: {ending:?}");
                continue;
            }
            match (verb, wanted.iter().position(|(k, _)| *k == key)) {
                ("set", Some(at)) => wanted[at].1 = value,
                ("set", None) => wanted.push((key, value)),
                (_, Some(at)) => drop(wanted.remove(at)),
                (_, None) => {}
            }
        }
        let listed: String = wanted.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        let text = |ending: Ending| String::from_utf8(ending.stdout).unwrap();
        assert_eq!(text(folder.grub("e", &["list"])), listed, "GRUB reads round {round}");
        assert_eq!(text(folder.ours("e", &["list"])), listed, "we read round {round}");
        assert_eq!(folder.bytes("e").len(), SIZE);
    }
}

#[test]
fn the_same_steps_leave_the_same_bytes() {
    let mut random = Random::seeded();
    let folder = Folder::new("grubenv-same-bytes");
    for round in 0..25 {
        for file in ["a", "b"] {
            std::fs::write(folder.dir.join(file), block(b"")).unwrap();
        }
        for _ in 0..20 {
            let word = if random.below(4) == 0 {
                random.key()
            } else {
                format!("{}={}", random.key(), random.value())
            };
            let args = [if word.contains('=') { "set" } else { "unset" }, word.as_str()];
            let (theirs, ours) = (folder.grub("a", &args), folder.ours("b", &args));
            assert_eq!(theirs.code, ours.code, "round {round}: {args:?}: {theirs:?} {ours:?}");
            assert_eq!(folder.bytes("a"), folder.bytes("b"), "round {round}: {args:?}");
        }
    }
}

#[test]
fn damaged_blocks_are_read_as_grub_reads_them() {
    let mut random = Random::seeded();
    let folder = Folder::new("grubenv-damaged");
    for round in 0..200 {
        let mut bytes =
            block(b"# note\nnext_entry=statereset\nextra_cmdline=a=b \\\\ c\\\nd\nsaved_entry=cos\n");
        for _ in 0..=random.below(4) {
            let at = random.below(150.min(bytes.len().max(1)));
            match random.below(5) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] = b"\n\\=#\0x\xff"[random.below(7)],
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.splice(at.min(bytes.len())..at.min(bytes.len()), *b"\\\n").for_each(drop),
                _ => bytes.iter_mut().skip(at).for_each(|b| *b = 0),
            }
        }
        std::fs::write(folder.dir.join("e"), &bytes).unwrap();
        let (theirs, ours) = (folder.grub("e", &["list"]), folder.ours("e", &["list"]));
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(
            (String::from_utf8_lossy(&theirs.stdout), theirs.code),
            (String::from_utf8_lossy(&ours.stdout), ours.code),
            "round {round}: {shown:?}"
        );
        if ours.code == 0 {
            // Whatever it was, after we wrote it is whole, and GRUB finds what we set.
            assert_eq!(
                folder.ours("e", &["set", "next_entry=cos"]),
                Ending::default(),
                "round {round}: {shown:?}"
            );
            let listed = folder.grub("e", &["list"]).stdout;
            let lines: Vec<_> = listed.split(|b| *b == b'\n').collect();
            assert!(lines.contains(&&b"next_entry=cos"[..]), "round {round}: {shown:?}");
            assert_eq!(grubenv::load(&folder.root, "/e").unwrap().damage, None, "round {round}: {shown:?}");
        }
    }
}

#[test]
fn exit_codes_and_error_texts_are_grubs() {
    let folder = Folder::new("grubenv-codes");
    std::fs::write(folder.dir.join("junk"), "junk").unwrap();
    std::fs::write(folder.dir.join("empty"), "").unwrap();
    let long = format!("a={}", "x".repeat(2000));
    for (file, args) in [
        ("absent", vec!["list"]),
        ("absent", vec!["set", "a=1", "b="]),
        ("absent", vec!["set"]),
        ("absent", vec!["unset"]),
        ("absent", vec!["unset", "a", "never"]),
        ("absent", vec!["list"]),
        ("absent", vec!["set", "c=1", "word"]),
        ("absent", vec!["list"]),
        ("absent", vec!["set", &long]),
        ("absent", vec!["frob"]),
        ("absent", vec!["list", "more"]),
        ("junk", vec!["list"]),
        ("junk", vec!["set", "a=1"]),
        ("empty", vec!["list"]),
        ("empty", vec!["create"]),
        ("folder/absent", vec!["create"]),
        ("folder/absent", vec!["list"]),
    ] {
        // The two work on files of their own.
        let (theirs, ours) =
            (folder.grub(file, &args), folder.ours(&file.replace("absent", "absent-ours"), &args));
        assert_eq!((theirs.code, &theirs.stdout), (ours.code, &ours.stdout), "{file} {args:?}: {ours:?}");
        // Ours goes on to say more after GRUB's words.
        let words = theirs.stderr.trim_end().trim_end_matches('.');
        let start = words.split(" `").next().unwrap();
        assert!(ours.stderr.starts_with(start) || file.starts_with("folder"), "{args:?}: {words:?} {ours:?}");
    }
    let nothing = Command::new("grub-editenv").output().unwrap();
    let ours = run(&["grub-editenv".into()], &folder.root, str::to_owned);
    assert_eq!(nothing.status.code(), Some(ours.code.into()));
    assert_eq!(String::from_utf8(nothing.stderr).unwrap(), ours.stderr);
}

#[test]
fn a_linked_block_is_written_where_it_lies() {
    let folder = Folder::new("grubenv-link");
    std::fs::create_dir_all(folder.dir.join("efi/grub")).unwrap();
    std::os::unix::fs::symlink("efi/grub/env", folder.dir.join("e")).unwrap();
    assert_eq!(folder.ours("e", &["create"]), Ending::default());
    assert_eq!(folder.ours("e", &["set", "a=1"]), Ending::default());
    assert_eq!(folder.bytes("efi/grub/env"), block(b"a=1\n"));
    assert!(folder.root.is_link("/e"));
    assert_eq!(folder.root.stat("/e").unwrap().mode, 0o644);
}

#[test]
fn a_file_of_another_kind_is_not_read_into_memory() {
    let folder = Folder::new("grubenv-huge");
    let file = std::fs::File::create(folder.dir.join("e")).unwrap();
    file.set_len(1 << 40).unwrap();
    let found = grubenv::load(&folder.root, "/e").unwrap();
    assert_eq!((found.env, found.damage), (GrubEnv::default(), Some(Damage::Huge(1 << 40))));
}
