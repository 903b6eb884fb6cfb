//! Numbers and times as people say them, in colour where that helps.

use std::io::IsTerminal;

/// Colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    /// Colours where standard output is a terminal and nobody forbids them (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|no| !no.is_empty());
        Self(std::io::stdout().is_terminal() && !forbidden)
    }

    fn with(self, code: &str, text: impl std::fmt::Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(super) fn bold(self, text: impl std::fmt::Display) -> String {
        self.with("1", text)
    }

    pub(super) fn good(self, text: impl std::fmt::Display) -> String {
        self.with("32", text)
    }

    pub(super) fn bad(self, text: impl std::fmt::Display) -> String {
        self.with("33", text)
    }
}

/// "2 minutes ago".
pub(super) fn ago(seconds: f64) -> String {
    match duration(seconds) {
        None => "just now".to_owned(),
        Some(text) => text + " ago",
    }
}

/// "2 minutes, 5 seconds": the largest unit that fits, and the next one below it; none: less than a second.
pub(super) fn duration(seconds: f64) -> Option<String> {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let seconds = seconds.max(0.0) as u64;
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit)?;
    let (unit, name) = UNITS[first];
    let mut text = count((seconds / unit) as usize, name);
    if let Some((below, name)) = UNITS.get(first + 1)
        && seconds % unit >= *below
    {
        text += ", ";
        text += &count((seconds % unit / below) as usize, name);
    }
    Some(text)
}

/// "2m05s": for a column.
pub(super) fn brief(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

pub(super) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = (n | 1).ilog2().checked_div(10).filter(|power| *power > 0) else {
        return format!("{n} B");
    };
    format!("{:.2} {}", n as f64 / (1u64 << (10 * power)) as f64, UNITS[power as usize - 1])
}

/// Bits per second, as network people count: powers of 1000.
pub(super) fn rate(bytes_per_second: f64) -> String {
    let mut bits = bytes_per_second.max(0.0) * 8.0;
    for unit in ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"] {
        if bits < 999.95 {
            return if unit == "bit/s" { format!("{bits:.0} {unit}") } else { format!("{bits:.1} {unit}") };
        }
        bits /= 1000.0;
    }
    format!("{bits:.1} Tbit/s")
}

/// Names come from a file or the network's edge: nothing in them may steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units_at_most() {
        let told = [
            (-5.0, "just now"),
            (0.9, "just now"),
            (1.0, "1 second ago"),
            (59.9, "59 seconds ago"),
            (60.0, "1 minute ago"),
            (3600.0 + 59.0, "1 hour ago"),
            (2.0 * 86_400.0 + 3600.0, "2 days, 1 hour ago"),
        ];
        for (seconds, text) in told {
            assert_eq!(ago(seconds), text, "{seconds}");
        }
        let told = [(0.4, "0s"), (59.0, "59s"), (65.0, "1m05s"), (3660.0, "1h01m"), (90_000.0, "1d01h")];
        for (seconds, text) in told {
            assert_eq!(brief(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn bytes_change_unit_at_each_1024_and_rates_at_each_1000() {
        let told = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            ((1 << 20) - 1, "1024.00 KiB"),
            (1 << 20, "1.00 MiB"),
            (u64::MAX, "16.00 EiB"),
        ];
        for (n, text) in told {
            assert_eq!(bytes(n), text, "{n}");
        }
        let told = [
            (-1.0, "0 bit/s"),
            (124.0, "992 bit/s"),
            (125.0, "1.0 kbit/s"),
            (124_999.0, "1.0 Mbit/s"),
            (1.25e9, "10.0 Gbit/s"),
            (1.0e15, "8000.0 Tbit/s"),
        ];
        for (n, text) in told {
            assert_eq!(rate(n), text, "{n}");
        }
    }
}
