//! Handshake messages that came: mac1 first, then the defence under load, then the calculation. Nothing that
//! does not authenticate changes a peer.

use std::sync::Arc;

use super::{Event, Now, Tunnel, peer::PeerState};
use crate::{
    forward::{Endpoint, Evidence, HandshakeDatagram, PeerId, Refusal, Session},
    noise::{
        KeyLog, PrivateKey, PublicKey, SessionKeys,
        handshake::{Authentic, HandshakeError, open_initiation},
        macs::CookieSecret,
    },
    wire::message::{self, CookieReply, INITIATION_LEN, Index, Initiation, Kind, RESPONSE_LEN, Response},
};

impl Tunnel {
    pub(super) fn receive(&mut self, datagram: &HandshakeDatagram, now: Now) {
        self.watch(datagram);
        let from = datagram.from;
        let bytes = &datagram.bytes[..];
        let parsed = match message::classify(bytes) {
            Ok(Kind::Initiation) => Initiation::parse(bytes).map(|initiation| {
                if self.admits(bytes, initiation.sender, &from, now) {
                    self.receive_initiation(&initiation, from, now);
                }
            }),
            Ok(Kind::Response) => Response::parse(bytes).map(|response| {
                if self.admits(bytes, response.sender, &from, now) {
                    self.receive_response(&response, from, now);
                }
            }),
            Ok(Kind::CookieReply) => {
                CookieReply::parse(bytes).map(|reply| self.receive_cookie(&reply, &from, now))
            }
            Ok(Kind::Transport) => Err(crate::wire::Malformed::Type),
            Err(malformed) => Err(malformed),
        };
        if parsed.is_err() {
            self.refuse(Refusal::Malformed, seen(&from, now));
        }
    }

    /// Is this message worth its Diffie-Hellman? mac1 must hold; under load mac2 too, or a cookie is all that
    /// its sender gets; and its source must be within its rate.
    fn admits(&mut self, message: &[u8], sender: Index, from: &Endpoint, now: Now) -> bool {
        let Some(ours) = &self.ours else {
            self.refuse(Refusal::NoPrivateKey, seen(from, now));
            return false;
        };
        if !ours.macs.mac1_is_valid(message) {
            self.refuse(Refusal::Mac1, seen(from, now));
            return false;
        }
        if self.outbox.is_full() {
            self.refuse(Refusal::HandshakeQueueFull, seen(from, now)); // no room for an answer
            return false;
        }
        if !self.load.is_under() {
            return true;
        }
        if !self.cookie_secret(now).mac2_is_valid(message, &from.remote) {
            self.send_cookie(message, sender, from, now);
            self.load.spared();
            self.refuse(Refusal::CookieWanted, seen(from, now));
            return false;
        }
        if !self.load.allows(from.remote.ip(), now.boot) {
            self.refuse(Refusal::RateLimited, seen(from, now));
            return false;
        }
        true
    }

    /// The secret that cookies come from; data threads, which ask in who shows one, get each new one.
    pub(super) fn cookie_secret(&mut self, now: Now) -> Arc<CookieSecret> {
        let (secret, is_new) = self.load.secret(now.boot, &mut *self.rng);
        if is_new && self.load.is_under() {
            self.forward.handshakes.set_cookies(Some(secret.clone()));
        }
        secret
    }

    /// It begins or ends: data threads are told whose cookies are good, and a listener that it is so.
    pub(super) fn load_changed(&mut self, now: Now) {
        let under = self.load.is_under();
        let secret = under.then(|| self.cookie_secret(now));
        self.forward.handshakes.set_cookies(secret);
        self.outbox.event(Event::UnderLoad(under));
    }

    fn receive_initiation(&mut self, initiation: &Initiation, from: Endpoint, now: Now) {
        match self.authenticate(initiation, &from, now) {
            Ok((id, authentic)) => self.answer(id, authentic, from, now),
            Err(refused) => self.refuse(refused.0, refused.1),
        }
    }

