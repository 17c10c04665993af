//! Where a person or a machine reads: a console, a serial port, standard output.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// An opened outlet for lines.
#[derive(Debug)]
pub struct Port {
    out: Out,
    /// Whether colours may be used.
    pub colour: bool,
}

#[derive(Debug)]
enum Out {
    File(File),
    Stdout,
    Stderr,
}

impl Port {
    /// Opens a device such as `/dev/console` without making it the controlling terminal and without waiting for a
    /// carrier.
    ///
    /// # Errors
    /// There is no such device.
    pub fn device(path: &Path) -> Result<Port> {
        let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        // Non-blocking only for the open: a slow line must not lose text.
        let flags = nix::fcntl::OFlag::from_bits_truncate(nix::libc::O_NOCTTY);
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(flags))
            .with_context(|| format!("setting up {}", path.display()))?;
        Ok(Port { colour: file.is_terminal(), out: Out::File(file) })
    }

    /// Standard output.
    #[must_use]
    pub fn stdout() -> Port {
        Port { colour: std::io::stdout().is_terminal(), out: Out::Stdout }
    }

    /// Standard error.
    #[must_use]
    pub fn stderr() -> Port {
        Port { colour: std::io::stderr().is_terminal(), out: Out::Stderr }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// The outlet is gone.
    pub fn write_line(&mut self, line: &str) -> std::io::Result<()> {
        self.write_bytes(format!("{line}\n").as_bytes())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// The outlet is gone.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.out {
            Out::File(file) => file.write_all(bytes),
            Out::Stdout => std::io::stdout().lock().write_all(bytes),
            Out::Stderr => std::io::stderr().lock().write_all(bytes),
        }
    }
}
