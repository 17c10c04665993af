//! The only file that names the YAML crate. What our users' files were written for is YAML 1.1 as Go's parsers read it:
//! `0644` is octal, `<<` merges, `yes` and `off` are booleans where a boolean is wanted. A key given twice is an error.
//!
//! No error quotes a value: it may be a token or a password. Limits hold against files that are made to exhaust memory.

use std::fmt;
use std::rc::Rc;

use anyhow::Result;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_yaml::{Error, Options, Spanned};

/// Longest text that is read, in bytes. A cloud-config is a few kilobytes; Kairos dropped longer ones without a word.
pub const MAX_LEN: usize = 1024 * 1024;

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1; 0 if the whole file is meant.
    pub line: u64,
    /// Column, from 1; 0 if the whole file is meant.
    pub col: u64,
    /// What is wrong, without any value.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.reason),
            line => write!(f, "{}:{line}:{}: {}", self.file, self.col, self.reason),
        }
    }
}
impl std::error::Error for Problem {}

/// Reads one document into `T`.
///
/// # Errors
/// A [`Problem`]: the text is no YAML, does not fit `T`, has a second document or is longer than [`MAX_LEN`].
pub fn parse<T: DeserializeOwned>(text: &str, file: &str) -> Result<T> {
    let text = bounded(text, file)?;
    Ok(serde_yaml::from_str_with_options(text, options()).map_err(|e| problem(&e, file))?)
}

/// Reads all documents of a text as JSON. Empty ones are left out.
///
/// # Errors
/// As [`parse`], but for the second document.
pub fn documents(text: &str, file: &str) -> Result<Vec<Json>> {
    let text = bounded(text, file)?;
    Ok(serde_yaml::from_multiple_with_options(text, options()).map_err(|e| problem(&e, file))?)
}

/// Writes `value` as one document.
///
/// # Errors
/// It has no YAML form.
pub fn to_string<T: Serialize>(value: &T) -> Result<String> {
    // Long values stay on one line, for tools that read by line.
    let options = serde_yaml::ser_options! { prefer_block_scalars: false };
    serde_yaml::to_string_with_options(value, options).map_err(|e| anyhow::anyhow!("encoding as YAML: {e}"))
}

/// A value with the place that it was written at. Its `Debug` form shows the shape only, as values may be secrets.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// The file, as the caller named it.
    pub file: Rc<str>,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub col: u64,
    /// What is there.
    pub value: Value,
}

/// What a [`Node`] holds.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, number or boolean: a reader that wants text takes the text.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in order, merge keys expanded.
    Map(Vec<Entry>),
}

/// A single value.
#[derive(Clone, PartialEq)]
pub struct Scalar {
    /// As written, escapes and quotes resolved.
    pub text: String,
    /// As YAML 1.1 types it: a string, number or boolean.
    pub json: Json,
}

/// One key of a map. It is in the file of its node.
#[derive(Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Line of the key, from 1.
    pub line: u64,
    /// Column of the key, from 1.
    pub col: u64,
    /// What it stands for.
    pub node: Node,
}

/// Reads one document with the place of each key. An empty one is [`Value::Null`].
///
/// # Errors
/// As [`parse`].
pub fn tree(text: &str, file: &str) -> Result<Node, Problem> {
    let text = bounded(text, file)?;
    let node: RawNode = serde_yaml::from_str_with_options(text, options()).map_err(|e| problem(&e, file))?;
    Ok(node.resolve(text, &Rc::from(file)))
}

impl Node {
    /// The value without its places.
    #[must_use]
    pub fn json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Scalar(scalar) => scalar.json.clone(),
            Value::List(nodes) => nodes.iter().map(Node::json).collect(),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|e| (e.key.clone(), e.node.json())).collect())
            }
        }
    }

    /// Name of the kind of value, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(Scalar { json: Json::Bool(_), .. }) => "a boolean",
            Value::Scalar(Scalar { json: Json::Number(_), .. }) => "a number",
            Value::Scalar(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::List(nodes) => f.debug_list().entries(nodes).finish(),
            Value::Map(entries) => f.debug_map().entries(entries.iter().map(|e| (&e.key, &e.node))).finish(),
            _ => write!(f, "<{}>", self.kind()),
        }
    }
}

macro_rules! shape_only {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!("<", stringify!($name), ">"))
            }
        }
    )*};
}
shape_only!(Value, Scalar, Entry);

fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_documents: 64,
            // A level costs tens of kilobytes of stack; Kubernetes nests about twelve deep.
            max_depth: 32,
            max_nodes: 200_000,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: 200_000 },
        legacy_octal_numbers: true,
        // A snippet would show the lines around an error, secrets among them.
        with_snippet: false,
    }
}

fn bounded<'a>(text: &'a str, file: &str) -> Result<&'a str, Problem> {
    if text.len() > MAX_LEN {
        let reason =
            format!("{} bytes are more than the {MAX_LEN} that are read; split the file", text.len());
        return Err(Problem { file: file.to_owned(), line: 0, col: 0, reason });
    }
    // Editors on other systems put a byte order mark first.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn problem(error: &Error, file: &str) -> Problem {
    let error = error.without_snippet();
    let place = error.locations().and_then(serde_yaml::Locations::primary_location);
    let (line, col) = place.map_or((0, 0), |p| (p.line(), p.column()));
    Problem { file: file.to_owned(), line, col, reason: reason(error) }
}

/// The crate's words, without the value where they quote it and without advice for programmers.
fn reason(error: &Error) -> String {
    match error {
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            format!("{} found where {expected} is needed", without_value(unexpected))
        }
        Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{} found, but {expected} is needed", without_value(unexpected))
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("key {key} is given twice"),
        Error::MultipleDocuments { .. } => "a second document (---) in a file of one".into(),
        Error::AliasError { error, .. } => reason(error),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
            "too deeply nested or too large once its aliases are expanded".into()
        }
        // The crate appends the place; ours is at the front.
        other => {
            let text = other.render();
            let end = [" at line ", ": line "].iter().filter_map(|mark| text.find(mark)).min();
            end.map_or(text.as_str(), |end| &text[..end]).trim_end_matches([':', ',']).to_owned()
        }
    }
}

/// serde describes a value as its kind, then the value in quotes.
fn without_value(unexpected: &str) -> &str {
    unexpected.split(['"', '`']).next().unwrap_or("").trim_end()
}

struct RawNode(Spanned<RawValue>);

enum RawValue {
    Null,
    Text(String),
    /// Its text is in the source.
    Typed(Json),
    List(Vec<RawNode>),
    Map(Vec<(Spanned<String>, RawNode)>),
}

impl RawNode {
    fn resolve(self, text: &str, file: &Rc<str>) -> Node {
        let place = self.0.referenced;
        let value = match self.0.value {
            RawValue::Null => Value::Null,
            RawValue::Text(text) => Value::Scalar(Scalar { json: Json::String(text.clone()), text }),
            RawValue::Typed(json) => {
                let span = self.0.defined.span();
                let written = span.byte_offset().zip(span.byte_len()).and_then(|(from, len)| {
                    let from = usize::try_from(from).ok()?;
                    text.get(from..from.checked_add(usize::try_from(len).ok()?)?)
                });
                let written = written.map_or_else(|| json.to_string(), |w| w.trim().to_owned());
                Value::Scalar(Scalar { text: written, json })
            }
            RawValue::List(nodes) => Value::List(nodes.into_iter().map(|n| n.resolve(text, file)).collect()),
            RawValue::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, node)| Entry {
                        line: key.referenced.line(),
                        col: key.referenced.column(),
                        key: key.value,
                        node: node.resolve(text, file),
                    })
                    .collect(),
            ),
        };
        Node { file: file.clone(), line: place.line(), col: place.column(), value }
    }
}

