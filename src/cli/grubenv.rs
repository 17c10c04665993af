//! `grub2-editenv FILE create|list|set|unset`: GRUB's own command (also as `grub-editenv`), with its texts and exit codes.
//!
//! It differs where GRUB's would do harm: the file is replaced by rename, so that a power cut leaves the old block or the
//! new one; a block of another length than 1024 bytes is written back with 1024; keys that GRUB could not read back are
//! refused.

use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser};

use crate::boot::grubenv::{self, Damage, GrubEnv};
use crate::host::console::Port;
use crate::host::{Host, Root};

/// The file that `-` stands for, and that is taken when only a command is given.
const DEFAULT: &str = "/boot/grub/grubenv";

/// Exit code for a missing command (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

/// The command line. Commands are no clap subcommands: a file may be called `list`.
#[derive(Debug, Parser)]
#[command(
    about = "Tool to edit GRUB's environment block",
    disable_help_flag = true,
    disable_version_flag = true,
    override_usage = "grub2-editenv [OPTION...] FILENAME COMMAND",
    after_help = "Commands:\n  create               make an empty block\n  list                 show the variables\n  \
                  set [NAME=VALUE ...] set variables\n  unset [NAME ...]     take variables away\n\n\
                  FILENAME - is /boot/grub/grubenv."
)]
struct Args {
    /// Give this help list
    #[arg(short = '?', long, action = ArgAction::SetTrue)]
    help: bool,
    /// Give a short usage message
    #[arg(long)]
    usage: bool,
    /// Print verbose messages
    #[arg(short, long)]
    verbose: bool,
    /// Print program version
    #[arg(short = 'V', long)]
    version: bool,
    /// FILENAME, COMMAND and what belongs to it
    #[arg(value_name = "WORD")]
    words: Vec<String>,
}

/// What to print, and the exit code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// For standard output. Bytes, since values may have any encoding.
    pub stdout: Vec<u8>,
    /// For standard error.
    pub stderr: String,
    /// Exit code.
    pub code: u8,
}

/// Runs the command on the live system and prints what it says.
#[must_use]
pub fn main(argv: &[String]) -> ExitCode {
    let host = match Host::live() {
        Ok(host) => host,
        Err(e) => return super::say(Port::stderr(), &format!("error: {e:#}"), 1),
    };
    let here = std::env::current_dir().unwrap_or_default();
    let ending = run(argv, &host.root, |file| here.join(file).to_string_lossy().into_owned());
    let printed = Port::stdout()
        .write_bytes(&ending.stdout)
        .and_then(|()| Port::stderr().write_bytes(ending.stderr.as_bytes()));
    ExitCode::from(if printed.is_err() { ending.code.max(1) } else { ending.code })
}

/// Runs the command. `argv` begins with the name it was called by; file names are paths in `root`, which the caller has
/// made absolute by `absolute`.
#[must_use]
pub fn run(argv: &[String], root: &Root, absolute: impl Fn(&str) -> String) -> Ending {
    let name = argv.first().map_or("grub2-editenv", |n| n.rsplit('/').next().unwrap_or(n));
    let hint = format!(
        "Usage: {name} [OPTION...] FILENAME COMMAND\nTry '{name} --help' or '{name} --usage' for more information.\n"
    );
    let args = match Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(e) => return Ending { stderr: e.to_string(), code: USAGE, ..Ending::default() },
    };
    let said = |text: String| Ending { stdout: text.into_bytes(), ..Ending::default() };
    if args.help {
        return said(Args::command().render_help().to_string());
    }
    if args.usage {
        return said(format!("Usage: {name} [OPTION...] FILENAME COMMAND\n"));
    }
    if args.version {
        return said(format!("{name} (rekindle) {}\n", env!("CARGO_PKG_VERSION")));
    }
    let (file, command, rest) = match args.words.as_slice() {
        [] => {
            let stderr = format!("You need to specify at least one command.\n{hint}");
            return Ending { stderr, code: USAGE, ..Ending::default() };
        }
        [command] => (DEFAULT, command.as_str(), &[][..]),
        [file, command, rest @ ..] => {
            (if file == "-" { DEFAULT } else { file.as_str() }, command.as_str(), rest)
        }
    };
    if !["create", "list", "set", "unset"].contains(&command) {
        let stderr = format!("Unknown command `{command}'.\n{hint}");
        return Ending { stderr, code: 1, ..Ending::default() };
    }
    match edit(root, &absolute(file), command, rest) {
        Ok(stdout) => Ending { stdout, ..Ending::default() },
        Err(why) => Ending { stderr: format!("{name}: error: {why}.\n"), code: 1, ..Ending::default() },
    }
}

/// Returns what to print.
fn edit(root: &Root, path: &str, command: &str, rest: &[String]) -> Result<Vec<u8>, String> {
    let write = |env: &GrubEnv| grubenv::store(root, path, env).map_err(|e| format!("{e:#}"));
    if command == "create" {
        return write(&GrubEnv::default()).map(|()| Vec::new());
    }
    let found = grubenv::load(root, path).map_err(|e| format!("{e:#}"))?;
    match found.damage {
        // GRUB's command makes the file for every command.
        Some(Damage::Absent) => write(&GrubEnv::default())?,
        Some(damage) if damage.is_total() => {
            return Err(format!(
                "invalid environment block: {path}: {damage}; `create' replaces it by an empty one"
            ));
        }
        _ => {}
    }
    let mut env = found.env;
    match command {
        "list" => return Ok(listed(&env)),
        "unset" => rest.iter().for_each(|key| {
            env.unset(key);
        }),
        _ => {
            for word in rest {
                let (key, value) = word.split_once('=').ok_or_else(|| format!("invalid parameter {word}"))?;
                env.set(key, value).map_err(|e| format!("invalid parameter {word}: {e:#}"))?;
            }
        }
    }
    write(&env).map(|()| Vec::new())
}

fn listed(env: &GrubEnv) -> Vec<u8> {
    env.variables().flat_map(|(key, value)| [key, b"=", value, b"\n"].concat()).collect()
}
