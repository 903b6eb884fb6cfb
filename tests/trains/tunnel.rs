//! The same through two lower halves back to back: what the left TUN hands out is what the right one gets.

use std::{ops::Range, sync::Arc, time::Duration};

use vpnd::{
    forward::{
        AllowedIps, Arrival, Carriers, Deliveries, Departure, Endpoint, Forward, Intake, Merge, Outbound,
        Peer, PeerId, Session, Time, session::SessionStart,
    },
    noise::{PublicKey, SessionKeys},
    wire::{ecn::Ecn, message::Index},
};

use crate::{
    dice::Dice,
    generator::{self, Train},
    offload::{self, Delivered},
    reference,
};

const NOW: Time = Time(1_000_000_000_000);
/// Datagrams begin at multiples of this in a receive buffer.
const LINE: usize = 64;

/// Two ends of one session. The left one has 10.0.1.0/24 and fd00:1::/64, the right one the same with 2.
pub struct Tunnel {
    left: Arc<Forward>,
    right: Arc<Forward>,
    intake: Intake,
    carriers: Carriers,
}

/// What was sent in one call: its datagrams.
struct Sent {
    ecn: Ecn,
    bytes: Vec<u8>,
    stride: usize,
}

impl Tunnel {
    pub fn new() -> Self {
        let [left, right] = [0; 2].map(|_| Forward::new(Box::new(|| ())));
        let to_right = introduce(&left, 2, Index(1));
        introduce(&right, 1, Index(2));
        let session = left.sessions.find(Index(1)).expect("introduced").0;
        to_right.set_current(Some(session), NOW);
        Self { left, right, intake: Intake::new(), carriers: Carriers::new() }
    }

    /// Takes frames from the left TUN, as many at a time as there is room for. How many packets merged.
    pub fn carry(&mut self, dice: &mut Dice<'_>, frames: &[Vec<u8>]) -> usize {
        let expected: Vec<Vec<u8>> = frames.iter().flat_map(|frame| passing(frame)).collect();
        let bound = dice.pick(&[0, 1280, 1420, 1500, 65_535]);
        let mut sent = Vec::new();
        let mut frames = frames.iter().peekable();
        while frames.peek().is_some() {
            let (mut departures, most) = (Vec::new(), dice.pick(&[1, 3, 100]));
            self.intake.clear();
            while departures.len() < most
                && let Some(space) = self.intake.space()
                && let Some(frame) = frames.next()
            {
                space[..frame.len()].copy_from_slice(frame);
                let outbound = self.left.outbound(&mut self.intake, frame.len(), |_| bound, NOW);
                if let Outbound::Depart(departure) = outbound {
                    departures.push(departure);
                }
            }
            self.send(&mut departures, &mut sent);
        }
        let allowed = offload::any_merge(dice);
        let delivered = self.receive(dice, allowed, sent);
        offload::check_delivered(&delivered, &expected);
        expected.len() - delivered.len()
    }

    fn send(&mut self, departures: &mut [Departure], sent: &mut Vec<Sent>) {
        for departure in departures {
            while !self.left.seal(departure, &self.intake, &mut self.carriers) {
                self.leave(sent);
            }
        }
        self.leave(sent);
    }

    fn leave(&mut self, sent: &mut Vec<Sent>) {
        let take = |cargo: vpnd::forward::Cargo<'_>| Sent {
            ecn: cargo.outer.ecn,
            bytes: cargo.bytes.to_vec(),
            stride: cargo.stride,
        };
        sent.extend(self.carriers.cargo().map(take));
        self.carriers.clear();
    }

    /// Batches of arrivals, each of some of the datagrams of one send.
    fn receive(&self, dice: &mut Dice<'_>, allowed: Merge, sent: Vec<Sent>) -> Vec<Delivered> {
        let mut delivered = Vec::new();
        let mut arrivals = sent.iter().flat_map(|sent| pieces(dice, sent)).collect::<Vec<_>>().into_iter();
        while arrivals.len() > 0 {
            let batch: Vec<_> = arrivals.by_ref().take(dice.pick(&[1, 8, 64])).collect();
            delivered.extend(self.receive_batch(allowed, &batch));
        }
        delivered
    }

    fn receive_batch(&self, allowed: Merge, batch: &[(&Sent, Range<usize>)]) -> Vec<Delivered> {
        let mut buffer = Vec::new();
        let mut arrivals = Vec::new();
        for (Sent { ecn, bytes, stride }, range) in batch {
            buffer.resize(buffer.len().next_multiple_of(LINE), 0xa5);
            let start = buffer.len();
            buffer.extend(&bytes[range.clone()]);
            arrivals.push(Arrival {
                from: endpoint(1),
                ecn: *ecn,
                place: start..buffer.len(),
                stride: *stride,
            });
        }
        let mut deliveries = Deliveries::new();
        deliveries.begin(allowed);
        for arrival in &arrivals {
            self.right.inbound(arrival, &mut buffer, &mut deliveries, NOW);
        }
        let places = deliveries.finish(&mut buffer).to_vec();
        let take = |place: vpnd::forward::Delivery| Delivered {
            frame: buffer[place.start..place.end].to_vec(),
            packets: place.packets as usize,
        };
        places.into_iter().map(take).collect()
    }
}

