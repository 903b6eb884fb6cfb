//! A world in one thread under virtual time: tunnels with both their halves, and a network between them with
//! loss, delay, reordering, duplication and corruption as knobs. Everything is drawn from one seed.
//!
//! Two invariants hold in every test, because the world itself checks them: no tunnel uses a nonce twice, and
//! no inner packet is delivered twice, or to anyone but whom it was sent to, or changed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use vpnd::{
    forward::{
        Arrival, Carriers, Deliveries, Endpoint, Evidence, Forward, Intake, Local, Merge, Outbound, Peer,
        Refusal, Session, Time,
    },
    noise::{PrivateKey, PublicKey, Tai64n},
    tunnel::{AllowedIpOp, Change, Event, Now, PeerChange, PeerStatus, Timing, Transmit, Tunnel},
    wire::{
        ecn::Ecn,
        message::{self, Index, Kind, TransportHeader},
        vnet::VNET_HEADER_LEN,
    },
};

pub const MTU: usize = 1420;
/// One way, if a test does not say otherwise.
pub const DELAY: Duration = Duration::from_millis(10);
pub const NANO: Duration = Duration::from_nanos(1);

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub fn before(time: Time, by: Duration) -> Time {
    Time(time.0 - by.as_nanos() as u64)
}

/// The private key of node `n`.
pub fn key(n: usize) -> PrivateKey {
    let mut bytes = [0x5a; 32];
    bytes[8..16].copy_from_slice(&(n as u64).to_le_bytes()); // clamping leaves these alone
    PrivateKey::new(bytes)
}
/// Where node `n` is.
pub fn outer(n: usize) -> SocketAddr {
    ([192, 0, 2, n as u8 + 1], 51820).into()
}
/// The inner address of node `n`.
pub fn inner(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, (n >> 8) as u8, n as u8)
}

/// A datagram as it left a node, before the network did anything to it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Time,
    pub by: usize,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn kind(&self) -> Kind {
        message::classify(&self.bytes).expect("what we send is well-formed")
    }
    /// The sender's index in an initiation or response.
    pub fn sender(&self) -> Index {
        Index(u32::from_le_bytes(self.bytes[4..8].try_into().expect("four bytes")))
    }
    pub fn is_keepalive(&self) -> bool {
        self.kind() == Kind::Transport && self.bytes.len() == 32
    }
    pub fn is_data(&self) -> bool {
        self.kind() == Kind::Transport && self.bytes.len() > 32
    }
}

/// One tunnel with both halves, and what came of it.
pub struct Node {
    pub tunnel: Tunnel,
    pub forward: Arc<Forward>,
    /// Where its socket is.
    pub address: SocketAddr,
    pub private_key: PrivateKey,
    /// Of which private key.
    public_key: RefCell<Option<(PrivateKey, PublicKey)>>,
    /// Payload numbers of inner packets that came out, in order.
    pub delivered: Vec<u64>,
    pub events: Vec<Event>,
    /// Added to the wall clock.
    pub clock_error: i64,
    /// How many handshakes it believes to be waiting, beside those that are.
    pub backlog: usize,
    intake: Intake,
    carriers: Carriers,
    nonces: HashSet<(Index, u64)>,
}

impl Node {
    /// Asked for with each datagram, and a multiplication on the curve.
    pub fn public_key(&self) -> PublicKey {
        let mut known = self.public_key.borrow_mut();
        if known.as_ref().is_none_or(|(of, _)| *of != self.private_key) {
            *known = Some((self.private_key.clone(), self.private_key.public_key()));
        }
        known.as_ref().expect("just now").1
    }
    pub fn refused(&self, what: Refusal) -> u64 {
        self.forward.refusals.read(what).0
    }
    pub fn evidence(&self, what: Refusal) -> Evidence {
        self.forward.refusals.read(what).1.expect("it was refused")
    }
}

struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    ecn: Ecn,
    bytes: Vec<u8>,
}

