//! Finds the documents of a file tree and makes one [`Oem`] of them. Reads only.

use super::decode::Decoder;
use super::finding::{Finding, Level};
use super::merge::{merge, provenance};
use super::types::Secret;
use super::yaml::{self, Entry, Node, Value};
use super::{Oem, keys};
use crate::boot::cmdline::Cmdline;
use crate::host::Root;

/// Where documents are, in the order that they count: the image's, the node's, what was put on the persistent partition.
pub const DIRS: [&str; 3] = ["/system/oem", "/oem", "/usr/local/cloud-config"];

/// Deepest folder that is looked into.
const DEPTH: usize = 16;

/// What stands for the file of settings on the kernel command line.
const CMDLINE: &str = "kernel command line";

/// Reads every `*.yaml` and `*.yml` below [`DIRS`], in order of folders and names. What kernel arguments such as
/// `kairos.config=cluster.role=worker` set wins over all files.
#[must_use]
pub fn load(root: &Root) -> Oem {
    let mut reader = Reader::default();
    for dir in DIRS {
        for path in reader.files(root, dir, 0) {
            match read(root, &path) {
                Ok(text) => reader.take(&text, &path),
                Err(finding) => reader.broken(finding),
            }
        }
    }
    match root.read_opt("/proc/cmdline") {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            reader.settings(Cmdline::parse(&text).all("kairos.config"));
        }
        Err(e) => reader.broken(Finding::at_line(CMDLINE, 0, format!("{e:#}"))),
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    decoder: Decoder,
    config: Vec<Entry>,
    oem: Oem,
}

impl Reader {
    fn files(&mut self, root: &Root, dir: &str, depth: usize) -> Vec<String> {
        let names = match root.list(dir) {
            Ok(names) => names,
            Err(e) => {
                self.broken(Finding::at_line(dir, 0, format!("{e:#}")));
                return Vec::new();
            }
        };
        let mut files = Vec::new();
        for name in names {
            let path = format!("{dir}/{name}");
            // A link to a folder could lead in a circle; Kairos does not follow it either.
            let is_dir = !root.is_link(&path) && root.stat(&path).is_ok_and(|s| s.is_dir);
            if is_dir && depth < DEPTH {
                files.extend(self.files(root, &path, depth + 1));
            } else if !is_dir && (name.ends_with(".yaml") || name.ends_with(".yml")) {
                files.push(path);
            }
        }
        files
    }

    fn take(&mut self, text: &str, path: &str) {
        let node = match yaml::tree(text, path) {
            Ok(node) => node,
            Err(problem) => return self.broken(problem.into()),
        };
        self.document(node, has_header(text));
    }

    fn document(&mut self, node: Node, header: bool) {
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            return self
                .broken(Finding::at(&node, format!("a document has to be a map, and is {}", node.kind())));
        }
        self.oem.steps.extend(self.decoder.document(&node, header));
        let Value::Map(entries) = node.value else { return };
        for entry in &entries {
            let cluster = entry.key == "cluster" || keys::DOCUMENT.nearest(&entry.key) == Some("cluster");
            if cluster && (!header || entry.key != "cluster") {
                let why = format!("{}:{}: the key {} is not used", node.file, entry.line, entry.key);
                self.oem.provisioning_blocked.get_or_insert(why);
            }
        }
        if header {
            let config = entries.into_iter().filter(|e| !["stages", "name"].contains(&e.key.as_str()));
            merge(&mut self.config, config.collect());
        }
    }

    fn settings<'a>(&mut self, settings: impl IntoIterator<Item = &'a str>) {
        let mut entries = Vec::new();
        for setting in settings {
            match entry_of(setting) {
                Ok(entry) => merge(&mut entries, vec![entry]),
                Err(finding) => self.broken(finding),
            }
        }
        if !entries.is_empty() {
            self.document(unplaced(Value::Map(entries)), true);
        }
    }

    /// A document that cannot be read could have been the one that says what this node is.
    fn broken(&mut self, finding: Finding) {
        self.oem.provisioning_blocked.get_or_insert_with(|| finding.to_string());
        self.decoder.findings.push(finding);
    }

    fn finish(mut self) -> Oem {
        if let Some(entry) = self.config.iter().find(|e| e.key == "cluster" && e.node.value != Value::Null) {
            let before = self.decoder.findings.len();
            self.oem.cluster = self.decoder.cluster(entry);
            let wrong = self.decoder.findings[before..].iter().find(|f| f.level == Level::Error);
            if let (None, Some(finding)) = (&self.oem.cluster, wrong) {
                self.oem.provisioning_blocked.get_or_insert_with(|| finding.to_string());
            }
        }
        self.oem.provenance = provenance(&self.config);
        self.oem.config = self.config.iter().map(|e| (e.key.clone(), e.node.json())).collect();
        self.oem.findings = self.decoder.findings;
        self.oem.secrets = secrets(&self.oem, &self.config);
        self.oem
    }
}

