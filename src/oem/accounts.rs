//! Users and groups, written into the tree's own `/etc/passwd`, `/etc/shadow` and `/etc/group`: so they can be made in the
//! initramfs, before the system that they are for has started, and without any program but the one that hashes a plain
//! password. Lines that are not ours are kept as they are.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::types::{Owner, User};
use crate::host::{Cmd, Host, Root, WriteMode};

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
const GROUP: &str = "/etc/group";
const GSHADOW: &str = "/etc/gshadow";

/// Numbers of people's accounts (login.defs: UID_MIN to UID_MAX); below are the system's, counted down from 999.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=60_000;
const SYSTEM: std::ops::RangeInclusive<u32> = 101..=999;

/// A file of lines with fields between colons.
#[derive(Debug, Clone)]
struct Table {
    path: &'static str,
    mode: WriteMode,
    lines: Vec<Vec<String>>,
    changed: bool,
}

impl Table {
    /// `mode` is for a file that is not there yet.
    fn load(root: &Root, path: &'static str, mode: u32) -> Result<Table> {
        let Some(text) = root.read_text_opt(path)? else {
            return Ok(Table { path, mode: mode.into(), lines: Vec::new(), changed: false });
        };
        let stat = root.stat(path)?;
        let lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect();
        let mode = WriteMode { mode: stat.mode, owner: Some((stat.uid, stat.gid)) };
        Ok(Table { path, mode, lines, changed: false })
    }

    fn find(&self, name: &str) -> Option<&Vec<String>> {
        self.lines.iter().find(|fields| fields[0] == name)
    }

    /// The number in field 2 of `name`.
    fn number(&self, name: &str) -> Option<u32> {
        self.find(name)?.get(2)?.parse().ok()
    }

    fn has_number(&self, number: u32) -> bool {
        self.lines.iter().any(|fields| fields.get(2).is_some_and(|n| n.parse() == Ok(number)))
    }

    fn add<const N: usize>(&mut self, fields: [&str; N]) {
        self.lines.push(fields.map(str::to_owned).to_vec());
        self.changed = true;
    }

    /// Sets field `index` of `name`. Nothing happens if there is no such line or field.
    fn set(&mut self, name: &str, index: usize, value: &str) {
        let line = self.lines.iter_mut().find(|fields| fields[0] == name);
        if let Some(field) = line.and_then(|fields| fields.get_mut(index))
            && field != value
        {
            value.clone_into(field);
            self.changed = true;
        }
    }

    /// Adds `member` to the list with commas in the last field of `name`.
    fn join(&mut self, name: &str, member: &str) {
        let line = self.lines.iter_mut().find(|fields| fields[0] == name && fields.len() == 4);
        let Some(members) = line.and_then(|fields| fields.last_mut()) else { return };
        if members.split(',').any(|known| known == member) {
            return;
        }
        *members = if members.is_empty() { member.to_owned() } else { format!("{members},{member}") };
        self.changed = true;
    }

    fn store(&self, root: &Root) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        let lines = self.lines.iter().map(|fields| fields.join(":") + "\n");
        root.write_atomic(self.path, lines.collect::<String>().as_bytes(), self.mode)
    }
}

/// Makes a user, or gives an existing one the password and the keys that the document has for it: what else it is, its
/// owner may have changed.
///
/// # Errors
/// A file of accounts cannot be read or written, no number is free, a group is missing, or the password cannot be hashed.
pub fn make_user(host: &Host, chroot: Option<&Path>, user: &User) -> Result<()> {
    let root = &host.root;
    root.create_dir_all("/etc", 0o755)?;
    let mut passwd = Table::load(root, PASSWD, 0o644)?;
    if passwd.find(&user.name).is_none() {
        let mut groups = Groups::load(root)?;
        let number = free_number(root, &passwd, user)?;
        let group = first_group(&mut groups, user, number)?;
        for name in &user.groups {
            groups.join(name, &user.name)?;
        }
        let (uid, gid) = (number.to_string(), group.to_string());
        let shell = user.shell.as_deref().unwrap_or("/bin/sh");
        passwd.add([&user.name, "x", &uid, &gid, &user.gecos, &home(user), shell]);
        let mut shadow = Table::load(root, SHADOW, 0o640)?;
        if shadow.find(&user.name).is_none() {
            // No date of the last change: the password does not age, and a tree in gives the same tree out.
            shadow.add([&user.name, "!", "", "0", "99999", "7", "", "", ""]);
        }
        // The account comes into being with its line in passwd: that is the last, so that a rerun after a power cut finds
        // either all of it or makes it again, with the number that the home folder has by then.
        groups.store(root)?;
        shadow.store(root)?;
        make_home(root, user, number, group)?;
        passwd.store(root)?;
    }
    set_password(host, chroot, user)?;
    add_keys(root, &user.name, &user.ssh_authorized_keys)
}

