//! Explicit congestion notification through a tunnel (RFC 6040, normal mode).

/// The two ECN bits of an IP header (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0,
    /// ECT(1).
    Ect1 = 1,
    /// ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// From the two low bits of a TOS or traffic-class byte; the DSCP above them is ignored.
    pub fn from_tos(tos: u8) -> Self {
        todo!()
    }
}

/// The outer field of a packet with this inner one (RFC 6040, section 4.1: copied).
pub fn encapsulate(inner: Ecn) -> Ecn {
    todo!()
}

/// The inner field to deliver (RFC 6040, figure 4); `None`: the packet must be dropped.
pub fn decapsulate(inner: Ecn, outer: Ecn) -> Option<Ecn> {
    todo!()
}

/// Writes the ECN bits of an IPv4 or IPv6 packet, and mends the IPv4 header checksum (RFC 1624).
pub fn mark(packet: &mut [u8], ecn: Ecn) {
    todo!()
}
