//! How often: log lines about a fault that repeats with each packet, and ICMP errors that a flood would ask for.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::forward::Time;

/// Lets one log line a second through, and counts what it holds back. Shared by the workers of a direction.
#[derive(Debug, Default)]
pub(super) struct LogGate {
    /// When one passed; 0: never.
    last: AtomicU64,
    held_back: AtomicU64,
}

impl LogGate {
    /// May a line be written now? Then it says how many were held back since the one before.
    pub(super) fn pass(&self, now: Time) -> Option<u64> {
        let last = self.last.load(Relaxed);
        let early = last != 0 && now.since(Time(last)) < Duration::from_secs(1);
        // Of two workers at the same moment one passes.
        if early || self.last.compare_exchange(last, now.0, Relaxed, Relaxed).is_err() {
            self.held_back.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.held_back.swap(0, Relaxed))
    }
}

/// A token bucket (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f): `PER_SECOND` on average, as many in one burst.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Nanoseconds of credit.
    credit: u64,
    filled: Time,
}

impl Bucket {
    /// ICMP errors a second.
    pub(super) const PER_SECOND: u64 = 100;
    const SECOND: u64 = 1_000_000_000;
    const TOKEN: u64 = Self::SECOND / Self::PER_SECOND;

    /// Full.
    pub(super) fn new(now: Time) -> Self {
        Self { credit: Self::SECOND, filled: now }
    }

    /// Takes one token if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let passed = now.0.saturating_sub(self.filled.0);
        self.credit = self.credit.saturating_add(passed).min(Self::SECOND);
        self.filled = now;
        if self.credit < Self::TOKEN {
            return false;
        }
        self.credit -= Self::TOKEN;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn one_line_a_second_passes_and_names_those_held_back() {
        let gate = LogGate::default();
        let at = |s: u64, rest: u64| Time(s * SECOND + rest);
        assert_eq!(gate.pass(at(1, 0)), Some(0));
        assert_eq!(gate.pass(at(1, 1)), None);
        assert_eq!(gate.pass(at(1, SECOND - 1)), None);
        assert_eq!(gate.pass(at(2, 0)), Some(2));
        assert_eq!(gate.pass(at(9, 0)), Some(0));
    }

    #[test]
    fn a_flood_gets_one_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(Time(0));
        let taken = |bucket: &mut Bucket, at| (0..1000).filter(|_| bucket.take(Time(at))).count() as u64;
        assert_eq!(taken(&mut bucket, 0), Bucket::PER_SECOND);
        assert_eq!(taken(&mut bucket, SECOND / 2), Bucket::PER_SECOND / 2);
        assert_eq!(taken(&mut bucket, SECOND / 2 + SECOND / 100 - 1), 0);
        assert_eq!(taken(&mut bucket, SECOND / 2 + SECOND / 100), 1);
    }

    #[test]
    fn silence_never_saves_up_more_than_one_burst() {
        let mut bucket = Bucket::new(Time(0));
        let taken = (0..1000).filter(|_| bucket.take(Time(3600 * SECOND))).count() as u64;
        assert_eq!(taken, Bucket::PER_SECOND);
    }
}
