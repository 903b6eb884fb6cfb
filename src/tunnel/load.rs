//! Under load or not: when cookies are demanded, from which secret they come, and who has used up his rate.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rand_core::CryptoRng;

use super::{COOKIE_LIFETIME, limiter::Limiter, work::Work};
use crate::{
    forward::{HANDSHAKE_QUEUE, Time},
    noise::macs::CookieSecret,
};

/// Datagrams in the queue from which on cookies are demanded at once.
const BUSY: usize = HANDSHAKE_QUEUE / 8;
/// For how long after that, or after all time went into handshakes.
const LINGER: Duration = Duration::from_secs(1);

/// The state of the defence.
#[derive(Default)]
pub(super) struct Load {
    until: Option<Time>,
    work: Work,
    secret: Option<(Arc<CookieSecret>, Time)>,
    limiter: Limiter,
}

impl Load {
    /// A message from there, and so many wait behind it: true if we are now under load and were not, or the other way
    /// round. `asked`: how many were asked for a cookie by others than us.
    pub(super) fn note(&mut self, waiting: usize, asked: u64, from: IpAddr, now: Time) -> bool {
        let before = self.is_under();
        let no_time_left = self.work.note(waiting, from, now);
        if waiting >= BUSY || no_time_left {
            self.until = Some(now + LINGER);
        } else {
            self.expire(asked, now);
        }
        if self.is_under() && !before {
            self.work.load_begins(asked, now);
        }
        before != self.is_under()
    }

    /// Its sender was asked for a cookie instead.
    pub(super) fn spared(&mut self) {
        self.work.spared();
    }

    /// Ends it when its time is over, and others than us did not have as many to ask for a cookie meanwhile as we could hear:
    /// true if it ended.
    pub(super) fn expire(&mut self, asked: u64, now: Time) -> bool {
        let over = self.until.is_some_and(|until| until <= now);
        if over {
            self.until = self.work.others_spared(asked, now).then_some(now + LINGER);
        }
        over && !self.is_under()
    }

    /// Are cookies demanded?
    pub(super) fn is_under(&self) -> bool {
        self.until.is_some()
    }

    /// When it will end if nothing more comes.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.until
    }

    /// The secret that cookies come from; a new one when it is too old, which is told.
    pub(super) fn secret(
        &mut self,
        now: Time,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> (Arc<CookieSecret>, bool) {
        if let Some((secret, birth)) = &self.secret
            && now.since(*birth) < COOKIE_LIFETIME
        {
            return (secret.clone(), false);
        }
        let secret = Arc::new(CookieSecret::generate(rng));
        self.secret = Some((secret.clone(), now));
        (secret, true)
    }

    /// May this source have another handshake read?
    pub(super) fn allows(&mut self, source: IpAddr, now: Time) -> bool {
        self.limiter.allows(source, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn load_begins_at_an_eighth_of_the_queue_and_ends_one_second_after() {
        let mut load = Load::default();
        assert!(!load.note(BUSY - 1, 0, ANY, Time(1)));
        assert!(!load.is_under());
        assert!(load.note(BUSY, 0, ANY, Time(1)));
        assert!(load.is_under());
        assert_eq!(load.deadline(), Some(Time(1 + SECOND)));
        assert!(!load.note(0, 0, ANY, Time(SECOND)));
        assert!(load.is_under());
        assert!(load.note(0, 0, ANY, Time(1 + SECOND)));
        assert!(!load.is_under());
        assert_eq!(load.deadline(), None);
    }

    #[test]
    fn load_ends_by_time_alone() {
        let mut load = Load::default();
        load.note(BUSY, 0, ANY, Time(1));
        assert!(!load.expire(0, Time(SECOND)));
        assert!(load.expire(0, Time(1 + SECOND)));
        assert!(!load.is_under());
    }
    #[test]
    fn load_begins_within_a_tenth_of_a_second_where_all_time_goes_into_handshakes() {
        let (mut load, start) = (Load::default(), 7 * SECOND);
        let from = |n: u64| IpAddr::from([198, 18, (n >> 8) as u8, n as u8]);
        let apart = 200_000; // 200 µs of work each, and one that waits
        let began = (0..5000).find(|n| load.note(1, 0, from(*n), Time(start + n * apart)));
        assert!(began.is_some_and(|n| n * apart <= SECOND / 10), "{began:?}");
        assert!(load.is_under());
    }

    #[test]
    fn load_goes_on_while_others_are_busy_with_those_who_show_no_cookie() {
        let mut load = Load::default();
        load.note(BUSY, 0, ANY, Time(SECOND));
        assert!(!load.expire(100_000, Time(2 * SECOND)), "there were that many");
        assert!(load.is_under());
        assert_eq!(load.deadline(), Some(Time(3 * SECOND)));
        assert!(load.expire(100_100, Time(3 * SECOND)), "they became few");
        assert!(!load.is_under());
    }
}