/// What the network does.
#[derive(Clone, Debug)]
pub struct Network {
    /// Nothing arrives.
    pub cut: bool,
    /// In a thousand.
    pub loss: u32,
    pub duplication: u32,
    pub corruption: u32,
    pub delay: Duration,
    /// Up to this is added, so that later datagrams arrive earlier.
    pub reordering: Duration,
    /// From this address nothing arrives.
    pub mute: Option<SocketAddr>,
}

pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pub network: Network,
    /// All that was ever sent.
    pub log: Vec<Sent>,
    rng: ChaCha8Rng,
    /// When the upper half of the first has sent its next data, and before it does anything else, a packet to
    /// the second meets the data thread.
    pub busy: Option<(usize, usize)>,
    /// The number of that packet.
    pub meanwhile: Option<u64>,
    flights: BTreeMap<(Time, u64), Flight>,
    counted: u64,
    /// Inner packets on their way: number → (who may get it, if anybody may, and the packet).
    expected: HashMap<u64, (Option<usize>, Vec<u8>)>,
}

impl World {
    /// No nodes, a good network.
    pub fn empty(seed: u64) -> Self {
        World {
            now: Time(1_000_000_000_000),
            nodes: Vec::new(),
            network: Network {
                cut: false,
                loss: 0,
                duplication: 0,
                corruption: 0,
                delay: DELAY,
                reordering: Duration::ZERO,
                mute: None,
            },
            log: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            busy: None,
            meanwhile: None,
            flights: BTreeMap::new(),
            counted: 0,
            expected: HashMap::new(),
        }
    }

    /// Two nodes that know each other.
    pub fn pair() -> Self {
        Self::of(2, 1)
    }

    /// `n` nodes that all know each other.
    pub fn of(n: usize, seed: u64) -> Self {
        let mut world = Self::empty(seed);
        for _ in 0..n {
            world.add_node();
        }
        for a in 0..n {
            for b in (0..n).filter(|&b| b != a) {
                world.introduce(a, b);
            }
        }
        world
    }

    /// A pair with a session that the first initiated; the first's session was born now or just before.
    pub fn connected() -> Self {
        let mut world = Self::pair();
        world.send(0, 1);
        world.run(millis(100));
        assert_eq!(world.nodes[1].delivered.len(), 1, "connected");
        world
    }

    pub fn add_node(&mut self) -> usize {
        let n = self.nodes.len();
        let forward = Forward::new(Box::new(|| {}));
        let rng = Box::new(ChaCha8Rng::seed_from_u64(self.rng.next_u64()));
        let tunnel = Tunnel::new(forward.clone(), Timing::default(), rng);
        self.nodes.push(Node {
            tunnel,
            forward,
            address: outer(n),
            private_key: key(n),
            public_key: RefCell::default(),
            delivered: Vec::new(),
            events: Vec::new(),
            clock_error: 0,
            backlog: 0,
            intake: Intake::new(),
            carriers: Carriers::new(),
            nonces: HashSet::new(),
        });
        self.apply(n, Change::PrivateKey(Some(key(n))));
        n
    }

    /// The process of `n` dies, and another one takes its place at once, with the same key and peers. It has what a
    /// daemon keeps: where its peers were, and, `floor`, from which timestamp on it may begin. Those with whom it had a
    /// session are called within a moment.
    pub fn restart(&mut self, n: usize, floor: Tai64n) {
        let known: Vec<_> = (0..self.nodes.len())
            .filter(|&other| other != n)
            .filter_map(|other| {
                let key = self.nodes[other].public_key();
                let live = self.status(n, other).session_age.is_some();
                self.nodes[n].tunnel.remembered(&key).map(|known| (other, known, live))
            })
            .collect();
        self.replace(n);
        self.nodes[n].tunnel.never_before(floor);
        for (other, known, live) in known {
            self.introduce(n, other);
            let call = live.then_some(self.now);
            let key = self.nodes[other].public_key();
            assert!(self.nodes[n].tunnel.resume(&key, known, call));
        }
        self.pump(n);
    }

