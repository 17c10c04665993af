//! The kernel command line: split as the kernel splits it, then read as what our boot understands of it.
//!
//! Pure. A value that makes no sense never stops the boot: it is left out and named in [`Cmdline::problems`].

/// One argument, as `key` or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// What is before the first `=`, as written.
    pub key: String,
    /// What is after it, without the quotes around it.
    pub value: Option<String>,
}

/// A mount that the command line asks for: `rd.cos.mount=LABEL=x:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// Label of the file system.
    pub label: String,
    /// Absolute path that it is mounted at.
    pub path: String,
}

/// The command line as our boot reads it. The names of the arguments are Kairos' (immucore's `rd.immucore.…`, with
/// the older `rd.cos.…` beside them), apart from `rekindle.events`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// Every argument in order, up to `--`.
    pub args: Vec<Arg>,
    /// `cos-img/filename`: the image that holds the root file system, a path on the partition that it lies on.
    pub image: Option<String>,
    /// `root=LABEL=…`: label of the root file system.
    pub root_label: Option<String>,
    /// `kairos.reset`: this boot was started to reset the node.
    pub reset: bool,
    /// `rd.cos.oemlabel`: label of the partition for `/oem`.
    pub oem_label: Option<String>,
    /// `rd.cos.oemtimeout`: seconds to wait for that partition.
    pub oem_timeout: Option<u64>,
    /// `rd.cos.overlay=tmpfs:SIZE`: SIZE of the file system that takes what is written to ephemeral paths.
    pub overlay_size: Option<String>,
    /// `rd.cos.mount`, once for each mount.
    pub mounts: Vec<MountRequest>,
    /// `console=NAME[,options]`: the names, in order. The kernel's `/dev/console` is the last.
    pub consoles: Vec<String>,
    /// `rekindle.events=DEVICE`: device that gets our events as JSON lines.
    pub events: Option<String>,
    /// `rd.immucore.debug`: say more.
    pub debug: bool,
    /// Arguments that were left out because their value makes no sense: what, and why.
    pub problems: Vec<String>,
    text: String,
}

/// How the machine was started, as a Kairos user knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// From the active image.
    Active,
    /// From the passive image, the fallback.
    Passive,
    /// From the recovery image.
    Recovery,
    /// From the recovery image, to reset.
    AutoReset,
    /// From live media or the network.
    Live,
    /// By none of the known entries.
    Unknown,
}

impl Mode {
    /// Name of the file in `/run/cos` that tells units and stages the mode (Kairos' sentinels).
    #[must_use]
    pub fn sentinel(self) -> &'static str {
        match self {
            Mode::Active => "active_mode",
            Mode::Passive => "passive_mode",
            Mode::Recovery => "recovery_mode",
            Mode::AutoReset => "autoreset_mode",
            Mode::Live => "live_mode",
            Mode::Unknown => "unknown",
        }
    }

    /// The name that `kairos-agent state boot` prints.
    #[must_use]
    pub fn state(self) -> &'static str {
        match self {
            Mode::Active => "active_boot",
            Mode::Passive => "passive_boot",
            Mode::Recovery => "recovery_boot",
            Mode::AutoReset => "autoreset_boot",
            Mode::Live => "livecd_boot",
            Mode::Unknown => "unknown",
        }
    }
}

impl Cmdline {
    /// Reads the text of `/proc/cmdline`.
    #[must_use]
    pub fn parse(text: &str) -> Cmdline {
        let args = split(text);
        let mut read = Cmdline { text: ours(text).to_owned(), ..Cmdline::default() };
        for arg in &args {
            read.take(arg);
        }
        read.args = args;
        read
    }

