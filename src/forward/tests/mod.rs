//! Two lower halves back to back, and what a test needs to look into them.

mod inbound;
mod mss;
mod outbound;
#[path = "../../../tests/trains/plain.rs"]
#[allow(dead_code, reason = "the random trains use all of it")]
pub(super) mod plain;
mod queues;
mod together;
mod watched;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    session::{REKEY_AFTER_TIME, SessionStart},
    *,
};
use crate::{
    noise::{PublicKey, SessionKeys},
    wire::{
        ecn::Ecn,
        icmp, ip,
        message::Index,
        outer::Outer,
        vnet::{VNET_HEADER_LEN, VnetHeader},
    },
};

const START: Time = Time(1_000_000_000_000);
const MTU: usize = 1420;

/// A lower half, and how often it woke its upper half.
struct Node {
    forward: Arc<Forward>,
    wakes: Arc<AtomicUsize>,
    intake: Intake,
    carriers: Carriers,
}

/// What became of one packet from the TUN.
#[derive(Debug)]
enum Outbound {
    Send { peer: Arc<Peer>, to: Endpoint, datagram: Vec<u8>, outer: Outer },
    Staged,
    Unreachable(icmp::Unreachable),
    Refused,
}

/// What became of one datagram.
#[derive(Debug, PartialEq, Eq)]
enum Inbound<'a> {
    Deliver(&'a [u8]),
    Keepalive,
    Handshake,
    Refused,
}

impl Node {
    fn new() -> Self {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = wakes.clone();
        let wake = move || _ = counter.fetch_add(1, Ordering::Relaxed);
        Self {
            forward: Forward::new(Box::new(wake)),
            wakes,
            intake: Intake::new(),
            carriers: Carriers::new(),
        }
    }

    fn routes(&self, prefixes: &[(&str, &Arc<Peer>)]) {
        let prefixes =
            prefixes.iter().map(|(prefix, peer)| (prefix.parse().expect("a prefix"), (*peer).clone()));
        self.forward.routes.store(Arc::new(AllowedIps::build(prefixes)));
    }

    fn outbound(&mut self, packet: &[u8], now: Time) -> Outbound {
        self.outbound_within(MTU, packet, now)
    }

    fn outbound_within(&mut self, mtu: usize, packet: &[u8], now: Time) -> Outbound {
        self.intake.clear();
        let frame = [&VnetHeader::default().to_bytes(), packet].concat();
        self.intake.space().expect("an empty intake")[..frame.len()].copy_from_slice(&frame);
        let mut departure = match self.forward.outbound(&mut self.intake, frame.len(), |_| mtu, now) {
            super::Outbound::Depart(departure) => departure,
            super::Outbound::Staged => return Outbound::Staged,
            super::Outbound::Unreachable(why) => return Outbound::Unreachable(why),
            super::Outbound::Refused(_) => return Outbound::Refused,
        };
        self.carriers.clear();
        assert!(self.forward.seal(&mut departure, &self.intake, &mut self.carriers));
        let cargo: Vec<_> = self.carriers.cargo().collect();
        let [Cargo { peer, to, outer, bytes, stride }] = cargo[..] else { panic!("{} sends", cargo.len()) };
        assert_eq!(bytes.len(), stride, "one datagram");
        Outbound::Send { peer: peer.clone(), to: *to, datagram: bytes.to_vec(), outer }
    }

    /// The datagram that this packet becomes.
    fn sealed(&mut self, packet: &[u8], now: Time) -> Vec<u8> {
        match self.outbound(packet, now) {
            Outbound::Send { datagram, .. } => datagram,
            other => panic!("not sent: {other:?}"),
        }
    }

