//! Where chance comes from: a seed, or the bytes of a fuzzer.

/// Small, seeded, the same on each machine.
pub enum Dice<'a> {
    Seed(u64),
    /// When they are used up all is zero.
    Bytes(&'a [u8]),
}

impl Dice<'_> {
    /// 0 to `bound` − 1.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1);
        match self {
            Self::Seed(state) => ((u128::from(next(state)) * bound as u128) >> 64) as usize,
            Self::Bytes(rest) => {
                let needed = (usize::BITS - (bound - 1).leading_zeros()).div_ceil(8) as usize;
                let (taken, left) = rest.split_at(needed.min(rest.len()));
                *rest = left;
                taken.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)) % bound
            }
        }
    }

    /// Are there no bytes left? A seed goes on for ever.
    #[allow(dead_code, reason = "trains have an end of their own")]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    pub fn within(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == bound - 1
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Bytes that carry no decision: a fuzzer does not pay for each.
    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut state = self.below(1 << 16) as u64;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(next(&mut state).to_ne_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