/// Adds keys to `~/.ssh/authorized_keys` of an account. A key that is there already is not added again.
///
/// # Errors
/// There is no such account, a file cannot be written, or `~/.ssh` is a link: root would write where its owner points.
pub fn add_keys(root: &Root, name: &str, keys: &[String]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let passwd = Table::load(root, PASSWD, 0o644)?;
    let fields = passwd.find(name).with_context(|| format!("adding ssh keys: there is no user {name}"))?;
    let field = |index: usize| fields.get(index).map_or("", String::as_str);
    let (Ok(uid), Ok(gid)) = (field(2).parse(), field(3).parse()) else {
        bail!("{PASSWD}: the numbers of {name} cannot be read");
    };
    let home = field(5).trim_end_matches('/');
    if !root.exists(home) {
        bail!("adding ssh keys: user {name} has no home folder");
    }
    let dir = format!("{home}/.ssh");
    let path = format!("{dir}/authorized_keys");
    for path in [&dir, &path] {
        if root.is_link(path) {
            bail!("{path} is a link; keys are not written through it");
        }
    }
    let present = root.read_text_opt(&path)?.unwrap_or_default();
    let mut text = present.clone();
    for key in keys {
        if !text.lines().any(|line| line.trim() == key) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(key);
            text.push('\n');
        }
    }
    root.create_dir_all(&dir, 0o700)?;
    let stat = root.stat(&dir)?;
    if (stat.uid, stat.gid) != (uid, gid) {
        root.chown(&dir, uid, gid)?;
    }
    // Not wider than sshd's StrictModes takes; a user who has made it narrower keeps that.
    if stat.mode & 0o077 != 0 {
        root.chmod(&dir, 0o700)?;
    }
    let mode = WriteMode { mode: 0o600, owner: Some((uid, gid)) };
    root.write_if_changed(&path, text.as_bytes(), mode).map(drop)
}