/// `a.b=VALUE` as the map `a: {b: VALUE}`.
fn entry_of(setting: &str) -> Result<Entry, Finding> {
    let wrong = |why: &str| Finding::at_line(CMDLINE, 0, format!("kairos.config: {why}"));
    let (path, value) = setting.split_once('=').ok_or_else(|| wrong("KEY=VALUE is needed"))?;
    if path.split('.').any(|k| k.is_empty() || k.contains('[') || k.parse::<usize>().is_ok()) {
        return Err(wrong("not supported yet: a key in a list, or an empty key"));
    }
    let value =
        yaml::tree(value, CMDLINE).map_err(|p| wrong(&format!("the value of {path}: {}", p.reason)))?;
    let entry = |key: &str, node| Entry { key: key.to_owned(), line: 0, col: 0, node };
    let (outer, last) = path.rsplit_once('.').map_or((None, path), |(outer, last)| (Some(outer), last));
    let innermost = entry(last, Node { line: 0, col: 0, ..value });
    let outer = outer.into_iter().flat_map(|keys| keys.rsplit('.'));
    Ok(outer.fold(innermost, |inner, key| entry(key, unplaced(Value::Map(vec![inner])))))
}

fn unplaced(value: Value) -> Node {
    Node { file: CMDLINE.into(), line: 0, col: 0, value }
}

/// What must not be shown when a command of a document says it.
fn secrets(oem: &Oem, config: &[Entry]) -> Vec<Secret> {
    let users = oem.steps.iter().flat_map(|(_, step)| &step.users);
    let passwords = users.filter_map(|u| u.passwd.clone());
    let cluster = config.iter().filter(|e| e.key == "cluster").filter_map(|e| match &e.node.value {
        Value::Map(entries) => entries.iter().find(|e| e.key == "cluster_token"),
        _ => None,
    });
    let tokens = cluster.filter_map(|e| match &e.node.value {
        Value::Scalar(scalar) => Some(Secret(scalar.text.clone())),
        _ => None,
    });
    // Shorter ones would blot out ordinary words.
    passwords.chain(tokens).filter(|s| s.0.len() >= 4).collect()
}

fn read(root: &Root, path: &str) -> Result<String, Finding> {
    let wrong = |text: String| Finding::at_line(path, 0, text);
    let stat = root.stat(path).map_err(|e| wrong(format!("{e:#}")))?;
    if !stat.is_file {
        return Err(wrong("not a file".into()));
    }
    if stat.len > yaml::MAX_LEN as u64 {
        let text =
            format!("{} bytes are more than the {} that are read; split the file", stat.len, yaml::MAX_LEN);
        return Err(wrong(text));
    }
    root.read_text(path).map_err(|e| wrong(format!("{e:#}")))
}

/// Whether the text begins as a cloud-config: only comments and empty lines may precede the header.
fn has_header(text: &str) -> bool {
    let first = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    first
        .take_while(|line| line.is_empty() || line.starts_with('#'))
        .any(|line| ["#cloud-config", "#kairos-config", "#node-config"].contains(&line))
}