    /// The process of `n` dies, and the next one knows nothing but its key.
    pub fn replace(&mut self, n: usize) {
        let forward = Forward::new(Box::new(|| {}));
        let rng = Box::new(ChaCha8Rng::seed_from_u64(self.rng.next_u64()));
        let tunnel = Tunnel::new(forward.clone(), Timing::default(), rng);
        (self.nodes[n].tunnel, self.nodes[n].forward) = (tunnel, forward);
        self.apply(n, Change::PrivateKey(Some(self.nodes[n].private_key.clone())));
    }

    /// `a` gets `b` as a peer, with its endpoint and its inner address.
    pub fn introduce(&mut self, a: usize, b: usize) {
        let mut change = PeerChange::new(self.nodes[b].public_key());
        change.endpoint = Some(self.nodes[b].address);
        change.allowed_ips = vec![AllowedIpOp::Add(IpAddr::V4(inner(b)).into())];
        self.apply(a, Change::Peer(change));
    }

    /// A change of `b` as `a` knows it.
    pub fn change(&mut self, a: usize, b: usize, alter: impl FnOnce(&mut PeerChange)) {
        let mut change = PeerChange::new(self.nodes[b].public_key());
        alter(&mut change);
        self.apply(a, Change::Peer(change));
    }

    pub fn apply(&mut self, n: usize, change: Change) {
        let now = self.now_at(n);
        self.nodes[n].tunnel.apply(change, now).expect("a good change");
        self.nodes[n].tunnel.publish();
        self.pump(n);
    }

    /// Both clocks of a node.
    pub fn now_at(&self, n: usize) -> Now {
        let wall = Duration::from_secs(1_700_000_000) + Duration::from_nanos(self.now.0);
        let seconds = wall.as_secs().checked_add_signed(self.nodes[n].clock_error).expect("a date");
        Now { boot: self.now, wall: Duration::new(seconds, wall.subsec_nanos()) }
    }

    /// An inner packet from `from` to `to` enters the TUN of `from`; its number.
    pub fn send(&mut self, from: usize, to: usize) -> u64 {
        self.send_as(from, inner(from), to)
    }

    /// The same with another inner source.
    pub fn send_as(&mut self, from: usize, source: Ipv4Addr, to: usize) -> u64 {
        self.send_between(from, source, inner(to), Some(to))
    }

    /// The same with any inner addresses; `to`: who may get it.
    pub fn send_between(
        &mut self,
        from: usize,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        to: Option<usize>,
    ) -> u64 {
        let number = self.enters(from, source, destination, to);
        self.pump(from);
        number
    }

    /// It meets the data thread alone; its number.
    fn enters(&mut self, n: usize, source: Ipv4Addr, destination: Ipv4Addr, to: Option<usize>) -> u64 {
        self.counted += 1;
        let number = self.counted;
        let packet = ping(source, destination, number);
        self.expected.insert(number, (to, packet.clone()));
        let now = self.now;
        let node = &mut self.nodes[n];
        node.intake.clear();
        let frame = [&[0; VNET_HEADER_LEN], &packet[..]].concat();
        node.intake.space().expect("an empty intake")[..frame.len()].copy_from_slice(&frame);
        let outcome = node.forward.outbound(&mut node.intake, frame.len(), |_| MTU, now);
        if let Outbound::Depart(mut departure) = outcome {
            assert!(node.forward.seal(&mut departure, &node.intake, &mut node.carriers));
            let cargo = node.carriers.cargo();
            let sent: Vec<_> =
                cargo.map(|cargo| (*cargo.to, cargo.outer.ecn, cargo.bytes.to_vec())).collect();
            node.carriers.clear();
            for (to, ecn, bytes) in sent {
                self.emit(n, to, ecn, bytes);
            }
        }
        number
    }

