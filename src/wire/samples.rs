//! Packets for tests.

use hex_literal::hex;

/// Of `protocol`, from 10.77.0.1 to 10.9.9.9.
pub fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = hex!("4500 0000 0000 4000 4000 0000 0a4d0001 0a090909").to_vec();
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet[9] = protocol;
    packet.extend_from_slice(payload);
    packet
}

/// From fd77::1 to fd99::9; `next` is what its header says that follows.
pub fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = hex!("60000000 0000 00 40").to_vec();
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6] = next;
    packet.extend(hex!("fd770000000000000000000000000001 fd990000000000000000000000000009"));
    packet.extend_from_slice(payload);
    packet
}
