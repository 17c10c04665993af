//! Runs one step: its conditions, then its plugins in yip's order. A plugin that fails does not stop the next; every error
//! names file and line.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::finding::{Finding, Level};
use super::template::{Facts, render};
use super::types::{Content, Directory, File, Step};
use super::{Oem, accounts};
use crate::host::{Cmd, Host, WriteMode};

/// Where programs are looked for: the kernel starts init without a PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage runs on.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// Files are those of `host.root`.
    pub host: &'a Host,
    /// Where the programs of steps find their root. In the initramfs that is the folder of the system to come, which
    /// `host.root` then is too.
    pub chroot: Option<&'a Path>,
}

/// How a step went.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// False if a condition left it out.
    pub(super) wanted: bool,
    pub(super) findings: Vec<Finding>,
}

/// A step at work.
struct Work<'a> {
    machine: Machine<'a>,
    oem: &'a Oem,
    step: &'a Step,
    facts: &'a Facts,
    findings: Vec<Finding>,
}

pub(super) fn run(machine: Machine<'_>, oem: &Oem, step: &Step, facts: &Facts) -> Ran {
    let mut work = Work { machine, oem, step, facts, findings: Vec::new() };
    let wanted = work.conditions();
    if wanted {
        work.plugins();
    }
    Ran { wanted, findings: work.findings }
}