    /// The value of the last argument called `key`, `""` if it has none. `-` and `_` are the same, as for the kernel.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.args.iter().rfind(|a| same_key(&a.key, key))?;
        Some(found.value.as_deref().unwrap_or(""))
    }

    /// The values of all arguments called `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        let of_key = move |a: &&Arg| same_key(&a.key, key);
        self.args.iter().filter(of_key).map(|a| a.value.as_deref().unwrap_or(""))
    }

    /// How the machine was started. Kairos' rule: the first of these words anywhere in the text decides. Only
    /// `kairos.reset` has to be an argument of its own, as it destroys data.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let any = |words: &[&str]| words.iter().any(|w| self.text.contains(w));
        if any(&["kairos.ram"]) {
            Mode::Active
        } else if any(&["rd.immucore.uki"]) {
            // There the firmware's variables tell; we do not boot such images.
            Mode::Unknown
        } else if self.reset {
            Mode::AutoReset
        } else if any(&["COS_ACTIVE"]) {
            Mode::Active
        } else if any(&["COS_PASSIVE"]) {
            Mode::Passive
        } else if any(&["COS_RECOVERY", "COS_SYSTEM", "recovery-mode"]) {
            Mode::Recovery
        } else if any(&["live:LABEL", "live:CDLABEL", "netboot"]) {
            Mode::Live
        } else {
            Mode::Unknown
        }
    }

    fn take(&mut self, arg: &Arg) {
        let value = arg.value.as_deref().unwrap_or("");
        let key = arg.key.replace('-', "_");
        let result = match key.as_str() {
            "cos_img/filename" => absolute(value).map(|v| self.image = Some(v)),
            "root" => {
                // Other forms of root= are for other programs' boots.
                if let Some(name) = value.strip_prefix("LABEL=") {
                    label(name).map(|v| self.root_label = Some(v))
                } else {
                    Ok(())
                }
            }
            "kairos.reset" => switch(arg).map(|v| self.reset = v),
            "rd.cos.oemlabel" | "rd.immucore.oemlabel" => label(value).map(|v| self.oem_label = Some(v)),
            "rd.cos.oemtimeout" | "rd.immucore.oemtimeout" => {
                seconds(value).map(|v| self.oem_timeout = Some(v))
            }
            "rd.cos.overlay" | "rd.immucore.overlay" => {
                tmpfs_size(value).map(|v| self.overlay_size = Some(v))
            }
            "rd.cos.mount" | "rd.immucore.mount" => mount(value).map(|v| self.mounts.push(v)),
            "console" => console(value).map(|v| self.consoles.extend(v)),
            "rekindle.events" => device(value).map(|v| self.events = Some(v)),
            "rd.immucore.debug" => switch(arg).map(|v| self.debug = v),
            _ => Ok(()),
        };
        if let Err(why) = result {
            self.problems.push(format!("kernel argument {}={value:?}: {why}", arg.key));
        }
    }
}

/// Splits as the kernel does (lib/cmdline.c, next_arg): at white space outside of double quotes; quotes around a whole
/// argument or a whole value go. What follows `--` is for init and not ours.
fn split(text: &str) -> Vec<Arg> {
    words(ours(text)).map(argument).collect()
}

/// The text up to the argument `--`.
fn ours(text: &str) -> &str {
    words(text).find(|w| matches!(*w, "--" | "\"--\"")).map_or(text, |end| {
        // The word is a slice of the text: its distance from the start is its place.
        &text[..end.as_ptr() as usize - text.as_ptr() as usize]
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        c.is_ascii_whitespace() && !quoted
    })
    .filter(|word| !word.is_empty())
}

fn argument(word: &str) -> Arg {
    let whole = word.strip_prefix('"');
    let word = whole.map_or(word, |w| w.strip_suffix('"').unwrap_or(w));
    let Some((key, value)) = word.split_once('=') else {
        return Arg { key: word.to_owned(), value: None };
    };
    let value = value.strip_prefix('"').map_or(value, |v| v.strip_suffix('"').unwrap_or(v));
    Arg { key: key.to_owned(), value: Some(value.to_owned()) }
}

fn same_key(a: &str, b: &str) -> bool {
    let fold = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(x, y)| fold(x) == fold(y))
}

/// An argument that is on when it is there, unless its value says no.
fn switch(arg: &Arg) -> Result<bool, String> {
    match arg.value.as_deref() {
        None | Some("" | "1" | "true" | "yes" | "on" | "y") => Ok(true),
        Some("0" | "false" | "no" | "off" | "n") => Ok(false),
        Some(_) => Err("leave the value out, or say yes or no".into()),
    }
}

fn absolute(path: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("an absolute path of a file is needed".into());
    }
    if path.split('/').any(|part| part == "..") || path.chars().any(char::is_control) {
        return Err("a path without .. is needed".into());
    }
    Ok(path.to_owned())
}

/// The longest label of the file systems in use is XFS' and ext4's with 12 and 16 bytes; GPT names have 36.
fn label(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+:@".contains(c);
    if name.is_empty() || name.len() > 36 || !name.chars().all(plain) {
        return Err("a label of 1 to 36 letters, digits, _ - . is needed".into());
    }
    Ok(name.to_owned())
}