impl<'de> Deserialize<'de> for RawNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawNode, D::Error> {
        Spanned::deserialize(deserializer).map(RawNode)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawValue, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }
    fn visit_none<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.into()))
    }
    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(RawValue::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(RawValue::List(nodes))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        mode: u32,
        #[serde(default)]
        on: bool,
        #[serde(default)]
        name: String,
    }

    #[test]
    fn yaml_1_1_as_go_reads_it() {
        for (text, mode, on, name) in [
            ("mode: 0644", 0o644, false, ""),
            ("mode: 420", 420, false, ""),
            ("mode: 0o644", 0o644, false, ""),
            ("on: yes", 0, true, ""),
            ("on: Off", 0, false, ""),
            ("name: yes", 0, false, "yes"),
            ("name: 0644", 0, false, "0644"),
            ("base: &b {mode: 1, name: x}\n", 0, false, ""),
        ] {
            let wanted = Sample { mode, on, name: name.into() };
            let read = parse::<Sample>(text, "f");
            match read {
                Ok(read) => assert_eq!(read, wanted, "failed testcase: {text:?}"),
                Err(e) => {
                    assert_eq!(e.to_string().split(' ').next(), Some("f:1:1:"), "failed testcase: {text:?}");
                }
            }
        }
        let merged =
            documents("x: &b {mode: 0640, n: 1}\ny: {<<: *b, n: 2}\n---\n---\nz: [on]\n", "f").unwrap();
        assert_eq!(
            merged,
            [json!({"x": {"mode": 0o640, "n": 1}, "y": {"mode": 0o640, "n": 2}}), json!({"z": [true]})]
        );
    }

    #[test]
    fn errors_name_the_place_and_quote_no_value() {
        for (text, wanted) in [
            ("name: a\nname: b\n", "f:2:1: key name is given twice"),
            ("mode: 1\n\nfoo: 1\n", "f:3:1: unknown field `foo`, expected one of mode, on, name"),
            ("mode: hunter2\n", "f:1:7: "),
            ("mode: {}\n", "f:1:7: "),
            ("on: hunter2\n", "f:1:5: "),
            ("name: [hunter2]\n", "f:1:7: "),
            ("name: \"hunter2\n", "f:"),
            ("name: hunter2\n  x: y\n", "f:2:"),
            ("name: a\n\tmode: hunter2\n", "f:1:7: while scanning a plain scalar, found a tab"),
            ("name: a\n---\nname: b\n", "f:3:1: a second document (---) in a file of one"),
            ("name: *nowhere\n", "f:1:7: "),
            ("hunter2\n", "f:1:1: "),
        ] {
            let error = parse::<Sample>(text, "f").unwrap_err();
            let shown = format!("{error:#}");
            assert!(shown.starts_with(wanted), "failed testcase: {text:?}: {shown}");
            assert!(!shown.contains("hunter2"), "failed testcase: {text:?}: {shown}");
            assert!(error.downcast_ref::<Problem>().is_some(), "failed testcase: {text:?}");
        }
    }

    #[test]
    fn a_tree_keeps_places_and_the_text_of_every_scalar() {
        let text = "# é\na: 0644\nb:\n- yes\n- \"no\"\n- &x 010\n- *x\n- !!str 5\n- 1e3 # five\n- ~\nc: {d: plain text}\n";
        let node = tree(text, "f").unwrap();
        let Value::Map(entries) = &node.value else { panic!("no map") };
        let places: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.line, e.col, e.node.line)).collect();
        assert_eq!(places, [("a", 2, 1, 2), ("b", 3, 1, 4), ("c", 11, 1, 11)]);
        let Value::List(items) = &entries[1].node.value else { panic!("no list") };
        let texts: Vec<_> = std::iter::once(&entries[0].node)
            .chain(items)
            .filter_map(|n| match &n.value {
                Value::Scalar(s) => Some((s.text.as_str(), s.json.clone())),
                _ => None,
            })
            .collect();
        assert_eq!(
            texts,
            [
                ("0644", json!(420)),
                ("yes", json!(true)),
                ("no", json!("no")),
                ("010", json!(8)),
                ("010", json!(8)),
                ("5", json!("5")),
                ("1e3", json!(1000.0)),
            ]
        );
        assert_eq!(items[3].line, 7);
        assert_eq!(node.json()["c"], json!({"d": "plain text"}));
        assert!(!format!("{node:?}").contains("plain"));
    }

    #[test]
    fn merge_keys_are_expanded_and_tell_the_place_of_the_merge() {
        let node = tree("a: &a\n  k: 1\nb:\n  <<: *a\n  l: 2\n", "f").unwrap();
        assert_eq!(node.json()["b"], json!({"l": 2, "k": 1}));
    }

    #[test]
    fn files_made_to_exhaust_memory_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..10 {
            let alias = format!("*a{},", i - 1).repeat(10);
            bomb.push_str(&format!("a{i}: &a{i} [{alias}]\n"));
        }
        let long = format!("name: {}", "x".repeat(MAX_LEN));
        let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
        let blocks = (0..1000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
        for (name, text) in [("bomb", bomb), ("long", long), ("deep", deep), ("blocks", blocks)] {
            let error = tree(&text, "f").unwrap_err();
            assert!(error.to_string().starts_with("f:"), "failed testcase: {name}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({"a": "0644", "b": ["yes", "x: y", "two\nlines\n", "#"], "c": {"d": null, "e": 1.5},
            "long": "word ".repeat(60)});
        let text = to_string(&value).unwrap();
        assert_eq!(documents(&text, "f").unwrap(), [value]);
    }
}
