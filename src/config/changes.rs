//! A file as changes of a tunnel: of a fresh one, or of one that runs; and what the difference is, in words.

use std::collections::{HashMap, HashSet};
use std::{fmt, time::Duration};

use ipnet::IpNet;

use super::{Config, EndpointName, Interface, Peer, date, words};
use crate::{
    noise::{PresharedKey, PrivateKey, PublicKey},
    tunnel::{AllowedIpOp, Change, Expires, PeerChange, PeerStatus, Status},
};

impl Config {
    /// What makes a fresh tunnel this one. Names of endpoints are left to the resolver.
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.peers.len() + 3);
        changes.push(Change::PrivateKey(Some(self.interface.private_key.clone())));
        changes.extend(self.interface.listen_port.map(Change::ListenPort));
        changes.extend(self.interface.fwmark.map(Change::Fwmark));
        changes.extend(self.peers.iter().map(|peer| Change::Peer(whole(peer))));
        changes
    }
}

/// The endpoint names that are followed.
pub type Followed = HashMap<PublicKey, EndpointName>;

/// Those that these peers have.
pub fn followed(peers: &[Peer]) -> Followed {
    let named = peers.iter().filter_map(|peer| match &peer.endpoint {
        Some(name @ EndpointName::Name { .. }) => Some((peer.public_key, name.clone())),
        _ => None,
    });
    named.collect()
}

/// What runs, as far as the tunnel and the resolver know it.
#[derive(Clone, Copy)]
pub struct Running<'a> {
    /// The tunnel.
    pub status: &'a Status,
    /// Whose endpoint is a name.
    pub followed: &'a Followed,
}

/// The private key that is to be.
#[derive(Clone, Copy)]
pub enum Own<'a> {
    /// This one, or none.
    Key(Option<&'a PrivateKey>),
    /// The one of this public key.
    Of(PublicKey),
}

/// A file without its secrets, to compare with what runs. What stands for a preshared key is its fingerprint.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// With a private key that is none.
    pub interface: Interface,
    public_key: PublicKey,
    peers: Vec<Peer>,
}

impl From<Config> for Baseline {
    fn from(config: Config) -> Self {
        let Config { mut interface, mut peers } = config;
        let public_key = interface.private_key.public_key();
        interface.private_key = PrivateKey::new([0; 32]);
        for key in peers.iter_mut().filter_map(|peer| peer.preshared_key.as_mut()) {
            *key = PresharedKey::new(key.fingerprint());
        }
        Self { interface, public_key, peers }
    }
}

impl Baseline {
    /// What was changed since, by hand.
    pub fn difference<'a>(&'a self, running: Running<'a>) -> Difference<'a> {
        Difference::new(running, Own::Of(self.public_key), &self.peers, PresharedKey::fingerprint_of)
    }
}

/// What runs, and how a file (or what ran before) would have it. Touches nothing that is the same: a peer that stays
/// keeps its sessions, and one that roamed stays where it is.
pub struct Difference<'a> {
    own: Option<Option<PrivateKey>>,
    now: Option<PublicKey>,
    own_to: Option<PublicKey>,
    removed: Vec<&'a PeerStatus>,
    added: Vec<&'a Peer>,
    altered: Vec<Altered<'a>>,
}

/// A peer that stays, and in what it is another.
struct Altered<'a> {
    now: &'a PeerStatus,
    to: &'a Peer,
    endpoint_now: Option<EndpointName>,
    name: bool,
    preshared: bool,
    endpoint: bool,
    keepalive: bool,
    expires: bool,
    removed: Vec<IpNet>,
    added: Vec<IpNet>,
}

/// A preshared key as the wanted peers have it.
type Form = fn(&PresharedKey) -> PresharedKey;

impl<'a> Difference<'a> {
    /// From what runs to this private key and these peers, no two of which have a key or a prefix in common.
    pub fn towards(running: Running<'a>, own: Own<'a>, peers: &'a [Peer]) -> Self {
        Self::new(running, own, peers, PresharedKey::clone)
    }

