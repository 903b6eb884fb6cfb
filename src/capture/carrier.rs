//! The IP and UDP header of a carrier, made again from what vpnd knows of it: it hands over and gets the payload alone.

use std::net::{IpAddr, SocketAddr};

use crate::wire::{checksum::Sum, ip};

const UDP_HEADER: usize = 8;
/// Of a packet that nobody routed yet.
const HOP_LIMIT: u8 = 64;

/// A datagram from `source` to `destination`, of which `payload` is what was kept of `whole` bytes. An address that is
/// not known is unspecified. Returns what there is of the packet, and its whole length.
pub fn packet(source: SocketAddr, destination: SocketAddr, payload: &[u8], whole: usize) -> (Vec<u8>, u32) {
    let whole = whole.max(payload.len());
    let udp_length = UDP_HEADER + whole;
    let mut udp = Vec::with_capacity(UDP_HEADER + payload.len());
    for half in [source.port(), destination.port(), udp_length as u16, 0] {
        udp.extend(half.to_be_bytes());
    }
    udp.extend(payload);
    if payload.len() == whole {
        let sum = Sum::pseudo_header(source.ip(), destination.ip(), ip::UDP)
            + Sum::word(udp_length as u16)
            + Sum::of(&udp);
        // A sum of 0 would mean that there is none (RFC 768).
        let sum = if sum.finish() == [0, 0] { [0xff, 0xff] } else { sum.finish() };
        udp[6..8].copy_from_slice(&sum);
    }
    let mut packet = header(source.ip(), destination.ip(), udp_length);
    let length = (packet.len() + udp_length) as u32;
    packet.extend(udp);
    (packet, length)
}

fn header(source: IpAddr, destination: IpAddr, payload: usize) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = ((20 + payload) as u16).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, HOP_LIMIT, ip::UDP, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = Sum::of(&header).finish();
            header[10..12].copy_from_slice(&sum);
            header
        }
        (source, destination) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V6(v6) => v6,
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            };
            let [high, low] = (payload as u16).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, ip::UDP, HOP_LIMIT];
            header.extend(v6(source).octets());
            header.extend(v6(destination).octets());
            header
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_made_again_is_a_right_packet_in_both_families() {
        for (source, destination) in
            [("192.0.2.1:51820", "192.0.2.2:7"), ("[2001:db8::1]:51820", "[2001:db8::2]:7")]
        {
            let (source, destination): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let (packet, whole) = packet(source, destination, &[9; 33], 33);
            assert_eq!(packet.len(), whole as usize);
            let header = ip::parse(&packet).unwrap();
            assert_eq!((header.source, header.destination), (source.ip(), destination.ip()));
            let (protocol, udp) = ip::upper_layer(&packet).unwrap();
            assert_eq!((protocol, &udp[..4]), (ip::UDP, &[0xca, 0x6c, 0, 7][..]));
            let sum = Sum::pseudo_header(source.ip(), destination.ip(), ip::UDP)
                + Sum::word(udp.len() as u16)
                + Sum::of(udp);
            assert!(sum.is_right());
        }
    }

    #[test]
    fn what_was_cut_still_says_how_long_it_was() {
        let (source, destination) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let (packet, whole) = packet(source, destination, &[9; 10], 1000);
        assert_eq!((packet.len(), whole), (38, 1028));
        assert_eq!(packet[2..4], 1028u16.to_be_bytes());
        assert_eq!(packet[26..28], [0, 0], "the sum of what is not there is not known");
    }
}