/// As the kernel may put them together: all of a send, or some.
fn pieces<'a>(dice: &mut Dice<'_>, sent: &'a Sent) -> Vec<(&'a Sent, Range<usize>)> {
    let most = dice.pick(&[64, 64, 64, 1, 3, 10]) * sent.stride;
    let starts = (0..sent.bytes.len()).step_by(most);
    starts.map(|start| (sent, start..sent.bytes.len().min(start + most))).collect()
}

/// A peer at the other end, with a session that answers to `local`.
fn introduce(forward: &Forward, other: u8, local: Index) -> Arc<Peer> {
    let peer = Peer::new(PeerId(other.into()), PublicKey([other; 32]), String::new());
    peer.set_endpoint(Some(endpoint(other)));
    let prefixes = [format!("10.0.{other}.0/24"), format!("fd00:{other}::/64")];
    let prefixes = prefixes.map(|prefix| (prefix.parse().expect("a prefix"), peer.clone()));
    forward.routes.store(Arc::new(AllowedIps::build(prefixes)));
    let remote = Index(3 - local.0);
    let rekey_after = Duration::from_secs(120);
    let start = SessionStart { local, remote, initiator: local.0 == 1, birth: NOW, rekey_after };
    let keys = SessionKeys { send: [local.0 as u8; 32], receive: [remote.0 as u8; 32] };
    forward.sessions.insert(Session::new(start, &keys), peer.clone());
    peer
}

fn endpoint(host: u8) -> Endpoint {
    Endpoint { remote: ([192, 0, 2, host], 51820).into(), local: None }
}

/// The packets of a frame that the tunnel carries.
fn passing(frame: &[u8]) -> Vec<Vec<u8>> {
    let Some((vnet, packet)) = frame.split_first_chunk() else { return Vec::new() };
    let ours = |packet: &Vec<u8>| match packet[0] >> 4 {
        4 => packet[12..15] == [10, 0, 1] && packet[16..19] == [10, 0, 2],
        _ => packet[8..16] == [0xfd, 0, 0, 1, 0, 0, 0, 0] && packet[24..32] == [0xfd, 0, 0, 2, 0, 0, 0, 0],
    };
    let cut = reference::cut(vnet, packet).unwrap_or_default();
    if cut.iter().all(ours) { cut } else { Vec::new() }
}

/// A few trains, as super-packets or packet by packet, with garbage between. How many trains, how many merged.
pub fn check_scene(tunnel: &mut Tunnel, dice: &mut Dice<'_>) -> (usize, usize) {
    let count = dice.pick(&[1, 2, 3, 5]);
    let trains: Vec<Train> = (0..count).map(|_| generator::train(dice)).collect();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for train in &trains {
        frames.extend(super_packets(dice, train));
        if dice.one_in(10) {
            frames.push([&[0; 10], &generator::loner(dice)[..]].concat());
        }
        if dice.one_in(20) {
            let size = dice.below(12);
            frames.push([&dice.noise(size)[..], &generator::garbage(dice)].concat());
        }
    }
    if dice.one_in(2) {
        let packets = generator::mixture(dice, &trains);
        frames.extend(packets.into_iter().map(|packet| [&[0; 10], &packet[..]].concat()));
    }
    (count, tunnel.carry(dice, &frames))
}

/// A train as its sender hands it out: whole, in parts, or a packet at a time with its checksum left to finish.
fn super_packets(dice: &mut Dice<'_>, train: &Train) -> Vec<Vec<u8>> {
    let Train { whole, size } = train;
    let at_once = dice.pick(&[1_000, 1_000, 7, 2]);
    let frame = |part: &crate::plain::Plain, size| [&part.vnet(size)[..], &part.unfinished()].concat();
    let parts = whole.cut(at_once * size);
    match dice.below(6) {
        0 => whole.cut(*size).iter().map(|piece| frame(piece, 0)).collect(),
        1 => parts.iter().map(|part| frame(part, 0)).collect(),
        _ => parts.iter().map(|part| frame(part, *size)).collect(),
    }
}
