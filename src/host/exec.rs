//! Starts programs and keeps what they say for the error message.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Effects;

/// Starts programs; each start is one effect.
#[derive(Debug, Clone)]
pub struct Exec {
    effects: Effects,
}

/// A program to start, with arguments that are never passed through a shell.
#[derive(Debug, Clone, Default)]
pub struct Cmd {
    program: String,
    args: Vec<String>,
    stdin: Option<Vec<u8>>,
    chroot: Option<PathBuf>,
    env: Vec<(String, String)>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Cmd {
    /// `program` without arguments.
    #[must_use]
    pub fn new(program: &str) -> Cmd {
        Cmd { program: program.to_owned(), ..Cmd::default() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Gives the program `bytes` on its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: &[u8]) -> Cmd {
        self.stdin = Some(bytes.to_owned());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Cmd {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program with `dir` as its root.
    #[must_use]
    pub fn chroot(mut self, dir: &Path) -> Cmd {
        self.chroot = Some(dir.to_owned());
        self
    }

    /// Program and arguments as a person would type them. For messages: never put a secret into an argument.
    #[must_use]
    pub fn shown(&self) -> String {
        std::iter::once(&self.program).chain(&self.args).cloned().collect::<Vec<_>>().join(" ")
    }
}

impl Exec {
    pub(crate) fn new(effects: Effects) -> Exec {
        Exec { effects }
    }

    /// Runs `cmd` to its end, whatever its exit code.
    ///
    /// # Errors
    /// It cannot be started.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts processes")]
    pub fn output(&self, cmd: &Cmd) -> Result<Output> {
        self.effects.next()?;
        let mut command = Command::new(&cmd.program);
        command.args(&cmd.args).envs(cmd.env.iter().map(|(k, v)| (k, v)));
        command.stdin(if cmd.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(dir) = &cmd.chroot {
            enter_root(&mut command, dir);
        }
        let mut child = command.spawn().with_context(|| format!("starting {}", cmd.program))?;
        // Written from a thread: a program that fills its output before it reads its input would block otherwise.
        let writer = cmd.stdin.clone().and_then(|bytes| {
            child.stdin.take().map(|mut pipe| std::thread::spawn(move || pipe.write_all(&bytes)))
        });
        let out = child.wait_with_output().with_context(|| format!("waiting for {}", cmd.program))?;
        if let Some(writer) = writer {
            match writer.join() {
                // A program may end without reading all of its input; its exit code tells whether that is wrong.
                Ok(Ok(())) => {}
                Ok(Err(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
                Ok(Err(e)) => return Err(e).with_context(|| format!("writing the input of {}", cmd.program)),
                Err(_) => bail!("writing the input of {}: the writer failed", cmd.program),
            }
        }
        let signal = std::os::unix::process::ExitStatusExt::signal(&out.status).unwrap_or(0);
        Ok(Output {
            code: out.status.code().unwrap_or(128 + signal),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        })
    }

    /// Runs `cmd` and returns its standard output.
    ///
    /// # Errors
    /// It cannot be started, or ends with another code than 0; the message ends with the last 1024 bytes that it said.
    pub fn run(&self, cmd: &Cmd) -> Result<String> {
        let out = self.output(cmd)?;
        if out.code != 0 {
            bail!(
                "{}: exit code {}: {}",
                cmd.shown(),
                out.code,
                tail(&format!("{}{}", out.stdout, out.stderr))
            );
        }
        Ok(out.stdout)
    }
}

fn enter_root(command: &mut Command, dir: &Path) {
    use std::os::unix::process::CommandExt;
    let dir = dir.to_owned();
    // SAFETY: the closure runs in the child between fork and exec and only makes system calls on a path that was
    // allocated before the fork.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            nix::unistd::chroot(&dir)?;
            nix::unistd::chdir("/")?;
            Ok(())
        });
    }
}

fn tail(text: &str) -> &str {
    let text = text.trim();
    let from = text.len().saturating_sub(1024);
    text.char_indices().find(|(at, _)| *at >= from).map_or("", |(at, _)| &text[at..])
}
