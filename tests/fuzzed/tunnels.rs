//! Tunnels under virtual time, with a network and an operator that do what a fuzzer wants: lose, delay, double, bend,
//! reorder, send from elsewhere, replay; change keys, prefixes and moments, restart, set clocks. What must and what may
//! become of it says the reference, which knows who was told what, and who wrote which datagram.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::Ipv4Net;
use vpnd::{
    forward::{Time, session::REJECT_AFTER_TIME},
    noise::{PublicKey, Tai64n},
    tunnel::{Change, PeerChange, PeerStatus},
    wire::message::Kind,
};

use crate::{
    dice::Dice,
    reference::{Known, Told},
    world::{DELAY, World, before, inner, key, millis, secs},
};

const NODES: usize = 3;
/// Things that happen in one scene.
const MOST: usize = 80;
/// Addresses that packets bear: those of the nodes, and two more.
const ADDRESSES: [Ipv4Addr; 5] = [
    Ipv4Addr::new(10, 0, 0, 0),
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(10, 0, 0, 2),
    Ipv4Addr::new(10, 0, 0, 77),
    Ipv4Addr::new(203, 0, 113, 5),
];
/// Within each other, and the nodes' own.
const PREFIXES: [(Ipv4Addr, u8); 7] = [
    (ADDRESSES[0], 32),
    (ADDRESSES[1], 32),
    (ADDRESSES[2], 32),
    (ADDRESSES[0], 31),
    (ADDRESSES[0], 30),
    (ADDRESSES[0], 24),
    (Ipv4Addr::UNSPECIFIED, 0),
];

/// Who wrote a datagram, and what it had in common with whom then.
struct Author {
    node: usize,
    key: PublicKey,
    at: Time,
    kind: Kind,
    /// Its preshared key with each of its peers.
    psks: HashMap<PublicKey, u8>,
}

pub struct Scene {
    world: World,
    told: Vec<Told>,
    /// Of each datagram in the world's log.
    authors: Vec<Author>,
    /// Those that are still on their way.
    pending: Vec<usize>,
    /// Data that a node took, by its place in the log.
    taken: HashSet<(usize, usize)>,
    /// The latest initiation of a peer that a node answered, by its place in the log.
    answered: HashMap<(usize, PublicKey), usize>,
    /// Inner packets, by number: who sent it, and with which source.
    packets: HashMap<u64, (usize, Ipv4Addr)>,
    /// The newest timestamp of each node's processes.
    newest: [Tai64n; NODES],
    /// Keys and places that were never used before.
    fresh: usize,
}

/// One scene, and then: both ends of each pair talk again, nothing is lost any more, and in the end all is silent.
pub fn check_scene(dice: &mut Dice<'_>) {
    let mut scene = Scene::new(dice.below(256) as u64);
    for _ in 0..MOST {
        if dice.is_over() {
            break;
        }
        scene.happen(dice);
    }
    scene.heal(dice);
    scene.recover();
    scene.fall_silent();
}

