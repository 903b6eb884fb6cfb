//! Where a batch of packets from the TUN waits while it is sealed, each behind its vnet header.

use std::ops::Range;

use super::aligned::{Aligned, PAGE};
use crate::wire::vnet::VNET_HEADER_LEN;

/// Most bytes that one read gives: a vnet header and the largest packet.
const MAX_READ: usize = VNET_HEADER_LEN + 65_535;
/// The packet itself begins here, so that the copy out of the kernel is a fast one.
const PACKET_OFFSET: usize = 16;
/// One super-packet, and small packets beside it.
const CAPACITY: usize = 2 * (MAX_READ + PAGE);
/// Small packets begin at multiples of this.
const LINE: usize = 64;

/// The memory of one worker's batch; fixed.
pub struct Intake {
    bytes: Aligned,
    used: usize,
}

impl Intake {
    /// Empty.
    pub fn new() -> Self {
        Self { bytes: Aligned::new(CAPACITY), used: 0 }
    }

    /// Where the next read goes, vnet header first. `None`: another packet of any size would not fit.
    pub fn space(&mut self) -> Option<&mut [u8]> {
        let start = self.used + PACKET_OFFSET - VNET_HEADER_LEN;
        self.bytes.get_mut(start..start + MAX_READ)
    }

    /// What a read of `len` bytes left there.
    pub fn frame(&self, len: usize) -> &[u8] {
        &self.bytes[self.used + PACKET_OFFSET - VNET_HEADER_LEN..][..len.min(MAX_READ)]
    }

    /// Its packet, to be altered.
    pub(super) fn packet_of_frame(&mut self, len: usize) -> &mut [u8] {
        let start = self.used + PACKET_OFFSET;
        &mut self.bytes[start..start + len.min(MAX_READ).saturating_sub(VNET_HEADER_LEN)]
    }

    /// Keeps the packet of that frame; where it is.
    pub(super) fn keep(&mut self, len: usize) -> Range<usize> {
        let start = self.used + PACKET_OFFSET;
        let end = start + len.min(MAX_READ) - VNET_HEADER_LEN;
        // After a large one the next begins with a page, so that the copy out of the kernel is a fast one.
        let step = if len > PAGE { PAGE } else { LINE };
        self.used = end.next_multiple_of(step);
        start..end
    }

    /// A packet that was kept.
    pub(super) fn packet(&self, place: &Range<usize>) -> &[u8] {
        &self.bytes[place.clone()]
    }

    /// Nothing is needed any more.
    pub fn clear(&mut self) {
        self.used = 0;
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_begins_sixteen_bytes_behind_a_page_and_its_header_before_it() {
        let mut intake = Intake::new();
        let space = intake.space().unwrap();
        assert_eq!((space.len(), space[VNET_HEADER_LEN..].as_ptr().align_offset(PAGE)), (65_545, PAGE - 16));
    }

    #[test]
    fn what_is_kept_stays_while_more_is_read() {
        let mut intake = Intake::new();
        let places: Vec<_> = (1..=100_u8)
            .map(|n| {
                intake.space().unwrap()[..90].fill(n);
                assert_eq!(intake.frame(90), [n; 90]);
                intake.keep(90)
            })
            .collect();
        for (n, place) in (1..).zip(&places) {
            assert_eq!(intake.packet(place), [n; 80]);
        }
    }

    #[test]
    fn it_is_full_when_the_largest_packet_would_not_fit() {
        let mut intake = Intake::new();
        intake.keep(MAX_READ);
        assert!(intake.space().is_some(), "one more");
        intake.keep(60);
        assert!(intake.space().is_some(), "a small one leaves room");
        intake.keep(MAX_READ);
        assert!(intake.space().is_none());
        intake.clear();
        assert!(intake.space().is_some());
    }
}
