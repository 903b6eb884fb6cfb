//! Frames as a wiretapper reads them: one line each.

use std::net::Ipv4Addr;

/// A frame with its Ethernet header, in words.
pub(super) fn frame(frame: &[u8]) -> String {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => packet(&frame[14..]),
        Some([0x08, 0x06]) => arp(&frame[14..]).unwrap_or_else(cut),
        Some(other) => format!("EtherType {:04x}", u16::from_be_bytes([other[0], other[1]])),
        None => cut(),
    }
}

/// An IPv4 packet, in words.
pub(super) fn packet(packet: &[u8]) -> String {
    ipv4(packet).unwrap_or_else(cut)
}

/// The source and destination hardware addresses of a frame.
pub(super) fn hardware(frame: &[u8]) -> String {
    match frame.get(..12) {
        Some(both) => format!("{} → {}", mac(&both[6..]), mac(&both[..6])),
        None => cut(),
    }
}

/// `02:00:00:00:00:01`.
pub(super) fn mac(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(":")
}

/// The type of a WireGuard message, by its first byte (WireGuard paper, section 5.4).
pub(super) fn wireguard(payload: &[u8]) -> &'static str {
    match (payload.first(), payload.len()) {
        (Some(1), 148) => "initiation",
        (Some(2), 92) => "response",
        (Some(3), 64) => "cookie reply",
        (Some(4), 32) => "keepalive",
        (Some(4), 33..) => "data",
        _ => "not of WireGuard",
    }
}

fn cut() -> String {
    "cut off".to_owned()
}

fn arp(packet: &[u8]) -> Option<String> {
    let (sender, target) = (address(packet, 14)?, address(packet, 24)?);
    Some(match packet.get(7)? {
        1 => format!("ARP, who has {target}? tell {sender}"),
        2 => format!("ARP, {sender} is at {}", mac(packet.get(8..14)?)),
        other => format!("ARP, operation {other}"),
    })
}

fn ipv4(packet: &[u8]) -> Option<String> {
    let header = usize::from(packet.first()? & 15) * 4;
    let (from, to) = (address(packet, 12)?, address(packet, 16)?);
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]);
    let (offset, more) = (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let body = packet.get(header..)?;
    if offset > 0 || more {
        let more = if more { ", more follow" } else { ", the last" };
        return Some(format!(
            "{from} → {to}  fragment, bytes {offset} to {}{more}",
            (offset + length).saturating_sub(header + 1)
        ));
    }
    let (source, target) = (|| port(body, 0), || port(body, 2));
    Some(match packet.get(9)? {
        1 => format!("{from} → {to}  ICMP {}", icmp(body)?),
        6 => format!(
            "{from}:{} → {to}:{}  TCP {}",
            source()?,
            target()?,
            tcp(body, length.checked_sub(header)?)?
        ),
        17 => format!(
            "{from}:{} → {to}:{}  UDP, {} bytes",
            source()?,
            target()?,
            port(body, 4)?.checked_sub(8)?
        ),
        other => format!("{from} → {to}  protocol {other}"),
    })
}

fn icmp(body: &[u8]) -> Option<String> {
    Some(match (body.first()?, body.get(1)?) {
        (8, _) => "echo request".to_owned(),
        (0, _) => "echo reply".to_owned(),
        (3, 3) => "port unreachable".to_owned(),
        (3, 4) => format!("fragmentation needed, MTU {}", port(body, 6)?),
        (3, _) => "unreachable".to_owned(),
        (11, _) => "time exceeded".to_owned(),
        (other, _) => format!("type {other}"),
    })
}

fn tcp(body: &[u8], length: usize) -> Option<String> {
    const FLAGS: [(u8, &str); 5] = [(2, "SYN"), (1, "FIN"), (4, "RST"), (8, "PSH"), (16, "ACK")];
    let flags = *body.get(13)?;
    let set: Vec<&str> = FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    let payload = length.checked_sub(usize::from(body.get(12)? >> 4) * 4)?;
    let payload = if payload > 0 { format!(", {payload} bytes") } else { String::new() };
    // Linux puts the maximum segment size first among the options of a SYN.
    let size = match body.get(20..24) {
        Some([2, 4, high, low]) if flags & 2 != 0 => format!(", MSS {}", u16::from_be_bytes([*high, *low])),
        _ => String::new(),
    };
    Some(set.join("+") + &payload + &size)
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?))
}

fn port(body: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> Vec<u8> {
        let ethernet = [0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0];
        let ip = [0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        [&ethernet[..], &ip, &[0x9c, 0x40, 0x13, 0x88, 0, 12, 0, 0], b"mark"].concat()
    }

    #[test]
    fn a_datagram_is_told_with_its_addresses_ports_and_length() {
        assert_eq!(frame(&udp()), "192.0.2.1:40000 → 192.0.2.2:5000  UDP, 4 bytes");
        assert_eq!(hardware(&udp()), "02:00:00:00:00:01 → 02:00:00:00:00:02");
    }

    #[test]
    fn a_fragment_is_told_by_its_place() {
        let mut fragment = udp();
        fragment[20..22].copy_from_slice(&[0x20, 0x02]);
        assert_eq!(frame(&fragment), "192.0.2.1 → 192.0.2.2  fragment, bytes 16 to 27, more follow");
    }

    #[test]
    fn what_is_cut_off_is_no_panic() {
        for length in 0..udp().len() {
            let _ = frame(&udp()[..length]);
        }
        let mut absurd = udp();
        absurd[16..18].copy_from_slice(&[0, 1]); // shorter than its own header
        absurd[20] = 0x20;
        let _ = frame(&absurd);
    }

    #[test]
    fn a_segment_is_told_by_its_flags() {
        let mut segment = vec![0; 20];
        segment[12] = 5 << 4;
        segment[13] = 2 | 16;
        assert_eq!(tcp(&segment, 20).as_deref(), Some("SYN+ACK"));
        assert_eq!(tcp(&segment, 30).as_deref(), Some("SYN+ACK, 10 bytes"));
    }
}
