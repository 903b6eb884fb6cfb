//! From the data threads to one reader: what matched, in a ring with a bound. Threads never wait for it; what it could
//! not hold is counted, and told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use super::{Facts, Filter, Handshake, Record, Seen, Vpnd};

/// Packets that may wait for the reader …
const WAITING: usize = 1024;
/// … and what their bytes may take, at most.
const WAITING_BYTES: usize = 16 << 20;
/// Messages of handshakes that may wait: beside the packets, whose flood is not to lose the keys of a session.
const WAITING_HANDSHAKES: usize = 256;
/// Carriers that nobody could read, and that may therefore be ours, are told up to this number.
const UNREADABLE: u64 = 64;

/// What a reader asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which packets.
    pub filter: Filter,
    /// How many at most.
    pub packets: u64,
    /// For so many seconds at most.
    pub seconds: u64,
    /// Bytes that are kept of each packet, and of the datagram around it; 0: none.
    pub snap: usize,
    /// Tell each datagram that a super-packet was cut into, rather than the first alone.
    pub each: bool,
    /// Tell the messages of handshakes, too.
    pub handshakes: bool,
    /// Tell the keys of handshakes that begin from now on. Who asks must be one who may have them.
    pub secrets: bool,
}

/// Shared by the data threads and a reader.
pub struct Feed {
    wanted: Wanted,
    mark: u32,
    waiting: ArrayQueue<Seen>,
    handshakes: ArrayQueue<Handshake>,
    gives_secrets: AtomicBool,
    lost: AtomicU64,
    taken: AtomicU64,
    unreadable: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Feed {
    /// `mark` is the mark of the sockets. `wake` is called, from a data thread, when there is something to pop; it must
    /// not block.
    pub fn new(wanted: Wanted, mark: u32, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let room = WAITING_BYTES / (2 * wanted.snap).max(1);
        Self {
            waiting: ArrayQueue::new(WAITING.min(room).max(1)),
            handshakes: ArrayQueue::new(if wanted.handshakes { WAITING_HANDSHAKES } else { 1 }),
            gives_secrets: AtomicBool::new(wanted.secrets),
            wanted,
            mark,
            lost: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            wake,
        }
    }

    /// What was asked for.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Mark of the sockets.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Is this one of the packets, and are more of them wanted?
    pub fn wants(&self, facts: &Facts) -> bool {
        self.wanted.filter.matches(facts) && !self.has_enough()
    }

    /// One more that nobody could read?
    pub fn wants_unreadable(&self) -> bool {
        !self.has_enough() && self.unreadable.fetch_add(1, Ordering::Relaxed) < UNREADABLE
    }

    /// Have as many packets come as were asked for?
    pub fn has_enough(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.wanted.packets
    }

    /// As much of these bytes as is to be kept.
    pub fn cut(&self, bytes: &[u8]) -> Vec<u8> {
        bytes[..bytes.len().min(self.wanted.snap)].to_vec()
    }

    /// A packet that it [wants](Self::wants). What waits for a session is not counted: it comes again.
    pub fn push(&self, seen: Seen) {
        let counts = seen.packet.is_some() && !matches!(seen.vpnd, Vpnd::Staged { .. });
        if counts && self.taken.fetch_add(1, Ordering::Relaxed) >= self.wanted.packets {
            return; // several threads had one at the same time
        }
        if self.waiting.push(seen).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        (self.wake)();
    }

    /// Does it take messages of handshakes?
    pub fn wants_handshakes(&self) -> bool {
        self.wanted.handshakes && !self.has_enough()
    }

    /// Does it take their keys?
    pub fn gives_secrets(&self) -> bool {
        self.gives_secrets.load(Ordering::Relaxed) && self.wants_handshakes()
    }

    /// No key any more, whatever it asked for.
    pub fn withhold_secrets(&self) {
        self.gives_secrets.store(false, Ordering::Relaxed);
    }

    /// A message, if it [takes them](Self::wants_handshakes).
    pub fn push_handshake(&self, handshake: Handshake) {
        if self.handshakes.push(handshake).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        (self.wake)();
    }

    /// The reader: what is there. Handshakes first: what they carry opens the packets.
    pub fn pop(&self) -> Option<Record> {
        if let Some(handshake) = self.handshakes.pop() {
            return Some(Record::Handshake(Box::new(handshake)));
        }
        match self.waiting.pop() {
            Some(seen) => Some(Record::Packet(Box::new(seen))),
            None => self.lost(),
        }
    }

    /// The reader: what it missed, also while more is there than it takes.
    pub fn lost(&self) -> Option<Record> {
        let count = self.lost.swap(0, Ordering::Relaxed);
        (count > 0).then_some(Record::Lost { count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Refused, facts::tests::echo, handshake::tests::response};

    fn feed(packets: u64, snap: usize) -> Feed {
        let filter = "icmp".parse().unwrap();
        let (handshakes, secrets) = (true, true);
        let wanted = Wanted { filter, packets, seconds: 1, snap, each: false, handshakes, secrets };
        Feed::new(wanted, 0, Box::new(|| ()))
    }

    fn seen(readable: bool) -> Seen {
        let packet = readable.then(|| Facts::of(&echo()).unwrap().into());
        let vpnd = Vpnd::Refused(Refused::default());
        Seen { at_ns: 1, done_ns: None, packet, vpnd, inner: Vec::new(), outer: Vec::new() }
    }

    #[test]
    fn no_more_packets_are_told_than_were_asked_for() {
        let feed = feed(2, 0);
        let facts = Facts::of(&echo()).unwrap();
        for wanted in [true, true, false] {
            assert_eq!(feed.wants(&facts), wanted);
            feed.push(seen(true));
        }
        assert_eq!(std::iter::from_fn(|| feed.pop()).count(), 2);
        assert!(!feed.wants_unreadable());
    }

    #[test]
    fn what_is_staged_or_unreadable_uses_none_of_them_up() {
        let feed = feed(1, 0);
        let staged = || {
            let [peer, public_key, prefix] = ["a"; 3].map(str::to_owned);
            Seen { vpnd: Vpnd::Staged { peer, public_key, prefix }, ..seen(true) }
        };
        feed.push(staged());
        feed.push(seen(false));
        assert!(!feed.has_enough());
        let unreadable = (0..).take_while(|_| feed.wants_unreadable()).count() as u64;
        assert_eq!(unreadable, UNREADABLE, "a flood of them has an end");
    }

    #[test]
    fn a_slow_reader_is_told_how_much_it_missed() {
        let feed = feed(u64::MAX, 0);
        for _ in 0..WAITING + 5 {
            feed.push(seen(true));
        }
        let told: Vec<_> = std::iter::from_fn(|| feed.pop()).collect();
        assert_eq!(told.len(), WAITING + 1);
        assert_eq!(told.last(), Some(&Record::Lost { count: 5 }));
    }

    #[test]
    fn a_handshake_comes_before_the_packets_and_no_flood_of_them_takes_its_place() {
        let feed = feed(u64::MAX, 0);
        for _ in 0..2 * WAITING {
            feed.push(seen(true));
        }
        let handshake = response(true);
        feed.push_handshake(handshake.clone());
        assert_eq!(feed.pop(), Some(Record::Handshake(Box::new(handshake))));
        assert!(matches!(feed.pop(), Some(Record::Packet(_))));
        for _ in 0..WAITING_HANDSHAKES + 3 {
            feed.push_handshake(response(false));
        }
        assert_eq!(feed.lost(), Some(Record::Lost { count: WAITING as u64 + 3 }));
    }

    #[test]
    fn secrets_are_given_until_they_are_withheld_or_it_has_enough() {
        let [withheld, full] = [feed(1, 0), feed(1, 0)];
        assert!(withheld.gives_secrets() && full.gives_secrets());
        withheld.withhold_secrets();
        full.push(seen(true));
        assert!(!withheld.gives_secrets() && !full.gives_secrets() && !full.wants_handshakes());
    }

    #[test]
    fn whole_packets_make_the_ring_shorter() {
        let feed = feed(1, 65_535);
        assert_eq!(feed.waiting.capacity(), 128);
        assert_eq!((feed.cut(&[1; 9]).len(), feed.cut(&[1; 70_000]).len()), (9, 65_535));
    }
}
