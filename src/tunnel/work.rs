//! How much of its time the upper half spends on handshakes: where it is nearly all, there is load, however short the
//! queue is. A queue whose length grows by the difference of two rates tells it late, or never.
//!
//! What one source asks for is not counted, however much it is: alone it is to put nobody under load.

use std::{net::IpAddr, time::Duration};

use super::limiter::Source;
use crate::forward::Time;

/// What is looked at together. Three hundred peers that come back at once are answered in less.
const WINDOW: Duration = Duration::from_millis(64);
/// No message costs more; where more time passed, something else was done, or this thread was not given a core.
const MOST: Duration = Duration::from_millis(5);

/// Nor less, on any machine: for when load began before that was known.
const LEAST: Duration = Duration::from_micros(25);

/// Time and messages since the window began.
#[derive(Default)]
pub(super) struct Work {
    begin: Time,
    busy: Duration,
    /// Messages that were read, of all that are in `busy`.
    read: u32,
    /// What reading one takes, when that was known last.
    cost: Duration,
    /// When the message before came to be read, if others waited behind it.
    since: Option<Time>,
    source: Option<Source>,
    /// Is the message at hand from another source than the one before?
    changed: bool,
    /// Messages that others than us asked for a cookie, when that was looked at last, and when that was.
    asked: u64,
    asked_at: Time,
}

impl Work {
    /// The next message, with so many behind it: true where the time since the window began was spent on messages
    /// nearly whole. A window ends with the first message behind its end: where few come, it was idle.
    pub(super) fn note(&mut self, waiting: usize, from: IpAddr, now: Time) -> bool {
        if let Some(since) = self.since.filter(|_| self.changed) {
            self.busy += now.since(since).min(MOST);
            self.read += 1;
        }
        self.since = (waiting > 0).then_some(now);
        self.changed = self.source.replace(from.into()).is_some_and(|before| before != Source::from(from));
        let passed = now.since(self.begin);
        if passed < WINDOW {
            return false;
        }
        let most_of_it = self.busy * 4 >= passed * 3;
        *self = Self { begin: now, busy: Duration::ZERO, read: 0, ..*self };
        most_of_it
    }

    /// Load begins: what a message costs is known from those that led to it.
    pub(super) fn load_begins(&mut self, asked: u64, now: Time) {
        if self.read > 0 {
            self.cost = self.busy / self.read;
        }
        (self.asked, self.asked_at) = (asked, now);
    }

    /// Load is to end: would reading those that others asked for a cookie since this was looked at last have taken nearly
    /// all of the time?
    pub(super) fn others_spared(&mut self, asked: u64, now: Time) -> bool {
        let (count, passed) = (asked.saturating_sub(self.asked), now.since(self.asked_at));
        (self.asked, self.asked_at) = (asked, now);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.cost.max(LEAST).saturating_mul(count).saturating_mul(4) >= passed * 3
    }

    /// The message at hand was not read, for it shows no cookie: what that would have taken is work, too, so that the
    /// defence does not end for its own success.
    pub(super) fn spared(&mut self) {
        if self.changed {
            self.busy += self.cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: u64 = 1000;

    /// So many messages that come `apart` from each other, with others waiting behind them: when it said so first.
    fn noted(
        work: &mut Work,
        count: u64,
        apart: u64,
        waiting: usize,
        from: impl Fn(u64) -> IpAddr,
    ) -> Option<u64> {
        let at = |n: u64| Time(1_000_000_000 + n * apart);
        (0..count).find(|n| work.note(waiting, from(*n), at(*n))).map(|n| n * apart)
    }

    fn any(n: u64) -> IpAddr {
        IpAddr::from([198, 18, (n >> 8) as u8, n as u8])
    }

    #[test]
    fn work_without_a_pause_is_told_after_a_window_however_short_the_queue_is() {
        let told = noted(&mut Work::default(), 10_000, 60 * MICRO, 1, any);
        assert!(told.is_some_and(|after| after <= 70_000 * MICRO), "{told:?}");
    }

    #[test]
    fn a_queue_that_is_empty_behind_each_message_is_no_work() {
        assert_eq!(noted(&mut Work::default(), 10_000, 60 * MICRO, 0, any), None);
    }

    #[test]
    fn one_source_is_no_work_with_as_many_addresses_as_it_has_in_its_64_bits() {
        let one = |_| IpAddr::from([198, 18, 7, 7]);
        assert_eq!(noted(&mut Work::default(), 10_000, 60 * MICRO, 250, one), None);
        let subnet = |n: u64| IpAddr::from([0x2001, 0xdb8, 0xbad, 0x64, 0, 0, 0, n as u16]);
        assert_eq!(noted(&mut Work::default(), 10_000, 60 * MICRO, 250, subnet), None);
    }

    #[test]
    fn a_stall_is_not_the_work_of_those_who_wait_meanwhile() {
        assert_eq!(noted(&mut Work::default(), 1000, 200_000 * MICRO, 9, any), None);
    }

    #[test]
    fn what_was_spared_by_cookies_is_work_until_it_stops() {
        let mut work = Work::default();
        assert!(noted(&mut work, 10_000, 60 * MICRO, 1, any).is_some());
        work.busy = Duration::from_micros(600);
        work.read = 10;
        work.load_begins(0, Time(2_000_000_000));
        // A cookie is made in no time, and so nobody waits behind.
        let mut told = 0;
        for n in 0..10_000 {
            told += u32::from(work.note(0, any(n), Time(2_000_000_000 + n * 70 * MICRO)));
            work.spared();
        }
        assert!(told >= 9, "{told}");
        let mut told = 0;
        for n in 0..10_000 {
            told += u32::from(work.note(0, any(n), Time(3_000_000_000 + n * 700 * MICRO)));
            work.spared();
        }
        assert_eq!(told, 0, "a tenth of that");
    }

    #[test]
    fn what_others_spared_is_work_while_there_is_as_much_of_it_as_can_be_done() {
        let second = 1_000_000_000;
        let mut work = Work { busy: Duration::from_micros(600), read: 10, ..Work::default() };
        work.load_begins(7, Time(second));
        assert!(work.others_spared(7 + 12_500, Time(2 * second)), "12,500 of 60 µs in a second");
        assert!(!work.others_spared(7 + 12_500 + 12_499, Time(3 * second)), "and one less in the next");
        assert!(!work.others_spared(7 + 12_500 + 12_499, Time(4 * second)), "and none");
        let mut unknown = Work::default();
        unknown.load_begins(0, Time(second));
        assert!(unknown.others_spared(30_000, Time(2 * second)));
        assert!(!unknown.others_spared(59_999, Time(3 * second)));
    }
}
