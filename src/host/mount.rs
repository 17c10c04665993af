//! Mounts and loop devices.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, umount};
use sys_mount::{Mount, MountFlags};

use super::Host;

/// Mounts `source` at `target`, which must be a folder.
///
/// # Errors
/// The kernel refuses; the message says what and where.
pub fn mount(
    host: &Host,
    source: &Path,
    target: &Path,
    fstype: &str,
    flags: MountFlags,
    data: &str,
) -> Result<()> {
    host.effects.next()?;
    Mount::builder()
        .fstype(fstype)
        .flags(flags)
        .data(data)
        .mount(source, target)
        .map(drop)
        .with_context(|| format!("mounting {} ({fstype}) on {}", source.display(), target.display()))
}

/// Shows the folder `source` at `target` as well.
///
/// # Errors
/// The kernel refuses.
pub fn bind(host: &Host, source: &Path, target: &Path) -> Result<()> {
    raw(host, Some(source), target, MsFlags::MS_BIND | MsFlags::MS_REC, "binding")
}

/// Moves the mount at `source` to `target`.
///
/// # Errors
/// The kernel refuses.
pub fn relocate(host: &Host, source: &Path, target: &Path) -> Result<()> {
    raw(host, Some(source), target, MsFlags::MS_MOVE, "moving")
}

fn raw(host: &Host, source: Option<&Path>, target: &Path, flags: MsFlags, doing: &str) -> Result<()> {
    host.effects.next()?;
    nix::mount::mount(source, target, None::<&str>, flags, None::<&str>).with_context(|| {
        let from = source.map(|s| format!("{} to ", s.display())).unwrap_or_default();
        format!("{doing} {from}{}", target.display())
    })
}

/// Unmounts, and fails if something still uses the mount: never lazily, which would lose writes silently.
///
/// # Errors
/// The kernel refuses.
pub fn unmount(host: &Host, target: &Path) -> Result<()> {
    host.effects.next()?;
    umount(target).with_context(|| format!("unmounting {}", target.display()))
}

/// Request numbers of linux/loop.h.
#[allow(missing_docs, reason = "made by a macro")]
mod ioctl {
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, super::LoopConfig);
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// A read-only loop device over `image`. It goes away by itself when its last user has.
///
/// # Errors
/// The image cannot be opened, or no loop device can be had.
pub fn loop_device(host: &Host, image: &Path) -> Result<(PathBuf, File)> {
    let open = |path: &Path| {
        OpenOptions::new().read(true).open(path).with_context(|| format!("opening {}", path.display()))
    };
    let backing = open(image)?;
    let control = open(Path::new("/dev/loop-control"))?;
    let mut file_name = [0; 64];
    let name = image.as_os_str().as_bytes();
    let len = name.len().min(63);
    file_name[..len].copy_from_slice(&name[..len]);
    host.effects.next()?;
    // SAFETY: this ioctl takes no argument and returns a number.
    #[allow(unsafe_code)]
    let number =
        unsafe { ioctl::loop_ctl_get_free(control.as_raw_fd()) }.context("asking for a free loop device")?;
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let device = open(&path)?;
    let config = LoopConfig {
        fd: backing.as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout of `struct loop_config` and outlives the call, which only reads it.
    #[allow(unsafe_code)]
    unsafe { ioctl::loop_configure(device.as_raw_fd(), &config) }
        .with_context(|| format!("setting up {} over {}", path.display(), image.display()))?;
    Ok((path, device))
}
