//! A packet that a packet socket saw as it crossed a device.

use super::{Carrier, Facts};
use crate::wire::{
    ip::{UDP, V6_HEADER_LEN},
    message::TransportHeader,
};

/// One packet at one device. The kernel stamped it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Index of the device.
    pub device: u32,
    /// It left by the device; else it came by it.
    pub leaves: bool,
    /// When (CLOCK_BOOTTIME, nanoseconds).
    pub at_ns: u64,
    /// What it is.
    pub facts: Facts,
    /// What stands on it, if it carries a tunnel's packet.
    pub carrier: Option<Carrier>,
}

impl Crossing {
    /// From the packet's IP header on; what is cut off behind its headers does no harm. `None`: not IP.
    pub fn of(device: u32, leaves: bool, at_ns: u64, packet: &[u8]) -> Option<Self> {
        let facts = Facts::of(packet)?;
        let transport = match packet.first()? >> 4 {
            4 => packet.get(usize::from(packet[0] & 0xf) * 4..),
            _ => packet.get(V6_HEADER_LEN..),
        };
        let carrier = transport.and_then(|transport| Carrier::of(&facts, transport));
        Some(Self { device, leaves, at_ns, facts, carrier })
    }
}

impl Carrier {
    /// From the UDP header on: its eight bytes, and twelve behind them: type, receiver and the low half of the counter.
    pub fn of(facts: &Facts, transport: &[u8]) -> Option<Self> {
        let datagram = transport.get(8..20)?;
        if facts.protocol != UDP {
            return None;
        }
        // The rest of the shortest message, which nobody showed.
        let whole = [datagram, &[0; 20]].concat();
        let header = TransportHeader::parse(&whole).ok()?;
        Some(Self { session: header.receiver.0, counter_low: header.counter as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::facts::tests::echo, *};

    fn datagram(kind: u8) -> Vec<u8> {
        let mut packet = echo()[..20].to_vec();
        packet[9] = UDP;
        packet.extend([0xca, 0x6c, 0xca, 0x6c, 0, 136, 0, 0]);
        packet.extend([kind, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 5, 0, 0, 0]);
        packet
    }

    #[test]
    fn a_carrier_shows_its_session_and_half_of_its_counter() {
        let carrier = Crossing::of(3, true, 7, &datagram(4)).unwrap().carrier;
        assert_eq!(carrier, Some(Carrier { session: 0x1234_5678, counter_low: 5 }));
        assert_eq!(
            Crossing::of(3, true, 7, &datagram(1)).unwrap().carrier,
            None,
            "a handshake carries nothing"
        );
        let mut other = datagram(4);
        other[9] = 6;
        assert_eq!(Crossing::of(3, true, 7, &other).unwrap().carrier, None, "TCP");
    }

    #[test]
    fn whatever_the_bytes_say_nothing_panics() {
        for length in 0..60 {
            let _ = Crossing::of(1, false, 0, &datagram(4)[..datagram(4).len().min(length)]);
            let _ = Crossing::of(1, false, 0, &vec![0x4f; length]);
        }
        assert_eq!(Crossing::of(1, false, 0, &[0x10; 40]), None);
    }
}