fn seconds(value: &str) -> Result<u64, String> {
    // A day: more is a mistake, and would look like a hang.
    match value.parse() {
        Ok(n) if n <= 86_400 => Ok(n),
        _ => Err("a number of seconds from 0 to 86400 is needed".into()),
    }
}

fn tmpfs_size(value: &str) -> Result<String, String> {
    let size =
        value.strip_prefix("tmpfs:").ok_or("only tmpfs:SIZE is supported, as in tmpfs:25% or tmpfs:2g")?;
    let number = size.strip_suffix(|c| "%kmgKMG".contains(c)).unwrap_or(size);
    if number.is_empty() || number.len() > 15 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a size such as 25% or 2g is needed".into());
    }
    if number.trim_start_matches('0').is_empty() {
        return Err("a size of 0 would be no limit at all".into());
    }
    Ok(size.to_owned())
}

fn mount(value: &str) -> Result<MountRequest, String> {
    let form = "LABEL=NAME:/path is needed";
    let (name, path) =
        value.strip_prefix("LABEL=").and_then(|v| v.split_once(":/")).ok_or_else(|| form.to_owned())?;
    Ok(MountRequest { label: label(name)?, path: absolute(&format!("/{path}"))? })
}

/// `console=` and `console=null` mean no console (the kernel's admin-guide); they are no place to write to.
fn console(value: &str) -> Result<Option<String>, String> {
    let name = value.split(',').next().unwrap_or("");
    if name.is_empty() || name == "null" {
        return Ok(None);
    }
    if name.len() > 31 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        // Early consoles such as uart8250,io,0x3f8 and netcon0 pass; DEVNAME:0.0 (a serial port by its address) has no
        // known node in /dev.
        return Err("not a name in /dev".into());
    }
    Ok(Some(name.to_owned()))
}

