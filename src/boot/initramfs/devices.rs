//! Drivers and block devices: loads what the present hardware asks for, and waits for a partition by the kernel's events.

use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::host::block::{self, Device};
use crate::host::modules::{Modules, present_aliases};
use crate::host::uevent::Uevents;
use crate::plan::Events;

/// The hardware as far as it has appeared.
#[derive(Debug)]
pub(super) struct Devices {
    uevents: Uevents,
    modules: Modules,
    found: Vec<Device>,
}

impl Devices {
    /// Subscribes to the kernel's events, then loads drivers for what is already there.
    pub(super) fn start(host: &Host, events: &Events) -> Result<Devices> {
        let uevents = Uevents::subscribe()?;
        let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        let mut modules = Modules::read(&host.root, &release)?;
        for alias in present_aliases(&host.root)? {
            // One driver that does not load must not keep the others from driving the disk.
            if let Err(e) = modules.load_alias(&host.root, &alias) {
                events.warn(format!("{e:#}"));
            }
        }
        for name in ["loop", "overlay"] {
            modules.load(&host.root, name)?;
        }
        let found = block::scan(&host.root)?;
        Ok(Devices { uevents, modules, found })
    }

    /// Loads the driver of a file system: the kernel cannot ask for it, as there is no modprobe here.
    pub(super) fn load_filesystem(&mut self, host: &Host, fstype: &str) -> Result<()> {
        self.modules.load(&host.root, fstype)
    }

    /// The partition called `label` (or GPT name `part` where it has no label), once it is there. `None` after `patience`.
    pub(super) fn wait(
        &mut self,
        host: &Host,
        label: &str,
        part: &str,
        patience: Duration,
    ) -> Result<Option<Device>> {
        let deadline = host.clock.deadline(patience);
        loop {
            if let Some(device) = block::find(&self.found, label, part)? {
                return Ok(Some(device.clone()));
            }
            let Some(event) = self.uevents.next(deadline)? else { return Ok(None) };
            if let Some(alias) = &event.modalias {
                self.modules.load_alias(&host.root, alias)?;
            }
            // An empty event means that some were lost.
            if event.subsystem == "block" || event.action.is_empty() {
                self.found = block::scan(&host.root)?;
            }
        }
    }

    /// What is there, for a message.
    pub(super) fn shown(&self) -> String {
        let one = |d: &Device| format!("{} ({})", d.name, d.label.as_deref().unwrap_or("no label"));
        let all: Vec<String> = self.found.iter().map(one).collect();
        if all.is_empty() { "no disks at all".to_owned() } else { all.join(", ") }
    }
}