    fn inbound<'a>(&self, from: &str, datagram: &'a mut [u8], now: Time) -> Inbound<'a> {
        self.inbound_marked(from, Ecn::NotEct, datagram, now)
    }

    fn inbound_marked<'a>(&self, from: &str, ecn: Ecn, datagram: &'a mut [u8], now: Time) -> Inbound<'a> {
        let refused = || Refusal::ALL.map(|why| self.refused(why)).iter().sum::<u64>();
        let before = (refused(), self.forward.handshakes.all());
        let arrival = Arrival { from: endpoint(from), ecn, place: 0..datagram.len(), stride: datagram.len() };
        let mut deliveries = Deliveries::new();
        self.forward.inbound(&arrival, datagram, &mut deliveries, now);
        if let [delivery] = *deliveries.finish(datagram) {
            return Inbound::Deliver(&datagram[delivery.start + VNET_HEADER_LEN..delivery.end]);
        }
        match before {
            (_, handshakes) if self.forward.handshakes.all() > handshakes => Inbound::Handshake,
            (count, _) if refused() > count => Inbound::Refused,
            _ => Inbound::Keepalive,
        }
    }

    fn refused(&self, why: Refusal) -> u64 {
        self.forward.refusals.read(why).0
    }

    fn evidence(&self, why: Refusal) -> Evidence {
        self.forward.refusals.read(why).1.expect("evidence is kept")
    }

    /// All that was refused, by name.
    fn refusals(&self) -> Vec<(&'static str, u64)> {
        let counts = Refusal::ALL.map(|why| (why.name(), self.refused(why)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// What stands in the queue of raised peers.
    fn raised(&self) -> Vec<(PeerId, Raised)> {
        std::iter::from_fn(|| self.forward.pop_raised()).map(|(peer, what)| (peer.id, what)).collect()
    }
}

/// Two nodes with a session between them: `left` initiated, and owns 10.0.0.1 and fd00::1; `right` has the
/// addresses that end in 2.
struct Two {
    left: Node,
    right: Node,
    /// Right as left sees it.
    to_right: Arc<Peer>,
    /// Left as right sees it.
    to_left: Arc<Peer>,
    left_session: Arc<Session>,
    right_session: Arc<Session>,
}

const LEFT: &str = "192.0.2.1:1001";
const RIGHT: &str = "192.0.2.2:1002";

impl Two {
    fn new() -> Self {
        let (left, right) = (Node::new(), Node::new());
        let (to_right, to_left) = (peer(2), peer(1));
        to_right.set_endpoint(Some(endpoint(RIGHT)));
        to_left.set_endpoint(Some(endpoint(LEFT)));
        left.routes(&[("10.0.0.2/32", &to_right), ("fd00::2/128", &to_right)]);
        right.routes(&[("10.0.0.1/32", &to_left), ("fd00::1/128", &to_left)]);
        let [left_session, right_session] = sessions(0x0100_0001, 0x0200_0002, START);
        left.forward.sessions.insert(left_session.clone(), to_right.clone());
        right.forward.sessions.insert(right_session.clone(), to_left.clone());
        to_right.set_current(Some(left_session.clone()), START);
        Self { left, right, to_right, to_left, left_session, right_session }
    }

    /// A packet from left to right, sealed.
    fn sealed_by_left(&mut self) -> Vec<u8> {
        self.left.sealed(&packet("10.0.0.1", "10.0.0.2", 100), START)
    }
}

/// Both ends of a handshake that `local` initiated.
fn sessions(local: u32, remote: u32, birth: Time) -> [Arc<Session>; 2] {
    let side = |local, remote, initiator, send, receive| {
        let (local, remote) = (Index(local), Index(remote));
        let start = SessionStart { local, remote, initiator, birth, rekey_after: REKEY_AFTER_TIME };
        Session::new(start, &SessionKeys { send, receive })
    };
    let there = [local as u8; 32];
    let back = [remote as u8 ^ 0x80; 32];
    [side(local, remote, true, there, back), side(remote, local, false, back, there)]
}

fn peer(id: u64) -> Arc<Peer> {
    Peer::new(PeerId(id), key(id), format!("peer {id}"))
}

fn key(id: u64) -> PublicKey {
    PublicKey([id as u8; 32])
}

fn endpoint(remote: &str) -> Endpoint {
    Endpoint { remote: remote.parse().expect("a socket address"), local: None }
}

fn seconds(seconds: u64) -> Time {
    START + std::time::Duration::from_secs(seconds)
}

fn load(time: &AtomicU64) -> u64 {
    time.load(Ordering::Relaxed)
}

/// An IP packet of `payload` counted bytes behind its header.
fn packet(source: &str, destination: &str, payload: usize) -> Vec<u8> {
    marked(source, destination, payload, Ecn::NotEct)
}

fn marked(source: &str, destination: &str, payload: usize, ecn: Ecn) -> Vec<u8> {
    let payload = (0..payload).map(|n| n as u8);
    let mut packet = match (address(source), address(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (20 + payload.len() as u16).to_be_bytes();
            let mut header = vec![0x45, ecn as u8, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            ip::write_v4_checksum(&mut header);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = (payload.len() as u16).to_be_bytes();
            let mut header = vec![0x60, (ecn as u8) << 4, 0, 0, length[0], length[1], 17, 64];
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        _ => panic!("one family a packet"),
    };
    packet.extend(payload);
    packet
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