    /// A datagram leaves a node.
    fn emit(&mut self, by: usize, to: Endpoint, ecn: Ecn, bytes: Vec<u8>) {
        if let Ok(Kind::Transport) = message::classify(&bytes) {
            let header = TransportHeader::parse(&bytes).expect("a transport message");
            let fresh = self.nodes[by].nonces.insert((header.receiver, header.counter));
            assert!(fresh, "a nonce was used twice: {header:?}");
        }
        let from = self.nodes[by].address;
        self.log.push(Sent { at: self.now, by, from, to: to.remote, bytes: bytes.clone() });
        let network = self.network.clone();
        if network.cut || network.mute == Some(from) || self.chance(network.loss) {
            return;
        }
        let copies = 1 + u32::from(self.chance(network.duplication));
        for _ in 0..copies {
            let mut bytes = bytes.clone();
            if self.chance(network.corruption) {
                let at = self.rng.next_u32() as usize % bytes.len();
                bytes[at] ^= 1 << (self.rng.next_u32() % 8);
            }
            let extra = network.reordering.as_nanos() as u64;
            let extra = if extra == 0 { 0 } else { self.rng.next_u64() % extra };
            let at = self.now + network.delay + Duration::from_nanos(extra);
            self.inject(at, from, to.remote, ecn, bytes);
        }
    }

    /// A datagram, whoever made it, will arrive then.
    pub fn inject(&mut self, at: Time, from: SocketAddr, to: SocketAddr, ecn: Ecn, bytes: Vec<u8>) {
        self.counted += 1;
        self.flights.insert((at, self.counted), Flight { from, to, ecn, bytes });
    }

    /// A datagram arrives at node `to` now, as if from there.
    pub fn arrive(&mut self, from: SocketAddr, to: usize, bytes: &[u8]) {
        let to = self.nodes[to].address;
        self.arrival(Flight { from, to, ecn: Ecn::NotEct, bytes: bytes.to_vec() });
    }

    fn arrival(&mut self, flight: Flight) {
        let Some(n) = self.nodes.iter().position(|node| node.address == flight.to) else { return };
        let local = Some(Local { address: flight.to.ip(), interface: 0 });
        let from = Endpoint { remote: flight.from, local };
        let mut bytes = flight.bytes;
        let node = &mut self.nodes[n];
        let arrival = Arrival { from, ecn: flight.ecn, place: 0..bytes.len(), stride: bytes.len() };
        let mut deliveries = Deliveries::new();
        deliveries.begin(Merge { tcp: true, udp: true });
        node.forward.inbound(&arrival, &mut bytes, &mut deliveries, self.now);
        for delivery in deliveries.finish(&mut bytes) {
            let packet = &bytes[delivery.start + VNET_HEADER_LEN..delivery.end];
            let number = u64::from_be_bytes(packet[20..28].try_into().expect("eight bytes"));
            let (to, sent) = self.expected.remove(&number).expect("delivered once");
            assert_eq!((to, &sent[..]), (Some(n), packet), "delivered as it was sent, to whom it was sent");
            node.delivered.push(number);
        }
        self.pump(n);
    }

    /// Mutate, drain, mutate.
    fn pump(&mut self, n: usize) {
        let now = self.now_at(n);
        loop {
            let node = &mut self.nodes[n];
            if let Some((datagram, waiting)) = node.forward.pop_handshake() {
                node.tunnel.handle_handshake(datagram, waiting + node.backlog, now);
            } else if let Some((peer, raised)) = node.forward.pop_raised() {
                node.tunnel.handle_raised(&peer, raised, now);
            } else if node.tunnel.deadline().is_some_and(|at| at <= now.boot)
                || node.tunnel.wall_deadline().is_some_and(|at| at <= now.wall)
            {
                node.tunnel.expire(now);
            } else {
                break;
            }
            self.drain(n);
        }
        self.drain(n);
    }

