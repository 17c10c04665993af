//! GRUB's environment block: 1024 bytes that the boot loader and the running node both read and write.
//!
//! A header line, then `key=value` lines, then `#` up to the end. In a value, GRUB puts a backslash before each backslash
//! and line end. Reading goes by GRUB's own rules (grub-core/lib/envblk.c), so that what we see is what GRUB sees, in a
//! damaged block too. Writing is by rename: GRUB looks the file up anew at each boot and then writes its blocks in place.

use std::fmt::{self, Display};

use anyhow::{Context, Result, bail};

use crate::host::Root;

/// Length of a block; GRUB reads and writes exactly this much (include/grub/lib/envblk.h).
pub const SIZE: usize = 1024;

/// First line of every block.
pub const HEADER: &str = "# GRUB Environment Block\n";

/// Files longer than this are no environment block, and are not read. Other tools let a block grow to a few kilobytes.
const READ_LIMIT: u64 = 64 * 1024;

/// The content of a block. Order and comment lines are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrubEnv {
    lines: Vec<Line>,
}

/// Bytes, not text: GRUB asks for no encoding, and what is not ours is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Comment(Vec<u8>),
    Variable { key: Vec<u8>, value: Vec<u8> },
}

/// A block as it was found: all of it that can be read, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What could be read.
    pub env: GrubEnv,
    /// What is wrong, `None` for a whole block.
    pub damage: Option<Damage>,
}

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// There is no file.
    Absent,
    /// The file has no bytes.
    Empty,
    /// The file does not begin with the header: nothing of it can be trusted.
    NoHeader,
    /// The file is far too long to be a block.
    Huge(u64),
    /// Lines can be read up to a place where the text makes no sense.
    Torn,
    /// The block can be read, but GRUB cannot write into a block of this length as it should.
    Length(usize),
}

impl Damage {
    /// Whether nothing could be read: GRUB calls that an invalid environment block.
    #[must_use]
    pub fn is_total(self) -> bool {
        !matches!(self, Damage::Torn | Damage::Length(_))
    }
}

impl Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Absent => write!(f, "there is no such file"),
            Damage::Empty => write!(f, "the file is empty"),
            Damage::NoHeader => write!(f, "the file does not begin with \"{}\"", HEADER.trim_end()),
            Damage::Huge(n) => {
                write!(f, "the file has {n} bytes, which is too much for an environment block")
            }
            Damage::Torn => write!(f, "a line is cut off or holds zero bytes; what follows it was not read"),
            Damage::Length(n) => write!(f, "the block has {n} bytes in place of {SIZE}"),
        }
    }
}

impl GrubEnv {
    /// Reads the bytes of a block.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Found {
        let nothing = |damage| Found { env: GrubEnv::default(), damage: Some(damage) };
        if bytes.is_empty() {
            return nothing(Damage::Empty);
        }
        let Some(mut rest) = bytes.strip_prefix(HEADER.as_bytes()).filter(|rest| !rest.is_empty()) else {
            // GRUB wants one byte more than the header.
            return nothing(Damage::NoHeader);
        };
        let (mut lines, mut torn) = (Vec::new(), false);
        while !rest.is_empty() {
            let Some((line, end)) = next_line(rest) else {
                torn |= !rest.iter().all(|b| *b == b'#');
                break;
            };
            torn |= rest[..end].contains(&0);
            lines.push(line);
            rest = &rest[end..];
        }
        let length = (bytes.len() != SIZE).then_some(Damage::Length(bytes.len()));
        Found { env: GrubEnv { lines }, damage: if torn { Some(Damage::Torn) } else { length } }
    }

    /// The block's bytes, always [`SIZE`] of them.
    ///
    /// # Errors
    /// The variables need more room than a block has; the text is GRUB's.
    pub fn render(&self) -> Result<Vec<u8>> {
        let mut bytes = HEADER.as_bytes().to_vec();
        for line in &self.lines {
            match line {
                Line::Comment(text) => bytes.extend(text),
                Line::Variable { key, value } => {
                    bytes.extend(key);
                    bytes.push(b'=');
                    bytes.extend(escape(value));
                }
            }
            bytes.push(b'\n');
        }
        if bytes.len() > SIZE {
            bail!("environment block too small: {} bytes are needed, and it has {SIZE}", bytes.len());
        }
        bytes.resize(SIZE, b'#');
        Ok(bytes)
    }

    /// Value of `key`. The last line of it counts, as it does when GRUB loads the block.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        let found = self.variables().filter(|(k, _)| *k == key.as_bytes()).last()?;
        Some(String::from_utf8_lossy(found.1).into_owned())
    }

    /// All variables in order, as bytes.
    pub fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().filter_map(|line| match line {
            Line::Comment(_) => None,
            Line::Variable { key, value } => Some((key.as_slice(), value.as_slice())),
        })
    }

    /// Gives `key` a value, in its place if it is there.
    ///
    /// # Errors
    /// GRUB could not read back such a key or value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        check(key, value)?;
        let line = Line::Variable { key: key.into(), value: value.into() };
        let Some(at) = self.lines.iter().position(|l| l.is_of(key)) else {
            self.lines.push(line);
            return Ok(());
        };
        self.lines[at] = line;
        // Of a repeated key GRUB takes the last, which would undo this.
        let mut index = 0;
        self.lines.retain(|l| {
            index += 1;
            index - 1 <= at || !l.is_of(key)
        });
        Ok(())
    }

    /// Takes `key` away. Tells whether it was there.
    pub fn unset(&mut self, key: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|l| !l.is_of(key));
        self.lines.len() != before
    }
}

