//! How a packet is cut and what may become one, by the RFCs and the kernel's rules: as simple and as slow as
//! possible. It shares no line with what it is there to judge.

use crate::plain::{
    ACK, AUTHENTICATION, DESTINATION_OPTIONS, ECE, FRAGMENT, HOP_BY_HOP, PSH, ROUTING, TCP, UDP, sum,
};

const MOBILITY: u8 = 135;
/// Extension headers that are followed.
const MOST_EXTENSIONS: usize = 8;
const MOST_DATAGRAMS: usize = 64;
const MOST_BYTES: usize = 65_535;

/// Where the layers of a whole TCP or UDP packet begin.
struct Layers {
    v6: bool,
    protocol: u8,
    transport: usize,
    payload: usize,
    /// Where the checksum stands.
    field: usize,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn set(bytes: &mut [u8], at: usize, word: usize) {
    bytes[at..at + 2].copy_from_slice(&(word as u16).to_be_bytes());
}

/// The length that an IP header claims, if it is one and all of it is there.
pub fn claimed(packet: &[u8]) -> Option<usize> {
    let (least, claimed) = match packet.first()? >> 4 {
        4 if packet.len() >= 20 => (usize::from(packet[0] & 15) * 4, usize::from(word(packet, 2))),
        6 if packet.len() >= 40 => (40, 40 + usize::from(word(packet, 4))),
        _ => return None,
    };
    let possible = least >= 20 && claimed >= least && claimed <= packet.len();
    possible.then_some(claimed)
}

/// `None`: a fragment, signed, another protocol, or headers that lead out of the packet.
fn layers(packet: &[u8]) -> Option<Layers> {
    let v6 = packet[0] >> 4 == 6;
    let (protocol, transport) = match v6 {
        true => behind_extensions(packet)?,
        // Neither more fragments nor an offset.
        false if word(packet, 6) & 0x3fff != 0 => return None,
        false => (packet[9], usize::from(packet[0] & 15) * 4),
    };
    let rest = packet.get(transport..)?;
    let (header, offset) = match protocol {
        TCP => (usize::from(*rest.get(12)? >> 4) * 4, 16),
        UDP => (8, 6),
        _ => return None,
    };
    let possible = rest.len() >= header && (protocol == UDP || header >= 20);
    possible.then_some(Layers {
        v6,
        protocol,
        transport,
        payload: transport + header,
        field: transport + offset,
    })
}

fn behind_extensions(packet: &[u8]) -> Option<(u8, usize)> {
    let (mut next, mut at, mut seen) = (packet[6], 40, 0);
    while [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, MOBILITY].contains(&next) {
        seen += 1;
        if seen > MOST_EXTENSIONS {
            return None;
        }
        next = *packet.get(at)?;
        at += 8 * (1 + usize::from(*packet.get(at + 1)?));
    }
    let never = next == FRAGMENT || next == AUTHENTICATION || at > packet.len();
    (!never).then_some((next, at))
}

/// The packets that the kernel would send in place of this one; `None` if the vnet header is a lie.
pub fn cut(vnet: &[u8; 10], packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let number = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    let (size, start, offset) = (number(4), number(6), number(8));
    let unfinished = vnet[0] & 1 == 1;
    let claimed = claimed(packet)?;
    let (kind_protocol, kind_v6) = match vnet[1] & 0x7f {
        0 if !unfinished => return Some(vec![packet[..claimed].to_vec()]),
        0 => return finished(&packet[..claimed], start, offset).map(|packet| vec![packet]),
        1 => (TCP, false),
        4 => (TCP, true),
        5 => (UDP, packet[0] >> 4 == 6),
        _ => return None,
    };
    if claimed != packet.len() || size == 0 {
        return None;
    }
    let layers = layers(packet)?;
    let right_kind = layers.protocol == kind_protocol && layers.v6 == kind_v6;
    let right_place = !unfinished || start == layers.transport && start + offset == layers.field;
    if !right_kind || !right_place {
        return None;
    }
    let pseudo_header = match unfinished {
        true => {
            let len = packet.len() - layers.transport;
            sum(&[&packet[layers.field..layers.field + 2], &(!len as u16).to_be_bytes()].concat())
        }
        false => addresses(packet, &layers),
    };
    let payload = &packet[layers.payload..];
    let payloads: Vec<&[u8]> =
        if payload.is_empty() { vec![payload] } else { payload.chunks(size).collect() };
    let last = payloads.len() - 1;
    let piece = |(at, payload): (usize, &&[u8])| {
        let mut piece = [&packet[..layers.payload], payload].concat();
        number_piece(&mut piece, &layers, at, at * size);
        if layers.protocol == TCP {
            let flags = layers.transport + 13;
            if at > 0 {
                piece[flags] &= 0b0111_1111; // CWR
            }
            if at < last {
                piece[flags] &= 0b1111_0110; // PSH, FIN
            }
        }
        finish(&mut piece, &layers, pseudo_header);
        piece
    };
    Some(payloads.iter().enumerate().map(piece).collect())
}

/// Lengths, and what counts up.
fn number_piece(piece: &mut [u8], layers: &Layers, at: usize, bytes: usize) {
    let len = piece.len();
    if layers.v6 {
        set(piece, 4, len - 40);
    } else {
        set(piece, 2, len);
        let identification = word(piece, 4).wrapping_add(at as u16);
        set(piece, 4, identification.into());
    }
    if layers.protocol == UDP {
        return set(piece, layers.transport + 4, len - layers.transport);
    }
    let sequence = &mut piece[layers.transport + 4..layers.transport + 8];
    let number = u32::from_be_bytes(sequence.try_into().expect("four bytes")).wrapping_add(bytes as u32);
    sequence.copy_from_slice(&number.to_be_bytes());
}

/// Sum of addresses and protocol.
fn addresses(packet: &[u8], layers: &Layers) -> u16 {
    let addresses = if layers.v6 { &packet[8..40] } else { &packet[12..20] };
    sum(&[addresses, &[0, layers.protocol]].concat())
}

/// Writes both checksums.
fn finish(packet: &mut [u8], layers: &Layers, pseudo_header: u16) {
    if !layers.v6 {
        set(packet, 10, 0);
        let checksum = !sum(&packet[..layers.transport]);
        set(packet, 10, checksum.into());
    }
    set(packet, layers.field, 0);
    let transport = &packet[layers.transport..];
    let len = transport.len() as u16;
    let summed = [&pseudo_header.to_be_bytes()[..], &len.to_be_bytes(), transport].concat();
    let checksum = match !sum(&summed) {
        0 if layers.protocol == UDP => 0xffff,
        checksum => checksum,
    };
    set(packet, layers.field, checksum.into());
}

/// The kernel's `skb_checksum_help`.
fn finished(packet: &[u8], start: usize, offset: usize) -> Option<Vec<u8>> {
    let field = start + offset;
    if field + 2 > packet.len() {
        return None;
    }
    let mut packet = packet.to_vec();
    let checksum = match !sum(&packet[start..]) {
        0 => 0xffff,
        checksum => checksum,
    };
    set(&mut packet, field, checksum.into());
    Some(packet)
}

/// How many of these packets, each as long as it claims, become one each time.
pub fn groups(packets: &[Vec<u8>], tcp: bool, udp: bool) -> Vec<usize> {
    let (mut groups, mut rest) = (Vec::new(), packets);
    while !rest.is_empty() {
        let more = (1..rest.len()).find(|&len| !joins(&rest[..len], &rest[len], tcp, udp));
        let len = more.unwrap_or(rest.len());
        groups.push(len);
        rest = &rest[len..];
    }
    groups
}

fn joins(run: &[Vec<u8>], next: &[u8], tcp: bool, udp: bool) -> bool {
    let (first, last) = (&run[0], &run[run.len() - 1]);
    let (Some(layers), Some(other)) = (layers(first), layers(next)) else { return false };
    let payload = next.len().saturating_sub(other.payload);
    let bytes: usize = run.iter().map(|packet| packet.len() - layers.payload).sum();
    let is_tcp = layers.protocol == TCP;
    let allowed = if is_tcp { tcp } else { udp && run.len() < MOST_DATAGRAMS };
    allowed
        && (layers.transport, layers.payload) == (other.transport, other.payload)
        && first.len() > layers.payload
        && last.len() == first.len()
        && (1..=first.len() - layers.payload).contains(&payload)
        && layers.payload + bytes + payload <= MOST_BYTES
        && alike(first, &layers) == alike(next, &layers)
        && (!is_tcp || carries_on(first, last, next, &layers, bytes))
        && [first, next].into_iter().all(|packet| is_as_sent(packet, &layers))
        && (layers.v6 || counts(run, next))
}

/// The headers without what may differ.
fn alike(packet: &[u8], layers: &Layers) -> Vec<u8> {
    let mut headers = packet[..layers.payload].to_vec();
    match layers.v6 {
        true => headers[4..6].fill(0),
        false => {
            headers[2..6].fill(0);
            headers[10..12].fill(0);
        }
    }
    let transport = &mut headers[layers.transport..];
    if layers.protocol == UDP {
        transport[4..8].fill(0);
        return headers;
    }
    transport[4..8].fill(0);
    transport[13] &= !PSH;
    transport[16..18].fill(0);
    headers
}

/// Plain data of one stream: nothing pushed before the last, no flags but these, and no gap.
fn carries_on(first: &[u8], last: &[u8], next: &[u8], layers: &Layers, bytes: usize) -> bool {
    let flags = |packet: &[u8]| packet[layers.transport + 13];
    let sequence = |packet: &[u8]| {
        u32::from_be_bytes(packet[layers.transport + 4..][..4].try_into().expect("four bytes"))
    };
    let plain = |packet: &[u8]| flags(packet) & ACK != 0 && flags(packet) & !(ACK | PSH | ECE) == 0;
    plain(first)
        && plain(next)
        && flags(last) & PSH == 0
        && sequence(next) == sequence(first).wrapping_add(bytes as u32)
}

/// Are length and checksums those that the plain path writes?
fn is_as_sent(packet: &[u8], layers: &Layers) -> bool {
    let mut fresh = packet.to_vec();
    finish(&mut fresh, layers, addresses(packet, layers));
    let len = packet.len() - layers.transport;
    let claims = layers.protocol == TCP || usize::from(word(packet, layers.transport + 4)) == len;
    claims && fresh == packet
}

/// IPv4 identifications that count up by one, or stay where DF is set.
fn counts(run: &[Vec<u8>], next: &[u8]) -> bool {
    let all: Vec<u16> = run.iter().map(|packet| word(packet, 4)).chain([word(next, 4)]).collect();
    let by = |step: u16| all.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let dont_fragment = next[6] & 0x40 != 0;
    by(1) || dont_fragment && by(0)
}

/// What is equal of packets that became one: with DF an identification that stays is counted up instead (RFC 6864,
/// section 4.1: it means nothing then), and the checksum of the IPv4 header with it.
pub fn after_merge(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let [first, second, ..] = packets else { return packets.to_vec() };
    let stays = first[0] >> 4 == 4 && first[6] & 0x40 != 0 && first[4..6] == second[4..6];
    if !stays {
        return packets.to_vec();
    }
    let counted = |(at, packet): (usize, &Vec<u8>)| {
        let mut packet = packet.clone();
        let identification = word(first, 4).wrapping_add(at as u16);
        set(&mut packet, 4, identification.into());
        set(&mut packet, 10, 0);
        let checksum = !sum(&packet[..usize::from(packet[0] & 15) * 4]);
        set(&mut packet, 10, checksum.into());
        packet
    };
    packets.iter().enumerate().map(counted).collect()
}

/// Gives a packet the lengths and checksums of the plain path, as far as it has any.
pub fn mend(packet: &mut [u8]) {
    let (v6, len) = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => (false, packet.len()),
        Some(6) if packet.len() >= 40 => (true, packet.len() - 40),
        _ => return,
    };
    set(packet, if v6 { 4 } else { 2 }, len);
    if claimed(packet).is_none() {
        return;
    }
    let Some(layers) = layers(packet) else { return };
    if layers.protocol == UDP {
        set(packet, layers.transport + 4, packet.len() - layers.transport);
    }
    let addresses = addresses(packet, &layers);
    finish(packet, &layers, addresses);
}
