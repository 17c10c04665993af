//! Reads the larger entries of a step: users, files, folders, keys. Pure; part of [`Decoder`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::decode::Decoder;
use super::finding::{Finding, Level};
use super::keys;
use super::types::{Content, Directory, File, Owner, Secret, User};
use super::yaml::{Entry, Node, Value};

impl Decoder {
    /// A user. In yip's form the name is the `key` above; in cloud-init's it is inside.
    pub(super) fn user(&mut self, node: &Node, key: Option<&Entry>) -> Option<User> {
        if let Value::Scalar(_) = node.value {
            self.error(node, "a user has to be a map; cloud-init's list of names is not supported");
            return None;
        }
        let mut user = User { line: node.line, ..User::default() };
        if let Some(key) = key {
            (user.name, user.line) = (key.key.clone(), key.line);
        }
        for entry in self.entries(node, "a user") {
            let value = &entry.node;
            match entry.key.as_str() {
                "name" => user.name = self.text(value, "name")?,
                "passwd" => user.passwd = self.passwd(value),
                "lock_passwd" => user.lock_passwd = self.boolean(value, "lock_passwd").unwrap_or(false),
                "ssh_authorized_keys" => user.ssh_authorized_keys = self.ssh_keys(value),
                "gecos" => user.gecos = self.field(value, "gecos").unwrap_or_default(),
                "homedir" => {
                    self.field(value, "homedir")?;
                    user.homedir = Some(self.path(value, "homedir")?);
                }
                "no_create_home" => user.no_create_home = self.boolean(value, "no_create_home")?,
                "primary_group" => user.primary_group = Some(self.account_name(value, "primary_group")?),
                "groups" => user.groups = self.groups(value),
                "no_user_group" => user.no_user_group = self.boolean(value, "no_user_group")?,
                "system" => user.system = self.boolean(value, "system")?,
                "shell" => user.shell = self.field(value, "shell"),
                "uid" => user.uid = Some(self.uid(value)?),
                _ => self.not_done(entry, &keys::USER),
            }
        }
        if !is_account_name(&user.name) {
            self.error(node, "a user needs a name of up to 32 letters, digits, _ . -");
            return None;
        }
        Some(user)
    }

    fn passwd(&mut self, node: &Node) -> Option<Secret> {
        let text = self.text(node, "passwd")?;
        if text.contains([':', '\n', '\0']) {
            self.error(node, "passwd may not hold a colon or a line end");
            return None;
        }
        Some(Secret(text))
    }

    /// A text that fits into a field of `/etc/passwd`.
    fn field(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if text.contains(':') || text.chars().any(char::is_control) {
            self.error(node, format!("{what} may not hold a colon or a line end"));
            return None;
        }
        Some(text)
    }

    fn account_name(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if !is_account_name(&text) {
            self.error(node, format!("{what} has to be a name of up to 32 letters, digits, _ . -"));
            return None;
        }
        Some(text)
    }

    fn uid(&mut self, node: &Node) -> Option<u32> {
        let text = self.text(node, "uid")?;
        // The last two numbers mean "no user" to the kernel and to older programs.
        let uid = text.parse().ok().filter(|n: &u32| *n < u32::MAX - 1);
        if uid.is_none() {
            self.error(node, "uid has to be a number");
        }
        uid
    }

    /// A list, or cloud-init's text with commas.
    fn groups(&mut self, node: &Node) -> Vec<String> {
        let Value::Scalar(scalar) = &node.value else {
            return self.each(node, "groups", |d, n| d.account_name(n, "a group"));
        };
        let names: Vec<_> = scalar.text.split(',').map(|n| n.trim().to_owned()).collect();
        if !names.iter().all(|n| is_account_name(n)) {
            self.error(node, "groups have to be names of up to 32 letters, digits, _ . -");
            return Vec::new();
        }
        names
    }

    pub(super) fn ssh_keys(&mut self, node: &Node) -> Vec<String> {
        self.each(node, "ssh keys", |d, n| {
            let key = d.text(n, "an ssh key")?.trim().to_owned();
            if ["github:", "gitlab:", "http://", "https://"].iter().any(|p| key.starts_with(p)) {
                d.error(n, "not supported yet: an ssh key by name or address; write the key itself");
                return None;
            }
            if key.chars().any(char::is_control) {
                d.error(n, "an ssh key has to be one line");
                return None;
            }
            (!key.is_empty()).then_some(key)
        })
    }

