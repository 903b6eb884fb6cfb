//! A file as changes of a tunnel: of a fresh one, or of one that runs by an older file.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::{Config, EndpointName, Peer};
use crate::{
    noise::{PresharedKey, PublicKey},
    tunnel::{AllowedIpOp, Change, Expires, PeerChange},
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

/// What makes a tunnel that runs by `old` one that runs by `new`, and touches nothing else: a peer that stays
/// keeps its sessions. Port and mark that are no longer given become 0, a preshared key all zero, a name empty;
/// an endpoint that is no longer given stays where it was, since the tunnel may have moved it.
pub fn changes_between(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    // First: a peer may take the key that was ours, and the tunnel refuses our own key as a peer.
    if old.interface.private_key.expose() != new.interface.private_key.expose() {
        changes.push(Change::PrivateKey(Some(new.interface.private_key.clone())));
    }
    if old.interface.listen_port != new.interface.listen_port {
        changes.push(Change::ListenPort(new.interface.listen_port.unwrap_or(0)));
    }
    if old.interface.fwmark != new.interface.fwmark {
        changes.push(Change::Fwmark(new.interface.fwmark.unwrap_or(0)));
    }
    // A peer whose key is ours now went with that change.
    let own = new.interface.private_key.public_key();
    let stay: HashSet<PublicKey> = new.peers.iter().map(|peer| peer.public_key).chain([own]).collect();
    let gone = old.peers.iter().filter(|peer| !stay.contains(&peer.public_key));
    changes.extend(
        gone.map(|peer| Change::Peer(PeerChange { remove: true, ..PeerChange::new(peer.public_key) })),
    );
    let before: HashMap<PublicKey, &Peer> = old.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    changes.extend(new.peers.iter().filter_map(|peer| match before.get(&peer.public_key) {
        None => Some(Change::Peer(whole(peer))),
        Some(old) => difference(old, peer).map(Change::Peer),
    }));
    changes
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

/// A peer from what it was; `None`: nothing to do.
fn difference(old: &Peer, new: &Peer) -> Option<PeerChange> {
    let change = PeerChange {
        name: (old.name != new.name).then(|| new.name.clone().unwrap_or_default()),
        preshared_key: preshared_difference(old.preshared_key.as_ref(), new.preshared_key.as_ref()),
        endpoint: literal(new).filter(|endpoint| literal(old) != Some(*endpoint)),
        persistent_keepalive: (old.persistent_keepalive != new.persistent_keepalive)
            .then_some(new.persistent_keepalive),
        expires: (old.expires != new.expires).then(|| new.expires.map_or(Expires::Never, Expires::At)),
        allowed_ips: prefix_difference(&old.allowed_ips, &new.allowed_ips),
        update_only: true,
        ..PeerChange::new(new.public_key)
    };
    let alters = change.name.is_some()
        || change.preshared_key.is_some()
        || change.endpoint.is_some()
        || change.persistent_keepalive.is_some()
        || change.expires.is_some()
        || !change.allowed_ips.is_empty();
    alters.then_some(change)
}

fn preshared_difference(old: Option<&PresharedKey>, new: Option<&PresharedKey>) -> Option<PresharedKey> {
    match (old, new) {
        (None, None) => None,
        (Some(old), Some(new)) if old == new => None,
        (_, new) => Some(new.cloned().unwrap_or_default()),
    }
}

/// Removals first; a prefix that moved to another peer is no longer this one's to remove, whichever of the
/// two changes comes first.
fn prefix_difference(old: &[IpNet], new: &[IpNet]) -> Vec<AllowedIpOp> {
    if old == new {
        return Vec::new();
    }
    let (before, after): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
    let removed = old.iter().filter(|prefix| !after.contains(prefix)).copied().map(AllowedIpOp::Remove);
    let added = new.iter().filter(|prefix| !before.contains(prefix)).copied().map(AllowedIpOp::Add);
    removed.chain(added).collect()
}

fn literal(peer: &Peer) -> Option<std::net::SocketAddr> {
    match peer.endpoint {
        Some(EndpointName::Address(address)) => Some(address),
        Some(EndpointName::Name { .. }) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        net::SocketAddr,
        time::Duration,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::config::arbitrary;

    /// What a tunnel keeps of changes, by the words of [`Change`] and [`PeerChange`].
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Model {
        own: Option<PublicKey>,
        port: u16,
        mark: u32,
        peers: BTreeMap<PublicKey, ModelPeer>,
    }

    #[derive(Clone, Debug, Default, PartialEq)]
    struct ModelPeer {
        name: String,
        preshared: [u8; 32],
        endpoint: Option<SocketAddr>,
        keepalive: u16,
        expires: Option<Duration>,
        prefixes: BTreeSet<IpNet>,
    }

    impl Model {
        fn after(mut self, changes: Vec<Change>) -> Self {
            for change in changes {
                match change {
                    Change::PrivateKey(key) => {
                        self.own = key.map(|key| key.public_key());
                        self.peers.retain(|key, _| Some(*key) != self.own);
                    }
                    Change::ListenPort(port) => self.port = port,
                    Change::Fwmark(mark) => self.mark = mark,
                    Change::ReplacePeers => self.peers.clear(),
                    Change::Peer(change) => self.peer(change),
                }
            }
            self
        }

        fn peer(&mut self, change: PeerChange) {
            let key = change.public_key;
            assert_ne!(Some(key), self.own, "our own key as a peer");
            if change.remove {
                assert!(self.peers.remove(&key).is_some(), "a peer that is not there is removed");
                return;
            }
            if change.update_only && !self.peers.contains_key(&key) {
                return;
            }
            let peer = self.peers.entry(key).or_default();
            peer.name = change.name.unwrap_or(std::mem::take(&mut peer.name));
            peer.preshared = change.preshared_key.map_or(peer.preshared, |key| *key.expose());
            peer.endpoint = change.endpoint.or(peer.endpoint);
            peer.keepalive = change.persistent_keepalive.unwrap_or(peer.keepalive);
            peer.expires = match change.expires {
                None => peer.expires,
                Some(Expires::Never) => None,
                Some(Expires::At(moment)) => Some(moment),
            };
            if change.replace_allowed_ips {
                peer.prefixes.clear();
            }
            for op in change.allowed_ips {
                match op {
                    AllowedIpOp::Add(prefix) => {
                        for other in self.peers.values_mut() {
                            other.prefixes.remove(&prefix);
                        }
                        self.peers.get_mut(&key).unwrap().prefixes.insert(prefix);
                    }
                    AllowedIpOp::Remove(prefix) => {
                        self.peers.get_mut(&key).unwrap().prefixes.remove(&prefix);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_difference_makes_of_a_running_tunnel_what_the_file_makes_of_a_fresh_one(
            old in arbitrary::config(),
            new in arbitrary::config(),
        ) {
            let mut changed = Model::default().after(old.changes()).after(changes_between(&old, &new));
            let fresh = Model::default().after(new.changes());
            for peer in &new.peers {
                if literal(peer).is_none() {
                    // Not given: it stays where it was.
                    changed.peers.get_mut(&peer.public_key).unwrap().endpoint = None;
                }
            }
            prop_assert_eq!(changed, fresh);
        }

        #[test]
        fn what_is_the_same_needs_no_change(config in arbitrary::config()) {
            prop_assert!(changes_between(&config, &config).is_empty());
        }

        #[test]
        fn one_altered_peer_is_one_change_of_that_alone(config in arbitrary::config(), seconds: u16) {
            let mut new = config.clone();
            let Some(peer) = new.peers.first_mut() else { return Ok(()) };
            prop_assume!(peer.persistent_keepalive != seconds);
            peer.persistent_keepalive = seconds;
            let changes = changes_between(&config, &new);
            let [Change::Peer(change)] = changes.as_slice() else { panic!("{changes:?}") };
            prop_assert_eq!(change.persistent_keepalive, Some(seconds));
            let rest = (&change.name, change.endpoint, change.allowed_ips.len(), change.replace_allowed_ips);
            prop_assert_eq!(rest, (&None, None, 0, false));
            prop_assert!(change.preshared_key.is_none() && change.update_only && !change.remove);
        }
    }
}
