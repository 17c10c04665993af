//! Go's textual durations (`24h0m0s`, `1.5h`, `300ms`), which the API uses.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration that is read and written as Go's `time.Duration` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// Whole hours.
    #[must_use]
    pub const fn hours(n: u64) -> GoDuration {
        GoDuration(Duration::from_secs(n * 3600))
    }

    /// Whole minutes.
    #[must_use]
    pub const fn minutes(n: u64) -> GoDuration {
        GoDuration(Duration::from_secs(n * 60))
    }
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl std::str::FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<GoDuration, String> {
        let bad = || "want a duration such as 24h0m0s, 10m or 1.5s".to_owned();
        if text == "0" {
            return Ok(GoDuration::default());
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.is_empty() {
            return Err(bad());
        }
        let mut nanos: u64 = 0;
        while !rest.is_empty() {
            let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let (digits, tail) = rest.split_at(number);
            let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit);
            let size = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1;
            let part = scaled(digits, size).ok_or_else(bad)?;
            nanos = nanos.checked_add(part).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(bad)?;
            rest = tail;
        }
        Ok(GoDuration(Duration::from_nanos(nanos)))
    }
}

/// `digits` (a decimal number, perhaps with a fraction) times `size`.
fn scaled(digits: &str, size: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(size)?;
    let mut unit = size;
    for digit in fraction.chars() {
        unit /= 10;
        total = total.checked_add(u64::from(digit.to_digit(10)?) * unit)?;
    }
    Some(total)
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let fraction = |value: u128, unit: u128| -> String {
            let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        match nanos {
            n if n < 1_000 => write!(f, "{n}ns"),
            n if n < 1_000_000 => write!(f, "{}µs", fraction(n, 1_000)),
            n if n < 1_000_000_000 => write!(f, "{}ms", fraction(n, 1_000_000)),
            n => {
                let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", fraction(rest, 1_000_000_000))
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<GoDuration, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_as_go_does() {
        // Right-hand side: time.ParseDuration(left).String() of Go 1.26.
        for (text, written) in [
            ("24h", "24h0m0s"),
            ("24h0m0s", "24h0m0s"),
            ("0", "0s"),
            ("4m0s", "4m0s"),
            ("1.5h", "1h30m0s"),
            ("90s", "1m30s"),
            ("1.5s", "1.5s"),
            ("300ms", "300ms"),
            ("1h0.25s", "1h0m0.25s"),
            ("87600h", "87600h0m0s"),
            ("12us", "12µs"),
            ("7ns", "7ns"),
        ] {
            let parsed: GoDuration = text.parse().unwrap();
            assert_eq!(parsed.to_string(), written, "failed testcase: {text}");
        }
        for text in ["", "24", "h", "-1h", "1d", ".h", "1h 2m", "99999999999h"] {
            assert!(text.parse::<GoDuration>().is_err(), "failed testcase: {text}");
        }
    }
}