impl Work<'_> {
    fn conditions(&mut self) -> bool {
        let (files, root) = (&self.step.if_files, &self.machine.host.root);
        let any = files.any.is_empty() || files.any.iter().any(|p| root.exists(p));
        if !any || !files.all.iter().all(|p| root.exists(p)) || files.none.iter().any(|p| root.exists(p)) {
            return false;
        }
        let Some(condition) = &self.step.condition else { return true };
        let result = render(condition, self.facts)
            .map_err(anyhow::Error::msg)
            .and_then(|text| self.machine.host.exec.output(&self.shell(&text)));
        match result {
            Ok(output) => output.code == 0,
            Err(e) => {
                self.error(
                    self.step.line,
                    format!("the step is left out, its condition cannot be judged: {e:#}"),
                );
                false
            }
        }
    }

    fn plugins(&mut self) {
        let (step, line) = (self.step, self.step.line);
        for directory in &step.directories {
            let done = self.directory(directory);
            self.check(directory.line, done);
        }
        for file in &step.files {
            let done = self.file(file);
            self.check(file.line, done);
        }
        for (index, command) in step.commands.iter().enumerate() {
            let text = self.rendered(command.line, &command.text);
            let done = self.command(&text).with_context(|| format!("running command {}", index + 1));
            self.check(command.line, done);
        }
        if let Some(name) = &step.hostname {
            let done = self.hostname(name);
            self.check(line, done);
        }
        for (key, value) in &step.sysctl {
            let done = self.sysctl(key, value);
            self.check(line, done);
        }
        for user in &step.users {
            let done = accounts::make_user(self.machine.host, self.machine.chroot, user);
            self.check(user.line, done.with_context(|| format!("making user {}", user.name)));
        }
        for (name, keys) in &step.authorized_keys {
            let done = accounts::add_keys(&self.machine.host.root, name, keys);
            self.check(line, done);
        }
        for module in &step.modules {
            let done = self.program("modprobe", &["--"], module.split_whitespace());
            self.check(line, done.with_context(|| format!("loading module {module}")));
        }
        if !step.timesyncd.is_empty() {
            let done = self.timesyncd();
            self.check(line, done);
        }
        self.systemctl();
        if !step.environment.is_empty() {
            let done = self.environment();
            self.check(line, done);
        }
    }

    fn directory(&self, directory: &Directory) -> Result<()> {
        let (root, path) = (&self.machine.host.root, &directory.path);
        let owner = accounts::numbers(root, &directory.owner)?;
        root.create_dir_all(path, directory.mode.unwrap_or(0o755))?;
        let stat = root.stat(path)?;
        if !stat.is_dir {
            bail!("{path}: a file is in the way of the folder");
        }
        if let Some((uid, gid)) = owner {
            root.chown(path, uid, gid)?;
        }
        match directory.mode {
            Some(mode) if mode != stat.mode => root.chmod(path, mode),
            _ => Ok(()),
        }
    }

    /// A link at the path is replaced, not followed: it may be in a folder of somebody who is not root.
    fn file(&mut self, file: &File) -> Result<()> {
        let bytes = match &file.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Text(text) => self.rendered(file.line, text).into_bytes(),
        };
        let root = &self.machine.host.root;
        let mode = file.mode.unwrap_or(0o644);
        let owner = accounts::numbers(root, &file.owner)?;
        if let Some((dir, _)) = file.path.trim_end_matches('/').rsplit_once('/') {
            // Who may read the file may enter the folders made for it.
            root.create_dir_all(dir, 0o700 | (mode & 0o055) | ((mode & 0o044) >> 2))?;
        }
        root.write_if_changed(&file.path, &bytes, WriteMode { mode, owner }).map(drop)
    }

    /// The command's text and arguments stay out of the message; what it said is cleared of secrets.
    fn command(&self, text: &str) -> Result<()> {
        let output = self.machine.host.exec.output(&self.shell(text))?;
        if output.code == 0 {
            return Ok(());
        }
        let said = format!("{}{}", output.stdout, output.stderr);
        let last = said.trim_end().lines().next_back().unwrap_or("");
        let last: String = self.oem.without_secrets(last).chars().take(200).collect();
        bail!("exit code {}{}{last}", output.code, if last.is_empty() { "" } else { ": " })
    }

    fn hostname(&self, template: &str) -> Result<()> {
        let name =
            render(template, self.facts).map_err(anyhow::Error::msg).context("setting the hostname")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        // 64 is the kernel's limit (hostname(7)).
        if !(1..=64).contains(&name.len()) || !name.chars().all(plain) || name.starts_with(['-', '.']) {
            bail!("setting the hostname: it has to be up to 64 letters, digits, - and .");
        }
        let root = &self.machine.host.root;
        root.create_dir_all("/etc", 0o755)?;
        root.write_if_changed("/etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
        let hosts = root.read_text_opt("/etc/hosts")?.unwrap_or_default();
        root.write_if_changed("/etc/hosts", hosts_with(&hosts, &name).as_bytes(), 0o644)?;
        // Without procfs in the tree the system is not running yet, and reads /etc/hostname itself.
        if root.exists("/proc/sys/kernel/hostname") {
            root.write_kernel("/proc/sys/kernel/hostname", name.as_bytes())?;
        }
        Ok(())
    }

    fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        if !key.chars().all(plain) || key.starts_with(['.', '/']) || key.contains("..") {
            bail!("sysctl {key}: not the name of a kernel setting");
        }
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.machine.host.root.write_kernel(&path, value.as_bytes()).with_context(|| format!("setting {key}"))
    }

    fn timesyncd(&self) -> Result<()> {
        let lines = self.step.timesyncd.iter().map(|(key, value)| format!("{key}={value}\n"));
        let text = format!("[Time]\n{}", lines.collect::<String>());
        let root = &self.machine.host.root;
        root.create_dir_all("/etc/systemd/timesyncd.conf.d", 0o755)?;
        root.write_if_changed("/etc/systemd/timesyncd.conf.d/10-yip.conf", text.as_bytes(), 0o644).map(drop)
    }

    fn systemctl(&mut self) {
        let (units, line) = (&self.step.systemctl, self.step.line);
        for unit in &units.overrides {
            let named = if unit.service.contains('.') {
                unit.service.clone()
            } else {
                format!("{}.service", unit.service)
            };
            let dir = format!("/etc/systemd/system/{named}.d");
            let root = &self.machine.host.root;
            let done = root.create_dir_all(&dir, 0o755).and_then(|()| {
                root.write_if_changed(&format!("{dir}/{}", unit.name), unit.content.as_bytes(), 0o644)
                    .map(drop)
            });
            self.check(line, done);
        }
        let verbs = [
            ("enable", &units.enable),
            ("disable", &units.disable),
            ("mask", &units.mask),
            ("start", &units.start),
        ];
        for (verb, names) in verbs {
            for name in names {
                let done = self.program("systemctl", &[verb, "--"], [name.as_str()]);
                self.check(line, done);
            }
        }
    }

    fn environment(&self) -> Result<()> {
        let path = self.step.environment_file.as_deref().unwrap_or("/etc/environment");
        let root = &self.machine.host.root;
        let present = root.read_text_opt(path)?.unwrap_or_default();
        let text = environment_with(&present, &self.step.environment)?;
        if let Some((dir, _)) = path.rsplit_once('/') {
            root.create_dir_all(dir, 0o755)?;
        }
        root.write_if_changed(path, text.as_bytes(), 0o644).map(drop)
    }

    fn program<'s>(
        &self,
        name: &str,
        first: &[&'s str],
        rest: impl IntoIterator<Item = &'s str>,
    ) -> Result<()> {
        let cmd = self.rooted(Cmd::new(name).args(first.iter().copied().chain(rest)));
        self.machine.host.exec.run(&cmd).map(drop)
    }

    fn shell(&self, text: &str) -> Cmd {
        self.rooted(Cmd::new("sh").args(["-c", text]))
    }

    fn rooted(&self, cmd: Cmd) -> Cmd {
        let cmd = cmd.env("PATH", PATH);
        self.machine.chroot.map_or(cmd.clone(), |dir| cmd.chroot(dir))
    }

    /// The text with its templates filled in; as it is, and a warning, where that cannot be done: the braces may be meant
    /// for another program.
    fn rendered(&mut self, line: u64, text: &str) -> String {
        render(text, self.facts).unwrap_or_else(|why| {
            let finding =
                Finding::at_line(&self.step.file, line, format!("used without filling in templates: {why}"));
            self.findings.push(Finding { level: Level::Warning, ..finding });
            text.to_owned()
        })
    }

    fn check(&mut self, line: u64, done: Result<()>) {
        if let Err(e) = done {
            self.error(line, format!("{e:#}"));
        }
    }

    fn error(&mut self, line: u64, text: String) {
        let name = &self.step.name;
        let text = if name.is_empty() { text } else { format!("{name}: {text}") };
        self.findings.push(Finding::at_line(&self.step.file, line, self.oem.without_secrets(&text)));
    }
}

