//! The UDP sockets: one port on IPv4 and IPv6; answers leave from the address that was contacted.

use std::io;

use crate::{forward::Endpoint, wire::ecn::Ecn};

/// Both sockets. Where the kernel has no IPv6 there is only the first.
pub struct UdpSockets {/* private */}

/// One datagram as it came.
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// Larger than the buffer: cut, to be refused.
    pub truncated: bool,
    /// From where, and to which of our addresses.
    pub from: Endpoint,
    /// Outer ECN.
    pub ecn: Ecn,
}

impl UdpSockets {
    /// Binds `port` (0: the kernel chooses, the same for both; tried again if the other family has it taken).
    /// A taken port is an error that says who holds it (`/proc/net/udp` and the owner's process, if it can be seen).
    pub fn bind(port: u16, fwmark: u32) -> io::Result<Self> {
        todo!()
    }
    /// The port.
    pub fn port(&self) -> u16 {
        todo!()
    }
    /// SO_MARK on both.
    pub fn set_mark(&self, fwmark: u32) -> io::Result<()> {
        todo!()
    }
    /// Sends one datagram from `to.local` if it is known. If that address is gone (EINVAL, ENETUNREACH,
    /// EADDRNOTAVAIL, …) sends it again without, and says so in the result.
    pub fn send(&self, to: &Endpoint, ecn: Ecn, datagram: &[u8]) -> io::Result<Sent> {
        todo!()
    }
}

/// How a datagram left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// As asked.
    AsAsked,
    /// The local address is gone: the caller forgets it ([`crate::forward::Peer::forget_local`]).
    LocalGone,
}
