//! The state reset on real files and a real mkfs, with the power cut before every single effect.
//!
//! The fixture is a node in small: COS_OEM, COS_RECOVERY and COS_STATE as folders, COS_PERSISTENT as a file with an
//! ext4 file system. What must hold after any cut is checked from outside, with sha256sum, dumpe2fs and plain reads.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test looks at files itself, fails by panic and prints its seed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle::host::{Effects, Host, Root};
use rekindle::phases::state_reset::{self, Outcome, ResetCtx};
use rekindle::plan::intent::{self, Pending};
use rekindle::plan::{Events, receipt};

const USER_FILE: &str = "#cloud-config\nhostname: kept\n";

struct Node {
    dir: PathBuf,
    old: Vec<u8>,
    /// UUID of COS_PERSISTENT before the reset.
    uuid: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn tool(program: &str, args: &[&str]) -> String {
    let out =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn mkfs(file: &Path, label: &str, content: &str, features: &str) {
    let tree = file.with_extension("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("version"), content).unwrap();
    fs::File::create(file).unwrap().set_len(2_500_000).unwrap();
    let (file, tree) = (file.to_str().unwrap(), tree.to_str().unwrap());
    tool("/usr/sbin/mkfs.ext4", &["-q", "-F", "-O", features, "-L", label, "-d", tree, file]);
    fs::remove_dir_all(tree).unwrap();
}

fn uuid(device: &Path) -> String {
    let text = tool("/usr/sbin/dumpe2fs", &["-h", device.to_str().unwrap()]);
    text.lines().find_map(|l| l.strip_prefix("Filesystem UUID:")).unwrap().trim().to_owned()
}

impl Node {
    fn new(name: &str) -> Node {
        let dir = std::env::temp_dir().join(format!("rekindle-{name}-{}", std::process::id()));
        for sub in ["oem", "recovery/cOS", "state/cOS", "image/etc/cos"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        fs::write(dir.join("oem/90_custom.yaml"), USER_FILE).unwrap();
        fs::write(dir.join("image/etc/cos/grub.cfg"), "menu of the new image\n").unwrap();
        let recovery = dir.join("recovery/cOS/recovery.img");
        // With and without checksums of metadata: the label lies in the summed part.
        mkfs(&recovery, "COS_SYSTEM", "new", "metadata_csum,^has_journal");
        let sum = tool("sha256sum", &[recovery.to_str().unwrap()]);
        fs::write(dir.join("recovery/cOS/recovery.img.sha256"), sum).unwrap();
        for (file, label) in [("active.img", "COS_ACTIVE"), ("passive.img", "COS_PASSIVE")] {
            mkfs(&dir.join("state/cOS").join(file), label, "old", "^has_journal");
        }
        let old = fs::read(dir.join("state/cOS/active.img")).unwrap();
        fs::File::create(dir.join("persistent")).unwrap().set_len(8 << 20).unwrap();
        tool(
            "/usr/sbin/mkfs.ext4",
            &["-q", "-F", "-L", "COS_PERSISTENT", dir.join("persistent").to_str().unwrap()],
        );
        let uuid = uuid(&dir.join("persistent"));
        Node { dir, old, uuid }
    }

    fn root(&self, sub: &str, effects: &Effects) -> Root {
        Root::open(&self.dir.join(sub), effects.clone()).unwrap()
    }

    /// One boot through the entry `statereset`, or through any entry while an order is pending.
    fn boot(&self, effects: &Effects) -> anyhow::Result<Outcome> {
        let host = Host::with_effects(Path::new("/"), effects.clone())?;
        let (oem, recovery) = (self.root("oem", effects), self.root("recovery", effects));
        let armed = state_reset::take_order(&host, &oem, &recovery, intent::pending(&oem)?)?;
        let events = Events::new(host.clock.clone());
        let (state, image) = (self.root("state", effects), self.root("image", effects));
        let persistent = self.dir.join("persistent");
        let ctx = ResetCtx { host, oem, recovery, state, image, persistent, armed, images_laid: false };
        state_reset::carry_out(ctx, &events)
    }

    fn pending(&self) -> Pending {
        intent::pending(&self.root("oem", &Effects::default())).unwrap()
    }

    fn label(&self, file: &str) -> String {
        let text = tool("/usr/sbin/dumpe2fs", &["-h", self.dir.join(file).to_str().unwrap()]);
        let field =
            |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("").trim().to_owned();
        field("Filesystem volume name:")
    }

    fn uuid(&self) -> String {
        uuid(&self.dir.join("persistent"))
    }

    fn next_entry(&self) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("oem/grubenv")).ok()?;
        assert_eq!(text.len(), 1024, "GRUB reads exactly 1024 bytes");
        text.lines().find_map(|l| l.strip_prefix("next_entry=").map(str::to_owned))
    }

    /// Whether the file system in an image is sound and holds `version`, by e2fsprogs.
    fn version(&self, image: &str) -> Option<String> {
        let path = self.dir.join("state/cOS").join(image);
        let sound = Command::new("/usr/sbin/e2fsck").args(["-fn", path.to_str().unwrap()]).output().unwrap();
        let text = tool("/usr/sbin/debugfs", &["-R", "cat /version", path.to_str().unwrap()]);
        sound.status.success().then_some(text)
    }

    /// What must hold at every instant.
    fn invariants(&self, case: &str) {
        let whole = ["active.img", "passive.img"].iter().any(|i| self.version(i).is_some());
        assert!(whole, "{case}: no complete image is bootable");
        assert_eq!(fs::read_to_string(self.dir.join("oem/90_custom.yaml")).unwrap(), USER_FILE, "{case}");
        let receipt = receipt::last(&self.root("oem", &Effects::default())).unwrap();
        let touched = self.uuid() != self.uuid
            || ["active.img", "passive.img"].iter().any(|i| self.version(i).as_deref() != Some("old"));
        if receipt.is_some_and(|r| r.outcome == "done") {
            self.all_done(case);
        } else if touched {
            assert!(
                matches!(self.pending(), Pending::Order(_)),
                "{case}: something was erased and no order is pending"
            );
        }
    }

    fn all_done(&self, case: &str) {
        for (image, label) in [("active.img", "COS_ACTIVE"), ("passive.img", "COS_PASSIVE")] {
            assert_eq!(self.version(image).as_deref(), Some("new"), "{case}: {image}");
            assert_eq!(self.label(&format!("state/cOS/{image}")), label, "{case}");
        }
        assert_eq!(self.label("persistent"), "COS_PERSISTENT", "{case}");
        let receipt = receipt::last(&self.root("oem", &Effects::default())).unwrap().unwrap();
        assert_eq!(self.uuid(), receipt.order.id, "{case}");
        let menu = fs::read_to_string(self.dir.join("state/grub2/grub.cfg")).unwrap();
        assert_eq!(menu, "menu of the new image\n", "{case}");
    }
}

#[test]
fn an_undisturbed_reset_leaves_a_new_node_and_a_receipt() {
    let node = Node::new("plain");
    let Outcome::Done(receipt) = node.boot(&Effects::default()).unwrap() else { panic!("not done") };
    node.all_done("plain");
    assert_ne!(node.uuid(), node.uuid);
    assert_eq!((node.pending(), node.next_entry()), (Pending::Nothing, None));
    assert_eq!((receipt.order.by.as_str(), receipt.order.attempts, receipt.kept[0].files), ("menu", 1, 1));
    assert_eq!(receipt.erased.len(), 3);
    assert!(!node.dir.join("state/cOS/transition.img").exists());
}

#[test]
fn cut_before_every_effect_and_the_next_boot_finishes() {
    let mut cuts = 0;
    for at in 0.. {
        let node = Node::new(&format!("cut{at}"));
        let effects = Effects::cut_after(at);
        let first = node.boot(&effects);
        if effects.count() < at {
            assert!(matches!(first.unwrap(), Outcome::Done(_)));
            break;
        }
        cuts += 1;
        let case = format!("cut before effect {at}");
        node.invariants(&case);
        let pending = node.pending();
        // Nothing is pending if the cut came before the order was durable, or after the order was cleared.
        let finished = receipt::last(&node.root("oem", &Effects::default())).unwrap().is_some();
        if !(finished && pending == Pending::Nothing) {
            let second = node.boot(&Effects::default()).unwrap();
            assert!(matches!(second, Outcome::Done(_)), "{case}: {second:?}");
        }
        node.all_done(&case);
        assert_eq!((node.pending(), node.next_entry()), (Pending::Nothing, None), "{case}");
    }
    assert!(cuts > 40, "only {cuts} effects were counted: does everything go through Host?");
    println!("{cuts} cuts");
}

#[test]
fn three_cuts_in_a_row() {
    let seed = std::env::var("REKINDLE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_121_u64);
    println!("REKINDLE_SEED={seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        // xorshift64: any sequence will do, as long as the seed repeats it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..10 {
        let node = Node::new(&format!("three{round}"));
        let mut case = format!("seed {seed}, round {round}, cuts at");
        for _ in 0..3 {
            let at = random(60);
            case.push_str(&format!(" {at}"));
            let cut = Effects::cut_after(at);
            if node.boot(&cut).is_ok_and(|o| matches!(o, Outcome::Done(_))) {
                break;
            }
            node.invariants(&case);
        }
        if node.pending() != Pending::Nothing {
            assert!(matches!(node.boot(&Effects::default()).unwrap(), Outcome::Done(_)), "{case}");
            node.all_done(&case);
        }
    }
}

#[test]
fn a_damaged_recovery_image_is_refused_and_nothing_is_touched() {
    let node = Node::new("damaged");
    let path = node.dir.join("recovery/cOS/recovery.img");
    let mut bytes = fs::read(&path).unwrap();
    bytes[2_000_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let Outcome::Refused(why) = node.boot(&Effects::default()).unwrap() else { panic!("not refused") };
    assert!(why.contains("the recovery image is damaged"), "{why}");
    assert_eq!(node.uuid(), node.uuid);
    assert_eq!(fs::read(node.dir.join("state/cOS/active.img")).unwrap(), node.old);
    assert_eq!((node.pending(), node.next_entry()), (Pending::Nothing, None));
    let receipt = receipt::last(&node.root("oem", &Effects::default())).unwrap().unwrap();
    assert_eq!((receipt.outcome.as_str(), receipt.erased.len()), ("refused", 0));
}

#[test]
fn without_a_recorded_digest_no_order_is_taken() {
    let node = Node::new("nodigest");
    for text in ["", "abc  recovery.img\n"] {
        fs::write(node.dir.join("recovery/cOS/recovery.img.sha256"), text).unwrap();
        let error = format!("{:#}", node.boot(&Effects::default()).unwrap_err());
        assert!(error.contains("holds no SHA-256"), "{error}");
        assert_eq!((node.pending(), node.next_entry()), (Pending::Nothing, None));
    }
}
