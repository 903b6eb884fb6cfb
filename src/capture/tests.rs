//! Files made of records, and what frames they have.

use super::*;
use crate::trace::{Facts, Message, Opened, Refused, Sealed, Secrets, Seen};
use zeroize::Zeroizing;

fn recorder() -> Recorder {
    let began = Began {
        interface: "vpn0".to_owned(),
        listen_port: 51_820,
        boot_ns: 1000,
        wall_ns: 1_800_000_000_000_000_000,
        filter: "icmp".to_owned(),
        snap: 96,
    };
    Recorder::new(began)
}

/// An echo request of 84 bytes, of which this much was kept.
fn ping(kept: usize) -> (crate::trace::Packet, Vec<u8>) {
    let mut packet = vec![0; 84];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 84]);
    packet[8..10].copy_from_slice(&[64, 1]);
    packet[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
    packet[20] = 8;
    (Facts::of(&packet).expect("a packet").into(), packet[..kept].to_vec())
}

fn sealed(counter: u64, segments: u64) -> Vpnd {
    Vpnd::Sealed(Sealed {
        peer: "laptop".to_owned(),
        public_key: String::new(),
        prefix: "10.77.0.2/32".to_owned(),
        session: 0xabcd,
        counter,
        segments,
        inner_bytes: 84,
        datagram_bytes: 128,
        staged: false,
        local: None,
        endpoint: "192.0.2.2:51820".parse().expect("an address"),
        mark: 0,
        batch: None,
        error: None,
    })
}

fn seen(vpnd: Vpnd, readable: bool) -> Seen {
    let (packet, inner) = ping(84);
    let packet = readable.then_some(packet);
    let inner = if readable { inner } else { Vec::new() };
    Seen { at_ns: 2000, done_ns: Some(3000), packet, vpnd, inner, outer: vec![4; 96] }
}

/// Interface, time, kept and whole length, and comment of each packet block.
fn frames(mut file: &[u8]) -> Vec<(u32, u64, u32, u32, String)> {
    let mut frames = Vec::new();
    while !file.is_empty() {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        let length = word(4) as usize;
        if word(0) == 6 {
            let kept = word(20);
            let options = 28 + (kept as usize).next_multiple_of(4);
            let comment = usize::from(u16::from_le_bytes([file[options + 2], file[options + 3]]));
            let comment = String::from_utf8_lossy(&file[options + 4..options + 4 + comment]).into_owned();
            frames.push((word(8), u64::from(word(12)) << 32 | u64::from(word(16)), kept, word(24), comment));
        }
        file = &file[length..];
    }
    frames
}

#[test]
fn a_packet_and_its_carrier_name_each_other() {
    let mut recorder = recorder();
    let mut file = recorder.header();
    file.extend(recorder.packet(&seen(sealed(7, 1), true), None));
    file.extend(recorder.packet(&seen(sealed(8, 1), true), None));
    let [first, carrier, second, _] = &frames(&file)[..] else { panic!("four frames") };
    assert_eq!((first.0, first.2, first.3), (INNER, 84, 84));
    assert_eq!(
        (carrier.0, carrier.2, carrier.3),
        (OUTER, 96 + 28, 128 + 28),
        "cut, and its whole length kept"
    );
    assert_eq!(
        first.4,
        "to peer laptop by 10.77.0.2/32: receiver index 0x0000abcd, counter 7; carried by frame 2"
    );
    assert_eq!(carrier.4, "to peer laptop: receiver index 0x0000abcd, counter 7; carries frame 1");
    assert!(second.4.ends_with("carried by frame 4"), "{}", second.4);
    assert_eq!(first.1, 1_800_000_000_000_001_000, "boot time became wall time");
}

#[test]
fn each_carrier_of_a_super_packet_names_it() {
    let mut recorder = recorder();
    let mut file = recorder.header();
    file.extend(recorder.packet(&seen(sealed(10, 3), true), None));
    for counter in [11, 12, 13] {
        file.extend(recorder.packet(&seen(sealed(counter, 3), false), None));
    }
    let comments: Vec<_> = frames(&file).into_iter().map(|frame| frame.4).collect();
    assert!(comments[0].ends_with("cut into 3 carriers from frame 2 on"), "{comments:?}");
    assert!(comments[1..4].iter().all(|comment| comment.contains("carries frame 1")), "{comments:?}");
    assert!(comments[4].contains("is not here"), "of another packet: {comments:?}");
}

