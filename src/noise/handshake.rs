//! Initiator and responder. Each step carries its Noise token. Nothing here is changed by a message that
//! does not authenticate: states are taken by reference and a new value comes out.
//!
//! ```text
//! IKpsk2:  <- s
//!          ...
//!          -> e, es, s, ss     initiate            open_initiation, Opened::authenticate
//!          <- e, ee, se, psk   read_response       Authentic::respond
//! ```

use std::{fmt, sync::OnceLock};

use rand_core::CryptoRng;

use super::{
    Identity, PresharedKey, PrivateKey, PublicKey, SessionKeys, Tai64n, keys::wipe_stack, primitives::Secret,
    symmetric::Symmetric,
};
use crate::wire::message::{Index, Initiation, Response};

/// Why a handshake message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A Diffie-Hellman result was zero: a low-order public key (RFC 7748, section 6.1).
    #[error("low-order public key")]
    LowOrder,
    /// The sealed static key did not open: not meant for our public key, or forged.
    #[error("sealed static key does not open")]
    Static,
    /// The sealed timestamp did not open: forged, or not from the owner of that static key.
    #[error("sealed timestamp does not open")]
    Timestamp,
    /// The response did not open: wrong preshared key, or forged.
    #[error("sealed response does not open")]
    Response,
}

/// What is precomputed for one remote static key: DH(static, static) is filled at first need, so that
/// ten thousand peers load without ten thousand scalar multiplications.
pub struct Remote {
    local: Identity,
    public: PublicKey,
    /// `None` inside: the public key is of low order.
    static_static: OnceLock<Option<Secret>>,
}

impl Remote {
    /// For handshakes between `local` and the owner of `public`.
    pub fn new(local: Identity, public: PublicKey) -> Self {
        Self { local, public, static_static: OnceLock::new() }
    }
    /// Its static public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }
    /// Our side.
    pub fn local(&self) -> &Identity {
        &self.local
    }
    fn static_static(&self) -> Result<&Secret, HandshakeError> {
        let shared = self.static_static.get_or_init(|| self.local.private_key().agree(&self.public));
        shared.as_ref().ok_or(HandshakeError::LowOrder)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.public)
    }
}

/// An initiation is on its way; secrets erase themselves on drop.
#[derive(Debug)]
pub struct Initiating {
    index: Index,
    ephemeral: PrivateKey,
    state: Symmetric,
}

