//! Key types: those that are secret erase themselves, cannot be printed, and compare in constant time.

use std::{fmt, str::FromStr, sync::Arc};

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: {0}")]
pub struct NotAKey(pub &'static str);

/// A Curve25519 public key; shown as base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for PublicKey {
    type Err = NotAKey;
    fn from_str(s: &str) -> Result<Self, NotAKey> {
        todo!()
    }
}
impl PublicKey {
    /// Its first eight base64 characters, for logs.
    pub fn short(&self) -> String {
        todo!()
    }
}

/// A Curve25519 private key, clamped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// From 32 random bytes; clamped (RFC 7748, section 5).
    pub fn new(bytes: [u8; 32]) -> Self {
        todo!()
    }
    /// A new key.
    pub fn generate(rng: &mut (impl rand_core::CryptoRng + ?Sized)) -> Self {
        todo!()
    }
    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        todo!()
    }
    /// Base64 or lower-case hex, only for a file or the control socket; the caller erases it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}
impl FromStr for PrivateKey {
    type Err = NotAKey;
    fn from_str(s: &str) -> Result<Self, NotAKey> {
        todo!()
    }
}
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// A preshared key (the psk2 of the pattern); all zero is the same as none.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// From 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// A new key.
    pub fn generate(rng: &mut (impl rand_core::CryptoRng + ?Sized)) -> Self {
        todo!()
    }
    /// Is it the same as none?
    pub fn is_zero(&self) -> bool {
        todo!()
    }
    /// Only for the calculation, a file, or the control socket.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}
impl PartialEq for PresharedKey {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        todo!()
    }
}
impl FromStr for PresharedKey {
    type Err = NotAKey;
    fn from_str(s: &str) -> Result<Self, NotAKey> {
        todo!()
    }
}
impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

/// Our static key pair and what follows from it, shared by all handshakes: one copy of the private key.
#[derive(Clone)]
pub struct Identity(Arc<IdentityInner>);
struct IdentityInner {
    private: PrivateKey,
    public: PublicKey,
}

impl Identity {
    /// Takes the key over.
    pub fn new(private: PrivateKey) -> Self {
        todo!()
    }
    /// Our public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }
    /// The one copy of our private key.
    pub fn private_key(&self) -> &PrivateKey {
        &self.0.private
    }
}

/// The two directions' ChaCha20-Poly1305 keys of a session.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKeys {
    /// We seal with it.
    pub send: [u8; 32],
    /// We open with it.
    pub receive: [u8; 32],
}
