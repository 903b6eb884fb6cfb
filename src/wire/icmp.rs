//! ICMP and ICMPv6 messages that the tunnel says (RFC 792, RFC 4443), and the echo that the lab sends.

use std::net::IpAddr;

/// What could not be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No peer owns the destination: ICMP 3/1 (host), ICMPv6 1/0 (no route).
    NoPeer,
    /// A peer owns it but has no endpoint: ICMP 3/1, ICMPv6 1/3 (address).
    NoEndpoint,
}

/// The error to send back for `packet`, from `from` (an address of the tunnel device of the same family).
/// `None` where RFC 1122 3.2.2 and RFC 4443 2.4 forbid an answer (errors, multicast, later fragments, …).
pub fn unreachable(packet: &[u8], why: Unreachable, from: IpAddr) -> Option<Vec<u8>> {
    todo!()
}