impl Line {
    fn is_of(&self, name: &str) -> bool {
        matches!(self, Line::Variable { key, .. } if key == name.as_bytes())
    }
}

/// Reads the block at `path`. A missing or damaged one is no error: the damage is told in the result.
///
/// # Errors
/// The file is there and cannot be read.
pub fn load(root: &Root, path: &str) -> Result<Found> {
    let nothing = |damage| Ok(Found { env: GrubEnv::default(), damage: Some(damage) });
    if root.exists(path) && root.stat(path)?.len > READ_LIMIT {
        return nothing(Damage::Huge(root.stat(path)?.len));
    }
    match root.read_opt(path).context("reading GRUB's environment block")? {
        Some(bytes) => Ok(GrubEnv::parse(&bytes)),
        None => nothing(Damage::Absent),
    }
}

/// Writes the block at `path`, durably. A link is followed: distributions link GRUB's default path to the EFI partition.
///
/// # Errors
/// The variables need more room than there is, or the file cannot be written; the old block is then untouched.
pub fn store(root: &Root, path: &str, env: &GrubEnv) -> Result<()> {
    let bytes = env.render()?;
    root.write_atomic(&follow(root, path)?, &bytes, 0o644).context("writing GRUB's environment block")
}

fn follow(root: &Root, path: &str) -> Result<String> {
    let mut at = path.to_owned();
    // The kernel's own limit of links in a row.
    for _ in 0..40 {
        let Some(target) = (if root.is_link(&at) { root.read_link(&at)? } else { None }) else {
            return Ok(at);
        };
        let target = target.to_str().with_context(|| format!("{at}: the link's target is not UTF-8"))?;
        let dir = at.rsplit_once('/').map_or("", |(dir, _)| dir);
        at = if target.starts_with('/') { target.to_owned() } else { format!("{dir}/{target}") };
    }
    bail!("{path}: too many links in a row")
}

/// The line at the start of `text`, and where the next begins. `None` where GRUB stops reading.
fn next_line(text: &[u8]) -> Option<(Line, usize)> {
    if text[0] == b'#' {
        let end = line_end(text, 0)?;
        return Some((Line::Comment(until_zero(&text[..end]).to_owned()), end + 1));
    }
    // GRUB looks for the = beyond the line end too: a line without one is part of the next line's key.
    let equals = text.iter().position(|b| *b == b'=')?;
    let end = line_end(text, equals + 1)?;
    let (key, value) = (until_zero(&text[..equals]), unescape(&text[equals + 1..end]));
    Some((Line::Variable { key: key.to_owned(), value: until_zero(&value).to_owned() }, end + 1))
}

/// Where the first line end from `at` on is that no backslash precedes.
fn line_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'\n' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Keys and values are C strings to GRUB.
fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = if *byte == b'\\' { bytes.next() } else { Some(byte) };
        plain.extend(byte);
    }
    plain
}

