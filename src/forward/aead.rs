//! ChaCha20-Poly1305 for data packets: `aws-lc-rs` with the feature `fast-aead`, else `chacha20poly1305`.
//! The nonce is 4 zero bytes and the little-endian counter; there is no additional data.

/// One direction's key; erases itself.
pub struct Key {/* private */}

/// The tag did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl Key {
    /// From 32 bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        todo!()
    }
    /// Encrypts `text` in place and returns its tag.
    pub fn seal(&self, counter: u64, text: &mut [u8]) -> [u8; 16] {
        todo!()
    }
    /// Decrypts `sealed` (ciphertext and tag) in place; the plaintext is its beginning.
    pub fn open<'a>(&self, counter: u64, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        todo!()
    }
}
