//! What is known of an endpoint's name, and what to do next: pure, `now` is handed in.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use crate::config::EndpointName;

/// A name is not looked up again sooner than this because handshakes go unanswered.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause after a look-up that failed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Addresses of one name that are tried; more are no help, and come from somebody else.
const ADDRESSES: usize = 16;

/// One peer's endpoint name.
pub(super) struct Name {
    pub(super) host: String,
    pub(super) port: u16,
    /// All places to try, in order: the name's own, and the one to which the peer roamed from there.
    places: Vec<SocketAddr>,
    /// Index of the place in use.
    used: usize,
    /// Places given up since the last success or look-up.
    failed: usize,
    /// The place in use has answered.
    settled: bool,
    looked_up: Option<Instant>,
    pause: Duration,
    /// When a failed look-up is tried again.
    pub(super) again: Option<Instant>,
    /// It waits for a look-up, or one runs.
    pub(super) busy: bool,
}

/// What an unanswered handshake leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    /// Another place to try.
    pub(super) place: Option<SocketAddr>,
    /// Is the name to be looked up?
    pub(super) look_up: bool,
}

impl Name {
    pub(super) fn new(host: String, port: u16) -> Self {
        Self {
            host,
            port,
            places: Vec::new(),
            used: 0,
            failed: 0,
            settled: false,
            looked_up: None,
            pause: PAUSE.0,
            again: None,
            busy: false,
        }
    }

    /// As the file has it.
    pub(super) fn endpoint(&self) -> EndpointName {
        EndpointName::Name { host: self.host.clone(), port: self.port }
    }

    /// A look-up found these, not none. Returns the place to use, if another is wanted.
    pub(super) fn found(&mut self, addresses: Vec<SocketAddr>, now: Instant) -> Option<SocketAddr> {
        let in_use = self.places.get(self.used).copied();
        (self.looked_up, self.again, self.pause) = (Some(now), None, PAUSE.0);
        self.places.clear();
        for address in addresses {
            if self.places.len() < ADDRESSES && !self.places.contains(&address) {
                self.places.push(address);
            }
        }
        (self.used, self.failed) = (0, 0);
        if let Some(place) = in_use.filter(|_| self.settled) {
            self.answered_from(place); // what works is left alone
            return None;
        }
        self.places.first().copied()
    }

    /// A look-up found nothing. Returns how long to wait before the next one; none if the peer is there anyway.
    pub(super) fn not_found(&mut self, now: Instant) -> Option<Duration> {
        self.looked_up = Some(now);
        if self.settled {
            return None;
        }
        let pause = self.pause;
        self.again = Some(now + pause);
        self.pause = (pause * 2).min(PAUSE.1);
        Some(pause)
    }

    /// A handshake went unanswered. The first time after a success may have been bad luck; from then on the next
    /// place is tried, and when all have been, the name is looked up.
    pub(super) fn unanswered(&mut self, now: Instant) -> Next {
        if std::mem::take(&mut self.settled) {
            self.failed = 0;
            return Next::default();
        }
        self.failed += 1;
        let all_failed = self.failed >= self.places.len();
        let fresh = self.looked_up.is_some_and(|at| now.duration_since(at) < AGAIN_AFTER);
        let former = self.used;
        self.used = (self.used + 1) % self.places.len().max(1);
        let place = self.places.get(self.used).filter(|_| self.used != former).copied();
        Next { place, look_up: all_failed && !fresh && !self.busy }
    }

    /// The peer is at this place.
    pub(super) fn answered_from(&mut self, place: SocketAddr) {
        (self.settled, self.again, self.failed) = (true, None, 0);
        self.used = self.places.iter().position(|known| *known == place).unwrap_or_else(|| {
            self.places.push(place);
            self.places.len() - 1
        });
    }

    /// Was this one of the places?
    pub(super) fn knows(&self, place: SocketAddr) -> bool {
        self.places.contains(&place)
    }