/// The numbers of a document's owner; `None` if it names neither user nor group.
///
/// # Errors
/// There is no such user or group in the tree.
pub fn numbers(root: &Root, owner: &Owner) -> Result<Option<(u32, u32)>> {
    if *owner == Owner::default() {
        return Ok(None);
    }
    let find = |path, name: &str, what: &str| -> Result<u32> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let table = Table::load(root, path, 0o644)?;
        table.number(name).with_context(|| format!("there is no {what} {name} in {path}"))
    };
    let user = owner.user.as_ref().map_or(Ok(0), |name| find(PASSWD, name, "user"))?;
    let group = match (&owner.group, &owner.user) {
        (Some(name), _) => find(GROUP, name, "group")?,
        // A file of a named user belongs to the user's first group, as chown USER: does it.
        (None, Some(name)) if name.parse::<u32>().is_err() => {
            let passwd = Table::load(root, PASSWD, 0o644)?;
            passwd.find(name).and_then(|f| f.get(3)?.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    };
    Ok(Some((user, group)))
}

fn home(user: &User) -> String {
    user.homedir.clone().unwrap_or_else(|| format!("/home/{}", user.name))
}

/// The wanted number; else the owner of the home folder, which a reset of `/etc` leaves behind; else the next free one.
fn free_number(root: &Root, passwd: &Table, user: &User) -> Result<u32> {
    if let Some(uid) = user.uid {
        if passwd.has_number(uid) {
            bail!("uid {uid} for user {} is taken by another user", user.name);
        }
        return Ok(uid);
    }
    let path = home(user);
    if root.exists(&path) && !root.is_link(&path) {
        let owner = root.stat(&path)?.uid;
        if PEOPLE.contains(&owner) && !passwd.has_number(owner) {
            return Ok(owner);
        }
    }
    let homes = home_owners(root)?;
    next_free(user.system, |n| passwd.has_number(n) || homes.contains(&n))
        .with_context(|| format!("no number is free for user {}", user.name))
}

/// Owners of the home folders, made in this boot or an earlier one: their numbers are for their own users, whichever of
/// them is made first.
fn home_owners(root: &Root) -> Result<Vec<u32>> {
    let paths = root.list("/home")?.into_iter().map(|name| format!("/home/{name}"));
    paths.filter(|path| !root.is_link(path)).map(|path| Ok(root.stat(&path)?.uid)).collect()
}

fn next_free(system: bool, taken: impl Fn(u32) -> bool) -> Option<u32> {
    if system { SYSTEM.rev().find(|n| !taken(*n)) } else { PEOPLE.clone().find(|n| !taken(*n)) }
}

/// `/etc/group`, with `/etc/gshadow` where the system has one.
struct Groups {
    group: Table,
    gshadow: Option<Table>,
}

impl Groups {
    fn load(root: &Root) -> Result<Groups> {
        let gshadow = if root.exists(GSHADOW) { Some(Table::load(root, GSHADOW, 0o640)?) } else { None };
        Ok(Groups { group: Table::load(root, GROUP, 0o644)?, gshadow })
    }

    fn make(&mut self, name: &str, wanted: Option<u32>, system: bool) -> Result<u32> {
        if let Some(number) = self.group.number(name) {
            return Ok(number);
        }
        let wanted = wanted.filter(|n| !self.group.has_number(*n));
        let number = wanted.or_else(|| next_free(system, |n| self.group.has_number(n)));
        let number = number.with_context(|| format!("no number is free for group {name}"))?;
        self.group.add([name, "x", &number.to_string(), ""]);
        if let Some(gshadow) = self.gshadow.as_mut().filter(|table| table.find(name).is_none()) {
            gshadow.add([name, "!", "", ""]);
        }
        Ok(number)
    }

    /// Adds a member, and makes the group if it is not there: an account without the group that it needs for `sudo` would
    /// shut its owner out.
    fn join(&mut self, name: &str, member: &str) -> Result<()> {
        self.make(name, None, true)?;
        self.group.join(name, member);
        if let Some(gshadow) = &mut self.gshadow {
            gshadow.join(name, member);
        }
        Ok(())
    }

    /// A group is there once `/etc/group` has it, so that is written last.
    fn store(&self, root: &Root) -> Result<()> {
        self.gshadow.as_ref().map_or(Ok(()), |table| table.store(root))?;
        self.group.store(root)
    }
}

fn first_group(groups: &mut Groups, user: &User, number: u32) -> Result<u32> {
    match &user.primary_group {
        Some(name) => {
            groups.group.number(name).with_context(|| format!("primary_group {name} is not in {GROUP}"))
        }
        // 100 is `users` on every distribution.
        None if user.no_user_group => Ok(groups.group.number("users").unwrap_or(100)),
        None => groups.make(&user.name, Some(number), user.system),
    }
}

fn make_home(root: &Root, user: &User, uid: u32, gid: u32) -> Result<()> {
    let path = home(user);
    if user.no_create_home {
        return Ok(());
    }
    root.create_dir_all(&path, 0o755)?;
    let stat = root.stat(&path)?;
    // Empty and of root: made just now, or in a boot that was cut off here.
    if (stat.uid, stat.gid) == (0, 0) && root.list(&path)?.is_empty() {
        root.chmod(&path, 0o755)?;
        root.chown(&path, uid, gid)?;
    }
    Ok(())
}

fn set_password(host: &Host, chroot: Option<&Path>, user: &User) -> Result<()> {
    let mut shadow = Table::load(&host.root, SHADOW, 0o640)?;
    let present = shadow.find(&user.name).and_then(|f| f.get(1).cloned()).unwrap_or_default();
    let (lock, plain) = ("!", present.trim_start_matches('!'));
    let hash = match &user.passwd {
        None => plain.to_owned(),
        Some(secret) if is_hash(&secret.0) => secret.0.trim_start_matches('!').to_owned(),
        Some(secret) => {
            hash_plain(host, chroot, &user.name, &secret.0)?;
            shadow = Table::load(&host.root, SHADOW, 0o640)?;
            let hashed = shadow.find(&user.name).and_then(|f| f.get(1).cloned());
            hashed.with_context(|| format!("{SHADOW}: user {} is gone", user.name))?
        }
    };
    let locked = user.lock_passwd || hash.is_empty() || (user.passwd.is_none() && present.starts_with(lock));
    shadow.set(&user.name, 1, &if locked { format!("{lock}{hash}") } else { hash });
    shadow.store(&host.root)
}

/// Whether `text` is a password in crypt(5)'s form, or one of the marks for "none".
fn is_hash(text: &str) -> bool {
    let text = text.trim_start_matches('!');
    text.is_empty() || text.starts_with('*') || (text.starts_with('$') && text.matches('$').count() >= 2)
}

/// Hashes by `chpasswd` of the system itself (Debian's package passwd): it knows which hashes its libcrypt can check. The
/// password goes through standard input, never through an argument.
fn hash_plain(host: &Host, chroot: Option<&Path>, name: &str, password: &str) -> Result<()> {
    let mut cmd = Cmd::new("chpasswd").args(["--crypt-method", "SHA512"]);
    let top = host.root.host_path("");
    match chroot {
        Some(dir) => cmd = cmd.chroot(dir),
        None if top != Path::new("/") => cmd = cmd.args(["--root", &top.to_string_lossy()]),
        None => {}
    }
    host.exec.run(&cmd.stdin(format!("{name}:{password}\n").as_bytes())).map(drop).with_context(|| {
        format!("hashing the plain password of {name}; a crypt hash ($6$…) needs no program")
    })
}
