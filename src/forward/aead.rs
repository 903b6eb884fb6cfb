//! ChaCha20-Poly1305 for data packets. With the feature `fast-aead`: `intel-ipsec-mb` where the machine has it (feature
//! `ipsec-mb`), else `aws-lc-rs`; without it `chacha20poly1305`. The nonce is 4 zero bytes and the little-endian counter;
//! there is no additional data.

#[cfg(feature = "fast-aead")]
mod fast;
// Without the feature it does all the work; in tests it checks the other one.
#[cfg(any(test, not(feature = "fast-aead")))]
mod portable;
#[cfg(test)]
mod tests;
#[cfg(feature = "ipsec-mb")]
mod wide;

#[cfg(all(feature = "fast-aead", not(feature = "ipsec-mb")))]
use fast::Cipher;
#[cfg(not(feature = "fast-aead"))]
use portable::Cipher;
#[cfg(feature = "ipsec-mb")]
use wide::Cipher;

use crate::wire::message::TAG_LEN;

/// One direction's key; erases itself.
pub struct Key(Cipher);

/// The tag did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl Key {
    /// From 32 bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Cipher::new(bytes))
    }
    /// Encrypts `text` in place and returns its tag.
    pub fn seal(&self, counter: u64, text: &mut [u8]) -> [u8; TAG_LEN] {
        self.0.seal(nonce(counter), &[], text)
    }
    /// Decrypts `sealed` (ciphertext and tag) in place; the plaintext is its beginning. What stands in `sealed`
    /// after a failure is of no use.
    pub fn open<'a>(&self, counter: u64, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        self.0.open(nonce(counter), &[], sealed)
    }
}

/// Which library seals in this process, for people.
pub fn implementation() -> String {
    #[cfg(feature = "ipsec-mb")]
    return match wide::library() {
        Ok(library) => format!("intel-ipsec-mb {} (AVX-512)", library.version()),
        Err(why_not) => format!("aws-lc ({why_not})"),
    };
    #[cfg(not(feature = "ipsec-mb"))]
    return if cfg!(feature = "fast-aead") { "aws-lc" } else { "chacha20poly1305" }.to_owned();
}

/// Paper, section 5.4.6: 32 zero bits, then the 64-bit little-endian counter.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
