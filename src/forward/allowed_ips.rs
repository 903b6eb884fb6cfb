//! Longest prefix → value, for IPv4 and IPv6 (cryptokey routing, paper, section 2).

use std::net::IpAddr;

use ipnet::IpNet;

/// An immutable look-up table; the upper half builds a new one when prefixes change.
pub struct AllowedIps<T> {
    /* private: a path-compressed radix tree in arenas of small nodes */
    marker: std::marker::PhantomData<T>,
}

impl<T> AllowedIps<T> {
    /// From prefixes (host bits are ignored); of two equal ones the last stands. 130,000 take milliseconds.
    pub fn build(prefixes: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        todo!()
    }
    /// The value of the longest prefix that holds `address`, and that prefix's length.
    pub fn find(&self, address: IpAddr) -> Option<(&T, u8)> {
        todo!()
    }
}
