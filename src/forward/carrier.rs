//! What is to leave: sealed datagrams of equal length behind each other, as one UDP_SEGMENT send wants them.

use std::sync::Arc;

use super::{Endpoint, Peer, aligned::Aligned};
use crate::wire::{
    message::{TAG_LEN, TRANSPORT_HEADER_LEN},
    outer::Outer,
};

/// Most bytes of one send over either family: what an IPv4 packet holds behind its headers.
const MAX_BYTES: usize = 65_507;
/// Most datagrams of one send (the kernel's UDP_MAX_SEGMENTS; newer ones take 128).
pub const MAX_SEGMENTS: usize = 64;
/// Room for the largest packet with header, padding and tag, although no kernel sends that.
const CAPACITY: usize = 65_535 + 16 + 16 + 16;
/// Carriers that are filled side by side: packets to this many peers in turn still leave together.
const CARRIERS: usize = 8;

/// How many packets of this size fit one send when they are sealed.
pub fn packets_of_a_send(mtu: u16) -> usize {
    (MAX_BYTES / (TRANSPORT_HEADER_LEN + usize::from(mtu) + TAG_LEN)).clamp(1, MAX_SEGMENTS)
}

/// Datagrams for one peer: all of `stride` bytes, but for the last, which may be shorter.
pub struct Carrier {
    bytes: Aligned,
    len: usize,
    stride: usize,
    segments: usize,
    /// A shorter one is the last.
    closed: bool,
    way: Option<Way>,
}

/// What all datagrams of a send share.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) peer: Arc<Peer>,
    pub(super) to: Endpoint,
    pub(super) outer: Outer,
}

/// One send.
#[derive(Clone, Copy)]
pub struct Cargo<'a> {
    /// Whose.
    pub peer: &'a Arc<Peer>,
    /// Where to, and from which of our addresses.
    pub to: &'a Endpoint,
    /// What the outer headers say.
    pub outer: Outer,
    /// All datagrams, behind each other.
    pub bytes: &'a [u8],
    /// Bytes of each but the last.
    pub stride: usize,
}

impl<'a> Cargo<'a> {
    /// One by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.stride)
    }
}

/// The carriers of one worker, in the order in which they must leave. Memory is fixed.
pub struct Carriers {
    slots: Vec<Carrier>,
    used: usize,
}

impl Carriers {
    /// Empty ones.
    pub fn new() -> Self {
        Self { slots: (0..CARRIERS).map(|_| Carrier::new()).collect(), used: 0 }
    }

    /// What is to be sent, in order.
    pub fn cargo(&self) -> impl Iterator<Item = Cargo<'_>> {
        self.slots[..self.used].iter().filter_map(Carrier::cargo)
    }

    /// All was sent.
    pub fn clear(&mut self) {
        for carrier in &mut self.slots[..self.used] {
            carrier.way = None;
        }
        self.used = 0;
    }

    /// Whatever is in memory from earlier sends.
    #[cfg(test)]
    pub(super) fn fill(&mut self, byte: u8) {
        self.slots.iter_mut().for_each(|carrier| carrier.bytes.fill(byte));
    }

    /// Is there nothing to send?
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Room for the next datagram on this way, of `len` bytes. `None`: send and clear what is there first. It is
    /// behind all earlier ones to the same peer.
    pub(super) fn next(&mut self, way: &Way, len: usize) -> Option<&mut [u8]> {
        // A carrier before the peer's last one would change the order.
        let last = self.slots[..self.used].iter().rposition(|carrier| carrier.is_for(&way.peer));
        let at = match last.filter(|&at| self.slots[at].takes(way, len)) {
            Some(at) => at,
            None if self.used == CARRIERS => return None,
            None => {
                self.slots[self.used].begin(way.clone(), len);
                self.used += 1;
                self.used - 1
            }
        };
        Some(self.slots[at].append(len))
    }
}

impl Default for Carriers {
    fn default() -> Self {
        Self::new()
    }
}

impl Carrier {
    fn new() -> Self {
        Self { bytes: Aligned::new(CAPACITY), len: 0, stride: 0, segments: 0, closed: false, way: None }
    }

