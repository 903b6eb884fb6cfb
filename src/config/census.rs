//! What no two peers may share, and what must not lie inside the tunnel: checked by look-up, not by pairs.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::{
    Peer, Table,
    report::{Flaw, Report, Subject},
};
use crate::noise::PublicKey;

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the peer, from 1.
    pub(super) peer: usize,
    /// Byte offset.
    pub(super) at: usize,
}

/// All keys, names, prefixes and literal endpoints of a file.
#[derive(Default)]
pub(super) struct Census {
    keys: HashMap<PublicKey, Place>,
    names: HashMap<String, usize>,
    prefixes: HashMap<IpNet, Place>,
    /// Lengths that occur among the prefixes; the default routes are left out.
    lengths_v4: BTreeSet<u8>,
    lengths_v6: BTreeSet<u8>,
    has_v6: bool,
    endpoints: Vec<(SocketAddr, Place)>,
}

impl Census {
    /// Where the same key was entered before.
    pub(super) fn enter_key(&mut self, key: PublicKey, at: usize, peer: usize) -> Option<Place> {
        enter(&mut self.keys, key, Place { peer, at })
    }

    /// Where the same name was entered before.
    pub(super) fn enter_name(&mut self, name: &str, at: usize) -> Option<usize> {
        if let Some(first) = self.names.get(name) {
            return Some(*first);
        }
        self.names.insert(name.to_owned(), at);
        None
    }

    /// Where the same prefix was entered before.
    pub(super) fn enter_prefix(&mut self, prefix: IpNet, at: usize, peer: usize) -> Option<Place> {
        let lengths = match prefix {
            IpNet::V4(_) => &mut self.lengths_v4,
            IpNet::V6(_) => &mut self.lengths_v6,
        };
        if prefix.prefix_len() > 0 {
            lengths.insert(prefix.prefix_len());
        }
        self.has_v6 |= matches!(prefix, IpNet::V6(_));
        enter(&mut self.prefixes, prefix, Place { peer, at })
    }

    pub(super) fn enter_endpoint(&mut self, endpoint: SocketAddr, at: usize, peer: usize) {
        self.endpoints.push((endpoint, Place { peer, at }));
    }

    /// Is a prefix IPv6?
    pub(super) fn has_v6(&self) -> bool {
        self.has_v6
    }

    /// A peer that is ourselves.
    pub(super) fn check_own_key(&self, own: &PublicKey, peers: &[Peer], report: &mut Report<'_>) {
        let Some(place) = self.keys.get(own) else { return };
        let found = format!("{own}, the public key of this interface itself");
        let remedy = "write the other end's public key, as `vpnd pubkey` prints it there";
        report.refuse(place.at, &subject(place.peer, peers), "public_key", Flaw::new(found, remedy));
    }

    /// Packets to such an endpoint would be routed into the tunnel that they are to carry. A default route is
    /// harmless (policy rules keep our own packets out of it), and so is a table that vpnd does not fill.
    pub(super) fn check_endpoints(&self, table: Table, peers: &[Peer], report: &mut Report<'_>) {
        if table == Table::Off {
            return;
        }
        for (endpoint, place) in &self.endpoints {
            let Some((prefix, owner)) = self.longest(endpoint.ip().to_canonical()) else { continue };
            let whose = if owner.peer == place.peer {
                "its own".to_owned()
            } else {
                format!("peer[{}]'s", owner.peer)
            };
            let line = report.line(owner.at);
            let found =
                format!("{endpoint}, which lies inside {whose} allowed IP {prefix} (line {line}): a loop");
            let default = if prefix.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            let remedy = format!("leave {} out of the prefixes, or write {default} for them", endpoint.ip());
            report.refuse(place.at, &subject(place.peer, peers), "endpoint", Flaw::new(found, remedy));
        }
    }

    /// The longest prefix but a default route that holds `address`.
    fn longest(&self, address: IpAddr) -> Option<(IpNet, Place)> {
        let lengths = if address.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        lengths.iter().rev().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.prefixes.get(&prefix).map(|place| (prefix, *place))
        })
    }
}

fn enter<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Place>, key: K, place: Place) -> Option<Place> {
    let first = *map.entry(key).or_insert(place);
    (first != place).then_some(first)
}

fn subject(number: usize, peers: &[Peer]) -> Subject {
    let name = peers.get(number - 1).and_then(|peer| peer.name.clone());
    Subject::Peer { number, name }
}
