//! Commands: what can be typed, and what is printed of the answer. The work is elsewhere.

pub mod grubenv;
pub mod kubeadm;
mod status;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::boot;
use crate::host::Host;
use crate::host::console::Port;
use crate::plan::Events;

/// From power-on to a Ready Kubernetes node, and through a state reset back.
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, disable_help_subcommand = true, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
As /init in an initramfs it boots the node; called as kubeadm or grub2-editenv it behaves as those.

To reset a node:   grub2-editenv /oem/grubenv set next_entry=statereset && reboot
To see what it did: rekindle status";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the configuration's stages fs and boot (rekindle-boot.service does).
    Boot,
    /// Make a fresh node what its configuration says, or wait for a provisioned one to be Ready
    /// (rekindle-provision.service does).
    Provision,
    /// Tell how this node was booted, what it did, and what the last reset proved.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs one command line.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let (code, text) = (u8::from(e.use_stderr()), e.render().to_string());
            return say(if code == 0 { Port::stdout() } else { Port::stderr() }, text.trim_end(), code);
        }
    };
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => say(Port::stderr(), &format!("error: {e:#}"), 1),
    }
}

fn run(command: &Command) -> Result<()> {
    let host = Host::live()?;
    match command {
        Command::Boot => boot::running::stages(&host, &events(&host)?),
        Command::Provision => boot::running::provision(&host, &events(&host)?),
        Command::Status { output } => {
            let status = boot::status::read(&host.root)?;
            let mut out = Port::stdout();
            let text = match output {
                Format::Text => status::text(&status, out.colour),
                Format::Json => serde_json::to_string_pretty(&status)?,
            };
            Ok(out.write_line(text.trim_end())?)
        }
    }
}

/// Text for the journal and the console, JSON lines for the port that the kernel command line names.
fn events(host: &Host) -> Result<Events> {
    let events = Events::new(host.clock.clone());
    events.add_text(Port::stdout());
    let cmdline = boot::cmdline::Cmdline::parse(&host.root.read_text("/proc/cmdline")?);
    if let Some(device) = &cmdline.events {
        match Port::device(std::path::Path::new(device)) {
            Ok(port) => events.add_json(port),
            Err(e) => events.warn(format!("rekindle.events={device}: {e:#}")),
        }
    }
    Ok(events)
}

/// Prints `text` and passes `code` on. A closed pipe changes nothing about the code.
pub(crate) fn say(mut port: Port, text: &str, code: u8) -> ExitCode {
    match port.write_line(text) {
        Ok(()) => ExitCode::from(code),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(_) => ExitCode::from(code.max(1)),
    }
}
