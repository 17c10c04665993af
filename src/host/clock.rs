//! Time: wall clock for certificates and receipts, monotonic for durations and deadlines.

#![expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The clocks of the machine.
#[derive(Debug, Clone)]
pub struct Clock {}

/// A moment on the monotonic clock after which a wait gives up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// Time left, zero once passed.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the moment has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// Measures one duration.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Whole milliseconds since the start.
    #[must_use]
    pub fn ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {}
    }

    /// Seconds since 1970 in UTC.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }

    /// Seconds since the kernel started, suspend included; 0 if the kernel does not say.
    #[must_use]
    pub fn since_boot(&self) -> f64 {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |t| Duration::from(t).as_secs_f64())
    }

    /// Starts measuring.
    #[must_use]
    pub fn start(&self) -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// The deadline `after` from now.
    #[must_use]
    pub fn deadline(&self, after: Duration) -> Deadline {
        Deadline(Instant::now() + after)
    }
}

/// Formats seconds since 1970 as RFC 3339 in UTC, as `2026-01-31T08:09:10Z` (proleptic Gregorian calendar).
#[must_use]
pub fn rfc3339(unix: u64) -> String {
    let (days, rest) = (unix / 86_400, unix % 86_400);
    // Days to civil date, with the year starting in March so that the leap day comes last.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn known_dates() {
        // Values from `date -u -d @N +%FT%TZ`.
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix), text, "failed testcase: {unix}");
        }
    }
}
