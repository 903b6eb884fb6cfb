//! Whatever bytes: each parser of `wire` takes what it should and no more, and nothing that it reads lies outside.

use std::net::IpAddr;

use vpnd::wire::{
    checksum::Sum,
    ecn::{self, Ecn},
    flow::Flow,
    icmp::{self, Unreachable},
    ip,
    message::{self, CookieReply, Initiation, Kind, Response, TransportHeader},
    mss::{self, Checksum},
    outer::Outer,
    vnet::{VNET_HEADER_LEN, VnetHeader},
};

pub fn check_bytes(bytes: &[u8]) {
    check_datagram(bytes);
    check_packet(bytes);
    check_vnet(bytes);
}

/// A datagram is of the kind that a table says, and what its parser reads is written again.
fn check_datagram(datagram: &[u8]) {
    let kind = message::classify(datagram).ok();
    let expected = match (datagram, datagram.len()) {
        ([1, 0, 0, 0, ..], 148) => Some(Kind::Initiation),
        ([2, 0, 0, 0, ..], 92) => Some(Kind::Response),
        ([3, 0, 0, 0, ..], 64) => Some(Kind::CookieReply),
        ([4, 0, 0, 0, ..], 32..) => Some(Kind::Transport),
        _ => None,
    };
    assert_eq!(kind, expected, "{datagram:02x?}");
    let initiation = Initiation::parse(datagram).ok().map(|it| it.to_bytes()[..116].to_vec());
    let response = Response::parse(datagram).ok().map(|it| it.to_bytes()[..60].to_vec());
    let cookie = CookieReply::parse(datagram).ok().map(|it| it.to_bytes().to_vec());
    let transport = TransportHeader::parse(datagram).ok().map(|it| {
        let mut header = [0xa5; 16];
        it.write(&mut header);
        header.to_vec()
    });
    for (parser, written) in [
        (Kind::Initiation, initiation),
        (Kind::Response, response),
        (Kind::CookieReply, cookie),
        (Kind::Transport, transport),
    ] {
        assert_eq!(written.is_some(), kind == Some(parser), "{parser:?}");
        if let Some(written) = written {
            assert_eq!(written, datagram[..written.len()], "{parser:?}");
        }
    }
}

/// What an IP header claims, read as simply as can be: addresses and length.
fn claimed(packet: &[u8]) -> Option<(IpAddr, IpAddr, usize)> {
    let word = |at: usize| usize::from(packet[at]) << 8 | usize::from(packet[at + 1]);
    let four = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes"));
    let sixteen =
        |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes"));
    let (source, destination, least, total) = match packet.first()? >> 4 {
        4 if packet.len() >= 20 => (four(12), four(16), usize::from(packet[0] & 15) * 4, word(2)),
        6 if packet.len() >= 40 => (sixteen(8), sixteen(24), 40, 40 + word(4)),
        _ => return None,
    };
    let fits = least >= 20 && total >= least && total <= packet.len();
    fits.then_some((source, destination, total))
}

fn check_packet(packet: &[u8]) {
    let header = ip::parse(packet).ok();
    let read = header.as_ref().map(|it| (it.source, it.destination, it.total_len));
    assert_eq!(read, claimed(packet), "{packet:02x?}");
    // What is no packet is nothing to anybody, and stays as it is.
    let Some(header) = header else {
        assert_eq!((ip::upper_layer(packet), Flow::of(packet)), (None, None));
        assert_eq!(icmp::unreachable(packet, Unreachable::NoPeer), None);
        return;
    };
    let whole = &packet[..header.total_len];
    if let Some((_, upper)) = ip::upper_layer(packet) {
        assert!(whole.ends_with(upper), "the upper layer ends where the packet does");
    }
    if let Ok(Outer { hop_limit: Some(limit), .. }) = Outer::of(whole, &header) {
        assert!(matches!(limit.get(), 16 | 32 | 48), "a layer lower: {limit}");
    }
    check_marks(packet, &header);
    check_mss(packet, &header);
    check_flow(packet);
    check_errors(whole, &header);
}

/// Marking changes the mark, the sum over it, and nothing else.
fn check_marks(packet: &[u8], header: &ip::Header) {
    for mark in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
        let mut marked = packet.to_vec();
        ecn::mark(&mut marked, mark);
        let read = ip::parse(&marked).expect("it is as good a packet as before");
        assert_eq!(read, ip::Header { ecn: mark, ..*header });
        ecn::mark(&mut marked, header.ecn);
        // One's complement has two zeros: the sum may come back as the other one.
        let sum = if packet[0] >> 4 == 4 { 10..12 } else { 0..0 };
        assert_eq!(without(&marked, sum.clone()), without(packet, sum));
    }
}

fn without(packet: &[u8], place: std::ops::Range<usize>) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[place].fill(0);
    packet
}

/// A segment size is lowered once, and the sum over it is as right, or as wrong, as before.
fn check_mss(packet: &[u8], header: &ip::Header) {
    let is_right = |packet: &[u8]| {
        let (_, tcp) = ip::upper_layer(packet)?;
        let pseudo = Sum::pseudo_header(header.source, header.destination, ip::TCP);
        Some((pseudo + Sum::word(tcp.len() as u16) + Sum::of(tcp)).is_right())
    };
    for mtu in [576, 1280, 1420] {
        let mut clamped = packet.to_vec();
        let lowered = mss::clamp(&mut clamped, mtu, Checksum::Whole);
        assert_eq!(lowered, clamped != packet);
        assert_eq!(is_right(&clamped), is_right(packet), "{packet:02x?}");
        assert!(!mss::clamp(&mut clamped, mtu, Checksum::Whole), "it was not lowered enough");
    }
}

/// A flow that is turned round twice is the same; one that is written is read again.
fn check_flow(packet: &[u8]) {
    let Some(flow) = Flow::of(packet) else { return };
    assert_eq!(flow.reversed().reversed(), flow);
    let source = match flow.source {
        IpAddr::V4(_) => IpAddr::from([203, 0, 113, 9]),
        IpAddr::V6(_) => IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
    };
    let other = Flow { source, ..flow };
    let mut written = packet.to_vec();
    other.write_source(&mut written);
    assert_eq!(Flow::of(&written), Some(other));
    assert_eq!(written.len(), packet.len());
}

/// An error goes back where the packet came from, quotes it, is no longer than it may be, and is not answered itself.
fn check_errors(packet: &[u8], header: &ip::Header) {
    for why in [Unreachable::NoPeer, Unreachable::NoEndpoint] {
        let Some(error) = icmp::unreachable(packet, why) else { continue };
        let read = ip::parse(&error).expect("an error is a packet");
        assert_eq!((read.source, read.destination), (header.destination, header.source));
        let (most, headers) = if header.source.is_ipv4() { (576, 28) } else { (1280, 48) };
        assert!(error.len() <= most && read.total_len == error.len(), "{} bytes", error.len());
        assert!(packet.starts_with(&error[headers..]), "what it quotes was there");
        assert_eq!(icmp::unreachable(&error, why), None, "no answer to an error");
    }
}

fn check_vnet(bytes: &[u8]) {
    let Some(header) = bytes.first_chunk::<VNET_HEADER_LEN>() else { return };
    if let Ok(read) = VnetHeader::parse(header) {
        assert_eq!(VnetHeader::parse(&read.to_bytes()).ok(), Some(read));
    }
}
