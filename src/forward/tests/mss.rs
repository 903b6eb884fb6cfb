//! A SYN that passes is made to name what fits, in both directions; whatever is not one passes as it is.

use super::*;
use crate::wire::checksum::Sum;

/// A SYN from left to right that names this MSS, its checksum right.
fn syn(mss: u16) -> Vec<u8> {
    let mut packet = packet("10.0.0.1", "10.0.0.2", 24);
    packet[9] = ip::TCP;
    ip::write_v4_checksum(&mut packet);
    packet[20..].fill(0);
    (packet[32], packet[33]) = (6 << 4, 2);
    packet[40..42].copy_from_slice(&[2, 4]);
    packet[42..].copy_from_slice(&mss.to_be_bytes());
    let sum = checksum(&packet).finish();
    packet[36..38].copy_from_slice(&sum);
    packet
}

fn checksum(packet: &[u8]) -> Sum {
    Sum::pseudo_header(address("10.0.0.1"), address("10.0.0.2"), ip::TCP)
        + Sum::word(packet.len() as u16 - 20)
        + Sum::of(&packet[20..])
}

/// The MSS that arrives, with what each end lowers it to.
fn arrives(mss: u16, left: Option<u16>, right: Option<u16>) -> u16 {
    let mut two = Two::new();
    two.left.forward.mss.set(left);
    two.right.forward.mss.set(right);
    let mut datagram = two.left.sealed(&syn(mss), START);
    let Inbound::Deliver(packet) = two.right.inbound(LEFT, &mut datagram, START) else { panic!("delivered") };
    assert!(checksum(packet).is_right());
    u16::from_be_bytes([packet[42], packet[43]])
}

#[test]
fn a_syn_is_clamped_as_it_leaves_and_as_it_comes() {
    assert_eq!(arrives(1460, None, None), 1460, "it was switched off");
    assert_eq!(arrives(1460, Some(1420), None), 1380);
    assert_eq!(arrives(1460, None, Some(1420)), 1380);
    assert_eq!(arrives(1460, Some(1400), Some(1300)), 1260, "the narrower end's word is the last");
    assert_eq!(arrives(1200, Some(1420), Some(1420)), 1200, "it is never raised");
}

#[test]
fn what_was_clamped_is_counted_once() {
    let mut two = Two::new();
    two.left.forward.mss.set(Some(1420));
    for mss in [1460, 1380, 9000] {
        two.left.sealed(&syn(mss), START);
    }
    two.left.sealed(&packet("10.0.0.1", "10.0.0.2", 100), START);
    assert_eq!(two.left.forward.mss.clamped(), 2);
}

#[test]
fn a_syn_that_waits_for_a_session_is_clamped_too() {
    let mut two = Two::new();
    two.left.forward.mss.set(Some(1420));
    two.to_right.set_current(None, START);
    assert!(matches!(two.left.outbound(&syn(1460), START), Outbound::Staged));
    let staged = two.to_right.set_current(Some(two.left_session.clone()), START);
    let mut datagram = staged[0].bytes.clone();
    let Inbound::Deliver(packet) = two.right.inbound(LEFT, &mut datagram, START) else { panic!("delivered") };
    assert_eq!(packet[42..44], 1380_u16.to_be_bytes());
}
