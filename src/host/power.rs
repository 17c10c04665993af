//! Reboot, and handing the machine over to another init.

use std::convert::Infallible;
use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{chdir, chroot, execv, sync};

use super::{Host, mount};

/// Flushes everything and restarts the machine.
///
/// # Errors
/// The kernel refuses (not root).
pub fn restart(host: &Host) -> Result<Infallible> {
    host.effects.next()?;
    sync();
    reboot(RebootMode::RB_AUTOBOOT).context("restarting the machine")
}

/// Makes `new_root` the root of everything and starts its init in place of this process.
/// The kernel's own mounts must already be below `new_root`.
///
/// # Errors
/// A step fails; the message says which.
pub fn switch_root(host: &Host, new_root: &Path, init: &str) -> Result<Infallible> {
    chdir(new_root).with_context(|| format!("entering {}", new_root.display()))?;
    mount::relocate(host, Path::new("."), Path::new("/"))?;
    chroot(".").context("changing the root")?;
    chdir("/").context("entering the new root")?;
    let program = CString::new(init).context("naming init")?;
    execv(&program, &[&program]).with_context(|| format!("starting {init}"))
}