/// Builds an initiation (tokens e, es, s, ss) and the state that waits for its response.
pub fn initiate(
    remote: &Remote,
    sender: Index,
    timestamp: Tai64n,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(Initiating, Initiation), HandshakeError> {
    let mut state = Symmetric::new(&remote.public);
    // e
    let ephemeral = PrivateKey::generate(rng);
    let ephemeral_public = ephemeral.public_key();
    state.mix_ephemeral(&ephemeral_public);
    // es
    let key = state.mix_key_to_seal(&*agree(&ephemeral, &remote.public)?);
    // s
    let encrypted_static = state.seal(&key, &remote.local.public_key().0);
    // ss
    let key = state.mix_key_to_seal(remote.static_static()?);
    let encrypted_timestamp = state.seal(&key, &timestamp.0);

    let message = Initiation { sender, ephemeral: ephemeral_public.0, encrypted_static, encrypted_timestamp };
    Ok((Initiating { index: sender, ephemeral, state }, message))
}

impl Initiating {
    /// The index we chose.
    pub fn index(&self) -> Index {
        self.index
    }
    /// Our ephemeral key, for a [`super::KeyLog`] alone.
    pub(crate) fn ephemeral(&self) -> &PrivateKey {
        &self.ephemeral
    }
    /// Reads the response (tokens e, ee, se, psk). `&self`: a forged response leaves the handshake pending.
    /// The caller found this handshake by the response's receiver index, which no seal covers.
    pub fn read_response(
        &self,
        remote: &Remote,
        psk: &PresharedKey,
        response: &Response,
    ) -> Result<Box<SessionKeys>, HandshakeError> {
        let keys = self.keys_of(remote, psk, response);
        wipe_stack();
        keys
    }

    #[inline(never)]
    fn keys_of(
        &self,
        remote: &Remote,
        psk: &PresharedKey,
        response: &Response,
    ) -> Result<Box<SessionKeys>, HandshakeError> {
        let mut state = self.state.clone();
        // e
        let ephemeral = PublicKey(response.ephemeral);
        state.mix_ephemeral(&ephemeral);
        // ee
        state.mix_key(&*agree(&self.ephemeral, &ephemeral)?);
        // se
        state.mix_key(&*agree(remote.local.private_key(), &ephemeral)?);
        // psk
        let key = state.mix_psk(psk.expose());
        let [] = state.open(&key, &response.encrypted_nothing).map_err(|_| HandshakeError::Response)?;

        let [send, receive] = state.split();
        Ok(SessionKeys::boxed(&send, &receive))
    }
}

/// An initiation whose sender's static key is known but not yet proven (tokens e, es, s were read).
#[derive(Debug)]
pub struct Opened {
    sender: Index,
    ephemeral: PublicKey,
    public: PublicKey,
    encrypted_timestamp: [u8; 28],
    state: Symmetric,
}

/// First half of the responder: who claims to call? Two DH at most come after; this costs one.
pub fn open_initiation(local: &Identity, initiation: &Initiation) -> Result<Opened, HandshakeError> {
    let mut state = Symmetric::new(local.public_key());
    // e
    let ephemeral = PublicKey(initiation.ephemeral);
    state.mix_ephemeral(&ephemeral);
    // es
    let key = state.mix_key_to_seal(&*agree(local.private_key(), &ephemeral)?);
    // s
    let public = state.open(&key, &initiation.encrypted_static).map_err(|_| HandshakeError::Static)?;
    Ok(Opened {
        sender: initiation.sender,
        ephemeral,
        public: PublicKey(public),
        encrypted_timestamp: initiation.encrypted_timestamp,
        state,
    })
}

impl Opened {
    /// The claimed static key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }
    /// Proves it (token ss) and reads the timestamp. `remote` is that key's; another's proves nothing.
    pub fn authenticate(mut self, remote: &Remote) -> Result<Authentic, HandshakeError> {
        // ss
        let key = self.state.mix_key_to_seal(remote.static_static()?);
        let timestamp =
            self.state.open(&key, &self.encrypted_timestamp).map_err(|_| HandshakeError::Timestamp)?;
        Ok(Authentic {
            sender: self.sender,
            ephemeral: self.ephemeral,
            timestamp: Tai64n(timestamp),
            state: self.state,
        })
    }
}

/// An initiation from the owner of its static key (it may still be a replay: compare the timestamp).
#[derive(Debug)]
pub struct Authentic {
    sender: Index,
    ephemeral: PublicKey,
    timestamp: Tai64n,
    state: Symmetric,
}

impl Authentic {
    /// Its TAI64N.
    pub fn timestamp(&self) -> Tai64n {
        self.timestamp
    }
    /// The initiator's index.
    pub fn sender(&self) -> Index {
        self.sender
    }
    /// Builds the response (tokens e, ee, se, psk) and the session's keys.
    pub fn respond(
        self,
        remote: &Remote,
        psk: &PresharedKey,
        sender: Index,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Response, Box<SessionKeys>), HandshakeError> {
        self.respond_telling(remote, psk, sender, rng, |_| ())
    }

    /// The same, with our ephemeral key told before it is erased: for a [`super::KeyLog`] alone.
    pub(crate) fn respond_telling(
        self,
        remote: &Remote,
        psk: &PresharedKey,
        sender: Index,
        rng: &mut (impl CryptoRng + ?Sized),
        tell: impl FnOnce(&PrivateKey),
    ) -> Result<(Response, Box<SessionKeys>), HandshakeError> {
        let answer = self.answer(remote, psk, sender, rng, tell);
        wipe_stack();
        answer
    }

    #[inline(never)]
    fn answer(
        self,
        remote: &Remote,
        psk: &PresharedKey,
        sender: Index,
        rng: &mut (impl CryptoRng + ?Sized),
        tell: impl FnOnce(&PrivateKey),
    ) -> Result<(Response, Box<SessionKeys>), HandshakeError> {
        let mut state = self.state;
        // e
        let ephemeral = PrivateKey::generate(rng);
        let ephemeral_public = ephemeral.public_key();
        state.mix_ephemeral(&ephemeral_public);
        // ee
        state.mix_key(&*agree(&ephemeral, &self.ephemeral)?);
        // se
        state.mix_key(&*agree(&ephemeral, &remote.public)?);
        // psk
        let key = state.mix_psk(psk.expose());
        let encrypted_nothing = state.seal(&key, &[]);
        tell(&ephemeral);

        let [receive, send] = state.split();
        let message =
            Response { sender, receiver: self.sender, ephemeral: ephemeral_public.0, encrypted_nothing };
        Ok((message, SessionKeys::boxed(&send, &receive)))
    }
}

fn agree(private: &PrivateKey, public: &PublicKey) -> Result<Secret, HandshakeError> {
    private.agree(public).ok_or(HandshakeError::LowOrder)
}
