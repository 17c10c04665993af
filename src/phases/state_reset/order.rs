//! Taking an order, carrying it out, and the receipt. `Armed` is made here, before anything is erased, and given back
//! here, after the receipt was read back.

use anyhow::{Context, Result, bail};
use aws_lc_rs::{digest, rand};

use super::{RECOVERY_DIGEST, RECOVERY_IMAGE, RESET, ResetCtx};
use crate::boot::grubenv;
use crate::host::copy::hex;
use crate::host::{Host, Root};
use crate::plan::intent::{self, Armed, DIR, Intent, Pending};
use crate::plan::receipt::{self, Erased, Kept, Receipt};
use crate::plan::{Event, Events, Hazard, Journal, Skip, run};

const GRUBENV: &str = "/grubenv";
const JOURNAL: &str = "/.rekindle/journal.jsonl";
/// The boot entry that carries orders out.
const ENTRY: &str = "statereset";

/// How an order ended, for this boot.
#[derive(Debug)]
pub enum Outcome {
    /// All of it was done; the node is factory-new.
    Done(Box<Receipt>),
    /// It is not finished; the next boot goes on.
    Resumable(String),
    /// It was not begun, and nothing was erased.
    Refused(String),
}

/// Arms the order that is pending, or a new one. From here on every boot goes on with it.
///
/// # Errors
/// There is no recovery image to restore from, or COS_OEM cannot be written: nothing was or may be erased.
pub fn take_order(host: &Host, oem: &Root, recovery: &Root, pending: Pending) -> Result<Armed> {
    let intent = match pending {
        Pending::Order(intent) => intent,
        Pending::Unreadable(why) => bail!("a pending order is not understood: {why}"),
        Pending::Nothing => new_order(host, oem, recovery)?,
    };
    let armed = intent::arm(oem, intent)?;
    set_next_entry(oem, Some(ENTRY))?;
    Ok(armed)
}

fn new_order(host: &Host, oem: &Root, recovery: &Root) -> Result<Intent> {
    let image_sha256 = recorded_digest(recovery)?;
    let by = match grubenv::load(oem, GRUBENV) {
        Ok(found) if found.env.get("next_entry").as_deref() == Some(ENTRY) => "grubenv",
        // A block that cannot be read cannot have led here: GRUB could not read it either.
        _ => "menu",
    };
    Ok(Intent {
        v: intent::VERSION,
        id: random_uuid()?,
        what: "state-reset".to_owned(),
        by: by.to_owned(),
        at: host.clock.unix_seconds(),
        image_sha256,
        attempts: 0,
    })
}

/// The digest recorded beside the recovery image, in sha256sum's form: 64 hex digits, two spaces, a name.
fn recorded_digest(recovery: &Root) -> Result<String> {
    if !recovery.exists(RECOVERY_IMAGE) {
        bail!("COS_RECOVERY has no {RECOVERY_IMAGE} to restore from");
    }
    let text =
        recovery.read_text(RECOVERY_DIGEST).context("reading the recorded digest of the recovery image")?;
    let word = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if word.len() != 64 || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("{RECOVERY_DIGEST} holds no SHA-256: make it with `sha256sum recovery.img`");
    }
    Ok(word)
}