    fn drain(&mut self, n: usize) {
        while let Some(Transmit { to, outer, datagram, .. }) = self.nodes[n].tunnel.poll_transmit() {
            self.emit(n, to, outer.ecn, datagram.to_vec());
            let data = self.log.last().is_some_and(Sent::is_data);
            if let Some((from, to)) = self.busy.take_if(|&mut (from, _)| from == n && data) {
                self.meanwhile = Some(self.enters(from, inner(from), inner(to), Some(to)));
            }
        }
        let node = &mut self.nodes[n];
        node.events.extend(std::iter::from_fn(|| node.tunnel.poll_event()));
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Time> {
        let flight = self.flights.keys().next().map(|&(at, _)| at);
        let deadlines = self.nodes.iter().filter_map(|node| node.tunnel.deadline());
        let by_the_wall = (0..self.nodes.len()).filter_map(|n| self.wall_deadline(n));
        deadlines.chain(by_the_wall).chain(flight).min()
    }

    /// When a node's wall clock, going on as it does now, comes to what it waits for.
    fn wall_deadline(&self, n: usize) -> Option<Time> {
        let wait = self.nodes[n].tunnel.wall_deadline()?.saturating_sub(self.now_at(n).wall);
        Some(self.now + wait)
    }

    /// Sets a node's wall clock, by so many seconds; it is told, as a daemon is by the kernel.
    pub fn set_clock(&mut self, n: usize, by: i64) {
        self.nodes[n].clock_error += by;
        let now = self.now_at(n);
        self.nodes[n].tunnel.expire(now);
        self.pump(n);
    }

    /// Lets everything happen up to that moment, itself included.
    pub fn run_until(&mut self, end: Time) {
        assert!(end >= self.now, "time goes on");
        while let Some(next) = self.next().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            while let Some(flight) = self.flights.first_entry().filter(|flight| flight.key().0 <= self.now) {
                let flight = flight.remove();
                self.arrival(flight);
            }
            for n in 0..self.nodes.len() {
                self.pump(n);
            }
        }
        self.now = end;
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Something happens in a case of so many in a thousand.
    fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.rng.next_u32() % 1000 < of_thousand
    }

    /// What `a` knows of `b`.
    pub fn status(&self, a: usize, b: usize) -> PeerStatus {
        let key = self.nodes[b].public_key();
        let status = self.nodes[a].tunnel.status(self.now_at(a));
        status.peers.into_iter().find(|peer| peer.public_key == key).expect("a peer")
    }

    pub fn sent_by(&self, n: usize) -> impl Iterator<Item = &Sent> {
        self.log.iter().filter(move |sent| sent.by == n)
    }

    /// All messages of one kind that a node sent.
    pub fn of_kind(&self, n: usize, kind: Kind) -> Vec<Sent> {
        self.sent_by(n).filter(|sent| sent.kind() == kind).cloned().collect()
    }

    pub fn initiations(&self, n: usize) -> usize {
        self.of_kind(n, Kind::Initiation).len()
    }

    /// The session at `at` that `index` names, and whose it is.
    pub fn session(&self, at: usize, index: Index) -> Option<(Arc<Session>, Arc<Peer>)> {
        self.nodes[at].forward.sessions.find(index)
    }

    /// `b` as the data threads of `a` know it.
    pub fn peer(&self, a: usize, b: usize) -> Arc<Peer> {
        let routes = self.nodes[a].forward.routes.load();
        routes.find(IpAddr::V4(inner(b))).expect("a route").0.clone()
    }

    /// The session that `a` seals with for `b`.
    pub fn current(&self, a: usize, b: usize) -> Arc<Session> {
        self.peer(a, b).current().expect("a current session")
    }

    pub fn has_event(&self, n: usize, is: impl Fn(&Event) -> bool) -> bool {
        self.nodes[n].events.iter().any(is)
    }

    pub fn forget_log(&mut self) {
        self.log.clear();
        for node in &mut self.nodes {
            node.events.clear();
        }
    }
}

/// An IPv4 packet of 84 bytes, as ping sends it, with a number in it.
pub fn ping(source: Ipv4Addr, destination: Ipv4Addr, number: u64) -> Vec<u8> {
    let mut packet = vec![0; 84];
    packet[0] = 0x45;
    packet[3] = 84;
    packet[8] = 64;
    packet[9] = 253; // for experiments (RFC 3692)
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let checksum = vpnd::wire::checksum::Sum::of(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&checksum);
    packet[20..28].copy_from_slice(&number.to_be_bytes());
    packet
}