fn escape(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for byte in value {
        if matches!(byte, b'\\' | b'\n') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text
}

fn check(key: &str, value: &str) -> Result<()> {
    let odd = |c: char| c == '=' || c == '\\' || c.is_ascii_control();
    if key.is_empty() || key.starts_with('#') || key.contains(odd) {
        bail!("{key:?} cannot name a variable of GRUB: give it letters, digits and _");
    }
    if value.contains('\0') {
        bail!("the value of {key} holds a zero byte, which GRUB cannot keep");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Vec<u8> {
        let mut bytes = format!("{HEADER}{text}").into_bytes();
        bytes.resize(SIZE, b'#');
        bytes
    }

    fn shown(found: &Found) -> Vec<(String, String)> {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        found.env.variables().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn reads_as_grub_does() {
        for (text, wanted, damage) in [
            ("", vec![], None),
            ("a=b\nc=d=e\n", vec![("a", "b"), ("c", "d=e")], None),
            ("# a comment\na=\n", vec![("a", "")], None),
            ("a=x\\\\y\\\nz\nb=1\n", vec![("a", "x\\y\nz"), ("b", "1")], None),
            ("a=1\nnonsense\nb=2\n", vec![("a", "1"), ("nonsense\nb", "2")], None),
            ("a=1\nb=2", vec![("a", "1")], Some(Damage::Torn)),
            ("a=1\nb=2\\\n", vec![("a", "1")], Some(Damage::Torn)),
            ("a=1\0\0\nb=2\n", vec![("a", "1"), ("b", "2")], Some(Damage::Torn)),
            ("a=1\n\0\0\0", vec![("a", "1")], Some(Damage::Torn)),
            ("# \0\na=1\n", vec![("a", "1")], Some(Damage::Torn)),
        ] {
            let found = GrubEnv::parse(&block(text));
            let wanted: Vec<_> = wanted.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!((shown(&found), found.damage), (wanted, damage), "failed testcase: {text:?}");
        }
    }

    #[test]
    fn damage_has_a_name() {
        let short = format!("{HEADER}a=1\n");
        for (bytes, damage) in [
            (Vec::new(), Damage::Empty),
            (vec![0; SIZE], Damage::NoHeader),
            (vec![b'#'; SIZE], Damage::NoHeader),
            (HEADER.as_bytes()[..10].to_vec(), Damage::NoHeader),
            (HEADER.as_bytes().to_vec(), Damage::NoHeader),
            (format!("{HEADER}#").into_bytes(), Damage::Length(HEADER.len() + 1)),
            (short.clone().into_bytes(), Damage::Length(short.len())),
            ([block("a=1\n"), vec![b'#'; SIZE]].concat(), Damage::Length(2 * SIZE)),
        ] {
            assert_eq!(GrubEnv::parse(&bytes).damage, Some(damage), "failed testcase: {damage:?}");
        }
        assert_eq!(GrubEnv::parse(short.as_bytes()).env.get("a").as_deref(), Some("1"));
    }

    #[test]
    fn setting_keeps_everything_else_byte_for_byte() {
        let mut env = GrubEnv::parse(&block("# kept\nb=\\\\\na=1\nc=3\na=2\n")).env;
        assert_eq!(env.get("a").as_deref(), Some("2"));
        env.set("a", "x\ny").unwrap();
        assert_eq!(env.render().unwrap(), block("# kept\nb=\\\\\na=x\\\ny\nc=3\n"));
        assert!(env.unset("c") && !env.unset("c"));
        env.set("d", "").unwrap();
        assert_eq!(env.render().unwrap(), block("# kept\nb=\\\\\na=x\\\ny\nd=\n"));
    }

    #[test]
    fn refuses_what_grub_could_not_read_back() {
        let mut env = GrubEnv::default();
        for (key, value) in [("", "x"), ("#a", "x"), ("a=b", "x"), ("a\nb", "x"), ("a\\", "x"), ("a", "x\0")]
        {
            assert!(env.set(key, value).is_err(), "failed testcase: {key:?} {value:?}");
        }
        assert_eq!(env, GrubEnv::default());
    }

    #[test]
    fn a_block_is_filled_to_its_last_byte_and_not_beyond() {
        let room = SIZE - HEADER.len() - "a=\n".len();
        let mut env = GrubEnv::default();
        env.set("a", &"x".repeat(room)).unwrap();
        let bytes = env.render().unwrap();
        assert_eq!(GrubEnv::parse(&bytes), Found { env: env.clone(), damage: None });
        env.set("a", &"x".repeat(room + 1)).unwrap();
        assert!(env.render().unwrap_err().to_string().starts_with("environment block too small"));
    }
}
