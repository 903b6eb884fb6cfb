//! From the TUN to the wire: destination → peer → session → seal, in place.

use super::{Endpoint, Forward, Peer, Time};
use crate::wire::{ecn::Ecn, icmp};
use std::sync::Arc;

/// A buffer with room before and behind the packet, so that it is sealed where the TUN read put it.
pub struct PacketBuffer {/* private: Box<[u8]>, fixed, page-aligned where it matters */}

impl PacketBuffer {
    /// For packets of up to 65,535 bytes.
    pub fn new() -> Self {
        todo!()
    }
    /// Where the TUN read writes a packet.
    pub fn space(&mut self) -> &mut [u8] {
        todo!()
    }
}

/// What became of a packet from the TUN.
pub enum Outbound<'a> {
    /// Send this datagram there, with this outer ECN.
    Send {
        /// For `forget_local` and counting.
        peer: Arc<Peer>,
        /// Where to.
        to: Endpoint,
        /// The transport message.
        datagram: &'a [u8],
        /// Outer ECN; the outer DSCP is always 0.
        ecn: Ecn,
    },
    /// It waits for a session; the upper half was asked for one.
    Staged,
    /// It was refused (counted), and the sender should hear why by ICMP.
    Unreachable(icmp::Unreachable),
    /// It was refused (counted), silently.
    Refused,
}

impl Forward {
    /// Takes the `len` bytes that the TUN read left in `buffer`. `mtu` bounds the padding.
    pub fn outbound<'a>(
        &self,
        buffer: &'a mut PacketBuffer,
        len: usize,
        mtu: usize,
        now: Time,
    ) -> Outbound<'a> {
        todo!()
    }
}
