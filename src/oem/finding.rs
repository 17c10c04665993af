//! Something about a document that its author should know: where, how bad, what. Never a value: it may be a secret.

use std::fmt;

use super::yaml::{Entry, Node, Problem};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something is not as meant, perhaps.
    Warning,
    /// Something that was asked for is not done.
    Error,
}

/// Something about a document that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Line, from 1; 0 if the whole file is meant.
    pub line: u64,
    /// Column, from 1; 0 if the whole line is meant.
    pub col: u64,
    /// How bad it is.
    pub level: Level,
    /// What it is.
    pub text: String,
}

impl Finding {
    /// An error at a value.
    #[must_use]
    pub fn at(node: &Node, text: String) -> Finding {
        Finding { file: node.file.to_string(), line: node.line, col: node.col, level: Level::Error, text }
    }

    /// Something about a key.
    #[must_use]
    pub fn at_key(entry: &Entry, level: Level, text: String) -> Finding {
        Finding { file: entry.node.file.to_string(), line: entry.line, col: entry.col, level, text }
    }

    /// An error about a line, as told while a step runs.
    #[must_use]
    pub fn at_line(file: &str, line: u64, text: String) -> Finding {
        Finding { file: file.to_owned(), line, col: 0, level: Level::Error, text }
    }
}

impl From<Problem> for Finding {
    fn from(p: Problem) -> Finding {
        Finding { file: p.file, line: p.line, col: p.col, level: Level::Error, text: p.reason }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.col) {
            (0, _) => write!(f, "{}: {}", self.file, self.text),
            (line, 0) => write!(f, "{}:{line}: {}", self.file, self.text),
            (line, col) => write!(f, "{}:{line}:{col}: {}", self.file, self.text),
        }
    }
}
