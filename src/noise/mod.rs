//! The handshake `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` as a calculation (WireGuard paper, section 5.4;
//! Noise rev. 34). Knows messages; no peers, sockets or clocks. Randomness is handed in.

pub mod handshake;
pub mod key_log;
pub mod keys;
pub mod macs;
mod primitives;
mod symmetric;
#[cfg(test)]
mod tests; // the handshake, against fixed transcripts and a second implementation
mod text;
pub mod timestamp;

pub use key_log::KeyLog;
pub use keys::{Identity, PresharedKey, PrivateKey, PublicKey, SessionKeys, Vault};
pub use timestamp::Tai64n;
