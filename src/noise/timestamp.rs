//! TAI64N, whitened to 2^24 ns as the kernel does, so that it does not tell the exact clock.

use std::time::Duration;

/// The label of the Unix epoch: 2^62, and the 10 s that TAI was ahead of UTC. Leap seconds since then are not
/// counted, here as in the kernel: the label only has to grow.
const UNIX_EPOCH: u64 = (1 << 62) + 10;
/// Nanoseconds are cut to a multiple of this: the largest power of two that lets 50 labels into a second.
const STEP: u32 = 1 << 24;

/// A TAI64N label (12 bytes, big-endian); later compares greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tai64n(pub [u8; 12]);

impl Tai64n {
    /// From the time since the Unix epoch, whitened.
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self::from_parts(UNIX_EPOCH.saturating_add(since_epoch.as_secs()), since_epoch.subsec_nanos())
    }
    /// The smallest whitened label after this one. (The last second of all has none; it is its own.)
    pub fn next(self) -> Self {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = self.0;
        let seconds = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let nanoseconds = u32::from_be_bytes([n0, n1, n2, n3]);
        match (nanoseconds / STEP + 1).saturating_mul(STEP) {
            next if next < 1_000_000_000 => Self::from_parts(seconds, next),
            _ => seconds.checked_add(1).map_or(self, |seconds| Self::from_parts(seconds, 0)),
        }
    }

    /// The label of a moment that is so much later; whitened.
    pub fn after(self, time: Duration) -> Self {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = self.0;
        let seconds = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]).saturating_add(time.as_secs());
        let nanoseconds = u32::from_be_bytes([n0, n1, n2, n3]).min(999_999_999) + time.subsec_nanos();
        let carry = u64::from(nanoseconds >= 1_000_000_000);
        Self::from_parts(seconds.saturating_add(carry), nanoseconds % 1_000_000_000)
    }

    fn from_parts(seconds: u64, nanoseconds: u32) -> Self {
        let mut label = [0; 12];
        label[..8].copy_from_slice(&seconds.to_be_bytes());
        label[8..].copy_from_slice(&(nanoseconds / STEP * STEP).to_be_bytes());
        Self(label)
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_epoch_has_the_label_of_the_kernel() {
        assert_eq!(Tai64n::from_unix(Duration::ZERO).0, hex!("400000000000000a 00000000"));
        let time = Duration::new(1_700_000_000, 999_999_999);
        assert_eq!(Tai64n::from_unix(time).0, hex!("400000006553f10a 3b000000"));
    }

    #[test]
    fn what_lies_within_a_step_is_not_told() {
        let at = |nanoseconds| Tai64n::from_unix(Duration::new(7, nanoseconds));
        assert_eq!(at(0), at(STEP - 1));
        assert!(at(STEP - 1) < at(STEP));
        assert_eq!(at(STEP), at(2 * STEP - 1));
    }

    #[test]
    fn a_label_before_all_others_is_the_default() {
        assert!(Tai64n::default() < Tai64n::from_unix(Duration::ZERO));
    }

    #[test]
    fn the_next_label_after_the_last_step_of_a_second_is_the_next_second() {
        let last = Tai64n::from_unix(Duration::new(7, 999_999_999));
        assert_eq!(last.next(), Tai64n::from_unix(Duration::new(8, 0)));
    }

    #[test]
    fn labels_that_are_no_times_have_a_next_too() {
        assert_eq!(Tai64n(hex!("4000000000000000 ffffffff")).next().0, hex!("4000000000000001 00000000"));
        assert_eq!(Tai64n([0xff; 12]).next(), Tai64n([0xff; 12]));
        assert_eq!(Tai64n::from_unix(Duration::MAX).0[..8], [0xff; 8]);
    }

    proptest! {
        #[test]
        fn the_next_label_is_the_smallest_greater_one(seconds in 0u64..1 << 40, nanos in 0u32..1_000_000_000) {
            let time = Duration::new(seconds, nanos);
            let label = Tai64n::from_unix(time);
            let next = label.next();
            prop_assert!(label < next);
            // The first moment whose label is greater has just this one.
            let to_step = Duration::from_nanos(u64::from(STEP - nanos % STEP));
            let to_second = Duration::from_nanos(u64::from(1_000_000_000 - nanos));
            let later = time + to_step.min(to_second);
            prop_assert_eq!(next, Tai64n::from_unix(later));
            prop_assert_eq!(label, Tai64n::from_unix(later - Duration::from_nanos(1)));
        }

        #[test]
        fn a_later_label_is_that_of_the_later_moment(seconds in 0u64..1 << 40, nanos in 0u32..1_000_000_000, later in 0u64..1 << 40) {
            let (time, later) = (Duration::new(seconds, nanos / STEP * STEP), Duration::from_micros(later));
            prop_assert_eq!(Tai64n::from_unix(time).after(later), Tai64n::from_unix(time + later));
        }

        #[test]
        fn any_twelve_bytes_have_a_next(label in any::<[u8; 12]>()) {
            let next = Tai64n(label).next();
            prop_assert!(Tai64n(label) < next || label[..8] == [0xff; 8]);
        }
    }
}
