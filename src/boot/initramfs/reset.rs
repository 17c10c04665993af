//! A state reset in the initramfs: mounts what it needs, carries the order out, unmounts.

use std::path::Path;

use anyhow::{Result, bail};
use sys_mount::MountFlags;

use super::devices::Devices;
use super::need;
use crate::host::{Host, Root, mount};
use crate::phases::state_reset::{self, Outcome, RECOVERY_IMAGE, ResetCtx};
use crate::plan::Events;
use crate::plan::intent::Pending;

const RECOVERY: &str = "/run/rekindle/recovery";
const STATE: &str = "/run/rekindle/state";
const IMAGE: &str = "/run/rekindle/image";
const IMAGE_DEV: &str = "/run/rekindle/image/dev";

/// Carries the order out. A refused one is told, and the boot goes on as if it had not been given.
///
/// # Errors
/// The order is not finished: the next boot goes on with it.
pub(super) fn run(
    host: &Host,
    events: &Events,
    devices: &mut Devices,
    oem: &Root,
    pending: Pending,
) -> Result<()> {
    let resumed = matches!(pending, Pending::Order(_));
    match prepare(host, devices, oem, pending) {
        Ok(ctx) => {
            let outcome = state_reset::carry_out(ctx, events)?;
            for dir in [IMAGE_DEV, IMAGE, STATE, RECOVERY] {
                mount::unmount(host, Path::new(dir))?;
            }
            match outcome {
                Outcome::Done(_) => {}
                Outcome::Refused(why) => {
                    events.error(format!("state reset refused, nothing was erased: {why}"));
                }
                Outcome::Resumable(why) => bail!("the state reset is not finished: {why}"),
            }
            Ok(())
        }
        Err(error) if resumed => Err(error),
        Err(error) => {
            events.error(format!("state reset refused, nothing was erased: {error:#}"));
            state_reset::refuse(oem)
        }
    }
}

/// Mounts everything, then arms: what fails here has erased nothing.
fn prepare(host: &Host, devices: &mut Devices, oem: &Root, pending: Pending) -> Result<ResetCtx> {
    devices.load_filesystem(host, "ext4")?;
    let persistent = need(host, devices, "COS_PERSISTENT", "persistent")?;
    for (label, part, dir, flags) in [
        ("COS_RECOVERY", "recovery", RECOVERY, MountFlags::RDONLY),
        ("COS_STATE", "state", STATE, MountFlags::NOATIME),
    ] {
        let device = need(host, devices, label, part)?;
        host.root.create_dir_all(dir, 0o755)?;
        mount::mount(host, &device, Path::new(dir), "ext4", flags, "")?;
    }
    let (recovery, state) = (host.root.sub(RECOVERY)?, host.root.sub(STATE)?);
    host.root.create_dir_all(IMAGE, 0o755)?;
    let (device, _until_mounted) = mount::loop_device(host, &recovery.host_path(RECOVERY_IMAGE))?;
    mount::mount(host, &device, Path::new(IMAGE), "ext4", MountFlags::RDONLY, "")?;
    let image = host.root.sub(IMAGE)?;
    // mkfs comes from the recovery image and needs to see the device.
    mount::bind(host, Path::new("/dev"), Path::new(IMAGE_DEV))?;
    let armed = state_reset::take_order(host, oem, &recovery, pending)?;
    let (host, oem) = (host.clone(), oem.clone());
    Ok(ResetCtx { host, oem, recovery, state, image, persistent, armed, images_laid: false })
}
