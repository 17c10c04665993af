//! Writes YAML the way upstream's tools do (sigs.k8s.io/yaml), byte for byte for what Kubernetes objects hold: lists at
//! the indentation of their key, plain scalars wherever they cannot be read as something else, `|` for several lines.
//!
//! Tools compare these files and the ConfigMaps made of them by text, so the form is part of the contract. Writing a
//! tree as text needs no parser; reading stays with [`crate::oem::yaml`].

use serde_json::Value;

/// `value` as a YAML document.
#[must_use]
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut out, value, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

/// A non-empty map or list, its first line already indented.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) => {
            for (n, (key, value)) in map.iter().enumerate() {
                if n > 0 {
                    pad(out, indent);
                }
                text(out, key, indent, true);
                out.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        out.push('\n');
                        pad(out, indent + 2);
                        block(out, value, indent + 2);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        out.push('\n');
                        pad(out, indent);
                        block(out, value, indent);
                    }
                    other => {
                        out.push(' ');
                        scalar(out, other, indent);
                        out.push('\n');
                    }
                }
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    pad(out, indent);
                }
                out.push_str("- ");
                match item {
                    Value::Object(inner) if !inner.is_empty() => block(out, item, indent + 2),
                    Value::Array(inner) if !inner.is_empty() => block(out, item, indent + 2),
                    other => {
                        scalar(out, other, indent);
                        out.push('\n');
                    }
                }
            }
        }
        _ => {}
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(s) => text(out, s, indent, false),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn text(out: &mut String, s: &str, indent: usize, key: bool) {
    let printable = s.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{feff}' && c != '\u{85}'));
    if !printable || (key && s.contains('\n')) {
        return double_quoted(out, s);
    }
    if s.contains('\n') {
        return if s.trim_start_matches('\n').is_empty() {
            double_quoted(out, s)
        } else {
            literal(out, s, indent)
        };
    }
    match quoting(s) {
        Quote::Plain => out.push_str(s),
        Quote::Single => {
            out.push('\'');
            out.push_str(&s.replace('\'', "''"));
            out.push('\'');
        }
        Quote::Double => double_quoted(out, s),
    }
}

enum Quote {
    Plain,
    Single,
    Double,
}

/// Go's writer takes double quotes where a plain scalar would be read as another type, and single quotes where it would
/// not be a scalar at all.
fn quoting(s: &str) -> Quote {
    if reads_as_other_type(s) {
        return Quote::Double;
    }
    let Some(first) = s.chars().next() else { return Quote::Double };
    let indicator = match first {
        '-' | '?' | ':' => s[1..].chars().next().is_none_or(char::is_whitespace),
        _ => "#,[]{}&*!|>'\"%@`".contains(first),
    };
    let document = s.starts_with("---") || s.starts_with("...");
    let inner = s.contains(": ") || s.ends_with(':') || s.contains(" #");
    if indicator || document || inner || s.starts_with(' ') || s.ends_with(' ') {
        Quote::Single
    } else {
        Quote::Plain
    }
}

fn reads_as_other_type(s: &str) -> bool {
    const WORDS: [&str; 12] = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<"];
    let lower = s.to_ascii_lowercase();
    WORDS.contains(&lower.as_str()) || reads_as_number(&lower) || reads_as_time(s)
}

fn reads_as_number(s: &str) -> bool {
    let body = s.strip_prefix(['-', '+']).unwrap_or(s);
    if [".inf", ".nan"].contains(&body) {
        return true;
    }
    let plain = body.replace('_', "");
    if let Some(digits) = plain.strip_prefix("0x") {
        return !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
    }
    if let Some(digits) = plain.strip_prefix("0b").or_else(|| plain.strip_prefix("0o")) {
        return !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    }
    let begins = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    begins && (plain.parse::<f64>().is_ok() || reads_as_base_60(&plain))
}

