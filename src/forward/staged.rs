//! Packets that wait for a session: bounded for each peer, and in bytes for all peers together.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Session, Time};
use crate::wire::{ip, outer::Outer};

/// Packets that wait for a session (the kernel's MAX_STAGED_PACKETS); the oldest is dropped first.
pub const STAGED_PACKETS: usize = 128;
/// Bytes that wait in all peers together.
pub(super) const STAGED_BYTES: usize = 32 << 20;
/// What a packet costs beside its own bytes: its place in the queue and the allocator's share.
const OVERHEAD: usize = 64;

/// A packet that waited and is sealed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedDatagram {
    /// What the packet inside wants of the outer header.
    pub outer: Outer,
    /// The packet that it was.
    pub packet: Vec<u8>,
    /// The transport message.
    pub bytes: Vec<u8>,
}

/// One peer's waiting packets, oldest first.
#[derive(Default)]
pub(super) struct StagedQueue {
    packets: VecDeque<Waiting>,
}

struct Waiting {
    packet: Vec<u8>,
    /// Bounds the padding; 0: nothing does.
    mtu: usize,
    /// Given back when the packet goes.
    _share: Option<Share>,
}

impl StagedQueue {
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Appends a packet; returns how many were lost for it. The oldest go first; the packet itself goes when the
    /// other peers' packets have used up the budget.
    pub(super) fn push(&mut self, packet: Vec<u8>, mtu: usize, budget: Option<&Arc<Budget>>) -> u64 {
        let mut lost = 0;
        if self.packets.len() == STAGED_PACKETS {
            self.packets.pop_front();
            lost += 1;
        }
        let share = loop {
            let Some(budget) = budget else { break None };
            let share = Budget::take(budget, packet.len() + OVERHEAD);
            if share.is_some() {
                break share;
            }
            lost += 1;
            if self.packets.pop_front().is_none() {
                return lost;
            }
        };
        self.packets.push_back(Waiting { packet, mtu, _share: share });
        lost
    }

    /// Seals all packets, oldest first. A session that comes to its end leaves the rest waiting.
    pub(super) fn seal_all(&mut self, session: &Session, now: Time) -> Vec<StagedDatagram> {
        let mut datagrams = Vec::with_capacity(self.packets.len());
        while let Some(Waiting { packet, mtu, .. }) = self.packets.front() {
            let Some(bytes) = session.seal(packet, *mtu, now) else { return datagrams };
            let outer = outer(packet);
            if let Some(Waiting { packet, .. }) = self.packets.pop_front() {
                datagrams.push(StagedDatagram { outer, packet, bytes });
            }
        }
        // An idle peer keeps no memory for its next handshake.
        self.packets = VecDeque::new();
        datagrams
    }
}

/// What cannot be wrapped is not staged.
fn outer(packet: &[u8]) -> Outer {
    let outer = ip::parse(packet).ok().and_then(|header| Outer::of(packet, &header).ok());
    outer.unwrap_or_default()
}

/// Bytes that may wait in all peers together.
pub(super) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    fn take(budget: &Arc<Self>, bytes: usize) -> Option<Share> {
        let take = |left: usize| left.checked_sub(bytes);
        budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Share { budget: budget.clone(), bytes })
    }
}

/// Part of a budget; goes back when dropped.
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(budget: &Budget) -> usize {
        budget.left.load(Ordering::Relaxed)
    }

    fn first_bytes(queue: &StagedQueue) -> Vec<u8> {
        queue.packets.iter().map(|waiting| waiting.packet[0]).collect()
    }

    #[test]
    fn the_oldest_of_129_packets_goes() {
        let mut queue = StagedQueue::default();
        for n in 0..STAGED_PACKETS as u8 {
            assert_eq!(queue.push(vec![n], 0, None), 0);
        }
        assert_eq!(queue.push(vec![200], 0, None), 1);
        assert_eq!(queue.len(), STAGED_PACKETS);
        assert_eq!(first_bytes(&queue)[0], 1);
        assert_eq!(first_bytes(&queue).last(), Some(&200));
    }

    #[test]
    fn one_peers_packets_make_room_for_its_own_and_never_for_anothers() {
        let budget = Budget::new(3 * (100 + OVERHEAD));
        let (mut one, mut other) = (StagedQueue::default(), StagedQueue::default());
        assert_eq!([1, 2].map(|n| one.push(vec![n; 100], 0, Some(&budget))), [0, 0]);
        assert_eq!([1, 2, 3].map(|n| other.push(vec![n; 100], 0, Some(&budget))), [0, 1, 1]);
        assert_eq!((first_bytes(&one), first_bytes(&other)), (vec![1, 2], vec![3]));
        let mut third = StagedQueue::default();
        assert_eq!(third.push(vec![1; 100], 0, Some(&budget)), 1, "it is lost itself");
        assert_eq!(third.len(), 0);
    }

    #[test]
    fn a_packet_that_goes_gives_its_bytes_back() {
        let budget = Budget::new(10_000);
        let mut queue = StagedQueue::default();
        for _ in 0..5 {
            queue.push(vec![0; 100], 0, Some(&budget));
        }
        assert_eq!(left(&budget), 10_000 - 5 * (100 + OVERHEAD));
        queue.packets.pop_front();
        assert_eq!(left(&budget), 10_000 - 4 * (100 + OVERHEAD));
        drop(queue);
        assert_eq!(left(&budget), 10_000);
    }
}
