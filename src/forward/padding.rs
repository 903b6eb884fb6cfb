//! Padding of plaintexts (paper, section 5.4.6), so that a packet's length is not told exactly.

/// Plaintexts are padded to a multiple of this.
const MULTIPLE: usize = 16;

/// Length of a plaintext of `len` bytes with its padding: a multiple of 16, but never beyond `mtu` (0: no
/// bound). As in the kernel's `calculate_skb_padding`, a packet larger than the MTU is padded by what its last
/// MTU-sized part lacks.
pub(crate) fn padded_len(len: usize, mtu: usize) -> usize {
    if mtu == 0 {
        return len.next_multiple_of(MULTIPLE);
    }
    let last = if len > mtu { len % mtu } else { len };
    len - last + last.next_multiple_of(MULTIPLE).min(mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintexts_grow_to_a_multiple_of_sixteen() {
        for (len, padded) in
            [(0, 0), (1, 16), (15, 16), (16, 16), (17, 32), (84, 96), (1280, 1280), (1281, 1296)]
        {
            assert_eq!(padded_len(len, 1500), padded, "{len}");
            assert_eq!(padded_len(len, 0), padded, "{len}, no bound");
        }
    }

    #[test]
    fn padding_never_goes_beyond_the_mtu() {
        for mtu in [576, 1280, 1420, 1421, 1435, 34_736] {
            for len in 0..=mtu {
                let padded = padded_len(len, mtu);
                assert!((len..=mtu).contains(&padded) && padded < len + 16, "{len} in {mtu}: {padded}");
                assert!(padded.is_multiple_of(16) || padded == mtu, "{len} in {mtu}: {padded}");
            }
        }
        assert_eq!(padded_len(1419, 1420), 1420);
        assert_eq!(padded_len(1420, 1420), 1420);
    }

    #[test]
    fn a_packet_larger_than_the_mtu_is_padded_by_its_last_part() {
        assert_eq!(padded_len(1421, 1420), 1436);
        assert_eq!(padded_len(2840, 1420), 2840);
        assert_eq!(padded_len(1420 + 1419, 1420), 2840);
        assert_eq!(padded_len(65_535, 1420), 65_535 - 215 + 224);
        for len in 0..=u16::MAX.into() {
            for mtu in [1, 17, 1420, 65_535] {
                assert!((len..len + 16).contains(&padded_len(len, mtu)), "{len} in {mtu}");
            }
        }
    }
}
