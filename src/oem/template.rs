//! The few template expressions that documents use: `{{ .MachineID }}`, `{{ trunc 4 .MachineID }}`,
//! `{{ .Values.node.hostname }}`. Kairos runs Go's text/template with sprig; anything else of that is refused by name. Pure.

/// What templates may ask for. `None`: not known on this machine, or not yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// The firmware's product UUID.
    pub uuid: Option<String>,
    /// New at each use of a stage.
    pub random: Option<String>,
    /// The host's name.
    pub hostname: Option<String>,
}

/// Replaces each `{{ … }}`.
///
/// # Errors
/// An expression that is not supported, or a fact that is not known; the text says which. Nothing is replaced then.
pub fn render(text: &str, facts: &Facts) -> Result<String, String> {
    let (mut done, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, from)) = rest.split_once("{{") {
        let (inside, after) = from.split_once("}}").ok_or("a {{ without }}")?;
        let (inside, after) = match inside.strip_suffix('-') {
            Some(inside) => (inside, after.trim_start()),
            None => (inside, after),
        };
        let (inside, before) = match inside.strip_prefix('-') {
            Some(inside) => (inside, before.trim_end()),
            None => (inside, before),
        };
        done.push_str(before);
        done.push_str(&pipeline(inside, facts)?);
        rest = after;
    }
    done.push_str(rest);
    Ok(done)
}

/// Calls joined by `|`: each gets the result before it as its last argument.
fn pipeline(text: &str, facts: &Facts) -> Result<String, String> {
    let mut last = None;
    for call in text.split('|') {
        last = Some(evaluate(call, last, facts)?);
    }
    last.ok_or_else(|| "an empty expression".to_owned())
}

fn evaluate(call: &str, piped: Option<String>, facts: &Facts) -> Result<String, String> {
    let mut words: Vec<String> = call.split_whitespace().map(str::to_owned).collect();
    let refused = || Err(format!("not supported yet: {{{{ {} }}}}", call.trim()));
    if words.is_empty() {
        return refused();
    }
    let name = words.remove(0);
    if name.starts_with('.') {
        return if words.is_empty() && piped.is_none() { fact(&name, facts) } else { refused() };
    }
    let mut arguments = Vec::new();
    for word in words {
        arguments.push(if word.starts_with('.') { fact(&word, facts)? } else { word });
    }
    arguments.extend(piped);
    match (name.as_str(), arguments.as_slice()) {
        ("trunc", [count, text]) => match count.parse::<i32>() {
            Ok(count) => Ok(truncated(text, count)),
            Err(_) => refused(),
        },
        ("lower", [text]) => Ok(text.to_lowercase()),
        ("upper", [text]) => Ok(text.to_uppercase()),
        _ => refused(),
    }
}

/// sprig's trunc: the first letters, or the last ones where the count is negative.
fn truncated(text: &str, count: i32) -> String {
    let (all, wanted) = (text.chars().count(), count.unsigned_abs() as usize);
    let skipped = if count < 0 { all.saturating_sub(wanted) } else { 0 };
    text.chars().skip(skipped).take(wanted).collect()
}

fn fact(name: &str, facts: &Facts) -> Result<String, String> {
    let (value, what) = match name {
        ".MachineID" => (&facts.machine_id, "this machine has no machine-id yet"),
        ".UUID" => (&facts.uuid, "this machine's firmware tells no UUID"),
        ".Random" | ".Values.Random" => (&facts.random, "the kernel gave no random number"),
        ".Values.node.hostname" => (&facts.hostname, "this machine has no name yet"),
        _ => return Err(format!("not supported yet: {{{{ {name} }}}}")),
    };
    value.clone().ok_or_else(|| format!("{name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let facts = Facts {
            machine_id: Some("0123456789abcdef".into()),
            hostname: Some("Node".into()),
            random: Some("r".into()),
            uuid: None,
        };
        for (text, wanted) in [
            ("plain } text {", Ok("plain } text {")),
            ("node-{{ trunc 4 .MachineID }}", Ok("node-0123")),
            ("{{trunc -4 .MachineID}}", Ok("cdef")),
            ("{{ .MachineID | trunc 2 | upper }}x", Ok("01x")),
            ("a {{- .Values.node.hostname -}} b", Ok("aNodeb")),
            ("{{ lower .Values.node.hostname }}{{ .Random }}", Ok("noder")),
            ("{{ trunc 99 .MachineID }}", Ok("0123456789abcdef")),
            ("{{ trunc -2147483648 .Random }}", Ok("r")),
            ("{{ .UUID }}", Err(".UUID: this machine's firmware tells no UUID")),
            ("{{ .Values.system.product }}", Err("not supported yet: {{ .Values.system.product }}")),
            ("{{ if true }}", Err("not supported yet: {{ if true }}")),
            ("{{ trunc x .MachineID }}", Err("not supported yet: {{ trunc x .MachineID }}")),
            ("{{ .Random x }}", Err("not supported yet: {{ .Random x }}")),
            ("{{ }}", Err("not supported yet: {{  }}")),
            ("{{", Err("a {{ without }}")),
        ] {
            let got = render(text, &facts);
            assert_eq!(got, wanted.map(str::to_owned).map_err(str::to_owned), "failed testcase: {text:?}");
        }
    }
}
