//! ChaCha20-Poly1305 in Rust alone: needs no C compiler.

use chacha20poly1305::{
    AeadInOut, ChaCha20Poly1305, KeyInit,
    aead::{array::Array, inout::InOutBuf},
};

use super::Forged;
use crate::wire::message::TAG_LEN;

/// A key; the crate wipes it on drop (feature `zeroize`).
pub(super) struct Cipher(ChaCha20Poly1305);

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    pub(super) fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self.0.encrypt_inout_detached(&Array(nonce), aad, InOutBuf::from(text));
        tag.expect("a packet is shorter than the cipher's limit of 256 GiB").0
    }

    pub(super) fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(Forged)?;
        let opened =
            self.0.decrypt_inout_detached(&Array(nonce), aad, InOutBuf::from(&mut *text), &Array(*tag));
        opened.map_err(|_| Forged)?;
        Ok(text)
    }
}
