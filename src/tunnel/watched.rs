//! Messages of handshakes that a capture sees, and the keys that open them, where it may have those. Off, it costs one
//! relaxed load a message.

use std::time::Duration;

use super::{Now, Tunnel, peer::PeerState, timers::Timer};
use crate::{
    forward::{Endpoint, HandshakeDatagram, PeerId, Refusal, Time, tap::HandshakeSeen},
    noise::{KeyLog, PrivateKey},
};

/// Between two peers that are called anew: their answers are not to come all at once.
const CALL_INTERVAL: Duration = Duration::from_millis(1);

impl Tunnel {
    /// A new handshake with each peer that has a session, so that who looks from now on sees how it came to be. One a
    /// millisecond; says with how many.
    pub fn renew_sessions(&mut self, now: Now) -> usize {
        let mut at = now.boot;
        let with_session =
            |peer: &&PeerState| peer.keypairs.current().is_some_and(|session| !session.expired(now.boot));
        let ids: Vec<_> = self.peers.iter().filter(with_session).map(|peer| peer.shared.id).collect();
        for id in &ids {
            // Where one waits for its turn already, that is soon enough.
            if !self.timers.is_set(*id, Timer::Retransmit) {
                self.timers.set(*id, Timer::Retransmit, at);
                at = at + CALL_INTERVAL;
            }
        }
        ids.len()
    }

    /// The keys of a handshake with this peer, in which this ephemeral key is ours; none where nobody may have them.
    pub(super) fn key_log(&self, id: PeerId, ephemeral: &PrivateKey) -> Option<KeyLog> {
        self.forward.tap.look().filter(|look| look.gives_secrets())?;
        let peer = self.peers.of(id)?;
        let remote = peer.remote.as_ref()?;
        Some(KeyLog::new(remote.local(), remote.public_key(), ephemeral, &peer.preshared_key))
    }

    /// This message is about to be sent there.
    pub(super) fn tell_sent(
        &self,
        peer: Option<PeerId>,
        endpoint: Endpoint,
        bytes: &[u8],
        keys: Option<&KeyLog>,
        now: Now,
    ) {
        let Some(look) = self.forward.tap.look() else { return };
        let peer = peer.and_then(|id| self.peers.of(id)).map(|peer| &*peer.shared);
        look.handshake(&HandshakeSeen {
            now: now.boot,
            sent: true,
            peer,
            endpoint,
            refused: None,
            bytes,
            keys,
        });
    }

    /// This message is looked at next; what becomes of it is told by [`Self::tell_received`].
    pub(super) fn watch(&mut self, datagram: &HandshakeDatagram) {
        let wanted = self.forward.tap.look().is_some_and(|look| look.wants_handshakes());
        self.watched = wanted.then(|| datagram.clone());
    }

    /// The message that is looked at was refused, or it is authentic: then this is told before what follows from it.
    pub(super) fn tell_received(
        &mut self,
        peer: Option<PeerId>,
        refused: Option<Refusal>,
        keys: Option<&KeyLog>,
        now: Time,
    ) {
        let Some(HandshakeDatagram { from: endpoint, bytes }) = self.watched.take() else { return };
        let Some(look) = self.forward.tap.look() else { return };
        let peer = peer.and_then(|id| self.peers.of(id)).map(|peer| &*peer.shared);
        look.handshake(&HandshakeSeen { now, sent: false, peer, endpoint, refused, bytes: &bytes, keys });
    }
}
