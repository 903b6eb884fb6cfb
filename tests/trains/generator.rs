//! Random trains: packets of one flow as a sender cuts them, what may happen to them on their way, and several of
//! them in turns with garbage between.

use crate::{
    dice::Dice,
    plain::{
        ACK, AUTHENTICATION, CWR, DESTINATION_OPTIONS, DONT_FRAGMENT, ECE, FIN, FRAGMENT, HOP_BY_HOP,
        MORE_FRAGMENTS, PSH, Plain, ROUTING, RST, SYN, TCP, UDP, URG, packet, sum,
    },
};

/// What a kernel has to send, and how it is to be cut.
#[derive(Clone, Debug)]
pub struct Train {
    pub whole: Plain,
    pub size: usize,
}

/// Most bytes of an IP packet.
const MOST: usize = 65_535;

/// From 10.0.1.0/24 or fd00:1::/64 to 10.0.2.0/24 or fd00:2::/64.
pub fn train(dice: &mut Dice<'_>) -> Train {
    let mut whole = flow(dice);
    let (count, size) = sizes(dice);
    let room = MOST - whole.headers();
    let size = size.min(room);
    let bytes = (count * size - dice.pick(&[0, 0, 1, size / 2, size - 1])).min(room);
    whole.payload = if dice.one_in(40) { Vec::new() } else { dice.noise(bytes) };
    Train { whole, size }
}

/// How many packets, and how large.
fn sizes(dice: &mut Dice<'_>) -> (usize, usize) {
    match dice.below(400) {
        0 => (dice.within(2..=8), dice.within(8_000..=40_000)),
        1..=3 => (dice.within(40..=60), dice.within(1_000..=1_500)),
        4..=8 => (dice.within(60..=140), dice.within(1..=20)),
        9..=50 => (dice.within(1..=6), dice.within(500..=1_500)),
        51..=150 => (dice.within(1..=10), dice.within(50..=300)),
        _ => (dice.within(1..=12), dice.within(1..=50)),
    }
}

fn flow(dice: &mut Dice<'_>) -> Plain {
    let (v6, protocol) = (dice.one_in(2), dice.pick(&[TCP, TCP, UDP]));
    let mut flow = packet(v6, protocol, 0);
    let host = if v6 { 15 } else { 3 };
    flow.source[host] = dice.within(1..=3) as u8;
    flow.destination[host] = dice.within(1..=3) as u8;
    flow.ports = [dice.pick(&[1, 2, 40_000]), dice.pick(&[443, 53])];
    flow.tos = dice.pick(&[0, 0, 1, 2, 3, 0xb8, 0xb9]);
    flow.hops = dice.pick(&[64, 63, 1, 255]);
    flow.label = dice.pick(&[0, 0xf_ffff, 0x1_2345]);
    flow.identification = dice.pick(&[0, 1, 0xfffe, 0xffff, 0x1234]);
    flow.fragment = dice.pick(&[DONT_FRAGMENT, DONT_FRAGMENT, 0, 0x8000]);
    flow.sequence = dice.pick(&[0, 1, u32::MAX, u32::MAX - 100, u32::MAX - 5_000, 0x8000_0000]);
    flow.acknowledgement = dice.below(1 << 16) as u32;
    flow.window = dice.below(1 << 16) as u16;
    flow.flags = dice.pick(&[ACK, ACK, ACK, ACK | PSH, ACK | ECE, ACK | CWR, ACK | FIN | PSH, 0xff, 0]);
    if dice.one_in(20) {
        flow.flags |= dice.pick(&[SYN, RST, URG, CWR, FIN]);
        flow.urgent = dice.below(1 << 16) as u16;
        flow.reserved = dice.below(16) as u8;
    }
    flow.tcp_options = tcp_options(dice);
    flow.options = if dice.one_in(8) { vec![1; 4 * dice.within(1..=10)] } else { Vec::new() };
    if dice.one_in(6) {
        extend(dice, &mut flow);
    }
    if dice.one_in(25) {
        take_apart(dice, &mut flow);
    }
    flow
}

fn tcp_options(dice: &mut Dice<'_>) -> Vec<u8> {
    match dice.below(4) {
        0 => Vec::new(),
        1 | 2 => [&[1, 1, 8, 10][..], &dice.noise(8)].concat(),
        _ => dice.noise(4).repeat(dice.within(1..=10)),
    }
}

