//! What is asked of the tunnel: changes of our key, of peers, of prefixes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    AllowedIpOp, Change, ChangeError, Event, MAX_PEERS, Now, Ours, PeerChange, Tunnel, peer::PeerState,
    timers::Timer,
};
use crate::{
    forward::{Endpoint, Peer, PeerId},
    noise::{Identity, PresharedKey, PrivateKey, PublicKey, handshake::Remote, macs::MacKeys},
};

impl Tunnel {
    pub(super) fn make(&mut self, change: Change, now: Now) -> Result<(), ChangeError> {
        match change {
            Change::PrivateKey(key) => self.change_key(key, now),
            Change::Peer(change) => return self.change_peer(change, now),
            Change::ReplacePeers => {
                for id in self.peers.ids() {
                    self.remove_peer(id, now);
                }
            }
            Change::ListenPort(_) | Change::Fwmark(_) => {} // the daemon's
        }
        Ok(())
    }

    /// Another private key: no session, handshake or precomputed secret of the old one stays. The same one again
    /// (`wg syncconf` always sends it) disturbs nobody.
    fn change_key(&mut self, key: Option<PrivateKey>, now: Now) {
        if self.ours.as_ref().map(|ours| ours.identity.private_key()) == key.as_ref() {
            return;
        }
        self.ours = key.map(|key| {
            let identity = Identity::new(match self.vaults.as_ref().and_then(|vault| vault()) {
                Some(vault) => key.kept_in(vault),
                None => key,
            });
            Ours { macs: MacKeys::new(identity.public_key()), identity }
        });
        self.forward.handshakes.set_macs(self.ours.as_ref().map(|ours| ours.macs.clone()));
        if let Some(own) = self.ours.as_ref().and_then(|ours| self.peers.id(ours.identity.public_key())) {
            self.remove_peer(own, now);
        }
        for id in self.peers.ids() {
            self.drop_secrets(id, now);
        }
        let identity = self.ours.as_ref().map(|ours| &ours.identity);
        for peer in self.peers.iter_mut() {
            peer.remote = identity.map(|identity| Remote::new(identity.clone(), peer.shared.public_key));
            // What held the next initiation back went out under the old key.
            peer.handshake.sent = None;
        }
        self.wake_peers(now);
    }

    /// Peers that have something to send, or a persistent keepalive, ask for a session at the next `expire`.
    pub(super) fn wake_peers(&mut self, now: Now) {
        if self.ours.is_none() {
            return;
        }
        for peer in self.peers.iter_mut() {
            if peer.persistent_keepalive > 0 {
                peer.keepalive_at_once = true;
                // A peer that is to be called has its turn then.
                let turn = self.timers.at(peer.shared.id, Timer::Resume).unwrap_or(now.boot);
                self.timers.set(peer.shared.id, Timer::Persistent, turn);
            } else if peer.shared.staged() > 0 && !self.timers.is_set(peer.shared.id, Timer::Retransmit) {
                self.timers.set(peer.shared.id, Timer::Retransmit, now.boot);
            }
        }
    }

    fn change_peer(&mut self, change: PeerChange, now: Now) -> Result<(), ChangeError> {
        let known = self.peers.id(&change.public_key);
        let id = match known {
            Some(id) if change.remove => {
                self.remove_peer(id, now);
                return Ok(());
            }
            None if change.remove || change.update_only => return Ok(()),
            Some(id) => id,
            None => self.add_peer(change.public_key, change.name.as_deref())?,
        };
        if let Some(name) = change.name {
            self.rename(id, name);
        }
        if let Some(expires) = change.expires {
            self.set_expiry(id, expires, now);
        }
        if let Some(key) = change.preshared_key {
            self.set_preshared_key(id, key, now);
        }
        if change.forget_endpoint {
            self.forget_endpoint(id);
        }
        if let Some(endpoint) = change.endpoint {
            self.set_endpoint(id, endpoint, now);
        }
        if change.replace_allowed_ips {
            self.take_allowed_ips(id);
        }
        for op in change.allowed_ips {
            self.change_allowed_ip(id, op);
        }
        if let Some(seconds) = change.persistent_keepalive {
            self.set_persistent_keepalive(id, seconds, now);
        }
        if self.peers.of(id).is_some_and(|peer| peer.shared.staged() > 0) {
            self.session_wanted(id, now); // an endpoint may have been all that was missing
        }
        Ok(())
    }

    fn add_peer(&mut self, key: PublicKey, name: Option<&str>) -> Result<PeerId, ChangeError> {
        let identity = self.ours.as_ref().map(|ours| &ours.identity);
        if identity.is_some_and(|identity| *identity.public_key() == key) {
            return Err(ChangeError::OwnKey(key));
        }
        if self.peers.len() >= MAX_PEERS {
            return Err(ChangeError::TooManyPeers);
        }
        let remote = identity.map(|identity| Remote::new(identity.clone(), key));
        let id = self.peers.new_id();
        let shared = Peer::new(id, key, name.map_or_else(|| key.short(), str::to_owned));
        self.peers.insert(PeerState::new(shared, remote, self.timestamp_floor));
        Ok(id)
    }