    /// Who calls, and is it really him, now?
    fn authenticate(
        &mut self,
        initiation: &Initiation,
        from: &Endpoint,
        now: Now,
    ) -> Result<(PeerId, Authentic), Box<(Refusal, Evidence)>> {
        let refused = |why, evidence| Box::new((why, evidence));
        let ours = self.ours.as_ref().ok_or_else(|| refused(Refusal::NoPrivateKey, seen(from, now)))?;
        let opened = open_initiation(&ours.identity, initiation)
            .map_err(|error| refused(refusal(error), seen(from, now)))?;
        let evidence = Evidence { key: Some(*opened.public_key()), ..seen(from, now) };
        let Some(id) = self.peers.id(opened.public_key()) else {
            return Err(refused(Refusal::UnknownKey, evidence));
        };
        let evidence = Evidence { peer: Some(id), ..evidence };
        let Some(peer) = self.peers.of_mut(id) else {
            return Err(refused(Refusal::UnknownKey, evidence));
        };
        let Some(remote) = &peer.remote else { return Err(refused(Refusal::NoPrivateKey, evidence)) };
        let authentic = match opened.authenticate(remote) {
            Ok(authentic) => authentic,
            Err(error) => return Err(refused(refusal(error), evidence)),
        };
        if peer.has_expired(now.wall) {
            return Err(refused(Refusal::PeerExpired, evidence));
        }
        if let Err(refusal) = peer.handshake.check_initiation(authentic.timestamp(), now.boot) {
            return Err(refused(refusal, evidence));
        }
        peer.handshake.newest_timestamp = authentic.timestamp();
        peer.handshake.accepted = Some(now.boot);
        Ok((id, authentic))
    }

