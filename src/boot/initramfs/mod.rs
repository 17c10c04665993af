//! `/init`: from the kernel's first process to the system's own init. No shell, no udev, no sleep: devices are waited for
//! by the kernel's events, each wait has a deadline, and a failure shows its reason and goes on to the next boot entry.

mod devices;
mod layout;
mod machine_id;
mod reset;
mod seed;

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sys_mount::MountFlags;

use self::devices::Devices;
use super::cmdline::{Cmdline, Mode};
use super::decide::{Action, Facts, Node, decide, next_entry};
use super::{grubenv, running};
use crate::host::console::Port;
use crate::host::{Host, Root, mount, power};
use crate::oem;
use crate::plan::Events;
use crate::plan::intent::{self, Pending};

/// Where the system's root is put together.
const SYSROOT: &str = "/sysroot";
/// Where COS_OEM is mounted until the root is there to carry it.
const OEM: &str = "/run/rekindle/oem";
/// How long partitions other than COS_OEM may take to appear, in seconds.
const DEVICE_SECONDS: u64 = 60;
/// How long COS_OEM may take, unless `rd.cos.oemtimeout=` says otherwise.
const OEM_SECONDS: u64 = 10;
/// How long the reason of a failure stays on the screen before the machine restarts.
const REASON_SECONDS: u64 = 5;

/// What the boot knows while it runs.
struct Init {
    host: Host,
    events: Events,
    cmdline: Cmdline,
    /// What is being booted; a finished reset turns it into [`Mode::Active`].
    mode: Mode,
    oem: Option<Root>,
}

/// Runs as the first process. Returns only if even the restart failed; the kernel's `panic=` restarts then.
pub fn main() -> ExitCode {
    let host = match Host::live() {
        Ok(host) => host,
        Err(_) => return ExitCode::FAILURE,
    };
    let events = Events::new(host.clock.clone());
    let mut init = Init { host, events, cmdline: Cmdline::default(), mode: Mode::Unknown, oem: None };
    let Err(error) = init.run();
    init.give_up(&error);
    ExitCode::FAILURE
}

impl Init {
    fn run(&mut self) -> Result<Infallible> {
        kernel_mounts(&self.host)?;
        self.cmdline = Cmdline::parse(&self.host.root.read_text("/proc/cmdline")?);
        self.mode = self.cmdline.mode();
        self.open_consoles();
        self.events.reached("kernel", None);
        for problem in &self.cmdline.problems {
            self.events.warn(format!("kernel command line: {problem}"));
        }
        let mut devices = Devices::start(&self.host, &self.events)?;
        self.oem = self.mount_oem(&mut devices)?;
        let pending = self.oem.as_ref().map_or(Ok(Pending::Nothing), intent::pending)?;
        let facts = Facts { mode: self.mode, pending: pending.clone(), node: Node::Unknown };
        let (action, why) = decide(&facts);
        running::tell(&self.host, &self.events, action, &why)?;
        match action {
            Action::Reset => self.reset(&mut devices, pending)?,
            Action::Recover => self.mode = Mode::Recovery,
            _ => {}
        }
        layout::compose(self, &mut devices)?;
        self.events.reached("root", Some(format!("{} mode", self.mode.state().trim_end_matches("_boot"))));
        self.hand_over()
    }

    /// Opens every console that the kernel was given, and the port for machines if one is named.
    fn open_consoles(&self) {
        let mut names: Vec<&str> =
            self.cmdline.consoles.iter().map(|c| c.split(',').next().unwrap_or(c)).collect();
        if names.is_empty() {
            names.push("console");
        }
        for name in names {
            // A console that the kernel was told of need not be there; the others show the same.
            if let Ok(port) = Port::device(&Path::new("/dev").join(name)) {
                self.events.add_text(port);
            }
        }
        if let Some(device) = &self.cmdline.events {
            match Port::device(Path::new(device)) {
                Ok(port) => self.events.add_json(port),
                Err(e) => self.events.warn(format!("rekindle.events={device}: {e:#}")),
            }
        }
    }

    fn mount_oem(&self, devices: &mut Devices) -> Result<Option<Root>> {
        let label = self.cmdline.oem_label.as_deref().unwrap_or("COS_OEM");
        let seconds = self.cmdline.oem_timeout.unwrap_or(OEM_SECONDS);
        let Some(device) = devices.wait(&self.host, label, "oem", Duration::from_secs(seconds))? else {
            self.events.warn(format!(
                "no partition is labelled {label} after {seconds} s: booting without configuration"
            ));
            return Ok(None);
        };
        self.host.root.create_dir_all(OEM, 0o755)?;
        devices.load_filesystem(&self.host, "ext4")?;
        // A node whose configuration cannot be read still has its state: it boots, and says so.
        if let Err(e) =
            mount::mount(&self.host, &device.path(), Path::new(OEM), "ext4", MountFlags::NOATIME, "")
        {
            self.events.error(format!("{e:#}: booting without configuration; a reset cannot be ordered"));
            return Ok(None);
        }
        self.host.root.sub(OEM).map(Some)
    }

