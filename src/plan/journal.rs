//! The durable progress of one plan: JSON lines, one appended and flushed at each phase edge. A torn last line (the power
//! went during the append) is dropped when the journal is opened again.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Change;
use crate::host::Root;

/// Format version that this code writes and reads.
pub const VERSION: u32 = 1;

/// The progress of one plan.
#[derive(Debug, Clone)]
pub struct Journal {
    root: Root,
    path: String,
    head: Head,
    lines: Vec<Line>,
}

/// First line: what is in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Format version.
    pub v: u32,
    /// Which table of phases.
    pub plan: String,
    /// Which run of it; a rerun after a cut keeps it, a new order gets a new one.
    pub id: String,
}

/// One phase edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Name of the phase.
    pub phase: String,
    /// What the line says of it.
    pub state: Mark,
    /// What it did, once done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// How long it took, in milliseconds, once done or failed.
    #[serde(default)]
    pub ms: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a line says of its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// It was begun.
    Begin,
    /// It was done.
    Done,
    /// It failed.
    Failed,
}

impl Journal {
    /// Opens the journal of run `id` of `plan`, or starts it. A journal of another plan or run is replaced.
    ///
    /// # Errors
    /// It cannot be read or written, or a newer version of this program wrote it.
    pub fn open(root: &Root, path: &str, plan: &str, id: &str) -> Result<Journal> {
        let head = Head { v: VERSION, plan: plan.to_owned(), id: id.to_owned() };
        if let Some((found, lines, text)) = read(root, path)?
            && found == head
        {
            let whole = render(&found, &lines)?;
            if whole.as_bytes() != text.as_slice() {
                root.write_atomic(path, whole.as_bytes(), 0o600)?;
            }
            return Ok(Journal { root: root.clone(), path: path.to_owned(), head, lines });
        }
        root.write_atomic(path, render(&head, &[])?.as_bytes(), 0o600)
            .with_context(|| format!("starting the journal of {plan}"))?;
        Ok(Journal { root: root.clone(), path: path.to_owned(), head, lines: Vec::new() })
    }

    /// Reads a journal without changing it. `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or a newer version of this program wrote it.
    pub fn peek(root: &Root, path: &str) -> Result<Option<(Head, Vec<Line>)>> {
        Ok(read(root, path)?.map(|(head, lines, _)| (head, lines)))
    }

    /// Which run this is.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.head.id
    }

    /// Every phase edge so far.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether `phase` was done.
    #[must_use]
    pub fn done(&self, phase: &str) -> bool {
        self.lines.iter().any(|l| l.phase == phase && l.state == Mark::Done)
    }

    /// Appends one line and flushes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_string(&line).context("encoding a journal line")?;
        text.push('\n');
        self.root.append_durable(&self.path, text.as_bytes())?;
        self.lines.push(line);
        Ok(())
    }
}

fn render(head: &Head, lines: &[Line]) -> Result<String> {
    let mut text = serde_json::to_string(head).context("encoding the journal's head")?;
    text.push('\n');
    for line in lines {
        text.push_str(&serde_json::to_string(line).context("encoding a journal line")?);
        text.push('\n');
    }
    Ok(text)
}

type Parsed = (Head, Vec<Line>, Vec<u8>);

fn read(root: &Root, path: &str) -> Result<Option<Parsed>> {
    let Some(bytes) = root.read_opt(path)? else { return Ok(None) };
    let shown = root.host_path(path);
    let Some((head, lines)) = parse(&bytes).with_context(|| format!("reading {}", shown.display()))? else {
        return Ok(None);
    };
    Ok(Some((head, lines, bytes)))
}

/// `None` if not even the first line is whole. Lines after the first that cannot be parsed are as if never written:
/// the phase they speak of is run again.
fn parse(bytes: &[u8]) -> Result<Option<(Head, Vec<Line>)>> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let Some(head) = lines.next().and_then(|l| serde_json::from_str::<serde_json::Value>(l).ok()) else {
        return Ok(None);
    };
    let v = head.get("v").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if v > u64::from(VERSION) {
        bail!(
            "this journal has version {v}, and this program knows up to {VERSION}: boot the newer image again"
        );
    }
    let Ok(head) = serde_json::from_value::<Head>(head) else { return Ok(None) };
    Ok(Some((head, lines.map_while(|l| serde_json::from_str(l).ok()).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_is_whole_and_drops_what_is_torn() {
        let head = r#"{"v":1,"plan":"reset","id":"x"}"#;
        let done = r#"{"phase":"a","state":"done","change":"created","ms":3}"#;
        for (text, lines) in [
            (String::new(), None),
            ("{\"v\":1,\"pl".to_owned(), None),
            (format!("{head}\n"), Some(0)),
            (format!("{head}\n{done}\n"), Some(1)),
            (format!("{head}\n{done}\n{{\"phase\":\"b\",\"sta"), Some(1)),
            (format!("{head}\n\0\0\0\0\n{done}\n"), Some(0)),
        ] {
            let parsed = parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.map(|(_, l)| l.len()), lines, "failed testcase: {text:?}");
        }
        assert!(parse(br#"{"v":2,"plan":"reset","id":"x"}"#).is_err());
    }
}
