//! Receiver indices: random, so that they tell nothing; unique over all pending handshakes and sessions, so
//! that each names one of them.

use std::collections::BTreeMap;

use rand_core::CryptoRng;

use crate::{forward::PeerId, wire::message::Index};

/// The indices in use, and whose they are.
#[derive(Default)]
pub(super) struct Indices(BTreeMap<Index, PeerId>);

impl Indices {
    /// A new one. The table holds at most four for each of 2^20 peers: a free one is found at once.
    pub(super) fn draw(&mut self, peer: PeerId, rng: &mut (impl CryptoRng + ?Sized)) -> Index {
        loop {
            let index = Index(rng.next_u32());
            if let std::collections::btree_map::Entry::Vacant(free) = self.0.entry(index) {
                free.insert(peer);
                return index;
            }
        }
    }

    /// It names nothing any more.
    pub(super) fn release(&mut self, index: Index) {
        self.0.remove(&index);
    }

    /// Whose is it?
    pub(super) fn owner(&self, index: Index) -> Option<PeerId> {
        self.0.get(&index).copied()
    }

    /// How many are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::{Infallible, TryCryptoRng, TryRng};

    /// Says each number twice.
    struct Stutter(u32);
    impl TryRng for Stutter {
        type Error = Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            self.0 += 1;
            Ok(self.0 / 2)
        }
        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            self.try_next_u32().map(u64::from)
        }
        fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
            dst.fill(self.try_next_u32()? as u8);
            Ok(())
        }
    }
    impl TryCryptoRng for Stutter {}

    #[test]
    fn an_index_in_use_is_not_drawn_again_until_it_is_released() {
        let mut indices = Indices::default();
        let mut rng = Stutter(1);
        let first = indices.draw(PeerId(1), &mut rng);
        let second = indices.draw(PeerId(2), &mut rng);
        assert_ne!(first, second);
        assert_eq!(indices.owner(first), Some(PeerId(1)));
        assert_eq!(indices.owner(second), Some(PeerId(2)));
        indices.release(first);
        assert_eq!(indices.owner(first), None);
        assert_eq!(indices.draw(PeerId(3), &mut Stutter(1)), first);
        assert_eq!(indices.len(), 2);
    }
}
