//! A second opinion: the offload code of `tun-rs`, which follows wireguard-go's. It cuts what we cut and what we merged
//! into the same packets, and what it merges we cut into what it was made of.
//!
//! Where the two differ on purpose, and what is therefore kept from it here:
//! - Behind a routing header with stops left it sums the wrong destination (we keep what the sender had summed).
//! - Headers without payload give no packet there; here they give themselves.
//! - It merges without a look at IPv4 identification and header checksum, window, urgent pointer, flow label and the
//!   reserved bits of TCP, and a TCP checksum of ffff as if it were 0000: cut again, such packets are not what they
//!   were. It lets a flow's pure ACKs be overtaken.
//! - It never merges IPv4 options, extension headers, or segments with ECE; and more than 64 datagrams.

use std::collections::HashMap;

use tun_rs::{VIRTIO_NET_HDR_LEN, VirtioNetHdr, gso_split, handle_gro};
use vpnd::{forward::Merge, wire::vnet::VNET_HEADER_LEN};

use crate::{
    dice::Dice,
    generator::{self, Train},
    offload,
    plain::{PSH, Plain},
};

/// Its answer to a super-packet behind a vnet header.
fn cut(frame: &[u8], count: usize) -> Vec<Vec<u8>> {
    let vnet = VirtioNetHdr::decode(frame).expect("a vnet header");
    let mut packet = frame[VNET_HEADER_LEN..].to_vec();
    let room = usize::from(vnet.hdr_len) + usize::from(vnet.gso_size);
    let (mut pieces, mut sizes) = (vec![vec![0; room.min(packet.len())]; count], vec![0; count]);
    let v6 = packet[0] >> 4 == 6;
    let made = gso_split(&mut packet, vnet, &mut pieces, &mut sizes, 0, v6).expect("a true header");
    assert_eq!(made, count);
    pieces.iter_mut().zip(sizes).for_each(|(piece, size)| piece.truncate(size));
    pieces
}

/// Its super-packets, behind vnet headers.
fn merge(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let roomy = |packet: &Vec<u8>| {
        // It goes by the room that there is: not more than the largest packet.
        let mut buffer = Vec::with_capacity(2 * VIRTIO_NET_HDR_LEN + 65_535);
        buffer.resize(VIRTIO_NET_HDR_LEN, 0);
        buffer.extend(packet);
        buffer
    };
    let mut buffers: Vec<_> = packets.iter().map(roomy).collect();
    let mut written = Vec::new();
    let (mut tcp, mut udp) = Default::default();
    handle_gro(&mut buffers, VIRTIO_NET_HDR_LEN, &mut tcp, &mut udp, true, &mut written).expect("packets");
    written.into_iter().map(|at| std::mem::take(&mut buffers[at])).collect()
}

/// What it cuts of a train is what we cut.
fn check_cut(train: &Train) {
    let Train { whole, size } = train;
    if whole.final_destination.is_some() || whole.payload.is_empty() {
        return;
    }
    let frame = [&whole.vnet(*size)[..], &whole.unfinished()].concat();
    if let Some(ours) = offload::cut_frame(&frame) {
        assert_eq!(cut(&frame, ours.len()), ours, "{train:?}");
    }
}

/// A train of its own, as a sender sends it; some pushed, some broken on the way.
fn arriving(dice: &mut Dice<'_>, number: usize) -> Vec<Vec<u8>> {
    let Train { mut whole, size } = generator::train(dice);
    whole.ports = [1 + number as u16, 7];
    let mut pieces = whole.cut(size);
    if dice.one_in(3) {
        let at = dice.below(pieces.len());
        pieces[at].flags |= PSH;
    }
    let mut packets: Vec<_> = pieces.iter().map(Plain::bytes).collect();
    if dice.one_in(3) {
        let at = dice.below(packets.len());
        packets[at][whole.checksum_at()] ^= 1;
    }
    packets
}

/// Several of them in turns.
fn in_turns(dice: &mut Dice<'_>, trains: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    let mut waiting: Vec<_> = trains.iter().map(|train| train.iter().cloned()).collect();
    let mut packets = Vec::new();
    while !waiting.is_empty() {
        let at = dice.below(waiting.len());
        packets.extend(waiting[at].by_ref().take(dice.pick(&[1, 3, 100])));
        waiting.retain(|train| train.len() > 0);
    }
    packets
}

/// A few trains. How many, and how many packets merged by the other.
pub fn check_scene(dice: &mut Dice<'_>) -> (usize, usize) {
    let count = dice.within(1..=4);
    let trains: Vec<_> = (0..count).map(|number| arriving(dice, number)).collect();
    check_cut(&generator::train(dice));
    let packets = in_turns(dice, &trains);

    for ours in offload::merge(dice, Merge { tcp: true, udp: true }, &packets) {
        if ours.packets > 1 {
            let expected = offload::cut_frame(&ours.frame).expect("no lie");
            assert_eq!(cut(&ours.frame, ours.packets), expected);
        }
    }

    let theirs = merge(&packets);
    let mut arrived: Vec<Vec<Vec<u8>>> = vec![Vec::new(); count];
    let train_of: HashMap<&Vec<u8>, usize> = trains
        .iter()
        .enumerate()
        .flat_map(|(at, train)| train.iter().map(move |packet| (packet, at)))
        .collect();
    for packet in theirs.iter().flat_map(|frame| offload::cut_frame(frame).expect("no lie")) {
        let at = train_of.get(&packet).unwrap_or_else(|| panic!("nobody sent {packet:02x?}"));
        arrived[*at].push(packet);
    }
    assert_eq!(arrived, trains);
    (count, packets.len() - theirs.len())
}
