//! Bytes ⇄ types: WireGuard's four messages, IP headers, checksums, ICMP errors, what outer headers say, flows, TCP's MSS,
//! the virtio header of a TUN. Knows no key, peer or time.

pub mod checksum;
pub mod ecn;
pub mod flow;
pub mod icmp;
pub mod ip;
pub mod message;
pub mod mss;
pub mod outer;
#[cfg(test)]
mod samples;
pub mod vnet;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter or longer than its type demands.
    #[error("wrong length")]
    Length,
    /// The message type is none of the four, or a reserved byte is not zero.
    #[error("unknown type")]
    Type,
    /// Not IPv4 or IPv6, or a header that contradicts itself.
    #[error("bad IP header")]
    IpHeader,
}
