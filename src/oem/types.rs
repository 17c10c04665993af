//! What our documents say, once read: steps of stages, accounts, the cluster block. Data only.

use std::fmt;

use serde_json::{Map, Value as Json};

/// A text that no message may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// One step of a stage: yip's plugins, each of which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The file that it is in.
    pub file: String,
    /// The line that it begins at.
    pub line: u64,
    /// Its name, empty if it has none.
    pub name: String,
    /// `if`: a shell command that has to end with 0.
    pub condition: Option<String>,
    /// `if_files`: what has to be there, and what not.
    pub if_files: IfFiles,
    /// `directories`.
    pub directories: Vec<Directory>,
    /// `files` and `write_files`.
    pub files: Vec<File>,
    /// `commands` and `runcmd`, each for `sh -c`.
    pub commands: Vec<Command>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `sysctl`.
    pub sysctl: Vec<(String, String)>,
    /// `users`, sorted by name.
    pub users: Vec<User>,
    /// `authorized_keys` and `ssh_authorized_keys`: user, then keys.
    pub authorized_keys: Vec<(String, Vec<String>)>,
    /// `modules`: names with their parameters.
    pub modules: Vec<String>,
    /// `timesyncd`: keys of its section `[Time]`.
    pub timesyncd: Vec<(String, String)>,
    /// `systemctl`.
    pub systemctl: Systemctl,
    /// `environment`.
    pub environment: Vec<(String, String)>,
    /// `environment_file`.
    pub environment_file: Option<String>,
}

/// `if_files`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IfFiles {
    /// One of these has to be there, unless the list is empty.
    pub any: Vec<String>,
    /// All of these have to be there.
    pub all: Vec<String>,
    /// None of these may be there.
    pub none: Vec<String>,
}

/// A shell command.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The line that it is at.
    pub line: u64,
    /// Its text.
    pub text: String,
}

impl fmt::Debug for Command {
    // People put passwords into commands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<command at line {}>", self.line)
    }
}

/// Who a file belongs to. Names are looked up in the tree's own `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// User, as name or number.
    pub user: Option<String>,
    /// Group, as name or number.
    pub group: Option<String>,
}

/// A folder to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Line of the entry.
    pub line: u64,
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Whose.
    pub owner: Owner,
}

/// A file to write.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Line of the entry.
    pub line: u64,
    /// Where.
    pub path: String,
    /// What; only plain text is a template.
    pub content: Content,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Whose.
    pub owner: Owner,
}

/// What to write into a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Text, in which `{{ … }}` is replaced.
    Text(String),
    /// Bytes that the document gives encoded.
    Bytes(Vec<u8>),
}

impl fmt::Debug for File {
    // Contents may be keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<file {} at line {}>", self.path, self.line)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<content>")
    }
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Line of the entry.
    pub line: u64,
    /// Name.
    pub name: String,
    /// Password: a crypt hash, or plain text.
    pub passwd: Option<Secret>,
    /// No password opens the account.
    pub lock_passwd: bool,
    /// Keys for `~/.ssh/authorized_keys`.
    pub ssh_authorized_keys: Vec<String>,
    /// The person's name.
    pub gecos: String,
    /// Home folder; `/home/NAME` if left out.
    pub homedir: Option<String>,
    /// Leave the home folder alone.
    pub no_create_home: bool,
    /// Name of the first group; one of the user's name if left out.
    pub primary_group: Option<String>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Make no group of the user's name; the first group is then `users`.
    pub no_user_group: bool,
    /// Number below 1000.
    pub system: bool,
    /// Login shell; `/bin/sh` if left out.
    pub shell: Option<String>,
    /// Number, if it has to be a certain one.
    pub uid: Option<u32>,
}

/// `systemctl`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Systemctl {
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to disable.
    pub disable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
    /// Units to start.
    pub start: Vec<String>,
    /// Drop-in files.
    pub overrides: Vec<Override>,
}

/// A drop-in file of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The unit; `.service` may be left out.
    pub service: String,
    /// File name; yip's `override-yip.conf` if left out.
    pub name: String,
    /// Content.
    pub content: String,
}

/// What this node is in its cluster: the `cluster:` block of Kairos' provider-kubeadm.
#[derive(Clone, PartialEq)]
pub struct Cluster {
    /// `cluster_token`: any text; bootstrap token and certificate key are derived from it.
    pub token: Secret,
    /// `control_plane_host`: host, or host:port.
    pub control_plane_host: Option<String>,
    /// `role`.
    pub role: Role,
    /// `config` as kubeadm documents, each with its apiVersion and kind.
    pub documents: Vec<Map<String, Json>>,
}

/// `role` of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first control-plane node.
    Init,
    /// A further control-plane node.
    ControlPlane,
    /// A worker.
    Worker,
}

impl fmt::Debug for Cluster {
    // The documents may hold tokens and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.documents.iter().map(|d| d.get("kind").and_then(Json::as_str).unwrap_or("?"));
        f.debug_struct("Cluster")
            .field("role", &self.role)
            .field("control_plane_host", &self.control_plane_host)
            .field("documents", &kinds.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
