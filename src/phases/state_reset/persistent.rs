//! COS_PERSISTENT: a new, empty file system. Its UUID is the id of the order, so that the disk itself tells whether this
//! order's work is done.

use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::ResetCtx;
use crate::host::{Cmd, block};
use crate::plan::Change;
use crate::plan::intent::Armed;

/// Label of the partition with everything that a node gathers while it runs.
const LABEL: &str = "COS_PERSISTENT";
const MKFS: &str = "/usr/sbin/mkfs.ext4";

pub(super) fn erase(ctx: &mut ResetCtx) -> Result<Change> {
    let id = ctx.armed.intent().id.clone();
    if uuid(&ctx.persistent)?.as_deref() == Some(id.as_str()) {
        return Ok(Change::Unchanged);
    }
    mkfs(ctx, &ctx.armed)?;
    if uuid(&ctx.persistent)?.as_deref() != Some(id.as_str()) {
        bail!(
            "{} does not carry the new file system after mkfs: the disk may be failing",
            ctx.persistent.display()
        );
    }
    Ok(Change::Removed)
}

fn mkfs(ctx: &ResetCtx, armed: &Armed) -> Result<()> {
    let id = &armed.intent().id;
    let device = ctx.persistent.to_string_lossy().into_owned();
    // In the initramfs the program comes from the recovery image, with that image as its root.
    let chroot = (ctx.image.host_path("/") != Path::new("/")).then(|| ctx.image.host_path("/"));
    let cmd = Cmd::new(MKFS).args(["-F", "-q", "-L", LABEL, "-U", id, "-m", "1", &device]);
    let cmd = match chroot.filter(|_| ctx.image.exists(MKFS)) {
        Some(dir) => cmd.chroot(&dir),
        None => cmd,
    };
    ctx.host.exec.run(&cmd).map(drop).with_context(|| format!("making a file system on {device}"))?;
    let file = block::open_rw(&ctx.persistent)?;
    ctx.host.effects.next()?;
    file.sync_all().with_context(|| format!("flushing {device}"))
}

/// UUID of the ext4 file system on `device` (superblock offset 104), `None` if there is none.
fn uuid(device: &Path) -> Result<Option<String>> {
    let mut block = [0; 1024];
    let file = block::open_rw(device)?;
    file.read_exact_at(&mut block, 1024).with_context(|| format!("reading {}", device.display()))?;
    if block[56..58] != [0x53, 0xEF] {
        return Ok(None);
    }
    let hex = crate::host::copy::hex(&block[104..120]);
    let part = |range: std::ops::Range<usize>| &hex[range];
    Ok(Some([part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")))
}