    fn cargo(&self) -> Option<Cargo<'_>> {
        let Way { peer, to, outer } = self.way.as_ref()?;
        Some(Cargo { peer, to, outer: *outer, bytes: &self.bytes[..self.len], stride: self.stride })
    }

    fn is_for(&self, peer: &Arc<Peer>) -> bool {
        self.way.as_ref().is_some_and(|way| Arc::ptr_eq(&way.peer, peer))
    }

    /// May another datagram of this length follow? It is for the same peer.
    fn takes(&self, way: &Way, len: usize) -> bool {
        let same = self.way.as_ref().is_some_and(|own| own.to == way.to && own.outer == way.outer);
        let room = self.segments < MAX_SEGMENTS && self.len + len <= MAX_BYTES;
        same && room && !self.closed && len <= self.stride
    }

    fn begin(&mut self, way: Way, stride: usize) {
        (self.len, self.stride, self.segments, self.closed) = (0, stride, 0, false);
        self.way = Some(way);
    }

    fn append(&mut self, len: usize) -> &mut [u8] {
        let start = self.len;
        self.len += len;
        self.segments += 1;
        self.closed = len < self.stride;
        &mut self.bytes[start..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{forward::PeerId, noise::PublicKey, wire::ecn::Ecn};

    fn way(peer: &Arc<Peer>) -> Way {
        let to = Endpoint { remote: "192.0.2.1:1".parse().unwrap(), local: None };
        Way { peer: peer.clone(), to, outer: Outer::default() }
    }

    fn peer(id: u8) -> Arc<Peer> {
        Peer::new(PeerId(id.into()), PublicKey([id; 32]), String::new())
    }

    fn put(carriers: &mut Carriers, way: &Way, len: usize) -> bool {
        carriers.next(way, len).map(|room| room.fill(len as u8)).is_some()
    }

    /// Peer and lengths of each send.
    fn sends(carriers: &Carriers) -> Vec<(u64, Vec<usize>)> {
        let lengths = |cargo: Cargo<'_>| cargo.datagrams().map(<[u8]>::len).collect();
        carriers.cargo().map(|cargo| (cargo.peer.id.0, lengths(cargo))).collect()
    }

    #[test]
    fn equal_datagrams_leave_together_and_a_shorter_one_is_the_last() {
        let (mut carriers, way) = (Carriers::new(), way(&peer(1)));
        for len in [100, 100, 60, 60, 80] {
            assert!(put(&mut carriers, &way, len));
        }
        assert_eq!(sends(&carriers), [(1, vec![100, 100, 60]), (1, vec![60]), (1, vec![80])]);
        carriers.clear();
        assert!(carriers.is_empty());
        assert_eq!(sends(&carriers), []);
    }

    #[test]
    fn peers_in_turn_leave_together_each() {
        let (mut carriers, one, two) = (Carriers::new(), way(&peer(1)), way(&peer(2)));
        for way in [&one, &two, &one, &two] {
            assert!(put(&mut carriers, way, 50));
        }
        assert_eq!(sends(&carriers), [(1, vec![50, 50]), (2, vec![50, 50])]);
    }

    #[test]
    fn no_datagram_overtakes_an_earlier_one_of_its_peer() {
        let (mut carriers, way) = (Carriers::new(), way(&peer(1)));
        // 50 would fit to the first send, but 90 came between.
        for len in [50, 90, 50] {
            assert!(put(&mut carriers, &way, len));
        }
        assert_eq!(sends(&carriers), [(1, vec![50]), (1, vec![90, 50])]);
    }

    #[test]
    fn another_endpoint_congestion_mark_or_hop_limit_is_another_send() {
        let (mut carriers, first) = (Carriers::new(), way(&peer(1)));
        let marked = Way { outer: Ecn::Ce.into(), ..first.clone() };
        let hop_limit = std::num::NonZeroU8::new(48);
        let nested = Way { outer: Outer { hop_limit, ..Outer::default() }, ..first.clone() };
        let to = Endpoint { remote: "192.0.2.1:2".parse().unwrap(), local: None };
        let moved = Way { to, ..marked.clone() };
        for way in [&first, &marked, &nested, &moved] {
            assert!(put(&mut carriers, way, 50));
        }
        assert_eq!(carriers.cargo().count(), 4);
    }

    #[test]
    fn a_send_is_no_larger_than_a_udp_datagram_and_has_no_more_segments_than_the_kernel_takes() {
        let (mut carriers, way) = (Carriers::new(), way(&peer(1)));
        for _ in 0..46 {
            assert!(put(&mut carriers, &way, 1452));
        }
        assert_eq!(sends(&carriers), [(1, vec![1452; 45]), (1, vec![1452])]);
        carriers.clear();
        for _ in 0..65 {
            assert!(put(&mut carriers, &way, 32));
        }
        assert_eq!(sends(&carriers), [(1, vec![32; 64]), (1, vec![32])]);
    }

    #[test]
    fn a_send_holds_45_packets_of_the_usual_mtu_and_at_least_one_of_any() {
        let packets = [576, 1280, 1420, 9000, 32_721, 32_722, 65_455].map(packets_of_a_send);
        assert_eq!(packets, [64, 49, 45, 7, 2, 1, 1]);
    }

    #[test]
    fn what_is_full_says_so_and_takes_the_next_after_it_was_sent() {
        let (mut carriers, way) = (Carriers::new(), way(&peer(1)));
        for n in 0..CARRIERS {
            assert!(put(&mut carriers, &way, 100 + n));
        }
        assert!(!put(&mut carriers, &way, 200));
        carriers.clear();
        assert!(put(&mut carriers, &way, 200));
        assert_eq!(sends(&carriers), [(1, vec![200])]);
    }

    #[test]
    fn the_largest_packet_has_room_and_begins_with_a_page() {
        let (mut carriers, way) = (Carriers::new(), way(&peer(1)));
        let room = carriers.next(&way, CAPACITY).unwrap();
        assert_eq!((room.len(), room.as_ptr().align_offset(4096)), (65_583, 0));
    }
}