    pub(super) fn remove_peer(&mut self, id: PeerId, now: Now) {
        self.drop_secrets(id, now);
        self.take_allowed_ips(id);
        self.timers.forget(id);
        self.forget_expiry(id);
        let Some(peer) = self.peers.remove(id) else { return };
        peer.shared.purge_staged();
        peer.shared.set_endpoint(None); // for data threads that still hold it
        self.timestamp_floor = self.timestamp_floor.max(peer.handshake.sent_timestamp);
    }

    /// Erases sessions and handshake, and asks for no new one. What is staged stays.
    pub(super) fn drop_secrets(&mut self, id: PeerId, now: Now) {
        self.timers.clear(id, Timer::Retransmit);
        self.timers.clear(id, Timer::Resume);
        self.erase_sessions(id, now);
        let Some(peer) = self.peers.of_mut(id) else { return };
        let pending = peer.handshake.pending.take().map(|pending| pending.index());
        peer.handshake.sent_mac1 = None;
        peer.handshake.cookie = None;
        self.forget_indices(pending.into_iter().collect());
    }

    /// Erases the sessions. An attempt that is on its way has keys of its own, seconds old.
    pub(super) fn erase_sessions(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.handshake.untaken = 0;
        let gone = peer.keypairs.clear();
        peer.shared.set_current(None, now.boot);
        self.forget_indices(gone);
        self.timers.clear(id, Timer::Reject);
        self.timers.clear(id, Timer::Retire);
        self.timers.clear(id, Timer::Erase);
    }

    fn rename(&mut self, id: PeerId, name: String) {
        let Some(peer) = self.peers.of(id) else { return };
        let name = if name.is_empty() { peer.shared.public_key.short() } else { name };
        peer.shared.label.store(Arc::new(name));
    }

    fn set_preshared_key(&mut self, id: PeerId, key: PresharedKey, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        if peer.preshared_key == key {
            return;
        }
        peer.preshared_key = key;
        peer.handshake.sent = None; // a handshake with the old key need not be waited for
        self.drop_secrets(id, now);
    }

    /// An initiation that still waits for its answer went elsewhere: the new place gets one at once, not when the
    /// old one's time is over.
    fn set_endpoint(&mut self, id: PeerId, remote: SocketAddr, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        let remote = match remote.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => SocketAddr::new(v4, remote.port()),
            IpAddr::V6(_) => remote, // with its scope
        };
        let before = peer.shared.endpoint().map(|endpoint| endpoint.remote);
        peer.shared.set_endpoint(Some(Endpoint { remote, local: None }));
        peer.told_endpoint = Some(remote);
        peer.set_endpoint = Some(remote);
        if before != Some(remote) && peer.handshake.pending.is_some() {
            peer.handshake.sent = None;
            self.timers.clear(id, Timer::Retransmit);
            self.send_initiation(id, now);
        }
    }

    fn forget_endpoint(&mut self, id: PeerId) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.set_endpoint = None;
        if peer.keypairs.current().is_none() {
            peer.shared.set_endpoint(None);
            peer.told_endpoint = None;
        }
    }

    /// A keepalive goes out at once when it is switched on, and then this often.
    fn set_persistent_keepalive(&mut self, id: PeerId, seconds: u16, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        let before = std::mem::replace(&mut peer.persistent_keepalive, seconds);
        peer.keepalive_at_once |= before == 0 && seconds > 0;
        match seconds {
            0 => self.timers.clear(id, Timer::Persistent),
            _ => self.timers.set(id, Timer::Persistent, now.boot), // looks when it is due
        }
    }

    fn change_allowed_ip(&mut self, id: PeerId, op: AllowedIpOp) {
        match op {
            AllowedIpOp::Remove(prefix) => {
                let prefix = prefix.trunc();
                if self.peers.of_mut(id).is_some_and(|peer| peer.allowed_ips.remove(&prefix)) {
                    self.routes.take(prefix, id);
                }
            }
            AllowedIpOp::Add(prefix) => {
                let prefix = prefix.trunc();
                let Some(peer) = self.peers.of_mut(id) else { return };
                let to = peer.shared.public_key;
                if !peer.allowed_ips.insert(prefix) {
                    return;
                }
                let Some(before) = self.routes.give(prefix, id) else { return };
                let Some(before) = self.peers.of_mut(before) else { return };
                before.allowed_ips.remove(&prefix);
                let from = before.shared.public_key;
                self.outbox.event(Event::PrefixMoved { prefix, from, to });
            }
        }
    }

    fn take_allowed_ips(&mut self, id: PeerId) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        for prefix in std::mem::take(&mut peer.allowed_ips) {
            self.routes.take(prefix, id);
        }
    }
}