fn extend(dice: &mut Dice<'_>, flow: &mut Plain) {
    for _ in 0..dice.within(1..=3) {
        let kind = dice.pick(&[HOP_BY_HOP, DESTINATION_OPTIONS, 135, ROUTING]);
        let words = dice.below(3);
        let mut body = vec![0; 8 + 8 * words];
        body[1] = words as u8;
        flow.extensions.push((kind, body));
    }
    if dice.one_in(4) {
        let last = [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        flow.extensions.push((ROUTING, [&[0, 2, 4, 1, 0, 0, 0, 0][..], &last].concat()));
        flow.final_destination = Some(last);
    }
    if dice.one_in(8) {
        let chain = dice.within(7..=9);
        flow.extensions = vec![(DESTINATION_OPTIONS, vec![0; 8]); chain];
    }
}

/// Makes fragments of them, or signs them: neither is cut or merged.
fn take_apart(dice: &mut Dice<'_>, flow: &mut Plain) {
    let offset = dice.pick(&[0, 1, 8, 9]);
    flow.fragment |= dice.pick(&[MORE_FRAGMENTS, 5, MORE_FRAGMENTS | 5]);
    flow.extensions.push(dice.pick(&[
        (FRAGMENT, vec![0, 0, 0, offset, 0, 0, 0, 7]),
        (AUTHENTICATION, vec![0, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]),
    ]));
}

/// A single packet that no kernel cuts: a fragment, one that is signed, one of another protocol.
pub fn loner(dice: &mut Dice<'_>) -> Vec<u8> {
    let Train { mut whole, size } = train(dice);
    whole.payload.truncate(size);
    match dice.below(4) {
        0 => whole.protocol = dice.pick(&[1, 58, 47, 50, 132]),
        1 => take_apart(dice, &mut whole),
        2 => whole.payload.clear(),
        _ => {}
    }
    whole.bytes()
}

/// Bytes that need not be a packet at all, as long as they claim.
pub fn garbage(dice: &mut Dice<'_>) -> Vec<u8> {
    if dice.one_in(3) {
        let len = dice.below(100);
        return dice.noise(len);
    }
    let mut packet = loner(dice);
    for _ in 0..dice.within(1..=4) {
        let at = dice.below(packet.len().min(100));
        packet[at] = dice.below(256) as u8;
    }
    packet
}

/// What arrives of a train: as it was cut, or with something amiss here and there.
pub fn arriving(dice: &mut Dice<'_>, train: &Train) -> Vec<Vec<u8>> {
    let mut pieces = train.whole.cut(train.size);
    // What a sender may do with identifications.
    match dice.below(4) {
        0 => pieces.iter_mut().for_each(|piece| piece.identification = train.whole.identification),
        1 if dice.one_in(4) => return with_zero_header_checksums(dice, pieces),
        2 if dice.one_in(4) => {
            pieces.iter_mut().for_each(|piece| piece.identification = dice.below(3) as u16)
        }
        _ => {}
    }
    lengthen(dice, train, &mut pieces);
    let spoiled = dice.one_in(2);
    if spoiled {
        displace(dice, &mut pieces);
    }
    let one = |piece: &mut Plain| match spoiled && dice.one_in(8) {
        true => amiss(dice, piece),
        false => piece.bytes(),
    };
    pieces.iter_mut().map(one).collect()
}

/// One byte more than there is room for in one packet.
fn lengthen(dice: &mut Dice<'_>, train: &Train, pieces: &mut [Plain]) {
    let full = train.whole.headers() + train.whole.payload.len() == MOST;
    if let [_, .., last] = pieces
        && full
        && last.payload.len() < train.size
        && dice.one_in(2)
    {
        last.payload.push(7);
    }
}

/// An identification for all, by which the checksum of the first one's IPv4 header comes out as zero; and one zero or
/// the other in its place.
fn with_zero_header_checksums(dice: &mut Dice<'_>, mut pieces: Vec<Plain>) -> Vec<Vec<u8>> {
    let first = pieces[0].bytes();
    let identification = sum(&[&first[4..6], &first[10..12]].concat());
    let zero = dice.pick(&[0, 0xff]);
    let one = |piece: &mut Plain| {
        piece.identification = identification;
        let mut bytes = piece.bytes();
        if !piece.v6 && bytes[10..12] == [0; 2] {
            bytes[10..12].fill(zero);
        }
        bytes
    };
    pieces.iter_mut().map(one).collect()
}

/// Loss, repetition, another order.
fn displace(dice: &mut Dice<'_>, pieces: &mut Vec<Plain>) {
    let at = dice.below(pieces.len());
    match dice.below(8) {
        0 => _ = pieces.remove(at),
        1 => pieces.insert(at, pieces[at].clone()),
        2 => pieces.swap(0, at),
        _ => {}
    }
}

/// Something is other than in the rest of the train.
fn amiss(dice: &mut Dice<'_>, piece: &mut Plain) -> Vec<u8> {
    match dice.below(20) {
        0..=3 => piece.flags ^= dice.pick(&[PSH, PSH, FIN, SYN, RST, URG, CWR, ECE, ACK]),
        4 => piece.window ^= 1,
        5 => piece.acknowledgement ^= 1,
        6 if dice.one_in(2) => piece.tcp_options = tcp_options(dice),
        6 => alter_option(piece),
        7 => piece.hops ^= 1,
        8 => piece.tos ^= dice.pick(&[1, 2, 4]),
        9 => piece.fragment ^= dice.pick(&[DONT_FRAGMENT, MORE_FRAGMENTS, 0x8000, 1]),
        10 => piece.identification = piece.identification.wrapping_add(dice.pick(&[1, 2, u16::MAX])),
        11 => piece.label ^= 1,
        12 => piece.payload.truncate(dice.below(piece.payload.len() + 1)),
        13 => piece.payload.extend([7; 3]),
        14 => piece.sequence = piece.sequence.wrapping_add(dice.pick(&[1, u32::MAX])),
        15 => piece.urgent ^= 1,
        16 => return with_zero_checksum(dice, piece),
        _ => return spoiled(dice, piece),
    }
    piece.bytes()
}

/// The last byte of whatever stands between the fixed IP header and the payload.
fn alter_option(piece: &mut Plain) {
    let extension = piece.extensions.last_mut().map(|(_, body)| body);
    let options = if piece.v6 { extension } else { Some(&mut piece.options) };
    match options.and_then(|options| options.last_mut()) {
        Some(last) => *last ^= 1,
        None => piece.tcp_options.iter_mut().take(1).for_each(|option| *option ^= 1),
    }
}

/// A payload by which the checksum comes out as zero; and one zero or the other in its field.
fn with_zero_checksum(dice: &mut Dice<'_>, piece: &mut Plain) -> Vec<u8> {
    let field = piece.checksum_at();
    if piece.payload.len() >= 2 {
        let word = sum(&[&piece.payload[..2], &piece.bytes()[field..field + 2]].concat());
        piece.payload[..2].copy_from_slice(&word.to_be_bytes());
    }
    let mut bytes = piece.bytes();
    if [[0; 2], [0xff; 2]].contains(&[bytes[field], bytes[field + 1]]) {
        let zero = dice.pick(&[0, 0xff]);
        bytes[field..field + 2].fill(zero);
    }
    bytes
}

/// A bit that flipped on the way: in a checksum, in the headers, anywhere.
fn spoiled(dice: &mut Dice<'_>, piece: &Plain) -> Vec<u8> {
    let mut bytes = piece.bytes();
    let at = match dice.below(4) {
        0 => piece.checksum_at(),
        1 if !piece.v6 => 10,
        2 => dice.below(piece.headers()),
        _ => dice.below(bytes.len()),
    };
    bytes[at] ^= 1 << dice.below(8);
    bytes
}

/// Several trains in turns, as they come out of one tunnel, each for a while.
pub fn mixture(dice: &mut Dice<'_>, trains: &[Train]) -> Vec<Vec<u8>> {
    let mut waiting: Vec<_> = trains.iter().map(|train| arriving(dice, train).into_iter()).collect();
    let mut packets = Vec::new();
    while !waiting.is_empty() {
        let at = dice.below(waiting.len());
        let turn = dice.pick(&[1, 2, 5, 20, 200]);
        packets.extend(waiting[at].by_ref().take(turn));
        if waiting[at].len() == 0 {
            waiting.swap_remove(at);
        }
        match dice.below(30) {
            0 => packets.push(loner(dice)),
            1 => packets.push(garbage(dice)),
            _ => {}
        }
    }
    packets
}
