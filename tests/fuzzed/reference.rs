//! What must be so, whatever the tunnels do: who knows whom and by what, as plain as it can be written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use vpnd::{
    noise::{PresharedKey, PublicKey},
    tunnel::{AllowedIpOp, Expires, PeerChange, PeerStatus},
};

/// A peer, as a node was told of it.
#[derive(Clone, Default)]
pub struct Known {
    /// Each byte of the preshared key; 0: none.
    pub psk: u8,
    pub prefixes: BTreeSet<Ipv4Net>,
    pub endpoint: Option<SocketAddr>,
    pub expires: Option<Duration>,
    pub keepalive: u16,
}

/// All that one node was told.
#[derive(Clone, Default)]
pub struct Told(pub BTreeMap<PublicKey, Known>);

impl Told {
    /// Whose is an address? The longest prefix that holds it decides.
    pub fn owner(&self, address: Ipv4Addr) -> Option<PublicKey> {
        let holders = self.0.iter().flat_map(|(key, known)| {
            let holding = known.prefixes.iter().filter(move |prefix| prefix.contains(&address));
            holding.map(move |prefix| (prefix.prefix_len(), *key))
        });
        holders.max_by_key(|(length, _)| *length).map(|(_, key)| key)
    }

    /// A prefix has one owner: whoever had it has it no more.
    pub fn give(&mut self, prefix: Ipv4Net, to: &PublicKey) {
        for (key, known) in &mut self.0 {
            match key == to {
                true => known.prefixes.insert(prefix),
                false => known.prefixes.remove(&prefix),
            };
        }
    }

    /// Is the time of this peer over?
    pub fn has_expired(&self, key: &PublicKey, wall: Duration) -> bool {
        self.0.get(key).and_then(|known| known.expires).is_some_and(|moment| moment <= wall)
    }

    /// The same in the words of a tunnel: a peer made from nothing.
    pub fn change(&self, key: &PublicKey) -> PeerChange {
        let known = &self.0[key];
        let mut change = PeerChange::new(*key);
        change.preshared_key = Some(PresharedKey::new([known.psk; 32]));
        change.endpoint = known.endpoint;
        change.persistent_keepalive = Some(known.keepalive);
        change.expires = Some(known.expires.map_or(Expires::Never, Expires::At));
        change.allowed_ips =
            known.prefixes.iter().map(|prefix| AllowedIpOp::Add(IpNet::V4(*prefix))).collect();
        change
    }

    /// A tunnel that was told this has these peers, and knows just that of them.
    pub fn check(&self, peers: &[PeerStatus]) {
        assert_eq!(peers.len(), self.0.len(), "the peers that it was told of");
        for peer in peers {
            let known = self.0.get(&peer.public_key).expect("a peer that it was told of");
            let psk = peer.preshared_key.as_ref().map_or(0, |key| key.expose()[0]);
            let facts = (psk, peer.persistent_keepalive, peer.expires);
            assert_eq!(facts, (known.psk, known.keepalive, known.expires));
            let prefixes: BTreeSet<IpNet> = known.prefixes.iter().copied().map(IpNet::V4).collect();
            assert!(peer.allowed_ips.iter().eq(&prefixes), "{:?}, and not {prefixes:?}", peer.allowed_ips);
        }
    }
}