    fn new(running: Running<'a>, own: Own<'a>, peers: &'a [Peer], form: Form) -> Self {
        let status = running.status;
        let own_to = match own {
            Own::Key(key) => key.map(PrivateKey::public_key),
            Own::Of(key) => Some(key),
        };
        let own = match own {
            Own::Key(key) if status.private_key.as_ref() != key => Some(key.cloned()),
            _ => None,
        };
        let wanted: HashSet<PublicKey> = peers.iter().map(|peer| peer.public_key).collect();
        let before: HashMap<PublicKey, &PeerStatus> =
            status.peers.iter().map(|peer| (peer.public_key, peer)).collect();
        let (stay, added): (Vec<_>, Vec<_>) =
            peers.iter().partition(|peer| before.contains_key(&peer.public_key));
        let altered = stay.into_iter().filter_map(|peer| {
            let altered = Altered::new(before[&peer.public_key], peer, running.followed, form);
            altered.is_any().then_some(altered)
        });
        let removed = status.peers.iter().filter(|peer| !wanted.contains(&peer.public_key));
        Self {
            own,
            now: status.public_key,
            own_to,
            removed: removed.collect(),
            added,
            altered: altered.collect(),
        }
    }

    /// Is all the same?
    pub fn is_none(&self) -> bool {
        self.now == self.own_to && self.removed.is_empty() && self.added.is_empty() && self.altered.is_empty()
    }

    /// What is to be done. What is taken away goes first, so that in whichever order the peers stand, no prefix passes
    /// from one to another: it is free, and then it is given.
    pub fn changes(&self) -> Vec<Change> {
        // First of all: a peer may take the key that was ours, and the tunnel refuses our own key as a peer.
        let own = self.own.iter().cloned().map(Change::PrivateKey);
        // A peer whose key is ours now goes with that change.
        let gone = self.removed.iter().filter(|peer| Some(peer.public_key) != self.own_to);
        let gone = gone.map(|peer| PeerChange { remove: true, ..PeerChange::new(peer.public_key) });
        let taken = self.altered.iter().filter_map(Altered::taken);
        let altered = self.altered.iter().filter_map(Altered::given);
        let added = self.added.iter().map(|peer| whole(peer));
        own.chain(gone.chain(taken).chain(altered).chain(added).map(Change::Peer)).collect()
    }

    /// A line for each thing that becomes another: from what runs to what is wanted.
    pub fn applied(&self) -> Vec<String> {
        self.lines(true)
    }

    /// The same the other way round: from what is wanted to what runs.
    pub fn differs(&self) -> Vec<String> {
        self.lines(false)
    }

    fn lines(&self, applied: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if self.now != self.own_to {
            let becomes = if applied { self.own_to } else { self.now };
            lines.push(match becomes {
                Some(key) => format!("private_key: another one; the public key is {key}"),
                None => "private_key: taken away".to_owned(),
            });
        }
        let (gone, new) = if applied { ("removed", "added") } else { ("added", "removed") };
        lines.extend(self.removed.iter().map(|peer| format!("peer {}: {gone}", peer.label)));
        lines.extend(self.added.iter().map(|peer| format!("peer {}: {new}", peer.label())));
        for altered in &self.altered {
            let name = if applied { altered.to.label() } else { altered.now.label.clone() };
            lines.extend(altered.words(applied).into_iter().map(|what| format!("peer {name}: {what}")));
        }
        lines
    }
}

impl<'a> Altered<'a> {
    fn new(now: &'a PeerStatus, to: &'a Peer, followed: &Followed, form: Form) -> Self {
        let set = || now.set_endpoint.map(EndpointName::Address);
        let endpoint_now = followed.get(&now.public_key).cloned().or_else(set);
        let (removed, added) = prefixes(&now.allowed_ips, &to.allowed_ips);
        Self {
            name: now.label != to.label(),
            preshared: now.preshared_key.as_ref().map(form) != to.preshared_key,
            endpoint: endpoint_now.as_ref().map(canonical) != to.endpoint.as_ref().map(canonical),
            keepalive: now.persistent_keepalive != to.persistent_keepalive,
            expires: now.expires != to.expires,
            endpoint_now,
            removed,
            added,
            now,
            to,
        }
    }

    fn is_any(&self) -> bool {
        self.name
            || self.preshared
            || self.endpoint
            || self.keepalive
            || self.expires
            || !(self.removed.is_empty() && self.added.is_empty())
    }

    /// The prefixes that it has to give up.
    fn taken(&self) -> Option<PeerChange> {
        let allowed_ips: Vec<_> = self.removed.iter().copied().map(AllowedIpOp::Remove).collect();
        (!allowed_ips.is_empty()).then(|| PeerChange { allowed_ips, ..self.change() })
    }

