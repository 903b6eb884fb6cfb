//! The Internet checksum (RFC 1071), also of bytes that are copied in the same pass.
//!
//! The sum of 16-bit words with the carry brought around is the same in any byte order, but for the order of its
//! own two bytes (RFC 1071, section 2 B): so words are added as the machine loads them, and the result is stored as
//! it stores them.

use std::net::IpAddr;

/// An unfolded sum. Sums of parts add up to the sum of the whole where each part but the last has an even length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

/// Bytes that are added in one step: wide enough for the compiler to use vectors.
const STEP: usize = 32;

impl Sum {
    /// Of these bytes; an odd last one is padded with zero.
    pub fn of(bytes: &[u8]) -> Self {
        let (steps, rest) = bytes.as_chunks::<STEP>();
        let mut lanes = [0; STEP / 4];
        for step in steps {
            add_step(&mut lanes, step);
        }
        Self::collect(lanes, rest)
    }

    /// Of the bytes in `from`, which are copied to `to`; both have the same length.
    pub fn of_copied(from: &[u8], to: &mut [u8]) -> Self {
        assert_eq!(from.len(), to.len(), "a copy has the length of its original");
        let (steps, rest) = from.as_chunks::<STEP>();
        let (copies, rest_copy) = to.as_chunks_mut::<STEP>();
        let mut lanes = [0; STEP / 4];
        for (step, copy) in steps.iter().zip(copies) {
            *copy = *step;
            add_step(&mut lanes, step);
        }
        rest_copy.copy_from_slice(rest);
        Self::collect(lanes, rest)
    }

    /// Of one word, given as a number.
    pub fn word(number: u16) -> Self {
        Self(number.to_be().into())
    }

    /// Of a pseudo-header without its length (RFC 9293, section 3.1; RFC 8200, section 8.1): addresses, protocol.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::of(&source.octets()) + Self::of(&destination.octets())
            }
            (source, destination) => Self::of(&wide(source)) + Self::of(&wide(destination)),
        };
        addresses + Self::word(protocol.into())
    }

    /// What belongs into the checksum field, where that field was zero among the summed bytes.
    pub fn finish(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// What a checksum field holds that somebody else is to finish (CHECKSUM_PARTIAL): the sum, not its complement.
    pub fn partial(self) -> [u8; 2] {
        self.folded().to_ne_bytes()
    }

    /// Is it the sum of bytes that have their right checksum among them?
    pub fn is_right(self) -> bool {
        self.folded() == u16::MAX
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn collect(lanes: [u64; STEP / 4], rest: &[u8]) -> Self {
        // 2^32 additions fit a lane, and no packet has so many words.
        let (words, tail) = rest.as_chunks::<4>();
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        let words = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word)));
        Self(lanes.into_iter().chain(words).fold(0, u64::wrapping_add))
    }
}

impl std::ops::Add for Sum {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// Words of 32 bits give the same sum as words of 16, as 2^16 is 1 modulo 2^16 - 1.
fn add_step(lanes: &mut [u64; STEP / 4], step: &[u8; STEP]) {
    let (words, _) = step.as_chunks::<4>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane += u64::from(u32::from_ne_bytes(*word));
    }
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::*;

    /// Adds word after word with the carry brought around, as RFC 1071 says it.
    fn by_the_book(bytes: &[u8]) -> u16 {
        !bytes.chunks(2).fold(0u16, |sum, pair| {
            let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    #[test]
    fn it_is_that_of_rfc_1071() {
        // RFC 1071, section 3: the sum of these bytes is ddf2.
        let sum = Sum::of(&hex!("0001 f203 f4f5 f6f7"));
        assert_eq!((sum.partial(), sum.finish()), ([0xdd, 0xf2], [0x22, 0x0d]));
        let header = hex!("4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7");
        assert!(Sum::of(&header).is_right());
        assert!(!Sum::of(&header[..18]).is_right());
        assert!(!Sum::default().is_right(), "nothing at all has no checksum");
        assert_eq!(Sum::of(&[0xff; 65_535]).finish(), [0x00, 0xff]);
    }

    #[test]
    fn the_pseudo_header_is_that_of_the_rfcs() {
        let of = |source: &str, destination: &str| {
            Sum::pseudo_header(source.parse().unwrap(), destination.parse().unwrap(), 17).folded()
        };
        assert_eq!(of("1.2.3.4", "5.6.7.8"), Sum::of(&[1, 2, 3, 4, 5, 6, 7, 8, 0, 17]).folded());
        let v6 = hex!("fe80 0000 0000 0000 0000 0000 0000 0001 ff02 0000 0000 0000 0000 0001 ff00 0002 0011");
        assert_eq!(of("fe80::1", "ff02::1:ff00:2"), Sum::of(&v6).folded());
    }

    proptest! {
        #[test]
        fn it_is_the_one_by_the_book_copied_or_not_whole_or_in_parts(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0..200_usize,
        ) {
            let expected = by_the_book(&bytes).to_be_bytes();
            prop_assert_eq!(Sum::of(&bytes).finish(), expected);
            let mut copy = vec![0; bytes.len()];
            prop_assert_eq!(Sum::of_copied(&bytes, &mut copy).finish(), expected);
            prop_assert_eq!(&copy, &bytes);
            let (one, other) = bytes.split_at((2 * cut).min(bytes.len() & !1));
            prop_assert_eq!((Sum::of(one) + Sum::of(other)).finish(), expected);
        }

        #[test]
        fn a_word_is_its_two_bytes(number: u16) {
            prop_assert_eq!(Sum::word(number), Sum::of(&number.to_be_bytes()));
        }
    }
}
