//! ChaCha20-Poly1305 by AWS-LC's assembly.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::Forged;
use crate::wire::message::TAG_LEN;

/// A key. AWS-LC keeps it in memory of its own, and wipes that when it frees it.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a ChaCha20-Poly1305 key has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    pub(super) fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        let tag = tag.expect("a packet is shorter than the cipher's limit of 256 GiB");
        tag.as_ref().try_into().expect("a Poly1305 tag has 16 bytes")
    }

    pub(super) fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| Forged)
    }
}
