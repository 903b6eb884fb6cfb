//! How many handshakes a source may have read under load: a token bucket for each IPv4 address or IPv6 /64,
//! never one for all, so that nobody uses up the rate of another.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::forward::Time;

/// Time that one token takes to come back: 20 a second.
const TOKEN: Duration = Duration::from_millis(50);
/// Time that a full bucket takes: 5 tokens.
const FULL: Duration = Duration::from_millis(5 * 50);
/// Sources that are remembered. A bucket that has filled up again is as good as none and makes room.
const SOURCES: usize = 8192;

/// An IPv4 address, or the /64 of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Source::V4(v4.to_bits()),
            IpAddr::V6(v6) => Source::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// One source's tokens, as the time that they took to come.
struct Bucket {
    tokens: Duration,
    at: Time,
}

/// The buckets.
#[derive(Default)]
pub(super) struct Limiter {
    buckets: BTreeMap<Source, Bucket>,
    swept: Time,
}

impl Limiter {
    /// Takes a token of this source; false if there is none, or no room to remember another source.
    pub(super) fn allows(&mut self, source: IpAddr, now: Time) -> bool {
        let source = Source::from(source);
        if self.buckets.len() >= SOURCES && !self.buckets.contains_key(&source) && !self.sweep(now) {
            return false;
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { tokens: FULL, at: now });
        bucket.tokens = FULL.min(bucket.tokens + now.since(bucket.at));
        bucket.at = now;
        match bucket.tokens.checked_sub(TOKEN) {
            Some(rest) => bucket.tokens = rest,
            None => return false,
        }
        true
    }

    /// Forgets full buckets, at most once in the time that one takes to fill; true if there is room now.
    fn sweep(&mut self, now: Time) -> bool {
        if now.since(self.swept) >= FULL {
            self.swept = now;
            self.buckets.retain(|_, bucket| bucket.tokens + now.since(bucket.at) < FULL);
        }
        self.buckets.len() < SOURCES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn v6(high: u64, low: u64) -> IpAddr {
        IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into())
    }
    fn allowed(limiter: &mut Limiter, source: IpAddr, times: usize, now: Time) -> usize {
        (0..times).filter(|_| limiter.allows(source, now)).count()
    }

    #[test]
    fn a_source_has_five_at_once_and_then_twenty_a_second() {
        let mut limiter = Limiter::default();
        let source = IpAddr::from([192, 0, 2, 1]);
        let start = Time(1000 * MILLI);
        assert_eq!(allowed(&mut limiter, source, 100, start), 5);
        assert!(!limiter.allows(source, Time(start.0 + 50 * MILLI - 1)));
        assert!(limiter.allows(source, Time(start.0 + 50 * MILLI)));
        let second: usize =
            (51..1050).map(|ms| usize::from(limiter.allows(source, Time(start.0 + ms * MILLI)))).sum();
        assert_eq!(second, 19, "one each 50 ms: at 100, 150, … 1000 ms");
        assert_eq!(allowed(&mut limiter, source, 100, Time(start.0 + 5000 * MILLI)), 5);
    }

    #[test]
    fn sources_do_not_use_up_each_others_rate() {
        let mut limiter = Limiter::default();
        let now = Time(MILLI);
        assert_eq!(allowed(&mut limiter, IpAddr::from([192, 0, 2, 1]), 100, now), 5);
        assert_eq!(allowed(&mut limiter, IpAddr::from([192, 0, 2, 2]), 100, now), 5);
        assert_eq!(allowed(&mut limiter, v6(1, 0), 100, now), 5);
    }

    #[test]
    fn an_ipv6_source_is_its_first_64_bits() {
        let mut limiter = Limiter::default();
        let now = Time(MILLI);
        assert_eq!(allowed(&mut limiter, v6(7, 1), 3, now), 3);
        assert_eq!(allowed(&mut limiter, v6(7, 2), 100, now), 2);
        assert_eq!(allowed(&mut limiter, v6(8, 1), 100, now), 5);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_only_full_buckets() {
        let mut limiter = Limiter::default();
        let now = Time(1000 * MILLI);
        for n in 0..SOURCES as u64 {
            assert!(limiter.allows(v6(n, 0), now));
        }
        assert!(!limiter.allows(v6(1 << 40, 0), now), "no room");
        assert_eq!(limiter.buckets.len(), SOURCES);
        assert_eq!(allowed(&mut limiter, v6(3, 0), 9, now), 4, "those within go on");
        let busy = Time(now.0 + 100 * MILLI);
        assert_eq!(allowed(&mut limiter, v6(3, 0), 9, busy), 2);
        let later = Time(now.0 + 250 * MILLI);
        assert!(limiter.allows(v6(1 << 40, 0), later));
        assert_eq!(limiter.buckets.len(), 2, "all but the busy one were full again");
    }
}