fn device(value: &str) -> Result<String, String> {
    let name = value.strip_prefix("/dev/").unwrap_or(value);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
    if name.is_empty() || name.starts_with('/') || !name.bytes().all(plain) || name.contains("..") {
        return Err("the name of a device is needed, as in ttyS1 or /dev/ttyS1".into());
    }
    Ok(format!("/dev/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<(String, Option<String>)> {
        split(text).into_iter().map(|a| (a.key, a.value)).collect()
    }

    #[test]
    fn splits_as_the_kernel_does() {
        for (text, wanted) in [
            ("", vec![]),
            (" \t\n", vec![]),
            ("a b=c", vec![("a", None), ("b", Some("c"))]),
            ("a=b=c", vec![("a", Some("b=c"))]),
            ("a=\"b c\" d", vec![("a", Some("b c")), ("d", None)]),
            ("\"a=b c\" d", vec![("a", Some("b c")), ("d", None)]),
            ("a=\"\" \"\"", vec![("a", Some("")), ("", None)]),
            ("a=\"b c", vec![("a", Some("b c"))]),
            ("a=\"b\"c", vec![("a", Some("b\"c"))]),
            ("a -- b", vec![("a", None)]),
            ("a \"--\" b", vec![("a", None)]),
            ("a=\"x -- y\" b", vec![("a", Some("x -- y")), ("b", None)]),
            ("a=-- --b", vec![("a", Some("--")), ("--b", None)]),
            ("=x é=ü", vec![("", Some("x")), ("é", Some("ü"))]),
        ] {
            let wanted: Vec<_> =
                wanted.into_iter().map(|(k, v)| (k.to_owned(), v.map(str::to_owned))).collect();
            assert_eq!(args(text), wanted, "failed testcase: {text:?}");
        }
    }

    #[test]
    fn last_of_a_repeated_key_wins_and_dashes_are_underscores() {
        let line = Cmdline::parse("a-b=1 A-B=2 a_b=3 c -- a_b=4");
        assert_eq!(line.get("a-b"), Some("3"));
        assert_eq!(line.all("a_b").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!((line.get("c"), line.get("d")), (Some(""), None));
    }

    #[test]
    fn reads_a_whole_line_of_kairos() {
        let line = Cmdline::parse(
            "BOOT_IMAGE=(loop0)/boot/vmlinuz console=ttyS0,115200n8 console=tty1 net.ifnames=1 \
             rd.cos.oemlabel=COS_OEM rd.cos.oemtimeout=10 panic=5 root=LABEL=COS_ACTIVE \
             cos-img/filename=/cOS/active.img rd.cos.overlay=tmpfs:25% rd.cos.mount=LABEL=COS_PERSISTENT:/usr/local \
             rd.immucore.mount=LABEL=DATA:/srv/data rekindle.events=ttyS1 rd.immucore.debug\n",
        );
        let mount = |label: &str, path: &str| MountRequest { label: label.into(), path: path.into() };
        let wanted = Cmdline {
            args: line.args.clone(),
            image: Some("/cOS/active.img".into()),
            root_label: Some("COS_ACTIVE".into()),
            reset: false,
            oem_label: Some("COS_OEM".into()),
            oem_timeout: Some(10),
            overlay_size: Some("25%".into()),
            mounts: vec![mount("COS_PERSISTENT", "/usr/local"), mount("DATA", "/srv/data")],
            consoles: vec!["ttyS0".into(), "tty1".into()],
            events: Some("/dev/ttyS1".into()),
            debug: true,
            problems: vec![],
            text: line.text.clone(),
        };
        assert_eq!(line, wanted);
        assert_eq!(line.mode(), Mode::Active);
    }

    #[test]
    fn the_first_matching_word_tells_the_mode() {
        for (text, mode) in [
            ("root=LABEL=COS_ACTIVE cos-img/filename=/cOS/active.img", Mode::Active),
            ("root=LABEL=COS_PASSIVE", Mode::Passive),
            ("root=LABEL=COS_SYSTEM cos-img/filename=/cOS/recovery.img", Mode::Recovery),
            ("root=live:LABEL=COS_RECOVERY", Mode::Recovery),
            ("recovery-mode", Mode::Recovery),
            ("root=LABEL=COS_SYSTEM kairos.reset", Mode::AutoReset),
            ("kairos.reset root=LABEL=COS_ACTIVE", Mode::AutoReset),
            ("kairos.reset=0 root=LABEL=COS_ACTIVE", Mode::Active),
            // Kairos looks for the bare word; a mistyped or quoted one must not erase a node.
            ("kairos.reset=maybe root=LABEL=COS_ACTIVE", Mode::Active),
            ("xkairos.reset root=LABEL=COS_ACTIVE", Mode::Active),
            ("x=kairos.reset root=LABEL=COS_ACTIVE", Mode::Active),
            ("root=LABEL=COS_ACTIVE -- kairos.reset", Mode::Active),
            ("kairos.ram.wipe kairos.reset", Mode::Active),
            ("rd.immucore.uki root=LABEL=COS_ACTIVE", Mode::Unknown),
            ("root=live:LABEL=X", Mode::Live),
            ("root=live:CDLABEL=X", Mode::Live),
            ("netboot", Mode::Live),
            ("root=/dev/sda1", Mode::Unknown),
            ("", Mode::Unknown),
        ] {
            assert_eq!(Cmdline::parse(text).mode(), mode, "failed testcase: {text:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out_and_named() {
        for text in [
            "cos-img/filename=cOS/active.img",
            "cos-img/filename",
            "cos-img/filename=/a/../../b",
            "cos-img/filename=/",
            "root=LABEL=",
            "root=LABEL=a/b",
            "rd.cos.oemlabel=../x",
            "rd.cos.oemtimeout=soon",
            "rd.cos.oemtimeout=-1",
            "rd.cos.oemtimeout=99999999999999999999999",
            "rd.cos.overlay=tmpfs:",
            "rd.cos.overlay=tmpfs:0",
            "rd.cos.overlay=tmpfs:1g,mode=777",
            "rd.cos.overlay=LABEL=x",
            "rd.cos.mount=LABEL=x",
            "rd.cos.mount=LABEL=x:/",
            "rd.cos.mount=/dev/sda1:/x",
            "rd.cos.mount=LABEL=x:/../y",
            "console=../mem",
            "rekindle.events=",
            "rekindle.events=/etc/passwd",
            "rekindle.events=../etc/passwd",
            "kairos.reset=maybe",
        ] {
            let line = Cmdline::parse(text);
            assert_eq!(line.problems.len(), 1, "failed testcase: {text:?}: {:?}", line.problems);
            let rest = Cmdline { problems: vec![], args: vec![], text: String::new(), ..line };
            assert_eq!(rest, Cmdline::default(), "failed testcase: {text:?}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        // Every text of up to five of these pieces.
        let pieces = ["\"", "=", " ", "--", "é", "rd.cos.mount", "LABEL=:/"];
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            let longer: Vec<_> =
                texts.iter().flat_map(|t| pieces.iter().map(move |p| format!("{t}{p}"))).collect();
            for text in &longer {
                let line = Cmdline::parse(text);
                assert!(line.mounts.is_empty(), "failed testcase: {text:?}");
            }
            texts = longer;
        }
    }
}
