//! From a parsed document to steps. What cannot be read is left out and becomes a finding; the rest of the document
//! still counts. Pure.

use super::finding::{Finding, Level};
use super::keys::{self, Known};
use super::types::{Command, IfFiles, Override, Step, Systemctl, User};
use super::yaml::{Entry, Node, Scalar, Value};

/// Reads documents and gathers what is to be said about them.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What is to be said so far.
    pub findings: Vec<Finding>,
}

/// A step, and the stage that it belongs to.
pub type Staged = (String, Step);

impl Decoder {
    /// The steps of a document. `header` tells whether it begins as a `#cloud-config`; without it only `stages` count, as
    /// for yip.
    pub fn document(&mut self, node: &Node, header: bool) -> Vec<Staged> {
        let empty = Step { file: node.file.to_string(), line: node.line, ..Step::default() };
        let (mut boot, mut hostname) = (empty.clone(), empty.clone());
        let (mut staged, mut name, mut keys) = (Vec::new(), String::new(), Vec::new());
        let known = if header { &keys::DOCUMENT } else { &keys::YIP };
        for entry in self.entries(node, "a document") {
            match entry.key.as_str() {
                "name" => name = self.text(&entry.node, "name").unwrap_or_default(),
                "stages" => staged = self.stages(&entry.node),
                key if !header => {
                    let known = keys::DOCUMENT.done.contains(&key);
                    let text = if known {
                        format!("{key} counts only in a file that begins with #cloud-config")
                    } else {
                        format!("unknown key {key}")
                    };
                    self.findings.push(Finding::at_key(entry, Level::Error, text));
                }
                "hostname" => hostname.hostname = self.text(&entry.node, "hostname"),
                "users" => {
                    boot.users = self.each(&entry.node, "users", |d, n| d.user(n, None));
                }
                "ssh_authorized_keys" => keys = self.ssh_keys(&entry.node),
                "write_files" => {
                    boot.files = self.each(&entry.node, "write_files", |d, n| d.write_file(n));
                }
                "runcmd" => boot.commands = self.commands(&entry.node, "runcmd"),
                "cluster" => {}
                _ => self.not_done(entry, known),
            }
        }
        if !keys.is_empty() {
            // yip gives them to every user of the document, and to root if it has none.
            let with_home = boot.users.iter().filter(|u| !u.no_create_home);
            let mut names: Vec<_> = with_home.map(|u| u.name.clone()).collect();
            if boot.users.is_empty() {
                names.push("root".into());
            }
            boot.authorized_keys = names.into_iter().map(|n| (n, keys.clone())).collect();
        }
        boot.users.sort_by(|a, b| a.name.cmp(&b.name));
        // yip makes one step of these keys for the stage boot; the name has to be known before the network is.
        let own = [("boot", boot), ("initramfs", hostname)].into_iter().filter(|(_, step)| *step != empty);
        let mut all: Vec<Staged> = own.map(|(stage, step)| (stage.to_owned(), step)).collect();
        all.extend(staged);
        for (_, step) in &mut all {
            if step.name.is_empty() {
                step.name.clone_from(&name);
            }
        }
        all
    }

    fn stages(&mut self, node: &Node) -> Vec<Staged> {
        let mut staged = Vec::new();
        for entry in self.entries(node, "stages") {
            let steps = self.each(&entry.node, "a stage", Decoder::step);
            staged.extend(steps.into_iter().map(|step| (entry.key.clone(), step)));
        }
        staged
    }

    /// `None` if it must not run because its conditions are not understood.
    fn step(&mut self, node: &Node) -> Option<Step> {
        let mut step = Step { file: node.file.to_string(), line: node.line, ..Step::default() };
        let mut wanted = matches!(node.value, Value::Map(_));
        for entry in self.entries(node, "a step") {
            let value = &entry.node;
            match entry.key.as_str() {
                "name" => step.name = self.text(value, "name").unwrap_or_default(),
                "if" => {
                    step.condition = self.text(value, "if");
                    wanted &= step.condition.is_some();
                }
                "if_files" => match self.if_files(value) {
                    Some(files) => step.if_files = files,
                    None => wanted = false,
                },
                key if keys::CONDITIONS.contains(&key) => {
                    let text = format!("not supported yet: {key}");
                    self.findings.push(Finding::at_key(entry, Level::Error, text));
                    wanted = false;
                }
                "directories" => step.directories = self.each(value, "directories", Decoder::directory),
                "files" => step.files = self.each(value, "files", Decoder::file),
                "commands" => step.commands = self.commands(value, "commands"),
                "hostname" => step.hostname = self.text(value, "hostname"),
                "sysctl" => step.sysctl = self.pairs(value, "sysctl"),
                "users" => step.users = self.users(value),
                "authorized_keys" => step.authorized_keys = self.authorized_keys(value),
                "modules" => step.modules = self.texts(value, "modules"),
                "timesyncd" => step.timesyncd = self.pairs(value, "timesyncd"),
                "systemctl" => step.systemctl = self.systemctl(value),
                "environment" => step.environment = self.pairs(value, "environment"),
                "environment_file" => step.environment_file = self.path(value, "environment_file"),
                _ => self.not_done(entry, &keys::STEP),
            }
        }
        if !wanted && matches!(node.value, Value::Map(_)) {
            self.error(node, "the step is left out, since its conditions cannot be judged");
        }
        wanted.then_some(step)
    }

