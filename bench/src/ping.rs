//! Latency: ping's own times, through a tunnel that carries nothing else.

use std::{fs, time::Duration};

use crate::{
    failure::{Attempted, Failure, Result},
    pair::Pair,
    stop,
};

/// How the requests follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Rhythm {
    /// One each 10 ms: everything has gone to sleep between two.
    Spaced,
    /// Each as soon as the answer to the one before is there.
    BackToBack,
}

impl Rhythm {
    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Spaced => ["-i", "0.01", "-c", "200"],
            Self::BackToBack => ["-A", "-s56", "-c", "2000"],
        }
    }

    fn count(self) -> usize {
        match self {
            Self::Spaced => 200,
            Self::BackToBack => 2000,
        }
    }
}

/// In microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    pub median: f64,
    pub p99: f64,
}

/// Pings from left to right.
pub fn run(pair: &Pair, rhythm: Rhythm) -> Result<Latency> {
    let mut command = pair.left.host.command("ping")?;
    command.args(["-n", "-W", "1"]).args(rhythm.arguments());
    command.arg(pair.right.inner.to_string()).stdout(pair.left.output("ping")?);
    let mut ping = pair.left.host.spawn("ping", command)?;
    stop::finish(&mut ping, "ping", Duration::from_secs(30))?;
    let path = pair.left.host.folder().join("ping.out");
    let text = fs::read_to_string(&path).attempted(|| format!("read {}", path.display()))?;
    let times = times(&text);
    // On an idle machine none is lost; a lost one would flatter the median.
    if times.len() * 100 < rhythm.count() * 99 {
        return Err(Failure::Said(format!("{} of {} pings were answered", times.len(), rhythm.count())));
    }
    latency(times).ok_or_else(|| Failure::Said(format!("ping said {text:?}")))
}

/// `time=0.123 ms` in each answer.
fn times(text: &str) -> Vec<f64> {
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix("time="));
    words.filter_map(|milliseconds| milliseconds.parse::<f64>().ok()).map(|m| m * 1000.0).collect()
}

fn latency(mut times: Vec<f64>) -> Option<Latency> {
    times.sort_by(f64::total_cmp);
    let last = times.len().checked_sub(1)?;
    let at = |share: f64| times[(last as f64 * share).round() as usize];
    Some(Latency { median: at(0.5), p99: at(0.99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_answers_alone() {
        let text =
            "PING x\n64 bytes from x: icmp_seq=1 ttl=64 time=0.141 ms\n64 bytes: time=12 ms\ntime 34ms\n";
        assert_eq!(times(text), [141.0, 12_000.0]);
    }

    #[test]
    fn the_99th_of_a_hundred_is_nearly_the_worst() {
        let found = latency((0..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!(found, Latency { median: 50.0, p99: 99.0 });
        assert_eq!(latency(vec![]), None);
    }
}
