//! Every effect on the machine: files, processes, mounts, block devices, power, time.
//!
//! Nothing outside this folder touches the system (`clippy.toml` holds the rest of the crate to it), so a reader finds
//! every effect here and a test can count them, and stop at any one of them (see [`Effects`]).

pub mod block;
pub mod clock;
pub mod console;
pub mod copy;
pub mod effects;
pub mod exec;
pub mod ext4;
pub mod modules;
pub mod mount;
pub mod net;
pub mod power;
pub mod root;
pub mod uevent;

use std::path::Path;

use anyhow::Result;

pub use clock::Clock;
pub use effects::{Cut, Effects};
pub use exec::{Cmd, Exec, Output};
pub use root::{Root, WriteMode};

/// The machine as phases see it: a file tree, processes and time. Cheap to clone; clones share the effect counter.
#[derive(Debug, Clone)]
pub struct Host {
    /// The file tree that absolute paths are resolved in. `/` on a running node, a mounted image in the initramfs, a
    /// temporary folder in tests.
    pub root: Root,
    /// Starts programs.
    pub exec: Exec,
    /// Tells the time.
    pub clock: Clock,
    /// Counts what was done to the machine.
    pub effects: Effects,
}

impl Host {
    /// The running machine.
    ///
    /// # Errors
    /// `/` cannot be opened.
    pub fn live() -> Result<Host> {
        Host::at(Path::new("/"))
    }

    /// The machine with `dir` as its root of files. Programs are still started on the live system.
    ///
    /// # Errors
    /// `dir` is no folder that can be opened.
    pub fn at(dir: &Path) -> Result<Host> {
        Host::with_effects(dir, Effects::default())
    }

    /// As [`Host::at`], counting into `effects`.
    ///
    /// # Errors
    /// `dir` is no folder that can be opened.
    pub fn with_effects(dir: &Path, effects: Effects) -> Result<Host> {
        let root = Root::open(dir, effects.clone())?;
        Ok(Host { root, exec: Exec::new(effects.clone()), clock: Clock::new(), effects })
    }
}
