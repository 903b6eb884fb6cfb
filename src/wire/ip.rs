//! What the tunnel needs of an IP header.

use std::net::IpAddr;

use super::{Malformed, ecn::Ecn};

/// The facts of one IPv4 or IPv6 packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Length that the header claims for the whole packet: at most the bytes that are there.
    pub total_len: usize,
    /// Congestion field.
    pub ecn: Ecn,
}

/// Reads version, lengths and addresses; refuses a packet shorter than its header says.
pub fn parse(packet: &[u8]) -> Result<Header, Malformed> {
    todo!()
}

/// The Internet checksum (RFC 1071) of these bytes, going on from `initial` (an unfolded sum).
pub fn checksum(initial: u32, bytes: &[u8]) -> u16 {
    todo!()
}
