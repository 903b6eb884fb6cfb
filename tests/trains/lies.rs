//! Lies and garbage: refused by us where the reference refuses them, and never a panic.

use proptest::{collection::vec, prelude::*};
use vpnd::forward::Merge;

use crate::{
    dice::Dice,
    generator, offload,
    plain::{TCP, UDP, packet},
};

/// Numbers that are at the edge of something, or anything.
fn number() -> impl Strategy<Value = u16> {
    prop_oneof![
        prop::sample::select(vec![0, 1, 6, 8, 16, 20, 28, 40, 48, 60, 1000, u16::MAX - 1, u16::MAX]),
        0..200_u16,
        any::<u16>(),
    ]
}

/// Any vnet header: mostly of known kinds.
fn vnet() -> impl Strategy<Value = [u8; 10]> {
    let kind = prop_oneof![prop::sample::select(vec![0_u8, 1, 4, 5, 0x81]), any::<u8>()];
    (any::<u8>(), kind, [number(), number(), number(), number()]).prop_map(|(flags, kind, numbers)| {
        let mut vnet = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, number) in [2, 4, 6, 8].into_iter().zip(numbers) {
            vnet[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        }
        vnet
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_vnet_header_before_any_bytes_panics(
        vnet in vnet(), first in prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x60, 0x00]), rest in vec(any::<u8>(), 0..200),
    ) {
        offload::check_frame(&[&vnet[..], &[first], &rest].concat());
    }

    #[test]
    fn no_vnet_header_before_a_packet_panics(vnet in vnet(), seed: u64, trailing in 0..3_usize) {
        let mut dice = Dice::Seed(seed);
        let packet = match dice.below(3) {
            0 => generator::loner(&mut dice),
            1 => generator::garbage(&mut dice),
            _ => generator::train(&mut dice).whole.unfinished(),
        };
        offload::check_frame(&[&vnet[..], &packet, &[0; 2][..trailing]].concat());
    }

    #[test]
    fn one_lie_in_a_true_vnet_header_is_refused_or_harmless(
        v6: bool, tcp: bool, payload in 0..300_usize, size in 0..400_usize, at in 0..5_usize, lie in number(),
    ) {
        let whole = packet(v6, if tcp { TCP } else { UDP }, payload);
        let mut vnet = whole.vnet(size);
        vnet[2 * at..2 * at + 2].copy_from_slice(&lie.to_ne_bytes());
        offload::check_frame(&[&vnet[..], &whole.unfinished()].concat());
    }

    #[test]
    fn no_packets_panic_when_they_are_merged(packets in vec(vec(any::<u8>(), 20..120), 0..6), v6: bool) {
        let mut packets: Vec<Vec<u8>> = packets;
        for packet in &mut packets {
            let len = packet.len() as u8;
            // So that some are packets at all.
            match v6 {
                true => packet[..6].copy_from_slice(&[0x60, 0, 0, 0, 0, len.saturating_sub(40)]),
                false => packet[..4].copy_from_slice(&[0x45, 0, 0, len]),
            }
        }
        offload::check_merge(&mut Dice::Seed(0), Merge { tcp: true, udp: true }, &packets);
    }

    #[test]
    fn no_bytes_of_a_fuzzer_panic(bytes in vec(any::<u8>(), 0..600)) {
        offload::check_bytes(&bytes);
    }
}