#[test]
fn what_arrives_stands_before_what_was_in_it_and_what_is_refused_says_why() {
    let from = "192.0.2.9:7".parse().expect("an address");
    let opened = Vpnd::Opened(Opened {
        peer: "laptop".to_owned(),
        public_key: String::new(),
        prefix: "10.77.0.2/32".to_owned(),
        session: 1,
        counter: 2,
        from,
        datagram_bytes: 128,
        inner_bytes: 84,
        batch: crate::trace::Batch { datagrams: 1, place: 0, bytes: 128, first: 2 },
        merged: 1,
    });
    let refused = Vpnd::Refused(Refused {
        reason: "replayed".to_owned(),
        from: Some(from),
        session: Some(1),
        counter: Some(2),
        ..Refused::default()
    });
    let mut recorder = recorder();
    let mut file = recorder.header();
    file.extend(recorder.packet(&seen(opened, true), Some("192.0.2.1".parse().expect("an address"))));
    file.extend(recorder.packet(&seen(refused, false), None));
    let frames = frames(&file);
    assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), [OUTER, INNER, OUTER]);
    assert!(frames[0].4.contains("carries frame 2") && frames[1].4.contains("came in frame 1"), "{frames:?}");
    assert!(frames[2].4.starts_with("refused by vpnd: replayed"), "{frames:?}");
    assert_eq!(recorder.counts(), Counts { packets: 1, carriers: 2, ..Counts::default() });
}

#[test]
fn a_new_file_counts_its_frames_anew_and_what_was_lost_is_kept() {
    let mut recorder = recorder();
    let _ = recorder.header();
    let _ = recorder.packet(&seen(sealed(1, 2), true), None);
    recorder.lost(5);
    let mut file = recorder.header();
    file.extend(recorder.packet(&seen(sealed(2, 2), false), None));
    file.extend(recorder.packet(&seen(sealed(3, 1), true), None));
    let comments: Vec<_> = frames(&file).into_iter().map(|frame| frame.4).collect();
    assert!(comments[0].contains("is not here"), "its packet is in the file before: {comments:?}");
    assert!(comments[1].ends_with("frame 3"), "{comments:?}");
    assert_eq!(recorder.counts(), Counts { packets: 2, carriers: 3, lost: 5, handshakes: 0 });
}

fn handshake(at_ns: u64, sender: u8, secret: Option<&str>) -> Handshake {
    let mut bytes = vec![0; 92];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, sender, 0, 0, 0, 9, 0, 0, 0]);
    Handshake {
        at_ns,
        way: Direction::Out,
        message: Message::Response,
        peer: Some("laptop".to_owned()),
        remote: "192.0.2.2:51820".parse().expect("an address"),
        local: None,
        refused: None,
        bytes,
        secrets: secret.map(|lines| Secrets::new(Zeroizing::new(lines.to_owned()))),
    }
}

/// Kinds of blocks, and what is in those of secrets.
fn blocks(mut file: &[u8]) -> Vec<(u32, String)> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        let secret = if word(0) == 10 { &file[16..16 + word(12) as usize] } else { &[] };
        blocks.push((word(0), String::from_utf8_lossy(secret).into_owned()));
        file = &file[word(4) as usize..];
    }
    blocks
}

#[test]
fn the_keys_of_a_handshake_stand_before_it_and_only_where_they_were_given() {
    let mut recorder = recorder();
    let mut file = recorder.header();
    file.extend(recorder.handshake(&handshake(2000, 1, Some("KEY=a\n")), None));
    file.extend(recorder.handshake(&handshake(2001, 2, None), None));
    let blocks = blocks(&file);
    assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>()[3..], [10, 6, 6]);
    assert_eq!(blocks[3].1, "KEY=a\n");
    let frames = frames(&file);
    let said = "to peer laptop: handshake response, sender index 0x00000001 to receiver index 0x00000009";
    assert_eq!(frames[0].4, format!("{said}; its keys stand before it"));
    assert!(frames[1].4.ends_with("index 0x00000009"), "{frames:?}");
    assert_eq!((frames[0].0, frames[0].2), (OUTER, 92 + 28));
    assert_eq!(recorder.counts(), Counts { handshakes: 2, ..Counts::default() });
}

#[test]
fn a_new_file_of_a_ring_begins_with_the_handshakes_that_may_be_needed_and_no_others() {
    const SECOND: u64 = 1_000_000_000;
    let mut recorder = recorder();
    let _ = recorder.header();
    let refused = Handshake { refused: Some("mac1".to_owned()), ..handshake(3 * SECOND, 7, None) };
    for message in [
        handshake(SECOND, 1, Some("KEY=old\n")),
        handshake(100 * SECOND, 2, Some("KEY=young\n")),
        refused,
        handshake(200 * SECOND, 3, None),
    ] {
        let _ = recorder.handshake(&message, None);
    }
    let file = recorder.header();
    let secrets: String = blocks(&file).into_iter().map(|(_, secret)| secret).collect();
    assert_eq!(secrets, "KEY=young\n");
    let frames = frames(&file);
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert!(frames.iter().all(|frame| frame.4.contains("again from the file before")), "{frames:?}");
}