    /// Carries out a reset; the boot then goes on with what it laid down.
    fn reset(&mut self, devices: &mut Devices, pending: Pending) -> Result<()> {
        let Some(oem) = self.oem.clone() else {
            self.events
                .error("a state reset needs COS_OEM to keep its order on: refused, nothing was erased");
            self.mode = Mode::Active;
            return Ok(());
        };
        reset::run(&self.host, &self.events, devices, &oem, pending)?;
        self.mode = Mode::Active;
        Ok(())
    }

    /// Runs the stages of the configuration in the new root, then starts its init.
    fn hand_over(&self) -> Result<Infallible> {
        for dir in ["dev", "proc", "sys", "run"] {
            let target = Path::new(SYSROOT).join(dir);
            mount::relocate(&self.host, &Path::new("/").join(dir), &target)?;
        }
        let host = Host::with_effects(Path::new(SYSROOT), self.host.effects.clone())?;
        let found = oem::load(&host.root);
        oem::tell_findings(&self.events, &found);
        let machine = oem::Machine { host: &host, chroot: Some(Path::new(SYSROOT)) };
        for stage in ["rootfs", "initramfs"] {
            // What goes wrong in a step was told by it, and does not keep the node from booting.
            oem::run_stage_on(machine, &found, stage, &self.events);
        }
        self.events.reached("switch-root", None);
        power::switch_root(&self.host, Path::new(SYSROOT), "/sbin/init")
    }

    /// Shows why, makes the next boot another one where that can help, and restarts.
    fn give_up(&self, error: &anyhow::Error) {
        self.events.error(format!("this boot cannot go on: {error:#}"));
        match self.choose_next() {
            Ok(Some(entry)) => self.events.error(format!("restarting into the boot entry {entry}")),
            Ok(None) => self.events.error("restarting"),
            Err(e) => self.events.error(format!("restarting; the next boot entry could not be set: {e:#}")),
        }
        let uevents = crate::host::uevent::Uevents::subscribe();
        let deadline = self.host.clock.deadline(Duration::from_secs(REASON_SECONDS));
        // The time to read is spent on the kernel's events: no device will appear that matters now.
        while !deadline.passed() {
            let waited = uevents.as_ref().map(|u| u.next(deadline));
            if !matches!(waited, Ok(Ok(_))) {
                break;
            }
        }
        let Err(e) = power::restart(&self.host);
        self.events.error(format!("{e:#}"));
    }

    /// An order that is pending keeps its own entry; otherwise the next one in the order active, fallback, recovery.
    fn choose_next(&self) -> Result<Option<&'static str>> {
        let Some(oem) = &self.oem else { return Ok(None) };
        if matches!(intent::pending(oem)?, Pending::Order(_)) {
            return Ok(Some("statereset"));
        }
        let Some(entry) = next_entry(self.mode) else { return Ok(None) };
        let mut env = grubenv::load(oem, "/grubenv")?.env;
        env.set("next_entry", entry)?;
        grubenv::store(oem, "/grubenv", &env)?;
        Ok(Some(entry))
    }
}

/// The kernel's own file systems, which everything else needs.
fn kernel_mounts(host: &Host) -> Result<()> {
    let nosuid = MountFlags::NOSUID;
    for (dir, fstype, flags, data) in [
        ("/proc", "proc", nosuid | MountFlags::NODEV | MountFlags::NOEXEC, ""),
        ("/sys", "sysfs", nosuid | MountFlags::NODEV | MountFlags::NOEXEC, ""),
        ("/dev", "devtmpfs", nosuid, "mode=0755"),
        ("/run", "tmpfs", nosuid | MountFlags::NODEV, "mode=0755"),
    ] {
        host.root.create_dir_all(dir, 0o755)?;
        // The kernel may have mounted /dev itself (CONFIG_DEVTMPFS_MOUNT).
        if dir == "/dev" && host.root.exists("/dev/null") {
            continue;
        }
        mount::mount(host, Path::new(fstype), Path::new(dir), fstype, flags, data)?;
    }
    Ok(())
}

/// The partition with `label`, which must be there.
fn need(host: &Host, devices: &mut Devices, label: &str, part: &str) -> Result<std::path::PathBuf> {
    let found = devices
        .wait(host, label, part, Duration::from_secs(DEVICE_SECONDS))
        .with_context(|| format!("looking for the partition {label}"))?;
    match found {
        Some(device) => Ok(device.path()),
        None => {
            bail!("no partition is labelled {label} after {DEVICE_SECONDS} s; there are: {}", devices.shown())
        }
    }
}