/// `12:30`, which YAML 1.1 reads as a number to the base 60: Go's writer quotes those, too.
fn reads_as_base_60(s: &str) -> bool {
    let digits = |t: &str| t.chars().all(|c| c.is_ascii_digit());
    let (whole, fraction) = s.split_once('.').unwrap_or((s, ""));
    let mut parts = whole.split(':');
    let first = parts.next().is_some_and(|p| !p.is_empty() && digits(p));
    let mut rest = parts.peekable();
    let some = rest.peek().is_some();
    first
        && some
        && digits(fraction)
        && rest.all(|p| digits(p) && p.parse::<u8>().is_ok_and(|n| n < 60) && p.len() <= 2)
}

/// `2026-01-31…`: a timestamp.
fn reads_as_time(s: &str) -> bool {
    let mut parts = s.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let digits = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_digit());
    year.len() == 4
        && digits(year)
        && month.len() <= 2
        && digits(month)
        && rest.starts_with(|c: char| c.is_ascii_digit())
}

fn literal(out: &mut String, s: &str, indent: usize) {
    out.push('|');
    if s.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !s.ends_with('\n') {
        out.push('-');
    } else if s.ends_with("\n\n") {
        out.push('+');
    }
    let body = s.strip_suffix('\n').unwrap_or(s);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent + 2);
            out.push_str(line);
        }
    }
}

fn double_quoted(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || c == '\u{feff}' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_as_upstream_does() {
        let value = json!({"a": {"b": [1, {"c": "x", "d": []}, ["y"]], "e": {}}, "f": null, "g": "l1\n\nl2\n", "h": "l1\nl2"});
        let wanted = "a:\n  b:\n  - 1\n  - c: x\n    d: []\n  - - 'y'\n  e: {}\nf: null\ng: |\n  l1\n\n  l2\nh: |-\n  l1\n  l2\n";
        assert_eq!(write(&value), wanted.replace("'y'", "\"y\""));
    }

    #[test]
    fn scalars() {
        // Right-hand side: sigs.k8s.io/yaml, as kubectl and kubeadm print them.
        for (text, wanted) in [
            ("", "\"\""),
            ("0", "\"0\""),
            ("0s", "0s"),
            ("true", "\"true\""),
            ("1.36.0", "1.36.0"),
            ("10.96.0.10", "10.96.0.10"),
            ("1e3", "\"1e3\""),
            ("0x1f", "\"0x1f\""),
            ("system:node:n1", "system:node:n1"),
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
            ("-conf", "-conf"),
            ("- x", "'- x'"),
            ("a: b", "'a: b'"),
            ("a #b", "'a #b'"),
            ("*,bootstrapsigner", "'*,bootstrapsigner'"),
            ("$(NODE_NAME)", "$(NODE_NAME)"),
            ("::", "'::'"),
            ("fd00::1", "fd00::1"),
            ("2026-01-31T00:00:00Z", "\"2026-01-31T00:00:00Z\""),
            ("12:30", "\"12:30\""),
            ("190:20:30.15", "\"190:20:30.15\""),
            ("12:61", "12:61"),
            ("10.77.0.11:6443", "10.77.0.11:6443"),
            ("a\tb", "\"a\\tb\""),
            ("yes", "\"yes\""),
            ("[::1]:2379", "'[::1]:2379'"),
        ] {
            assert_eq!(write(&json!(text)).trim_end(), wanted, "failed testcase: {text}");
        }
    }

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let texts = [
            "",
            " a",
            "a ",
            "'",
            "\"",
            "\\",
            "a\nb",
            "\n",
            "\n\n",
            " a\nb\n\n",
            "a\n b\n",
            "\u{1}",
            "é",
            "%x",
            "null",
            "012",
            "1_000",
            "0b1",
            "?",
            "? a",
            "...",
            "---",
            "a:",
            "#",
            "~",
            ".5",
            "+1",
            "!x",
            "&a",
            "|",
            ">-",
        ];
        let value: Value = texts
            .iter()
            .map(|t| (format!("k{t}"), json!({"t": t, "l": [t, [t]]})))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let read: Value = crate::oem::yaml::parse(&write(&value), "test").unwrap();
        assert_eq!(read, value);
    }
}