/// A random UUID (RFC 9562, version 4), as text.
fn random_uuid() -> Result<String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("asking the kernel for random bytes"))?;
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = hex(&bytes);
    Ok([&hex[0..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-"))
}

/// Carries the order out, or goes on with it, and reports.
///
/// # Errors
/// Only what leaves the order pending without a word on COS_OEM: the journal or the receipt could not be written.
pub fn carry_out(mut ctx: ResetCtx, events: &Events) -> Result<Outcome> {
    let (watch, id) = (ctx.host.clock.start(), ctx.armed.intent().id.clone());
    let before = kept(&ctx.oem)?;
    let mut journal = Journal::open(&ctx.oem, JOURNAL, "reset", &id)?;
    ctx.images_laid = ["image/passive", "image/active"].iter().all(|phase| journal.done(phase));
    let clock = ctx.host.clock.clone();
    let ran = run("reset", RESET, &mut ctx, &Skip::default(), Some(&mut journal), events, &clock);
    let outcome = match ran {
        Ok(phases) => {
            let after = kept(&ctx.oem)?;
            if after != before {
                bail!("the files on COS_OEM changed during the reset: another program is writing to it");
            }
            let order = ctx.armed.intent().clone();
            let mut receipt = Receipt::new(order, "done", ctx.host.clock.unix_seconds());
            receipt.erased = erased(&ctx);
            receipt.kept = vec![after];
            receipt.phases = phases;
            finish(ctx, &receipt)?;
            Outcome::Done(Box::new(receipt))
        }
        Err(error) => {
            let begun = RESET.iter().any(|p| p.hazard == Hazard::Erases && touched(&journal, p.name));
            let why = format!("{error:#}");
            if begun {
                Outcome::Resumable(why)
            } else {
                let mut receipt =
                    Receipt::new(ctx.armed.intent().clone(), "refused", ctx.host.clock.unix_seconds());
                receipt.why = Some(why.clone());
                finish(ctx, &receipt)?;
                Outcome::Refused(why)
            }
        }
    };
    tell(events, &outcome, watch.ms());
    Ok(outcome)
}

fn touched(journal: &Journal, phase: &str) -> bool {
    journal.lines().iter().any(|l| l.phase == phase)
}

/// Receipt first, then the boot default, the order last: a cut in between finds all work done and comes here again.
fn finish(ctx: ResetCtx, receipt: &Receipt) -> Result<()> {
    receipt::write(&ctx.oem, receipt)?;
    set_next_entry(&ctx.oem, None)?;
    intent::disarm(&ctx.oem, ctx.armed)
}

/// Refuses an order that could not even be armed. Whatever of this cannot be written is left: nothing was erased.
///
/// # Errors
/// The environment block cannot be written, so that the entry stays chosen.
pub fn refuse(oem: &Root) -> Result<()> {
    set_next_entry(oem, None)
}

fn erased(ctx: &ResetCtx) -> Vec<Erased> {
    let sha = format!("byte for byte the recovery image, SHA-256 {}", ctx.armed.intent().image_sha256);
    let item = |what: &str, how: &str, proof: String| Erased { what: what.into(), how: how.into(), proof };
    vec![
        item("/cOS/passive.img", "replaced", sha.clone()),
        item("/cOS/active.img", "replaced", sha),
        item("COS_PERSISTENT", "mkfs", format!("file system UUID {}", ctx.armed.intent().id)),
    ]
}

fn set_next_entry(oem: &Root, entry: Option<&str>) -> Result<()> {
    let found = grubenv::load(oem, GRUBENV)?;
    let mut env = found.env;
    if found.damage.is_none() && env.get("next_entry").as_deref() == entry {
        return Ok(());
    }
    match entry {
        Some(entry) => env.set("next_entry", entry)?,
        None => drop(env.unset("next_entry")),
    }
    grubenv::store(oem, GRUBENV, &env).context("setting the boot entry")
}

fn tell(events: &Events, outcome: &Outcome, ms: u64) {
    let (name, why) = match outcome {
        Outcome::Done(_) => ("done", None),
        Outcome::Resumable(why) => ("resumable", Some(why.clone())),
        Outcome::Refused(why) => ("refused", Some(why.clone())),
    };
    events.tell(&Event::Outcome { plan: "reset".into(), outcome: name.into(), why, ms });
}

/// Digest of the user's files on COS_OEM.
pub(super) fn kept(oem: &Root) -> Result<Kept> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut files, mut todo) = (0, vec![String::new()]);
    while let Some(dir) = todo.pop() {
        let names = oem.list(if dir.is_empty() { "/" } else { &dir })?;
        for name in names.iter().rev() {
            let path = format!("{dir}/{name}");
            if path == DIR || path == GRUBENV || path == "/lost+found" {
                continue;
            }
            if let Some(target) = oem.read_link(&path)? {
                context.update(format!("link {path}\0{}\0", target.display()).as_bytes());
                files += 1;
            } else if oem.stat(&path)?.is_dir {
                todo.push(path);
            } else {
                let bytes = oem.read(&path)?;
                context.update(format!("file {path}\0{}\0", bytes.len()).as_bytes());
                context.update(&bytes);
                files += 1;
            }
        }
    }
    Ok(Kept { what: "COS_OEM".to_owned(), files, sha256: hex(context.finish().as_ref()) })
}
