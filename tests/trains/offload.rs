//! What is held against the plain path: cutting, merging, and both in turn.

use std::ops::Range;

use vpnd::{
    forward::{Delivery, Merge, coalesce::Coalescer, segment::Segmentation},
    wire::{
        ip,
        vnet::{VNET_HEADER_LEN, VnetHeader},
    },
};

use crate::{
    dice::Dice,
    generator::{self, Train},
    reference,
};

/// As our code cuts it; `None` where it refuses to.
pub fn cut(vnet: &[u8; VNET_HEADER_LEN], packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let vnet = VnetHeader::parse(vnet).ok()?;
    let segmentation = Segmentation::new(&vnet, packet, &ip::parse(packet).ok()?).ok()?;
    let segment = |at| {
        // What an earlier packet may have left there.
        let mut segment = vec![0xa5; segmentation.segment_len(at)];
        segmentation.write(packet, at, &mut segment);
        segment
    };
    Some((0..segmentation.count()).map(segment).collect())
}

/// The same, of vnet header and packet behind each other.
pub fn cut_frame(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (vnet, packet) = frame.split_first_chunk()?;
    cut(vnet, packet)
}

/// One that was delivered: vnet header and packet, and of how many it is made.
pub struct Delivered {
    pub frame: Vec<u8>,
    pub packets: usize,
}

/// Merges packets that stand as those do that were opened: in one buffer, a header and a tag between.
pub fn merge(dice: &mut Dice<'_>, merge: Merge, packets: &[Vec<u8>]) -> Vec<Delivered> {
    let (mut buffer, mut places): (Vec<u8>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
    for packet in packets {
        let between = dice.within(16..=47);
        buffer.resize(buffer.len() + between, 0xa5);
        places.push(buffer.len()..buffer.len() + packet.len());
        buffer.extend(packet);
    }
    let mut coalescer = Coalescer::default();
    coalescer.allow(merge);
    let mut deliveries: Vec<Delivery> = Vec::new();
    for place in places {
        deliveries.extend(coalescer.push(&mut buffer, place));
    }
    deliveries.extend(coalescer.finish(&mut buffer));
    let take = |delivery: &Delivery| Delivered {
        frame: buffer[delivery.start..delivery.end].to_vec(),
        packets: delivery.packets as usize,
    };
    deliveries.iter().map(take).collect()
}

/// What a train gives, by us, by the plain path, and by the reference.
pub fn check_cut(train: &Train) {
    let Train { whole, size } = train;
    let (vnet, packet) = (whole.vnet(*size), whole.unfinished());
    let ours = cut(&vnet, &packet);
    assert_eq!(ours, reference::cut(&vnet, &packet), "{train:?}");
    if let Some(ours) = ours {
        let plain: Vec<_> = whole.cut(*size).iter().map(|piece| piece.bytes()).collect();
        assert_eq!(ours, plain, "{train:?}");
    }
}

/// Merges what can be merged, and no more; what it is cut into is what it was made of. How many packets became part
/// of another.
pub fn check_merge(dice: &mut Dice<'_>, allowed: Merge, packets: &[Vec<u8>]) -> usize {
    let packets: Vec<Vec<u8>> = packets.iter().filter_map(|packet| as_claimed(packet)).collect();
    let delivered = merge(dice, allowed, &packets);
    let groups: Vec<usize> = delivered.iter().map(|it| it.packets).collect();
    assert_eq!(groups, reference::groups(&packets, allowed.tcp, allowed.udp), "{packets:02x?}");
    check_delivered(&delivered, &packets);
    packets.len() - delivered.len()
}

/// These packets, in order, byte for byte but for the one rule of [`reference::after_merge`].
pub fn check_delivered(delivered: &[Delivered], packets: &[Vec<u8>]) {
    assert_eq!(delivered.iter().map(|it| it.packets).sum::<usize>(), packets.len());
    let mut rest = packets;
    for Delivered { frame, packets } in delivered {
        let (own, others) = rest.split_at(*packets);
        rest = others;
        let (vnet, packet) = frame.split_first_chunk().expect("a vnet header");
        if let [own] = own {
            assert_eq!((vnet, packet), (&[0; VNET_HEADER_LEN], &own[..]), "alone it stays as it is");
            continue;
        }
        let again = cut(vnet, packet).expect("no lie");
        assert_eq!(reference::cut(vnet, packet).as_ref(), Some(&again), "{frame:02x?}");
        assert_eq!(again, reference::after_merge(own));
    }
}

/// Without what stands behind its end; `None` if it is no packet.
pub fn as_claimed(packet: &[u8]) -> Option<Vec<u8>> {
    let claimed = reference::claimed(packet);
    assert_eq!(ip::parse(packet).ok().map(|header| header.total_len), claimed, "{packet:02x?}");
    claimed.map(|len| packet[..len].to_vec())
}

/// What the device may take.
pub fn any_merge(dice: &mut Dice<'_>) -> Merge {
    let both = Merge { tcp: true, udp: true };
    dice.pick(&[
        both,
        both,
        both,
        Merge { tcp: true, udp: false },
        Merge { tcp: false, udp: true },
        Merge::default(),
    ])
}

/// One scene of chance: a few trains, cut, mixed and merged. How many trains, and how many packets merged.
pub fn check_scene(dice: &mut Dice<'_>) -> (usize, usize) {
    let count = dice.pick(&[1, 1, 2, 3, 5]);
    let trains: Vec<Train> = (0..count).map(|_| generator::train(dice)).collect();
    trains.iter().for_each(check_cut);
    let packets = generator::mixture(dice, &trains);
    let allowed = any_merge(dice);
    (count, check_merge(dice, allowed, &packets))
}

/// Whatever a fuzzer finds. The first byte says what the others are.
pub fn check_bytes(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => check_frame(rest),
        1 => check_packets(rest),
        _ => _ = check_scene(&mut Dice::Bytes(rest)),
    }
}

/// A vnet header and a packet: refused by both or cut alike.
pub fn check_frame(frame: &[u8]) {
    let Some((vnet, packet)) = frame.split_first_chunk() else { return };
    assert_eq!(cut(vnet, packet), reference::cut(vnet, packet), "{frame:02x?}");
}

/// Packets behind each other, each behind two bytes: its length, and whether it gets its right checksums.
fn check_packets(bytes: &[u8]) {
    let (mut rest, mut packets) = (bytes, Vec::new());
    while let Some((&[len, kind], others)) = rest.split_first_chunk() {
        let (packet, others) = others.split_at(usize::from(len).min(others.len()));
        rest = others;
        let mut packet = packet.to_vec();
        if kind & 1 == 0 {
            reference::mend(&mut packet);
        }
        packets.push(packet);
    }
    let (tcp, udp) = (!bytes.len().is_multiple_of(5), !bytes.len().is_multiple_of(7));
    check_merge(&mut Dice::Bytes(&[]), Merge { tcp, udp }, &packets);
}