    pub(super) fn directory(&mut self, node: &Node) -> Option<Directory> {
        let mut made =
            Directory { line: node.line, path: String::new(), mode: None, owner: Owner::default() };
        for entry in self.entries(node, "a directory") {
            match entry.key.as_str() {
                "path" => made.path = self.path(&entry.node, "path")?,
                "permissions" => made.mode = Some(self.mode(&entry.node, false)?),
                "owner" => made.owner.user = self.text(&entry.node, "owner"),
                "group" => made.owner.group = self.text(&entry.node, "group"),
                _ => self.not_done(entry, &keys::DIRECTORY),
            }
        }
        self.with_path(node, !made.path.is_empty()).then_some(made)
    }

    /// A file of a step: numbers as owner, a number as permissions.
    pub(super) fn file(&mut self, node: &Node) -> Option<File> {
        self.any_file(node, false)
    }

    /// A file of `write_files`: `user:group` as owner, octal text as permissions.
    pub(super) fn write_file(&mut self, node: &Node) -> Option<File> {
        self.any_file(node, true)
    }

    fn any_file(&mut self, node: &Node, cloud_init: bool) -> Option<File> {
        let (mut path, mut mode, mut owner) = (String::new(), None, Owner::default());
        let (mut content, mut encoding) = (String::new(), None);
        for entry in self.entries(node, "a file") {
            let value = &entry.node;
            match entry.key.as_str() {
                "path" => path = self.path(value, "path")?,
                "permissions" => mode = Some(self.mode(value, cloud_init)?),
                "owner" if cloud_init => owner = split_owner(&self.text(value, "owner")?),
                "owner" => owner.user = self.text(value, "owner"),
                "owner_string" if !cloud_init => owner = split_owner(&self.text(value, "owner_string")?),
                "group" if !cloud_init => owner.group = self.text(value, "group"),
                "content" => content = self.text(value, "content").unwrap_or_default(),
                "encoding" => encoding = Some(value),
                _ => self.not_done(entry, if cloud_init { &keys::WRITE_FILE } else { &keys::FILE }),
            }
        }
        if !self.with_path(node, !path.is_empty()) {
            return None;
        }
        let content = match encoding {
            None => Content::Text(content),
            Some(encoding) => self.decoded(content, encoding)?,
        };
        Some(File { line: node.line, path, content, mode, owner })
    }

    fn decoded(&mut self, content: String, encoding: &Node) -> Option<Content> {
        let name = self.text(encoding, "encoding").unwrap_or_default();
        match name.as_str() {
            "" => Some(Content::Text(content)),
            "b64" | "base64" => {
                let packed: String = content.split_whitespace().collect();
                let bytes = STANDARD.decode(packed).ok();
                if bytes.is_none() {
                    self.error(encoding, "the content is not base64");
                }
                bytes.map(Content::Bytes)
            }
            "gz" | "gzip" | "gz+base64" | "gzip+base64" | "gz+b64" | "gzip+b64" => {
                self.error(encoding, format!("not supported yet: encoding {name}; use base64"));
                None
            }
            _ => {
                self.error(encoding, "an unknown encoding; use base64 or none");
                None
            }
        }
    }

    fn with_path(&mut self, node: &Node, has_path: bool) -> bool {
        if !has_path && matches!(node.value, Value::Map(_)) {
            self.error(node, "a path is needed");
        }
        has_path
    }

    /// Permission bits. A number means what YAML 1.1 makes of it (`0644` octal, `420` decimal); text is octal, and in
    /// `write_files` everything is text.
    fn mode(&mut self, node: &Node, text_only: bool) -> Option<u32> {
        let scalar = self.scalar(node, "permissions")?;
        let text = scalar.text.trim();
        let decimal = !text_only && scalar.json.is_number() && !text.starts_with('0');
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let mode = if decimal { text.parse().ok() } else { u32::from_str_radix(digits, 8).ok() };
        let Some(mode) = mode.filter(|m| *m <= 0o7777) else {
            self.error(node, "permissions have to be octal, as 0644");
            return None;
        };
        if decimal && ORDINARY.contains(&text) {
            let text = format!(
                "permissions {text} without a leading 0 are decimal and mean {mode:04o}; write 0{text}"
            );
            self.findings.push(Finding { level: Level::Warning, ..Finding::at(node, text) });
        }
        Some(mode)
    }
}

/// What people write when they forget the 0 in front.
const ORDINARY: [&str; 17] = [
    "400", "440", "444", "500", "550", "555", "600", "640", "644", "660", "664", "666", "700", "750", "755",
    "775", "777",
];

/// `user`, `user:group` or `:group`.
fn split_owner(text: &str) -> Owner {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let part = |name: &str| Some(name.trim().to_owned()).filter(|n| !n.is_empty());
    Owner { user: part(user), group: part(group) }
}

/// Names that are safe in `/etc/passwd` and as a part of a path (shadow's rules, a little wider).
fn is_account_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (1..=32).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with(['-', '.'])
        && !name.bytes().all(|b| b.is_ascii_digit())
}
