//! What both ends of a handshake carry from token to token (Noise rev. 34, section 5.2, SymmetricState).

use std::fmt;

use zeroize::Zeroize;

use super::{
    PublicKey,
    primitives::{Forged, Secret, hash, kdf, open, seal},
};
use crate::wire::message::TAG_LEN;

/// The Noise protocol name.
const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// The Noise prologue.
pub(super) const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// Each cipher key of the handshake seals one field.
const NONCE: [u8; 12] = [0; 12];

/// Chaining key and hash of the transcript.
#[derive(Clone)]
pub(super) struct Symmetric {
    chaining_key: Secret,
    hash: [u8; 32],
}

impl Symmetric {
    /// Before the first token; the pre-message `<- s` is the responder's static key.
    pub(super) fn new(responder: &PublicKey) -> Self {
        let chaining_key = Secret::new(hash([CONSTRUCTION]));
        let prologue = hash([chaining_key.as_slice(), IDENTIFIER]);
        Self { hash: hash([&prologue, &responder.0]), chaining_key }
    }

    /// Binds what both ends have seen.
    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash([&self.hash, data]);
    }

    /// Token e: into the hash, and into the key too, as in any handshake with a preshared key (section 9.2).
    pub(super) fn mix_ephemeral(&mut self, public: &PublicKey) {
        self.mix_hash(&public.0);
        self.mix_key(&public.0);
    }

    /// A secret that no field is sealed with before the next one is mixed in.
    pub(super) fn mix_key(&mut self, input: &[u8; 32]) {
        let [chaining_key] = kdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
    }

    /// A secret, and the cipher key that follows from it.
    pub(super) fn mix_key_to_seal(&mut self, input: &[u8; 32]) -> Secret {
        let [chaining_key, cipher_key] = kdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        cipher_key
    }

    /// Token psk, and the cipher key that follows from it (Noise: MixKeyAndHash).
    pub(super) fn mix_psk(&mut self, psk: &[u8; 32]) -> Secret {
        let [chaining_key, to_hash, cipher_key] = kdf(&self.chaining_key, psk);
        self.chaining_key = chaining_key;
        self.mix_hash(to_hash.as_slice());
        cipher_key
    }

    /// Seals a field, bound to all before it. `SEALED` is the length of `plaintext` and a tag.
    pub(super) fn seal<const SEALED: usize>(&mut self, key: &Secret, plaintext: &[u8]) -> [u8; SEALED] {
        let mut sealed = [0; SEALED];
        let (text, tag) = sealed.split_at_mut(SEALED - TAG_LEN);
        text.copy_from_slice(plaintext);
        tag.copy_from_slice(&seal(key, &NONCE, &self.hash, text));
        self.mix_hash(&sealed);
        sealed
    }

    /// Opens a field; the state moves on only if its seal holds. `PLAIN` is the length without the tag.
    pub(super) fn open<const PLAIN: usize>(
        &mut self,
        key: &Secret,
        sealed: &[u8],
    ) -> Result<[u8; PLAIN], Forged> {
        let (text, tag) = sealed.split_last_chunk().ok_or(Forged)?;
        let mut plaintext: [u8; PLAIN] = text.try_into().map_err(|_| Forged)?;
        open(key, &NONCE, &self.hash, &mut plaintext, tag)?;
        self.mix_hash(sealed);
        Ok(plaintext)
    }

    /// The end: first the key of the initiator's direction, then of the responder's.
    pub(super) fn split(self) -> [Secret; 2] {
        kdf(&self.chaining_key, &[])
    }
}

impl Drop for Symmetric {
    fn drop(&mut self) {
        self.hash.zeroize();
    }
}

impl fmt::Debug for Symmetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Symmetric(…)")
    }
}
