//! The running system's root: the image read-only, folders that may change in memory on top, the persistent partition and
//! the state paths that live on it. Layout and names are Kairos' (`cos-layout.env`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sys_mount::MountFlags;

use super::devices::Devices;
use super::{Init, OEM, SYSROOT, machine_id, need, seed};
use crate::boot::cmdline::Mode;
use crate::host::{Host, mount};

/// Where the partition with the images stays mounted (Kairos' place).
const COS_STATE: &str = "/run/initramfs/cos-state";
const OVERLAY: &str = "/run/overlay";
/// Where state paths are kept on the persistent partition.
const STATE_TARGET: &str = "/usr/local/.state";

/// Folders that may change in memory while the system runs from an image with a persistent partition.
const RW_PATHS: &[&str] = &["/etc", "/srv", "/var"];
/// The same in recovery, where nothing is persistent.
const RW_PATHS_RECOVERY: &[&str] = &["/etc", "/home", "/opt", "/root", "/srv", "/usr/local", "/var"];
/// Folders that outlive a reboot. One that the image lacks and that cannot be made in memory is left out.
const STATE_PATHS: &[&str] = &[
    "/etc/cni",
    "/etc/iscsi",
    "/etc/kubernetes",
    "/etc/modprobe.d",
    "/etc/ssh",
    "/etc/ssl/certs",
    "/etc/sysconfig",
    "/etc/systemd",
    "/home",
    "/opt",
    "/root",
    "/usr/libexec",
    "/var/cores",
    "/var/lib/ca-certificates",
    "/var/lib/calico",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/dbus",
    "/var/lib/etcd",
    "/var/lib/extensions",
    "/var/lib/confexts",
    "/var/lib/kairos",
    "/var/lib/kubelet",
    "/var/lib/longhorn",
    "/var/lib/rook",
    "/var/log",
];

/// Mounts everything below [`SYSROOT`] and leaves the sentinels for the mode.
pub(super) fn compose(init: &Init, devices: &mut Devices) -> Result<()> {
    let host = &init.host;
    image(init, devices)?;
    let paths = if init.mode == Mode::Recovery { RW_PATHS_RECOVERY } else { RW_PATHS };
    overlays(host, paths, init.cmdline.overlay_size.as_deref().unwrap_or("25%"))?;
    if init.oem.is_some() {
        mount::relocate(host, Path::new(OEM), &Path::new(SYSROOT).join("oem"))?;
    }
    if init.mode != Mode::Recovery {
        let device = need(host, devices, "COS_PERSISTENT", "persistent")?;
        let target = Path::new(SYSROOT).join("usr/local");
        mount::mount(host, &device, &target, "ext4", MountFlags::NOATIME, "").context(
            "the persistent partition is needed: booting without it would look healthy and lose data",
        )?;
        state_paths(host)?;
        machine_id::place(&host.root.sub(SYSROOT)?)?;
    }
    for extra in &init.cmdline.mounts {
        let device = need(host, devices, &extra.label, &extra.label)?;
        let target = Path::new(SYSROOT).join(extra.path.trim_start_matches('/'));
        mount::mount(host, &device, &target, "ext4", MountFlags::NOATIME, "")?;
    }
    sentinels(init, paths)
}

/// The image as a read-only root, through a loop device.
fn image(init: &Init, devices: &mut Devices) -> Result<()> {
    let host = &init.host;
    let (label, part, default) = match init.mode {
        Mode::Recovery => ("COS_RECOVERY", "recovery", "/cOS/recovery.img"),
        Mode::Passive => ("COS_STATE", "state", "/cOS/passive.img"),
        _ => ("COS_STATE", "state", "/cOS/active.img"),
    };
    // The command line names the image of the entry that was chosen; a reset goes on with another one.
    let named = init.cmdline.image.as_deref().filter(|_| init.mode == init.cmdline.mode());
    let file = named.unwrap_or(default);
    if file.split('/').any(|part| part == "..") {
        bail!("cos-img/filename={file}: the path of an image has no `..`");
    }
    devices.load_filesystem(host, "ext4")?;
    let device = need(host, devices, label, part)?;
    host.root.create_dir_all(COS_STATE, 0o755)?;
    mount::mount(host, &device, Path::new(COS_STATE), "ext4", MountFlags::RDONLY, "")?;
    let path: PathBuf = Path::new(COS_STATE).join(file.trim_start_matches('/'));
    let (device, _keep) = mount::loop_device(host, &path)?;
    host.root.create_dir_all(SYSROOT, 0o755)?;
    mount::mount(host, &device, Path::new(SYSROOT), "ext4", MountFlags::RDONLY, "")
        .with_context(|| format!("mounting the image {file} of {label}"))
}