    /// All else. A name of an endpoint is the resolver's.
    fn given(&self) -> Option<PeerChange> {
        let preshared = || self.to.preshared_key.clone().unwrap_or_default();
        let change = PeerChange {
            name: self.name.then(|| self.to.name.clone().unwrap_or_default()),
            preshared_key: self.preshared.then(preshared),
            endpoint: literal(self.to).filter(|_| self.endpoint),
            forget_endpoint: self.endpoint && self.to.endpoint.is_none(),
            persistent_keepalive: self.keepalive.then_some(self.to.persistent_keepalive),
            expires: self.expires.then(|| self.to.expires.map_or(Expires::Never, Expires::At)),
            allowed_ips: self.added.iter().copied().map(AllowedIpOp::Add).collect(),
            ..self.change()
        };
        let alters = self.name
            || self.preshared
            || change.endpoint.is_some()
            || change.forget_endpoint
            || self.keepalive
            || self.expires
            || !change.allowed_ips.is_empty();
        alters.then_some(change)
    }

    fn change(&self) -> PeerChange {
        PeerChange { update_only: true, ..PeerChange::new(self.to.public_key) }
    }

    fn words(&self, applied: bool) -> Vec<String> {
        let way = |now: String, to: String| words::from_to(now, to, applied);
        let mut words = Vec::new();
        if self.name {
            let former = if applied { self.now.label.clone() } else { self.to.label() };
            words.push(format!("was called {former}"));
        }
        if self.preshared {
            let [now, to] = [self.now.preshared_key.is_some(), self.to.preshared_key.is_some()];
            let (before, after) = if applied { (now, to) } else { (to, now) };
            let what = match (before, after) {
                (_, false) => "taken away",
                (false, true) => "set",
                (true, true) => "another one",
            };
            words.push(format!("preshared_key {what}"));
        }
        if self.endpoint {
            let text =
                |endpoint: Option<&EndpointName>| endpoint.map_or("none".to_owned(), EndpointName::to_string);
            words.push(format!(
                "endpoint {}",
                way(text(self.endpoint_now.as_ref()), text(self.to.endpoint.as_ref()))
            ));
        }
        if self.keepalive {
            let text = |seconds: u16| if seconds == 0 { "off".to_owned() } else { seconds.to_string() };
            let (now, to) = (self.now.persistent_keepalive, self.to.persistent_keepalive);
            words.push(format!("persistent_keepalive {}", way(text(now), text(to))));
        }
        if self.expires {
            let text = |moment: Option<Duration>| moment.map_or("never".to_owned(), date::shown);
            words.push(format!("expires {}", way(text(self.now.expires), text(self.to.expires))));
        }
        if !(self.removed.is_empty() && self.added.is_empty()) {
            let (plus, minus) =
                if applied { (&self.added, &self.removed) } else { (&self.removed, &self.added) };
            words.push(format!("allowed_ips {}", words::plus_minus(plus, minus)));
        }
        words
    }
}

impl fmt::Display for EndpointName {
    /// As the file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// The tunnel knows an IPv4 address by no other form.
fn canonical(endpoint: &EndpointName) -> EndpointName {
    match endpoint {
        EndpointName::Address(address) if address.ip().to_canonical().is_ipv4() => {
            EndpointName::Address((address.ip().to_canonical(), address.port()).into())
        }
        other => other.clone(),
    }
}

/// A peer from nothing.
fn whole(peer: &Peer) -> PeerChange {
    PeerChange {
        name: peer.name.clone(),
        preshared_key: peer.preshared_key.clone(),
        endpoint: literal(peer),
        persistent_keepalive: (peer.persistent_keepalive != 0).then_some(peer.persistent_keepalive),
        expires: peer.expires.map(Expires::At),
        replace_allowed_ips: true,
        allowed_ips: peer.allowed_ips.iter().copied().map(AllowedIpOp::Add).collect(),
        ..PeerChange::new(peer.public_key)
    }
}

/// What goes, and what comes.
fn prefixes(now: &[IpNet], to: &[IpNet]) -> (Vec<IpNet>, Vec<IpNet>) {
    if now == to {
        return (Vec::new(), Vec::new());
    }
    let (before, after): (HashSet<_>, HashSet<_>) = (now.iter().collect(), to.iter().collect());
    let removed = now.iter().filter(|prefix| !after.contains(prefix)).copied().collect();
    (removed, to.iter().filter(|prefix| !before.contains(prefix)).copied().collect())
}

fn literal(peer: &Peer) -> Option<std::net::SocketAddr> {
    match peer.endpoint {
        Some(EndpointName::Address(address)) => Some(address),
        Some(EndpointName::Name { .. }) | None => None,
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
