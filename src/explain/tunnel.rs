//! Inside vpnd: which peer owns the packet, and whether it can be sealed for it.

use std::net::IpAddr;

use super::{Direction, Killer, Owned, Place, Planner, Tunnel, Walk, owner};
use crate::control::schema::PeerReport;
use crate::trace::{Refused, Vpnd};

impl Planner<'_> {
    /// Returns the peer whose carrier it becomes; none: vpnd would refuse it.
    pub(super) fn seal<'t>(&mut self, tunnel: &'t Tunnel, to: IpAddr) -> Option<&'t PeerReport> {
        let interface = &tunnel.status.interface;
        let station = self.station(Walk::Program, Direction::Out, Place::Vpnd);
        station.device = Some(interface.clone());
        let Some(Owned { peer, prefix, second }) = owner(&tunnel.status.peers, to) else {
            let (reason, why) = match is_link_scope(to) {
                true => (
                    "link_scope",
                    format!("{to} means all on the link: no peer has it, and a tunnel has no link"),
                ),
                false => (
                    "no_peer",
                    format!(
                        "no peer of {interface} has {to}: add it to a peer's allowed IPs, or remove the route"
                    ),
                ),
            };
            let refused = Refused { reason: reason.to_owned(), inner: Some(to), ..Refused::default() };
            station.vpnd = Some(Vpnd::Refused(refused));
            self.die(Killer::Vpnd, why);
            return None;
        };
        station.vpnd = Some(Vpnd::Owned {
            peer: peer.name.clone(),
            public_key: peer.public_key.clone(),
            prefix: prefix.to_string(),
            second: second.map(|(prefix, peer)| [prefix.to_string(), peer.name.clone()]),
            endpoint: peer.endpoint,
            session: peer.connected,
        });
        if !peer.connected && peer.endpoint.is_some() {
            station.facts.push("no session: the packet waits while a handshake is tried".to_owned());
            if peer.attempts > 0 {
                station.facts.push(format!("{} initiations in a row went unanswered", peer.attempts));
            }
        }
        if peer.expired {
            let why = format!("the time of peer {} is over (`expires`): nothing is sent to it", peer.name);
            self.die(Killer::Vpnd, why);
            return None;
        }
        if peer.endpoint.is_none() {
            let why = format!(
                "where peer {} is, is not known: set an endpoint, or let the peer begin (no_endpoint)",
                peer.name
            );
            self.die(Killer::Vpnd, why);
            return None;
        }
        Some(peer)
    }
}

/// For all, or for a group, on the link itself: as `forward::outbound` refuses it.
fn is_link_scope(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(v4) => v4.is_broadcast() || matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => matches!(v6.octets(), [0xff, scope, ..] if matches!(scope & 0xf, 1 | 2)),
    }
}