/// `/etc/hosts` with `name` in its line for 127.0.0.1.
fn hosts_with(text: &str, name: &str) -> String {
    let ours = format!("127.0.0.1 localhost {name}");
    let is_local = |line: &&str| line.split_whitespace().next() == Some("127.0.0.1");
    if !text.lines().any(|line| is_local(&line)) {
        return format!("{ours}\n{text}");
    }
    let mut first = true;
    let lines = text.lines().filter_map(|line| {
        if !is_local(&line) {
            return Some(format!("{line}\n"));
        }
        std::mem::take(&mut first).then(|| format!("{ours}\n"))
    });
    lines.collect()
}

/// A file of `KEY=value` lines with these values set; other lines stay.
fn environment_with(text: &str, values: &[(String, String)]) -> Result<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, value) in values {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if key.is_empty() || !key.chars().all(plain) || key.starts_with(|c: char| c.is_ascii_digit()) {
            bail!("environment {key:?}: not the name of a variable");
        }
        if value.contains(['\n', '\0']) {
            bail!("environment {key}: its value holds a line end");
        }
        let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:,=%@+".contains(c);
        let line = if value.chars().all(bare) {
            format!("{key}={value}")
        } else {
            format!("{key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let start = format!("{key}=");
        match lines.iter().position(|l| l.trim_start_matches("export ").starts_with(&start)) {
            Some(at) => lines[at] = line,
            None => lines.push(line),
        }
    }
    Ok(lines.iter().map(|l| format!("{l}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_this_machine_once() {
        for (text, wanted) in [
            ("", "127.0.0.1 localhost n\n"),
            ("127.0.0.1 localhost\n::1 localhost\n", "127.0.0.1 localhost n\n::1 localhost\n"),
            ("# x\n127.0.0.1\told\n127.0.0.1 older\n", "# x\n127.0.0.1 localhost n\n"),
            ("127.0.0.10 other\n", "127.0.0.1 localhost n\n127.0.0.10 other\n"),
        ] {
            assert_eq!(hosts_with(text, "n"), wanted, "failed testcase: {text:?}");
            assert_eq!(hosts_with(wanted, "n"), wanted, "failed testcase: again {text:?}");
        }
    }

    #[test]
    fn environment_keeps_what_is_not_ours() {
        let set = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            environment_with("# c\nA=1\nB=2\n", &pairs)
        };
        for (pairs, wanted) in [
            (vec![("A", "x y")], Some("# c\nA=\"x y\"\nB=2\n")),
            (vec![("C", "tmpfs:25%"), ("B", "")], Some("# c\nA=1\nB=\nC=tmpfs:25%\n")),
            (vec![("A", "a\"\\")], Some("# c\nA=\"a\\\"\\\\\"\nB=2\n")),
            (vec![("A", "a\nB=3")], None),
            (vec![("A B", "x")], None),
            (vec![("1", "x")], None),
        ] {
            assert_eq!(set(&pairs).ok().as_deref(), wanted, "failed testcase: {pairs:?}");
        }
    }
}