pub fn check_bytes(bytes: &[u8]) {
    check_scene(&mut Dice::Bytes(bytes));
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut scene = Self {
            world: World::of(NODES, seed),
            told: vec![Told::default(); NODES],
            authors: Vec::new(),
            pending: Vec::new(),
            taken: HashSet::new(),
            answered: HashMap::new(),
            packets: HashMap::new(),
            newest: [Tai64n::default(); NODES],
            fresh: NODES,
        };
        // Whatever leaves a node is ours to deliver.
        scene.world.network.cut = true;
        for node in 0..NODES {
            for other in (0..NODES).filter(|&other| other != node) {
                let known = scene.plain(other);
                scene.told[node].0.insert(key(other).public_key(), known);
            }
            scene.check_told(node);
        }
        scene
    }

    /// What all are told of a node in good times.
    fn plain(&self, node: usize) -> Known {
        let prefixes = [Ipv4Net::from(inner(node))].into();
        Known { prefixes, endpoint: Some(self.world.nodes[node].address), ..Known::default() }
    }

    fn key(&self, node: usize) -> PublicKey {
        self.world.nodes[node].public_key()
    }

    fn wall(&self, node: usize) -> Duration {
        self.world.now_at(node).wall
    }

    fn peers(&self, node: usize) -> Vec<PeerStatus> {
        self.world.nodes[node].tunnel.status(self.world.now_at(node)).peers
    }

    fn check_told(&self, node: usize) {
        self.told[node].check(&self.peers(node));
    }

    /// A place where nobody was before.
    fn new_place(&mut self) -> SocketAddr {
        self.fresh += 1;
        ([198, 51, 100, (self.fresh % 250) as u8], 1000 + self.fresh as u16).into()
    }

    // ── what happens ──

    fn happen(&mut self, dice: &mut Dice<'_>) {
        match dice.below(24) {
            0..=4 => self.send(dice),
            5..=9 => self.deliver(dice),
            10 => self.calm(millis(dice.pick(&[20, 20, 100, 400]))),
            11..=12 => self.pass(dice),
            13 => self.lose(dice),
            14 => self.bend(dice),
            15..=16 => self.replay(dice),
            17..=20 => self.operate(dice),
            21 => {
                let node = dice.below(NODES);
                self.world.nodes[node].address = self.new_place();
            }
            22 => self.restart(dice.below(NODES)),
            _ => self.disturb(dice),
        }
    }

    /// A packet enters a TUN, with an honest source most of the time.
    fn send(&mut self, dice: &mut Dice<'_>) {
        let from = dice.below(NODES);
        let source = if dice.one_in(4) { dice.pick(&ADDRESSES) } else { inner(from) };
        let destination = dice.pick(&ADDRESSES);
        let to = self.told[from].owner(destination).and_then(|owner| self.node_of(&owner));
        let number = self.world.send_between(from, source, destination, to);
        self.packets.insert(number, (from, source));
        self.collect(None);
    }

    fn node_of(&self, owner: &PublicKey) -> Option<usize> {
        (0..NODES).find(|&node| self.key(node) == *owner)
    }

    /// One of those that are on their way arrives; maybe twice, or from elsewhere.
    fn deliver(&mut self, dice: &mut Dice<'_>) {
        if self.pending.is_empty() {
            return;
        }
        let letter = self.pending.remove(dice.below(self.pending.len().min(8)));
        let from = match dice.one_in(8) {
            true => self.new_place(),
            false => self.world.log[letter].from,
        };
        for _ in 0..1 + usize::from(dice.one_in(8)) {
            self.arrives(letter, from);
        }
    }

    fn lose(&mut self, dice: &mut Dice<'_>) {
        match dice.below(3) {
            0 => self.pending.clear(),
            _ if self.pending.is_empty() => {}
            _ => _ = self.pending.remove(dice.below(self.pending.len())),
        }
    }

    /// One that was sent at any time, at any node, from any place.
    fn replay(&mut self, dice: &mut Dice<'_>) {
        if self.world.log.is_empty() {
            return;
        }
        let letter = dice.below(self.world.log.len());
        let from = match dice.below(3) {
            0 => self.new_place(),
            _ => self.world.log[letter].from,
        };
        let to = dice.below(NODES + 1);
        match to < NODES {
            true => self.arrives_at(letter, from, to),
            false => self.arrives(letter, from),
        }
    }

    /// One with some of its bytes altered, or cut, or longer: nothing changes anywhere, and nobody answers.
    fn bend(&mut self, dice: &mut Dice<'_>) {
        if self.world.log.is_empty() {
            return;
        }
        let latest = self.world.log.len().saturating_sub(16);
        let letter = dice.within(latest..=self.world.log.len() - 1);
        let mut bytes = self.world.log[letter].bytes.clone();
        // mac2 proves nothing but while there is load.
        let proven = if matches!(bytes.len(), 148 | 92) { bytes.len() - 16 } else { bytes.len() };
        match dice.below(4) {
            0 => bytes.truncate(dice.below(bytes.len())),
            1 => bytes.extend([0; 16]),
            _ => {
                let at = dice.below(proven);
                bytes[at] ^= dice.within(1..=255) as u8;
            }
        }
        let (from, to) = (self.new_place(), dice.below(NODES));
        let see = |scene: &Self| format!("{:?}", scene.peers(to));
        let (known, sent) = (see(self), self.world.log.len());
        let delivered = self.world.nodes[to].delivered.len();
        self.world.arrive(from, to, &bytes);
        assert_eq!(see(self), known, "nothing unauthentic changes a peer: {bytes:02x?}");
        assert_eq!(self.world.log.len(), sent, "nothing unauthentic is answered: {bytes:02x?}");
        assert_eq!(self.world.nodes[to].delivered.len(), delivered);
    }

    fn pass(&mut self, dice: &mut Dice<'_>) {
        let time = dice.pick(&[1, 20, 330, 5_000, 5_400, 10_000, 15_400, 60_000, 120_000, 180_000, 540_000]);
        self.world.run(millis(time) + Duration::from_micros(dice.below(1000) as u64));
        self.collect(None);
    }

    /// An operator changes something at a node.
    fn operate(&mut self, dice: &mut Dice<'_>) {
        let node = dice.below(NODES);
        let known: Vec<PublicKey> = self.told[node].0.keys().copied().collect();
        let what = dice.below(12);
        if what == 0 || known.is_empty() {
            return self.add(node, dice);
        }
        let peer = dice.pick(&known);
        let mut change = PeerChange::new(peer);
        match what {
            1 => return self.take_away(node, peer),
            2 => return self.change_key(node),
            3..=5 => self.change_prefixes(node, peer, &mut change, dice),
            6..=7 => {
                let psk = dice.below(2) as u8;
                self.told[node].0.get_mut(&peer).expect("known").psk = psk;
                change.preshared_key = Some(vpnd::noise::PresharedKey::new([psk; 32]));
            }
            8 => {
                let wall = self.wall(node);
                let expires =
                    dice.pick(&[None, None, Some(wall), Some(wall + secs(1)), Some(wall + secs(100))]);
                self.told[node].0.get_mut(&peer).expect("known").expires = expires;
                change.expires = self.told[node].change(&peer).expires;
            }
            9..=10 => {
                let known = self.node_of(&peer).map(|other| self.world.nodes[other].address);
                let place = known.filter(|_| !dice.one_in(4)).unwrap_or_else(|| self.new_place());
                self.told[node].0.get_mut(&peer).expect("known").endpoint = Some(place);
                change.endpoint = Some(place);
            }
            _ => {
                let seconds = dice.pick(&[0, 1, 25]);
                self.told[node].0.get_mut(&peer).expect("known").keepalive = seconds;
                change.persistent_keepalive = Some(seconds);
            }
        }
        let place = change.endpoint;
        self.apply(node, Change::Peer(change));
        if place.is_some() {
            let peers = self.peers(node);
            let found = peers.iter().find(|status| status.public_key == peer).expect("known");
            assert_eq!(found.endpoint, place, "it is where the operator says");
        }
    }

    fn change_prefixes(
        &mut self,
        node: usize,
        peer: PublicKey,
        change: &mut PeerChange,
        dice: &mut Dice<'_>,
    ) {
        use vpnd::tunnel::AllowedIpOp::{Add, Remove};
        if dice.one_in(6) {
            change.replace_allowed_ips = true;
            self.told[node].0.get_mut(&peer).expect("known").prefixes.clear();
        }
        for _ in 0..dice.within(1..=2) {
            let (address, length) = dice.pick(&PREFIXES);
            let prefix = Ipv4Net::new(address, length).expect("a length of IPv4");
            if dice.one_in(3) {
                self.told[node].0.get_mut(&peer).expect("known").prefixes.remove(&prefix);
                change.allowed_ips.push(Remove(prefix.into()));
            } else {
                self.told[node].give(prefix, &peer);
                change.allowed_ips.push(Add(prefix.into()));
            }
        }
    }

    /// A node learns of another by its key of today.
    fn add(&mut self, node: usize, dice: &mut Dice<'_>) {
        let other = (node + dice.within(1..=NODES - 1)) % NODES;
        let peer = self.key(other);
        if self.told[node].0.contains_key(&peer) {
            return;
        }
        let known = self.plain(other);
        self.told[node].0.insert(peer, Known { prefixes: [].into(), ..known.clone() });
        for prefix in known.prefixes {
            self.told[node].give(prefix, &peer);
        }
        let change = self.told[node].change(&peer);
        self.apply(node, Change::Peer(change));
    }

    fn take_away(&mut self, node: usize, peer: PublicKey) {
        self.told[node].0.remove(&peer);
        // Made again, it is another peer, of whom nothing is known.
        self.answered.remove(&(node, peer));
        let mut change = PeerChange::new(peer);
        change.remove = true;
        self.apply(node, Change::Peer(change));
    }

    /// A node gets another private key. Who knows it by the old one knows nobody any more.
    fn change_key(&mut self, node: usize) {
        self.fresh += 1;
        self.world.nodes[node].private_key = key(self.fresh);
        let private_key = self.world.nodes[node].private_key.clone();
        self.apply(node, Change::PrivateKey(Some(private_key)));
    }

    fn apply(&mut self, node: usize, change: Change) {
        self.world.apply(node, change);
        self.collect(None);
        self.check_told(node);
    }

    /// The process of a node dies; the next one reads the same file, and what a daemon keeps.
    fn restart(&mut self, node: usize) {
        let tunnel = &self.world.nodes[node].tunnel;
        self.newest[node] = self.newest[node].max(tunnel.newest_timestamp());
        let kept: Vec<_> = self
            .peers(node)
            .iter()
            .map(|peer| (peer.public_key, tunnel.remembered(&peer.public_key), peer.session_age.is_some()))
            .collect();
        self.world.replace(node);
        self.world.nodes[node].tunnel.never_before(self.newest[node]);
        for (peer, known, live) in kept {
            let change = self.told[node].change(&peer);
            self.world.apply(node, Change::Peer(change));
            match known {
                Some(known) => {
                    let call = live.then_some(self.world.now);
                    assert!(self.world.nodes[node].tunnel.resume(&peer, known, call));
                }
                None => _ = self.answered.remove(&(node, peer)),
            }
        }
        self.world.run(Duration::ZERO); // whoever is to be called is called now
        self.collect(None);
        self.check_told(node);
    }

    fn disturb(&mut self, dice: &mut Dice<'_>) {
        let node = dice.below(NODES);
        match dice.below(2) {
            0 => self.world.nodes[node].backlog = dice.pick(&[0, 600]),
            _ => {
                let by = dice.pick(&[1, -1, 60, -60, 86_400, -86_400]);
                self.world.set_clock(node, by);
            }
        }
        self.collect(None);
    }

    // ── what becomes of it ──

    /// A datagram arrives where it was sent to, if anybody is there.
    fn arrives(&mut self, letter: usize, from: SocketAddr) {
        let to = self.world.log[letter].to;
        if let Some(node) = self.world.nodes.iter().position(|node| node.address == to) {
            self.arrives_at(letter, from, node);
        }
    }

    fn arrives_at(&mut self, letter: usize, from: SocketAddr, to: usize) {
        let known = self.peers(to);
        let delivered = self.world.nodes[to].delivered.len();
        let sent = self.world.log.len();
        let bytes = self.world.log[letter].bytes.clone();
        self.world.arrive(from, to, &bytes);
        self.collect(Some(from));
        for (was, is) in known.iter().zip(&self.peers(to)) {
            self.check_peer(letter, from, to, was, is);
        }
        let mut answers = self.authors[sent..].iter().map(|answer| answer.kind);
        if self.authors[letter].kind == Kind::Initiation && answers.any(|kind| kind == Kind::Response) {
            self.check_answered(letter, to);
        }
        let numbers = self.world.nodes[to].delivered[delivered..].to_vec();
        assert!(numbers.len() <= 1, "one datagram, one packet");
        for number in numbers {
            self.check_delivered(letter, to, number);
        }
    }

    /// Only its author is changed by a datagram, and only by one that is new; he then is where it came from.
    fn check_peer(&mut self, letter: usize, from: SocketAddr, to: usize, was: &PeerStatus, is: &PeerStatus) {
        let author = &self.authors[letter];
        let facts = |peer: &PeerStatus| (peer.endpoint, peer.rx_bytes, peer.rx_packets, peer.last_handshake);
        if facts(was) == facts(is) {
            return;
        }
        assert_eq!(is.public_key, author.key, "a datagram of somebody else changed it");
        assert_ne!(author.node, to, "its own datagram came back and was taken");
        assert_eq!(is.endpoint, Some(from), "it is where its datagram came from");
        assert!(!self.told[to].has_expired(&author.key, self.wall(to)), "its time was over");
        if author.kind == Kind::Transport {
            assert!(
                author.at > before(self.world.now, REJECT_AFTER_TIME),
                "sealed with a session that is dead"
            );
            assert!(self.taken.insert((to, letter)), "taken twice");
        }
    }

    /// An initiation is answered if none that was sent after it, or itself, was answered before.
    fn check_answered(&mut self, letter: usize, to: usize) {
        let author = &self.authors[letter];
        assert!(self.told[to].0.contains_key(&author.key), "who is no peer is not answered");
        let before = self.answered.insert((to, author.key), letter);
        assert!(before.is_none_or(|before| before < letter), "an old initiation was answered");
    }

    /// A packet comes out where its source belongs to who sealed it, and both have the same preshared key.
    fn check_delivered(&self, letter: usize, to: usize, number: u64) {
        let (author, (from, source)) = (&self.authors[letter], self.packets[&number]);
        assert_eq!(author.node, from, "sealed by who sent it");
        assert_eq!(self.told[to].owner(source), Some(author.key), "{source} is not of that peer");
        let psk = author.psks.get(&self.key(to));
        assert_eq!(psk, Some(&self.told[to].0[&author.key].psk), "sealed under a preshared key that is gone");
    }

    /// Notes who wrote what is new in the log. It went to where some peer is, or back to where a question came from.
    fn collect(&mut self, question: Option<SocketAddr>) {
        for letter in self.authors.len()..self.world.log.len() {
            let sent = &self.world.log[letter];
            let (node, kind) = (sent.by, sent.kind());
            if kind == Kind::CookieReply {
                assert_eq!(Some(sent.to), question, "a cookie goes to who asked");
            }
            let psks = self.told[node].0.iter().map(|(key, known)| (*key, known.psk)).collect();
            self.authors.push(Author { node, key: self.key(node), at: sent.at, kind, psks });
            self.pending.push(letter);
        }
    }

    // ── and in the end ──

    /// Everything that is sent arrives, in order and soon.
    fn calm(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end || !self.pending.is_empty() {
            let letters = std::mem::take(&mut self.pending);
            let next = match letters.is_empty() {
                true => self.world.next().map_or(end, |next| next.min(end)),
                false => self.world.now + DELAY,
            };
            self.world.run_until(next.max(self.world.now));
            self.collect(None);
            for letter in letters {
                let from = self.world.log[letter].from;
                self.arrives(letter, from);
            }
        }
    }

    /// All are told the same of each other, as it is; no load. Sessions and handshakes stay as they are.
    fn heal(&mut self, dice: &mut Dice<'_>) {
        if dice.one_in(2) {
            self.pending.clear();
        }
        for node in 0..NODES {
            self.world.nodes[node].backlog = 0;
            let strangers: Vec<_> =
                self.told[node].0.keys().copied().filter(|key| self.node_of(key).is_none()).collect();
            for stranger in strangers {
                self.take_away(node, stranger);
            }
            for other in (0..NODES).filter(|&other| other != node) {
                let (peer, known) = (self.key(other), self.plain(other));
                let own = known.prefixes.clone();
                self.told[node].0.insert(peer, known);
                own.into_iter().for_each(|prefix| self.told[node].give(prefix, &peer));
                let mut change = self.told[node].change(&peer);
                change.replace_allowed_ips = true;
                self.world.apply(node, Change::Peer(change));
            }
            self.collect(None);
            self.check_told(node);
        }
    }

    fn pairs() -> impl Iterator<Item = (usize, usize)> {
        (0..NODES).flat_map(|from| (0..NODES).filter(move |&to| to != from).map(move |to| (from, to)))
    }

    fn send_to(&mut self, from: usize, to: usize) -> u64 {
        let number = self.world.send(from, to);
        self.packets.insert(number, (from, inner(from)));
        self.collect(None);
        number
    }

    fn has_come(&self, number: u64, to: usize) -> bool {
        self.world.nodes[to].delivered.contains(&number)
    }

    /// Each pair talks within 10 s, both ways; from then on nothing is lost.
    fn recover(&mut self) {
        let (healed, mut sent) = (self.world.now, Vec::new());
        loop {
            sent.extend(Self::pairs().map(|(from, to)| (from, to, self.send_to(from, to))));
            self.calm(millis(100));
            let talks = |pair: (usize, usize)| {
                sent.iter().any(|&(from, to, number)| (from, to) == pair && self.has_come(number, to))
            };
            if Self::pairs().all(talks) {
                break;
            }
            assert!(self.world.now < healed + secs(10), "each pair talks again within 10 s");
        }
        for (from, to) in Self::pairs() {
            let number = self.send_to(from, to);
            self.calm(2 * DELAY);
            assert!(self.has_come(number, to), "in good times nothing is lost");
        }
    }

    fn fall_silent(&mut self) {
        self.calm(secs(60));
        let sent = self.world.log.len();
        self.calm(secs(3600));
        assert_eq!(self.world.log.len(), sent, "who has nothing to say is silent");
        assert_eq!(self.world.next(), None, "and has nothing to do");
    }
}
