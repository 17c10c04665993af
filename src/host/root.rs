//! A file tree held by a directory descriptor. Paths are resolved inside it, as after a chroot: `..` and absolute links
//! cannot lead out (openat2, `RESOLVE_IN_ROOT`). Writes are durable: temporary file, fsync, rename, fsync of the folder.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat, renameat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, symlinkat, unlinkat};

use super::Effects;

/// A file tree; see the module's text. Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Root {
    fd: Rc<OwnedFd>,
    dir: PathBuf,
    effects: Effects,
}

/// Permissions and owner of a written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteMode {
    /// Permission bits, as 0o600.
    pub mode: u32,
    /// Owner and group; `None` leaves those of the process.
    pub owner: Option<(u32, u32)>,
}

impl From<u32> for WriteMode {
    fn from(mode: u32) -> WriteMode {
        WriteMode { mode, owner: None }
    }
}

/// What [`Root::stat`] tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes.
    pub len: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Is a folder.
    pub is_dir: bool,
    /// Is a regular file: reading a pipe or a device could wait for ever.
    pub is_file: bool,
}

impl Root {
    /// Opens `dir` as the root of a tree.
    ///
    /// # Errors
    /// It is no folder, or may not be opened.
    pub fn open(dir: &Path, effects: Effects) -> Result<Root> {
        let fd = open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| format!("opening folder {}", dir.display()))?;
        Ok(Root { fd: Rc::new(fd), dir: dir.to_owned(), effects })
    }

    /// The folder below `path` as a tree of its own.
    ///
    /// # Errors
    /// It is no folder, or may not be opened.
    pub fn sub(&self, path: &str) -> Result<Root> {
        let fd = self
            .open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .with_context(|| self.what("opening folder", path))?;
        Ok(Root { fd: Rc::new(fd), dir: self.host_path(path), effects: self.effects.clone() })
    }

    /// `path` as the live system names it, for programs and for messages.
    #[must_use]
    pub fn host_path(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// It is absent or cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.read_opt(path)?.with_context(|| format!("{}: no such file", self.host_path(path).display()))
    }

    /// Reads a whole file, `None` if there is none.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn read_opt(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let fd = match self.open_at(path, OFlag::O_RDONLY) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(e) => return Err(e).with_context(|| self.what("opening", path)),
        };
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).with_context(|| self.what("reading", path))?;
        Ok(Some(bytes))
    }

    /// Reads a whole file as UTF-8.
    ///
    /// # Errors
    /// It is absent, cannot be read, or is not UTF-8.
    pub fn read_text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?).with_context(|| self.what("decoding as UTF-8", path))
    }

    /// Reads a whole file as UTF-8, `None` if there is none.
    ///
    /// # Errors
    /// It is there but cannot be read, or is not UTF-8.
    pub fn read_text_opt(&self, path: &str) -> Result<Option<String>> {
        let Some(bytes) = self.read_opt(path)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).with_context(|| self.what("decoding as UTF-8", path))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// It is absent or may not be read.
    pub fn open_file(&self, path: &str) -> Result<File> {
        let fd = self.open_at(path, OFlag::O_RDONLY).with_context(|| self.what("opening", path))?;
        Ok(File::from(fd))
    }

    /// Whether anything is at `path`. Links are followed.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.open_at(path, OFlag::O_PATH).is_ok()
    }

    /// Length, owner and mode of a file or folder. Links are followed.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn stat(&self, path: &str) -> Result<Stat> {
        let fd = self.open_at(path, OFlag::O_PATH).with_context(|| self.what("looking at", path))?;
        let m = File::from(fd).metadata().with_context(|| self.what("looking at", path))?;
        Ok(Stat {
            len: m.len(),
            mode: m.mode() & 0o7777,
            uid: m.uid(),
            gid: m.gid(),
            is_dir: m.is_dir(),
            is_file: m.is_file(),
        })
    }

    /// Names in a folder, sorted; empty if there is no such folder.
    ///
    /// # Errors
    /// It is there but cannot be listed.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let fd = match self.open_at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| self.what("opening folder", path)),
        };
        let mut names = Vec::new();
        for entry in Dir::from_fd(fd).with_context(|| self.what("listing", path))?.iter() {
            let entry = entry.with_context(|| self.what("listing", path))?;
            let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The target of a link, `None` if `path` is no link.
    ///
    /// # Errors
    /// The folder of `path` cannot be opened.
    pub fn read_link(&self, path: &str) -> Result<Option<PathBuf>> {
        let (dir, name) = self.parent(path)?;
        match readlinkat(&dir, name.as_str()) {
            Ok(target) => Ok(Some(PathBuf::from(target))),
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| self.what("reading link", path)),
        }
    }

    /// Makes a folder and those above it. Present ones are left as they are.
    ///
    /// # Errors
    /// One cannot be made, or a file is in the way.
    pub fn create_dir_all(&self, path: &str, mode: u32) -> Result<()> {
        let mut at = String::new();
        for part in parts(path) {
            at = format!("{at}/{part}");
            if self.exists(&at) {
                continue;
            }
            let (dir, name) = self.parent(&at)?;
            self.effects.next()?;
            match mkdirat(&dir, name.as_str(), Mode::from_bits_truncate(mode)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e).with_context(|| self.what("making folder", &at)),
            }
            // mkdir's mode is subject to the umask.
            self.chmod(&at, mode)?;
        }
        Ok(())
    }

    /// Writes a file so that, whatever happens, either the old or the new content is there: temporary file beside it,
    /// fsync, rename, fsync of the folder. The folder must be there.
    ///
    /// # Errors
    /// Any of these steps fails; the old file is then untouched.
    pub fn write_atomic(&self, path: &str, bytes: &[u8], mode: impl Into<WriteMode>) -> Result<()> {
        let mode = mode.into();
        let (dir, name) = self.parent(path)?;
        let temporary = format!(".{name}.rekindle-new");
        let mut file = self.create_at(&dir, &temporary, path)?;
        let write = || -> Result<()> {
            if let Some((uid, gid)) = mode.owner {
                self.effects.next()?;
                fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            file.set_permissions(std::fs::Permissions::from_mode(mode.mode))?;
            self.effects.next()?;
            (&file).write_all(bytes)?;
            self.effects.next()?;
            file.sync_all()?;
            Ok(())
        };
        write().with_context(|| self.what("writing", path))?;
        file.flush().with_context(|| self.what("writing", path))?;
        self.effects.next()?;
        renameat(&dir, temporary.as_str(), &dir, name.as_str())
            .with_context(|| self.what("renaming into place", path))?;
        self.sync_dir(&dir, path)
    }

    /// As [`Root::write_atomic`], but leaves a file that already has this content and mode alone.
    /// Tells whether it wrote.
    ///
    /// # Errors
    /// As [`Root::write_atomic`].
    pub fn write_if_changed(&self, path: &str, bytes: &[u8], mode: impl Into<WriteMode>) -> Result<bool> {
        let mode = mode.into();
        if self.read_opt(path)?.as_deref() == Some(bytes) {
            let stat = self.stat(path)?;
            if stat.mode == mode.mode && mode.owner.is_none_or(|o| o == (stat.uid, stat.gid)) {
                return Ok(false);
            }
        }
        self.write_atomic(path, bytes, mode)?;
        Ok(true)
    }

    /// Appends to a file (made if absent, mode 0600) and flushes it to the disk.
    ///
    /// # Errors
    /// It cannot be opened or written.
    pub fn append_durable(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let new = !self.exists(path);
        self.effects.next()?;
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&dir, name.as_str(), flags, Mode::from_bits_truncate(0o600))
            .with_context(|| self.what("opening", path))?;
        let mut file = File::from(fd);
        self.effects.next()?;
        file.write_all(bytes).with_context(|| self.what("appending to", path))?;
        self.effects.next()?;
        file.sync_data().with_context(|| self.what("flushing", path))?;
        if new {
            self.sync_dir(&dir, path)?;
        }
        Ok(())
    }

    /// Writes into a kernel file (procfs, sysfs, cgroupfs), where there is nothing to rename or to flush.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn write_kernel(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.effects.next()?;
        let fd = self.open_at(path, OFlag::O_WRONLY).with_context(|| self.what("opening", path))?;
        File::from(fd).write_all(bytes).with_context(|| self.what("writing", path))
    }

    /// Removes a file or link. Tells whether one was there.
    ///
    /// # Errors
    /// It is there but cannot be removed.
    pub fn remove_file(&self, path: &str) -> Result<bool> {
        let (dir, name) = match self.parent(path) {
            Ok(found) => found,
            Err(_) if !self.exists(parent_of(path)) => return Ok(false),
            Err(e) => return Err(e),
        };
        self.effects.next()?;
        match unlinkat(&dir, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => self.sync_dir(&dir, path).map(|()| true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e).with_context(|| self.what("removing", path)),
        }
    }

    /// Renames within the tree, replacing the target, and flushes the target's folder.
    ///
    /// # Errors
    /// The source is absent, or the rename or the flush fails.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.parent(from)?, self.parent(to)?);
        self.effects.next()?;
        renameat(&from_dir, from_name.as_str(), &to_dir, to_name.as_str())
            .with_context(|| format!("{} to {to}", self.what("renaming", from)))?;
        self.sync_dir(&to_dir, to)
    }

    /// Makes `path` a link to `target`, replacing what is there by rename. Tells whether anything changed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn symlink(&self, target: &str, path: &str) -> Result<bool> {
        if self.read_link(path)?.as_deref() == Some(Path::new(target)) {
            return Ok(false);
        }
        let (dir, name) = self.parent(path)?;
        let temporary = format!(".{name}.rekindle-new");
        self.effects.next()?;
        match unlinkat(&dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e).with_context(|| self.what("removing a stale link beside", path)),
        }
        symlinkat(target, &dir, temporary.as_str()).with_context(|| self.what("linking", path))?;
        self.effects.next()?;
        renameat(&dir, temporary.as_str(), &dir, name.as_str())
            .with_context(|| self.what("linking", path))?;
        Ok(true)
    }

    /// Sets permission bits. Links are followed.
    ///
    /// # Errors
    /// Nothing is there, or they cannot be set.
    pub fn chmod(&self, path: &str, mode: u32) -> Result<()> {
        let fd = self.open_at(path, OFlag::O_RDONLY).with_context(|| self.what("opening", path))?;
        self.effects.next()?;
        nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(mode))
            .with_context(|| self.what("setting the mode of", path))
    }

    /// Sets owner and group. Links are followed.
    ///
    /// # Errors
    /// Nothing is there, or they cannot be set.
    pub fn chown(&self, path: &str, uid: u32, gid: u32) -> Result<()> {
        let fd = self.open_at(path, OFlag::O_RDONLY).with_context(|| self.what("opening", path))?;
        self.effects.next()?;
        fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .with_context(|| self.what("setting the owner of", path))
    }

    /// Whether `path` itself (no link followed) is a link.
    #[must_use]
    pub fn is_link(&self, path: &str) -> bool {
        self.parent(path).is_ok_and(|(dir, name)| {
            fstatat(&dir, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|s| s.st_mode & nix::libc::S_IFMT == nix::libc::S_IFLNK)
        })
    }

    /// Creates (or truncates) `path` for a long write; the caller syncs, then renames. Mode 0600.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(&self, path: &str) -> Result<File> {
        let (dir, name) = self.parent(path)?;
        self.create_at(&dir, &name, path)
    }

    fn create_at(&self, dir: &OwnedFd, name: &str, path: &str) -> Result<File> {
        self.effects.next()?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(dir, name, flags, Mode::from_bits_truncate(0o600))
            .with_context(|| self.what("creating", path))?;
        Ok(File::from(fd))
    }

    fn sync_dir(&self, dir: &OwnedFd, path: &str) -> Result<()> {
        self.effects.next()?;
        match fsync(dir) {
            // Some kernel file systems have nothing to flush.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(e) => Err(e).with_context(|| self.what("flushing the folder of", path)),
        }
    }

    /// The folder of `path`, opened inside the tree, and the last name.
    fn parent(&self, path: &str) -> Result<(OwnedFd, String)> {
        let name = parts(path).last().unwrap_or_default();
        if name.is_empty() || name == ".." || name.as_bytes().contains(&0) {
            bail!("{path:?}: no file name in this path");
        }
        let dir = self
            .open_at(parent_of(path), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .with_context(|| self.what("opening the folder of", path))?;
        Ok((dir, name.to_owned()))
    }

    fn open_at(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        openat2(self.fd.as_fd(), path, how)
    }

    fn what(&self, doing: &str, path: &str) -> String {
        format!("{doing} {}", self.host_path(path).display())
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// The folder part of `path`, "" at the top.
fn parent_of(path: &str) -> &str {
    path.trim_end_matches('/').rsplit_once('/').map_or("", |(dir, _)| dir)
}