fn overlays(host: &Host, paths: &[&str], size: &str) -> Result<()> {
    if !size.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%') {
        bail!("rd.cos.overlay=tmpfs:{size}: a size is a number with k, m, g or %");
    }
    host.root.create_dir_all(OVERLAY, 0o755)?;
    let data = format!("mode=0755,size={size}");
    mount::mount(host, Path::new("tmpfs"), Path::new(OVERLAY), "tmpfs", MountFlags::NODEV, &data)?;
    for path in paths {
        let target = format!("{SYSROOT}{path}");
        if !host.root.exists(&target) {
            continue;
        }
        let above = format!("{OVERLAY}/{}.overlay", dashed(path));
        let (upper, work) = (format!("{above}/upper"), format!("{above}/work"));
        host.root.create_dir_all(&upper, 0o755)?;
        host.root.create_dir_all(&work, 0o755)?;
        // The overlay's root takes its mode and owner from the upper folder: /root must stay closed.
        let stat = host.root.stat(&target)?;
        host.root.chmod(&upper, stat.mode)?;
        let data = format!("lowerdir={target},upperdir={upper},workdir={work}");
        mount::mount(host, Path::new("overlay"), Path::new(&target), "overlay", MountFlags::empty(), &data)?;
    }
    Ok(())
}

/// Shows each state path's folder on the persistent partition in its place, filled from the image where it lacks.
fn state_paths(host: &Host) -> Result<()> {
    let sysroot = host.root.sub(SYSROOT)?;
    for path in STATE_PATHS {
        let writable = RW_PATHS.iter().any(|p| path.starts_with(&format!("{p}/")));
        if !sysroot.exists(path) {
            if !writable {
                continue;
            }
            sysroot.create_dir_all(path, 0o755)?;
        }
        let kept = format!("{STATE_TARGET}/{}.bind", dashed(path));
        let stat = sysroot.stat(path)?;
        if !sysroot.exists(&kept) {
            sysroot.create_dir_all(STATE_TARGET, 0o755)?;
            sysroot.create_dir_all(&kept, stat.mode)?;
            sysroot.chown(&kept, stat.uid, stat.gid)?;
        }
        seed::missing(&sysroot.sub(path)?, &sysroot.sub(&kept)?)
            .with_context(|| format!("filling {kept}"))?;
        mount::bind(host, &sysroot.host_path(&kept), &sysroot.host_path(path))?;
    }
    Ok(())
}

/// `/run/cos`: the mode as a file, and the layout for scripts.
fn sentinels(init: &Init, rw_paths: &[&str]) -> Result<()> {
    let root = &init.host.root;
    root.create_dir_all("/run/cos", 0o755)?;
    root.write_atomic(&format!("/run/cos/{}", init.mode.sentinel()), b"1", 0o644)?;
    let (volumes, state) = if init.mode == Mode::Recovery {
        ("", String::new())
    } else {
        ("LABEL=COS_PERSISTENT:/usr/local", STATE_PATHS.join(" "))
    };
    let layout = format!(
        "VOLUMES=\"{volumes}\"\nOVERLAY=\"tmpfs:25%\"\nRW_PATHS=\"{}\"\n\
         PERSISTENT_STATE_PATHS=\"{state}\"\nPERSISTENT_STATE_TARGET=\"{STATE_TARGET}\"\n",
        rw_paths.join(" ")
    );
    root.write_atomic("/run/cos/cos-layout.env", layout.as_bytes(), 0o644)
}

/// `/var/lib/etcd` as `var-lib-etcd`.
fn dashed(path: &str) -> String {
    path.trim_matches('/').replace('/', "-")
}
