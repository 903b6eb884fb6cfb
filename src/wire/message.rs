//! WireGuard's four messages (paper, section 5.4).

use super::Malformed;

/// Bytes of a handshake initiation (type 1).
pub const INITIATION_LEN: usize = 148;
/// Bytes of a handshake response (type 2).
pub const RESPONSE_LEN: usize = 92;
/// Bytes of a cookie reply (type 3).
pub const COOKIE_REPLY_LEN: usize = 64;
/// Bytes before the sealed payload of a transport message (type 4).
pub const TRANSPORT_HEADER_LEN: usize = 16;
/// Bytes of the Poly1305 tag.
pub const TAG_LEN: usize = 16;

/// A receiver index: names a session to the end that chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u32);

/// Which of the four a datagram claims to be; its length has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response,
    /// Type 3.
    CookieReply,
    /// Type 4: at least a header and a tag.
    Transport,
}

/// Type (little-endian u32: three reserved zero bytes) and length of a datagram.
pub fn classify(datagram: &[u8]) -> Result<Kind, Malformed> {
    todo!()
}

/// First message, initiator to responder, without its macs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// The initiator's index.
    pub sender: Index,
    /// Its ephemeral public key.
    pub ephemeral: [u8; 32],
    /// Its static public key, sealed.
    pub encrypted_static: [u8; 48],
    /// TAI64N, sealed.
    pub encrypted_timestamp: [u8; 28],
}

impl Initiation {
    /// Reads all but the macs.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        todo!()
    }
    /// The message with both macs zero: [`crate::noise::macs`] fills them in.
    pub fn to_bytes(&self) -> [u8; INITIATION_LEN] {
        todo!()
    }
}

/// Second message, responder to initiator, without its macs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The responder's index.
    pub sender: Index,
    /// The initiator's index.
    pub receiver: Index,
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The sealed empty payload.
    pub encrypted_nothing: [u8; 16],
}

impl Response {
    /// Reads all but the macs.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        todo!()
    }
    /// The message with both macs zero.
    pub fn to_bytes(&self) -> [u8; RESPONSE_LEN] {
        todo!()
    }
}

/// The answer under load to a message with a valid mac1 (section 5.4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The index in the message that is answered.
    pub receiver: Index,
    /// XChaCha20-Poly1305 nonce.
    pub nonce: [u8; 24],
    /// The cookie, sealed.
    pub encrypted_cookie: [u8; 32],
}

impl CookieReply {
    /// Reads a cookie reply.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        todo!()
    }
    /// Its 64 bytes.
    pub fn to_bytes(&self) -> [u8; COOKIE_REPLY_LEN] {
        todo!()
    }
}

/// Header of a transport message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// The receiver's index.
    pub receiver: Index,
    /// The nonce counter.
    pub counter: u64,
}

impl TransportHeader {
    /// Reads the 16 bytes in front of the sealed payload.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        todo!()
    }
    /// Writes type, receiver and counter.
    pub fn write(&self, header: &mut [u8; TRANSPORT_HEADER_LEN]) {
        todo!()
    }
}
