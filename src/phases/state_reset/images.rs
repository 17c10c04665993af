//! The system images: verified, laid new beside old, renamed into place, read back.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail};

use super::{RECOVERY_IMAGE, ResetCtx};
use crate::host::{copy, ext4};
use crate::plan::Change;
use crate::plan::intent::Armed;

/// An image on COS_STATE.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: &'static str,
    pub(super) label: &'static str,
}

/// What the entry `fallback` boots.
pub(super) const PASSIVE: Image = Image { path: "/cOS/passive.img", label: "COS_PASSIVE" };
/// What the entry `cos` boots.
pub(super) const ACTIVE: Image = Image { path: "/cOS/active.img", label: "COS_ACTIVE" };

/// New content until it is renamed (Kairos' name for it).
const TRANSITION: &str = "/cOS/transition.img";
const MENU: &str = "/grub2/grub.cfg";
const MENU_SOURCE: &str = "/etc/cos/grub.cfg";

/// Offset and length of the superblock's fields that differ between an image and its copy: label and checksum.
const LABEL_AT: std::ops::Range<usize> = 1024 + 120..1024 + 136;
const CHECKSUM_AT: std::ops::Range<usize> = 1024 + 1020..1024 + 1024;

pub(super) fn verify(ctx: &mut ResetCtx) -> Result<Change> {
    let wanted = &ctx.armed.intent().image_sha256;
    let found =
        copy::sha256(ctx.recovery.open_file(RECOVERY_IMAGE)?).context("reading the recovery image")?;
    if &found != wanted {
        bail!(
            "the recovery image is damaged: its SHA-256 is {found}, recorded is {wanted}; \
             write a good {RECOVERY_IMAGE} to COS_RECOVERY and order the reset again"
        );
    }
    Ok(Change::Unchanged)
}

/// Copies the recovery image beside the old image, flushes it, renames it over the old one, and compares what is then
/// on the disk with the source.
pub(super) fn replace(ctx: &mut ResetCtx, image: &Image) -> Result<Change> {
    if is_copy(ctx, image)? {
        return Ok(Change::Unchanged);
    }
    lay(ctx, image, &ctx.armed)?;
    if !is_copy(ctx, image)? {
        bail!("{} does not read back as it was written: COS_STATE may be failing", image.path);
    }
    Ok(Change::Updated)
}

/// `_armed`: the old image is destroyed by the rename.
fn lay(ctx: &ResetCtx, image: &Image, _armed: &Armed) -> Result<()> {
    let source = ctx.recovery.open_file(RECOVERY_IMAGE)?;
    ctx.state.remove_file(TRANSITION)?;
    let target = copy::copy(&ctx.host.effects, source, &ctx.state, TRANSITION)
        .with_context(|| format!("copying the recovery image for {}", image.path))?;
    ctx.host.effects.next()?;
    ext4::set_label(&target, image.label)?;
    ctx.host.effects.next()?;
    target.sync_all().with_context(|| format!("flushing {TRANSITION}"))?;
    drop_cache(&target)?;
    ctx.state.rename(TRANSITION, image.path)
}

/// Asks the kernel to forget what it has cached of `file`, so that the comparison reads the disk.
fn drop_cache(file: &File) -> Result<()> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).context("dropping cached pages")
}

/// Whether `image` is the recovery image but for its label.
fn is_copy(ctx: &ResetCtx, image: &Image) -> Result<bool> {
    if !ctx.state.exists(image.path) {
        return Ok(false);
    }
    let (source, target) = (ctx.recovery.open_file(RECOVERY_IMAGE)?, ctx.state.open_file(image.path)?);
    if source.metadata()?.len() != target.metadata()?.len()
        || ext4::label(&target).ok().as_deref() != Some(image.label)
    {
        return Ok(false);
    }
    same(source, target).with_context(|| format!("comparing {} with the recovery image", image.path))
}

fn same(mut a: File, mut b: File) -> Result<bool> {
    a.seek(SeekFrom::Start(0))?;
    b.seek(SeekFrom::Start(0))?;
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut first = true;
    loop {
        let n = fill(&mut a, &mut left)?;
        if n != fill(&mut b, &mut right)? {
            return Ok(false);
        }
        if std::mem::take(&mut first) && n >= CHECKSUM_AT.end {
            for range in [LABEL_AT, CHECKSUM_AT] {
                left[range.clone()].fill(0);
                right[range].fill(0);
            }
        }
        if left[..n] != right[..n] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..])? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

/// The boot menu is part of the image, as in Kairos: what the image carries is what COS_STATE shows.
pub(super) fn boot_menu(ctx: &mut ResetCtx) -> Result<Change> {
    let Some(menu) = ctx.image.read_opt(MENU_SOURCE)? else {
        bail!("the recovery image has no {MENU_SOURCE}: it was not built for this boot loader");
    };
    ctx.state.create_dir_all("/grub2", 0o755)?;
    let changed = ctx.state.write_if_changed(MENU, &menu, 0o644)?;
    Ok(if changed { Change::Updated } else { Change::Unchanged })
}