    fn if_files(&mut self, node: &Node) -> Option<IfFiles> {
        let before = self.findings.len();
        let mut files = IfFiles::default();
        for entry in self.entries(node, "if_files") {
            let list = match entry.key.as_str() {
                "any" => &mut files.any,
                "all" => &mut files.all,
                "none" => &mut files.none,
                _ => {
                    self.not_done(entry, &keys::IF_FILES);
                    continue;
                }
            };
            *list = self.texts(&entry.node, "if_files");
        }
        (self.findings.len() == before).then_some(files)
    }

    fn commands(&mut self, node: &Node, what: &str) -> Vec<Command> {
        self.each(node, what, |d, n| Some(Command { line: n.line, text: d.text(n, "a command")? }))
    }

    fn users(&mut self, node: &Node) -> Vec<User> {
        let entries = self.entries(node, "users");
        let mut users: Vec<User> = entries.into_iter().filter_map(|e| self.user(&e.node, Some(e))).collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    fn authorized_keys(&mut self, node: &Node) -> Vec<(String, Vec<String>)> {
        let entries = self.entries(node, "authorized_keys");
        entries.into_iter().map(|e| (e.key.clone(), self.ssh_keys(&e.node))).collect()
    }

    fn systemctl(&mut self, node: &Node) -> Systemctl {
        let mut all = Systemctl::default();
        for entry in self.entries(node, "systemctl") {
            let list = match entry.key.as_str() {
                "enable" => &mut all.enable,
                "disable" => &mut all.disable,
                "mask" => &mut all.mask,
                "start" => &mut all.start,
                "overrides" => {
                    all.overrides = self.each(&entry.node, "overrides", Decoder::unit_override);
                    continue;
                }
                _ => {
                    self.not_done(entry, &keys::SYSTEMCTL);
                    continue;
                }
            };
            *list = self.texts(&entry.node, "systemctl");
        }
        all
    }

    fn unit_override(&mut self, node: &Node) -> Option<Override> {
        let mut made =
            Override { service: String::new(), name: "override-yip.conf".into(), content: String::new() };
        for entry in self.entries(node, "an override") {
            match entry.key.as_str() {
                "service" => made.service = self.text(&entry.node, "service")?,
                "name" => made.name = self.text(&entry.node, "name")?,
                "content" => made.content = self.text(&entry.node, "content")?,
                _ => self.not_done(entry, &keys::OVERRIDE),
            }
        }
        if made.service.is_empty() || [&made.service, &made.name].iter().any(|n| n.contains('/')) {
            self.error(node, "an override needs the service's name, and names without /");
            return None;
        }
        Some(made)
    }

    /// What is to be said about a key that we do not do.
    pub fn not_done(&mut self, entry: &Entry, known: &Known) {
        let key = entry.key.as_str();
        if known.foreign.contains(&key) {
            return;
        }
        let (level, text) = if known.missing.contains(&key) {
            (Level::Error, format!("not supported yet: {key}"))
        } else if let Some(nearest) = known.nearest(key) {
            (Level::Error, format!("unknown key {key}; did you mean {nearest}?"))
        } else {
            (Level::Warning, format!("unknown key {key}"))
        };
        self.findings.push(Finding::at_key(entry, level, text));
    }

    /// Says that something is wrong with a value.
    pub fn error(&mut self, node: &Node, text: impl Into<String>) {
        self.findings.push(Finding::at(node, text.into()));
    }

    /// The keys of a map that have a value; none, and a finding, if it is something else.
    pub fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Vec<&'n Entry> {
        match &node.value {
            Value::Map(entries) => entries.iter().filter(|e| e.node.value != Value::Null).collect(),
            Value::Null => Vec::new(),
            _ => {
                self.error(node, format!("{what} has to be a map, and is {}", node.kind()));
                Vec::new()
            }
        }
    }

    /// Every item of a list that can be read.
    pub fn each<T>(
        &mut self,
        node: &Node,
        what: &str,
        read: impl Fn(&mut Decoder, &Node) -> Option<T>,
    ) -> Vec<T> {
        match &node.value {
            Value::List(nodes) => nodes.iter().filter_map(|n| read(self, n)).collect(),
            Value::Null => Vec::new(),
            _ => {
                self.error(node, format!("{what} has to be a list, and is {}", node.kind()));
                Vec::new()
            }
        }
    }

    /// Any single value as text. Nothing is no error, and no text.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        self.scalar(node, what).map(|s| s.text.clone())
    }

    pub(super) fn scalar<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::Null => None,
            _ => {
                self.error(node, format!("{what} has to be text, and is {}", node.kind()));
                None
            }
        }
    }

    pub(super) fn texts(&mut self, node: &Node, what: &str) -> Vec<String> {
        self.each(node, what, |d, n| d.text(n, what))
    }

    fn pairs(&mut self, node: &Node, what: &str) -> Vec<(String, String)> {
        let entries = self.entries(node, what);
        entries.into_iter().filter_map(|e| Some((e.key.clone(), self.text(&e.node, &e.key)?))).collect()
    }

    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let scalar = self.scalar(node, what)?;
        let value = scalar.json.as_bool().or(match scalar.text.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        });
        if value.is_none() {
            self.error(node, format!("{what} has to be true or false"));
        }
        value
    }

    /// An absolute path.
    pub(super) fn path(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        let whole = text.starts_with('/') && text.trim_end_matches('/').len() > 1;
        if !whole || text.split('/').any(|p| p == "..") || text.chars().any(char::is_control) {
            self.error(node, format!("{what} has to be an absolute path without .."));
            return None;
        }
        Some(text)
    }
}