    /// The host's network is another: what failed may succeed now, and need not wait long.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.pause = PAUSE.0;
        if let (Some(again), Some(last)) = (self.again, self.looked_up) {
            self.again = Some(again.min((last + PAUSE.0).max(now)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 51820))
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn name(places: &[u8], now: Instant) -> Name {
        let mut name = Name::new("vpn.example.org".to_owned(), 51820);
        let first = places.first().copied().map(place);
        assert_eq!(name.found(places.iter().copied().map(place).collect(), now), first);
        name
    }

    #[test]
    fn every_address_is_tried_before_the_name_is_looked_up_again() {
        let start = Instant::now();
        let mut name = name(&[1, 2, 3], start);
        let next = |place, look_up| Next { place, look_up };
        assert_eq!(name.unanswered(start + seconds(20)), next(Some(place(2)), false));
        assert_eq!(name.unanswered(start + seconds(25)), next(Some(place(3)), false));
        assert_eq!(name.unanswered(start + seconds(30)), next(Some(place(1)), true));
    }

    #[test]
    fn while_the_name_does_not_resolve_its_old_addresses_are_tried_in_turn() {
        let start = Instant::now();
        let mut name = name(&[1, 2], start);
        name.not_found(start);
        let tried: Vec<_> = (0..4).map(|_| name.unanswered(start).place).collect();
        assert_eq!(tried, [2, 1, 2, 1].map(|n| Some(place(n))));
    }

    #[test]
    fn a_name_is_not_looked_up_again_before_its_time_nor_twice_at_once() {
        let start = Instant::now();
        let mut name = name(&[1], start);
        assert_eq!(name.unanswered(start + AGAIN_AFTER - Duration::from_nanos(1)), Next::default());
        assert!(name.unanswered(start + AGAIN_AFTER).look_up);
        name.busy = true;
        assert!(!name.unanswered(start + AGAIN_AFTER).look_up);
    }

    #[test]
    fn one_lost_handshake_does_not_drive_a_peer_from_where_it_answered() {
        let start = Instant::now();
        let mut name = name(&[1, 2], start);
        name.answered_from(place(1));
        assert_eq!(name.unanswered(start + seconds(60)), Next::default());
        assert_eq!(name.unanswered(start + seconds(65)).place, Some(place(2)));
    }

    #[test]
    fn where_the_peer_roamed_to_is_tried_as_well() {
        let start = Instant::now();
        let mut name = name(&[1, 2], start);
        name.answered_from(place(9));
        name.unanswered(start);
        let tried: Vec<_> = (0..3).map(|_| name.unanswered(start).place).collect();
        assert_eq!(tried, [1, 2, 9].map(|n| Some(place(n))));
    }

    #[test]
    fn a_look_up_that_comes_late_leaves_alone_what_works() {
        let start = Instant::now();
        let mut name = name(&[1], start);
        name.answered_from(place(9));
        assert_eq!(name.found(vec![place(2), place(3)], start), None);
        name.unanswered(start);
        assert_eq!(name.unanswered(start).place, Some(place(2)));
        assert_eq!(name.not_found(start), Some(PAUSE.0));
        name.answered_from(place(2));
        assert_eq!(name.not_found(start), None, "the peer is there");
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_with_another_network() {
        let start = Instant::now();
        let mut name = Name::new("vpn.example.org".to_owned(), 51820);
        let pauses: Vec<_> = (0..8).map(|_| name.not_found(start).expect("a pause").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(name.again, Some(start + seconds(60)));
        name.network_changed(start);
        assert_eq!(name.again, Some(start + seconds(1)), "not twice within a second");
        name.network_changed(start + seconds(5));
        assert_eq!(name.again, Some(start + seconds(1)), "nor later than it was");
        assert_eq!(name.not_found(start), Some(seconds(1)));
    }

    #[test]
    fn a_name_without_an_address_has_no_place_and_an_endless_answer_is_cut() {
        let start = Instant::now();
        let mut name = Name::new("vpn.example.org".to_owned(), 51820);
        assert_eq!(name.unanswered(start), Next { place: None, look_up: true });
        name.found((0..=255).chain(0..=255).map(place).collect(), start);
        assert_eq!(name.places.len(), ADDRESSES);
    }
}
