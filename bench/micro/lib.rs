//! Two lower halves of vpnd with a session between them, and packets for them to carry.

use std::{net::Ipv4Addr, sync::Arc};

use vpnd::{
    forward::{
        AllowedIps, Endpoint, Forward, Peer, PeerId, Session, Time,
        session::{REKEY_AFTER_TIME, SessionStart},
    },
    noise::{PublicKey, SessionKeys},
    wire::{
        checksum::Sum,
        message::Index,
        vnet::{ChecksumPlace, Gso, VnetHeader},
    },
};

/// It is always this moment.
pub const NOW: Time = Time(1_000_000_000_000);
/// Inside the tunnel.
pub const MTU: usize = 1420;
/// Packets that one super-packet stands for: 60 KB of payload.
pub const SEGMENTS: usize = 44;

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
/// IPv4, and TCP with timestamps.
const HEADERS: usize = 20 + 32;
const PAYLOAD: usize = MTU - HEADERS;

/// One end, which knows the other as its only peer.
pub struct End {
    pub forward: Arc<Forward>,
    pub session: Arc<Session>,
}

/// Left seals, right opens.
pub fn two() -> [End; 2] {
    let [left, right] = sessions(1, 2);
    let end = |session: Arc<Session>, other: usize| {
        let forward = Forward::new(Box::new(|| {}));
        let peer = peer(other as u64);
        peer.set_endpoint(Some(endpoint()));
        let prefix = ipnet(ADDRESSES[other]);
        forward.routes.store(Arc::new(AllowedIps::build([(prefix, peer.clone())])));
        forward.sessions.insert(session.clone(), peer.clone());
        peer.set_current(Some(session.clone()), NOW);
        End { forward, session }
    };
    [end(left, 1), end(right, 0)]
}

/// Both ends of a handshake; each index names one of them.
pub fn sessions(local: u32, remote: u32) -> [Arc<Session>; 2] {
    let side = |local, remote, initiator, send, receive| {
        let (local, remote) = (Index(local), Index(remote));
        let start = SessionStart { local, remote, initiator, birth: NOW, rekey_after: REKEY_AFTER_TIME };
        Session::new(start, &SessionKeys { send, receive })
    };
    [side(local, remote, true, [1; 32], [2; 32]), side(remote, local, false, [2; 32], [1; 32])]
}

/// Nobody in particular.
pub fn peer(id: u64) -> Arc<Peer> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&id.to_le_bytes());
    Peer::new(PeerId(id), PublicKey(key), String::new())
}

/// Where all datagrams come from and go to.
pub fn endpoint() -> Endpoint {
    Endpoint { remote: (Ipv4Addr::new(192, 0, 2, 1), 51820).into(), local: None }
}

fn ipnet(address: Ipv4Addr) -> ipnet::IpNet {
    ipnet::IpNet::from(std::net::IpAddr::from(address))
}

/// What the TUN gives in one read: vnet header, and TCP from left to right in so many segments of full size.
pub fn super_packet(segments: usize) -> Vec<u8> {
    let packet = tcp(segments * PAYLOAD);
    let vnet = VnetHeader {
        checksum: Some(ChecksumPlace { start: 20, offset: 16 }),
        gso: if segments > 1 { Gso::TcpV4 } else { Gso::None },
        ecn: false,
        headers_len: HEADERS as u16,
        gso_size: if segments > 1 { PAYLOAD as u16 } else { 0 },
    };
    [&vnet.to_bytes()[..], &packet].concat()
}

/// One packet of that many bytes, IP header included, that is finished: UDP from left to right.
pub fn small_packet(len: usize) -> Vec<u8> {
    let mut packet = internet(17, len);
    packet.extend([0x13, 0x88, 0x13, 0x88]);
    packet.extend(((len - 20) as u16).to_be_bytes());
    packet.resize(len, 0);
    [&VnetHeader::default().to_bytes()[..], &packet].concat()
}

fn tcp(payload: usize) -> Vec<u8> {
    let mut packet = internet(6, HEADERS + payload);
    packet.extend([0x13, 0x88, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet.extend((0..payload).map(|n| n as u8));
    let pseudo = Sum::pseudo_header(ADDRESSES[0].into(), ADDRESSES[1].into(), 6);
    let partial = (pseudo + Sum::word((packet.len() - 20) as u16)).partial();
    packet[36..38].copy_from_slice(&partial);
    packet
}

fn internet(protocol: u8, len: usize) -> Vec<u8> {
    let total = (len as u16).to_be_bytes();
    let mut header = vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    ADDRESSES.iter().for_each(|address| header.extend(address.octets()));
    let checksum = Sum::of(&header).finish();
    header[10..12].copy_from_slice(&checksum);
    header
}

/// Numbers that look random and are always the same (splitmix64).
pub fn numbers() -> impl Iterator<Item = u64> {
    (1_u64..).map(|n| {
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}
