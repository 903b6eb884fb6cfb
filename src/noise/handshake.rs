//! Initiator and responder. Each step carries its Noise token. Nothing here is changed by a message that
//! does not authenticate: states are taken by reference and a new value comes out.

use rand_core::CryptoRng;

use super::{Identity, PresharedKey, PublicKey, SessionKeys, Tai64n};
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
pub struct Remote {/* private */}

impl Remote {
    /// For handshakes between `local` and the owner of `public`.
    pub fn new(local: Identity, public: PublicKey) -> Self {
        todo!()
    }
    /// Its static public key.
    pub fn public_key(&self) -> &PublicKey {
        todo!()
    }
    /// Our side.
    pub fn local(&self) -> &Identity {
        todo!()
    }
}

/// An initiation is on its way; secrets erase themselves on drop.
pub struct Initiating {/* private: chaining key, hash, ephemeral private key, our index */}

/// Builds an initiation (tokens e, es, s, ss) and the state that waits for its response.
pub fn initiate(
    remote: &Remote,
    sender: Index,
    timestamp: Tai64n,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(Initiating, Initiation), HandshakeError> {
    todo!()
}

impl Initiating {
    /// The index we chose.
    pub fn index(&self) -> Index {
        todo!()
    }
    /// Reads the response (tokens e, ee, se, psk). `&self`: a forged response leaves the handshake pending.
    pub fn read_response(
        &self,
        remote: &Remote,
        psk: &PresharedKey,
        response: &Response,
    ) -> Result<SessionKeys, HandshakeError> {
        todo!()
    }
}

/// An initiation whose sender's static key is known but not yet proven (tokens e, es, s were read).
pub struct Opened {/* private */}

/// First half of the responder: who claims to call? Two DH at most come after; this costs one.
pub fn open_initiation(local: &Identity, initiation: &Initiation) -> Result<Opened, HandshakeError> {
    todo!()
}

impl Opened {
    /// The claimed static key.
    pub fn public_key(&self) -> &PublicKey {
        todo!()
    }
    /// Proves it (token ss) and reads the timestamp. `remote` is that key's.
    pub fn authenticate(self, remote: &Remote) -> Result<Authentic, HandshakeError> {
        todo!()
    }
}

/// An initiation from the owner of its static key (it may still be a replay: compare the timestamp).
pub struct Authentic {/* private */}

impl Authentic {
    /// Its TAI64N.
    pub fn timestamp(&self) -> Tai64n {
        todo!()
    }
    /// The initiator's index.
    pub fn sender(&self) -> Index {
        todo!()
    }
    /// Builds the response (tokens e, ee, se, psk) and the session's keys.
    pub fn respond(
        self,
        remote: &Remote,
        psk: &PresharedKey,
        sender: Index,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Response, SessionKeys), HandshakeError> {
        todo!()
    }
}