    /// Answers an authentic initiation: the next session stands ready, and waits to be confirmed.
    fn answer(&mut self, id: PeerId, authentic: Authentic, from: Endpoint, now: Now) {
        let index = self.indices.draw(id, &mut *self.rng);
        let theirs = authentic.sender();
        let mut key_log = None;
        let answer = self.respond(id, authentic, index, &mut key_log);
        let (response, keys) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.indices.release(index);
                self.refuse(refusal(error), self.seen_of(id, &from, now));
                return;
            }
        };
        // With the keys of its answer: without ours nobody reads the initiation.
        self.tell_received(Some(id), None, key_log.as_ref(), now.boot);
        let Some(peer) = self.peers.of(id) else { return };
        peer.shared.activity.authentic_received(INITIATION_LEN as u64, now.boot);
        let session = self.new_session(index, theirs, false, &keys, now);
        self.learn_endpoint(id, from);
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.handshake.untaken += u32::from(peer.keypairs.awaits_proof());
        let dropped = peer.keypairs.answered(session.clone());
        self.forward.sessions.insert(session, peer.shared.clone());
        self.forget_indices(dropped);
        self.session_derived(id, now.boot);
        self.send_response(id, &response, now);
    }

    /// The response and the session's keys; `key_log`: what a capture is told of them.
    fn respond(
        &mut self,
        id: PeerId,
        authentic: Authentic,
        index: Index,
        key_log: &mut Option<KeyLog>,
    ) -> Result<(Response, Box<SessionKeys>), HandshakeError> {
        let peer = self.peers.of(id).ok_or(HandshakeError::Static)?;
        let (remote, psk) = (peer.remote.as_ref().ok_or(HandshakeError::Static)?, &peer.preshared_key);
        let is_told = self.forward.tap.gives_secrets();
        let tell = |ephemeral: &PrivateKey| {
            *key_log = is_told.then(|| KeyLog::new(remote.local(), remote.public_key(), ephemeral, psk));
        };
        authentic.respond_telling(remote, psk, index, &mut *self.rng, tell)
    }

    fn receive_response(&mut self, response: &Response, from: Endpoint, now: Now) {
        let owner = self.indices.owner(response.receiver).and_then(|id| self.peers.of(id));
        let asked = owner.and_then(|peer| {
            let pending = peer.handshake.pending.as_ref()?;
            (pending.index() == response.receiver).then_some((peer, pending, peer.remote.as_ref()?))
        });
        let Some((peer, pending, remote)) = asked else {
            self.refuse(Refusal::NotAsked, seen(&from, now));
            return;
        };
        let id = peer.shared.id;
        match pending.read_response(remote, &peer.preshared_key, response) {
            Ok(keys) => self.accept(id, response, &keys, from, now),
            Err(error) => self.refuse(refusal(error), self.seen_of(id, &from, now)),
        }
    }

    /// The response is authentic: the session is the current one at once.
    fn accept(&mut self, id: PeerId, response: &Response, keys: &SessionKeys, from: Endpoint, now: Now) {
        self.tell_received(Some(id), None, None, now.boot);
        let session = self.new_session(response.receiver, response.sender, true, keys, now);
        self.learn_endpoint(id, from);
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.handshake.pending = None; // its index is the session's now
        peer.shared.activity.authentic_received(RESPONSE_LEN as u64, now.boot);
        let first = peer.keypairs.lives_until().is_none_or(|end| end <= now.boot);
        let dropped = peer.keypairs.initiated(session.clone());
        self.forward.sessions.insert(session.clone(), peer.shared.clone());
        self.forget_indices(dropped);
        self.session_derived(id, now.boot);
        self.handshake_complete(id, first, true, now);
        // Whatever goes out first confirms the session to the peer.
        if self.seal_with(id, session, now) == 0 {
            self.send_keepalive(id, now);
        }
    }

    /// A cookie reply: kept for the next message. It is bound to our last mac1, but anyone on the path can
    /// have made it: it moves no endpoint, ends no handshake, and asks for no answer.
    fn receive_cookie(&mut self, reply: &CookieReply, from: &Endpoint, now: Now) {
        let Some(id) = self.indices.owner(reply.receiver) else {
            self.refuse(Refusal::NotAsked, seen(from, now));
            return;
        };
        let asked = self.peers.of_mut(id).and_then(|peer| Some((peer.handshake.sent_mac1?, peer)));
        let Some((mac1, peer)) = asked else {
            self.refuse(Refusal::NotAsked, self.seen_of(id, from, now));
            return;
        };
        match peer.handshake.macs.open_cookie(reply, &mac1) {
            Some(cookie) => {
                peer.handshake.cookie = Some((cookie, now.boot));
                peer.handshake.sent_mac1 = None;
                self.tell_received(Some(id), None, None, now.boot);
            }
            None => self.refuse(Refusal::CookieForged, self.seen_of(id, from, now)),
        }
    }

    /// An authentic handshake message came from there, to that address of ours.
    fn learn_endpoint(&mut self, id: PeerId, from: Endpoint) {
        let Some(peer) = self.peers.of(id) else { return };
        if peer.shared.endpoint() != Some(from) {
            peer.shared.set_endpoint(Some(from));
            self.endpoint_moved(id);
        }
    }

    /// Tells where a peer is, if that is not where it was when it was last told.
    pub(super) fn endpoint_moved(&mut self, id: PeerId) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        let Some(to) = peer.shared.endpoint().map(|endpoint| endpoint.remote) else { return };
        let from = peer.told_endpoint.replace(to);
        if from != Some(to) {
            let (key, label) = (peer.shared.public_key, peer.label());
            self.outbox.event(Event::Roamed { peer: id, key, label, from, to });
        }
    }

    fn new_session(
        &self,
        local: Index,
        remote: Index,
        initiator: bool,
        keys: &SessionKeys,
        now: Now,
    ) -> Arc<Session> {
        let rekey_after = self.timing.rekey_after;
        let birth = now.boot;
        let start = crate::forward::session::SessionStart { local, remote, initiator, birth, rekey_after };
        Session::new(start, keys)
    }

    /// These name no session any more.
    pub(super) fn forget_indices(&mut self, gone: Vec<Index>) {
        for index in gone {
            self.forward.sessions.remove(index);
            self.indices.release(index);
        }
    }

    /// Evidence about a known peer.
    pub(super) fn seen_of(&self, id: PeerId, from: &Endpoint, now: Now) -> Evidence {
        let key = self.peers.of(id).map(|peer: &PeerState| -> PublicKey { peer.shared.public_key });
        Evidence { peer: Some(id), key, ..seen(from, now) }
    }
}

/// Evidence about a datagram from nobody known.
fn seen(from: &Endpoint, now: Now) -> Evidence {
    Evidence { at: now.boot, from: Some(from.remote), ..Evidence::default() }
}

/// What an error of the calculation is called where refusals are counted.
fn refusal(error: HandshakeError) -> Refusal {
    match error {
        HandshakeError::LowOrder => Refusal::LowOrderKey,
        HandshakeError::Static | HandshakeError::Timestamp => Refusal::HandshakeForged,
        HandshakeError::Response => Refusal::ResponseForged,
    }
}
