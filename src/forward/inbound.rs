//! From the wire to the TUN: type → session → open → replay → source check against the whole table.

use super::{Endpoint, Forward, Time};
use crate::wire::ecn::Ecn;

/// What became of a datagram.
pub enum Inbound<'a> {
    /// Write this packet to the TUN.
    Deliver(&'a [u8]),
    /// An authentic empty packet.
    Keepalive,
    /// Passed to the upper half.
    Handshake,
    /// Refused and counted.
    Refused,
}

impl Forward {
    /// Takes one datagram, which is decrypted in place; `from.local` is the address it came to, `ecn` the
    /// outer congestion field.
    pub fn inbound<'a>(&self, from: &Endpoint, ecn: Ecn, datagram: &'a mut [u8], now: Time) -> Inbound<'a> {
        todo!()
    }
}
