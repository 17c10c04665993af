//! Many documents make one configuration. A later file wins; maps are merged key by key, lists of single values are united,
//! lists with maps are joined (Kairos' rules). Every value keeps the file and line that it came from. Pure.

use std::collections::BTreeMap;

use super::yaml::{Entry, Node, Value};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The file.
    pub file: String,
    /// Line of the key, or of the item of a list.
    pub line: u64,
}

/// Adds the keys of a later document to `base`.
pub fn merge(base: &mut Vec<Entry>, later: Vec<Entry>) {
    for entry in later {
        match base.iter_mut().find(|b| b.key == entry.key) {
            Some(found) => combine(found, entry),
            None => base.push(entry),
        }
    }
}

fn combine(base: &mut Entry, later: Entry) {
    match (&mut base.node.value, later.node.value) {
        // A key without a value says nothing: it takes nothing away.
        (_, Value::Null) => {}
        (Value::Map(into), Value::Map(from)) => merge(into, from),
        (Value::List(into), Value::List(from)) => {
            let single = |nodes: &[Node]| nodes.iter().all(|n| matches!(n.value, Value::Scalar(_)));
            if single(into) && single(&from) {
                for node in from {
                    if !into.iter().any(|known| known.value == node.value) {
                        into.push(node);
                    }
                }
            } else {
                into.extend(from);
            }
        }
        (_, value) => *base = Entry { node: Node { value, ..later.node }, ..later },
    }
}

/// Where each value of a merged configuration came from, by paths such as `cluster.config.x[0].y`.
#[must_use]
pub fn provenance(entries: &[Entry]) -> BTreeMap<String, Origin> {
    let mut origins = BTreeMap::new();
    for entry in entries {
        walk(&entry.key, entry.line, &entry.node, &mut origins);
    }
    origins
}

fn walk(path: &str, line: u64, node: &Node, origins: &mut BTreeMap<String, Origin>) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                walk(&format!("{path}.{}", entry.key), entry.line, &entry.node, origins);
            }
        }
        Value::List(nodes) if !nodes.is_empty() => {
            for (index, node) in nodes.iter().enumerate() {
                walk(&format!("{path}[{index}]"), node.line, node, origins);
            }
        }
        _ => {
            origins.insert(path.to_owned(), Origin { file: node.file.to_string(), line });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oem::yaml::tree;

    fn merged(texts: &[&str]) -> (serde_json::Value, Vec<String>) {
        let mut base = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let Value::Map(entries) = tree(text, &format!("f{index}")).unwrap().value else {
                panic!("no map")
            };
            merge(&mut base, entries);
        }
        let origins = provenance(&base).iter().map(|(k, o)| format!("{k} {}:{}", o.file, o.line)).collect();
        (
            base.iter().map(|e| (e.key.clone(), e.node.json())).collect::<serde_json::Map<_, _>>().into(),
            origins,
        )
    }

    #[test]
    fn later_files_win_key_by_key() {
        for (texts, wanted, origins) in [
            (
                vec!["a: 1\nb: 1", "b: 2\nc: 2"],
                json!({"a":1,"b":2,"c":2}),
                vec!["a f0:1", "b f1:1", "c f1:2"],
            ),
            (
                vec!["m: {x: 1, y: {z: 1}}", "m: {y: {w: 2}, x: 2}"],
                json!({"m": {"x": 2, "y": {"z": 1, "w": 2}}}),
                vec!["m.x f1:1", "m.y.w f1:1", "m.y.z f0:1"],
            ),
            (
                vec!["l: [a, b]", "l:\n- b\n- c"],
                json!({"l": ["a", "b", "c"]}),
                vec!["l[0] f0:1", "l[1] f0:1", "l[2] f1:3"],
            ),
            (
                vec!["l: [{a: 1}]", "l: [{a: 1}, x]"],
                json!({"l": [{"a": 1}, {"a": 1}, "x"]}),
                vec!["l[0].a f0:1", "l[1].a f1:1", "l[2] f1:1"],
            ),
            (vec!["a: {b: 1}", "a: text"], json!({"a": "text"}), vec!["a f1:1"]),
            (vec!["a: text", "a: [1]"], json!({"a": [1]}), vec!["a[0] f1:1"]),
            (vec!["a: {b: 1}", "a:"], json!({"a": {"b": 1}}), vec!["a.b f0:1"]),
            (vec!["a: 010", "a: '010'"], json!({"a": "010"}), vec!["a f1:1"]),
            (vec!["a: []", "b: {}"], json!({"a": [], "b": {}}), vec!["a f0:1", "b f1:1"]),
        ] {
            assert_eq!(
                merged(&texts),
                (wanted, origins.iter().map(|o| (*o).to_owned()).collect()),
                "failed testcase: {texts:?}"
            );
        }
    }
}
