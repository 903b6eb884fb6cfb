//! On what, and when: a figure means nothing without it.

use std::{
    fs, thread,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A load from which on figures say little.
const BUSY: f64 = 0.7;

/// What this machine is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// TCP congestion control of all runs.
    pub congestion: String,
    /// YYYY-MM-DD, UTC.
    pub date: String,
    /// Threads that wanted a core before we began, averaged over a minute: what else the machine did.
    pub load: f64,
}

impl Machine {
    /// This one, today. `congestion`: where another than the machine's own was asked for.
    pub fn here(congestion: Option<&str>) -> Self {
        let own = || read("/proc/sys/net/ipv4/tcp_congestion_control");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            cpu: cpu_model(&read("/proc/cpuinfo")),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            congestion: congestion.map_or_else(own, str::to_owned),
            date: date(since.as_secs()),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, kernel, congestion, date, load } = self;
        let plural = if *cores == 1 { "core" } else { "cores" };
        write!(f, "{date}, {cpu}, {cores} {plural}, Linux {kernel}, TCP {congestion}")?;
        if *load > BUSY { write!(f, ", busy with other work (load {load:.1})") } else { Ok(()) }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn cpu_model(cpuinfo: &str) -> String {
    let named = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    named
        .and_then(|rest| rest.split_once(':'))
        .map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The day of a Unix time, by the calendar of 400 years that begins on a 1 March.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year_of_era + later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (951_868_800, "2000-03-01")];
        let more =
            [(1_735_689_599, "2024-12-31"), (1_735_689_600, "2025-01-01"), (4_107_542_400, "2100-03-01")];
        for (seconds, text) in days.into_iter().chain(more) {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn the_model_is_named_or_it_is_said_that_it_is_not() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\n"), "AMD EPYC");
        assert_eq!(cpu_model(""), "unknown CPU");
    }
}
