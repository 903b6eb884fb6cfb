//! ICMP errors to hosts behind this one, as any router says them: in its own name, about the packet as its sender
//! knows it.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::conntrack;
use crate::{
    sys,
    wire::{
        flow::Flow,
        icmp::{self, Unreachable},
        ip::{self, V4_HEADER_LEN, V6_HEADER_LEN},
    },
};

/// RFC 1812, section 4.3.2.5: errors have the precedence of internetwork control.
const INTERNETWORK_CONTROL: u32 = 0xc0;

/// The raw sockets that they leave by: opened once, while that is allowed, and deaf.
#[derive(Debug)]
pub struct Errors {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Errors {
    /// Without CAP_NET_RAW there are none: errors then speak in the name of the unreachable host.
    pub fn open() -> Self {
        let open = |v6| match open(v6) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::debug!(v6, %error, "no raw socket for ICMP errors");
                None
            }
        };
        Self { v4: open(false), v6: open(true) }
    }

    /// Tells the sender of a packet that was forwarded to us. The kernel chooses the source by its route to there.
    ///
    /// False if that is not for us to say: the sender is this host, whose sockets take an error from the device that the
    /// packet went to; the process may open no raw socket (CAP_NET_RAW); or the packet is one that gets no answer. Then
    /// it is said into the TUN instead, in the name of the destination.
    pub(super) fn tell_as_router(&self, packet: &[u8], why: Unreachable) -> bool {
        let packet = &as_sent(packet);
        let Ok(header) = ip::parse(packet) else { return false };
        let to = SocketAddr::new(header.source, 0);
        let (socket, header_len) = match to {
            SocketAddr::V4(_) => (&self.v4, V4_HEADER_LEN),
            SocketAddr::V6(_) => (&self.v6, V6_HEADER_LEN),
        };
        let Some(socket) = socket else { return false };
        if is_here(to) {
            return false;
        }
        let Some(error) = icmp::unreachable(packet, why) else { return false };
        // The kernel writes the IP header, and for IPv6 the checksum, which covers the source.
        socket.send_to(&error[header_len..], &to.into()).is_ok()
    }
}

/// The packet with the source that it had before the host translated it.
fn as_sent(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if let Some(before) = Flow::of(&packet).and_then(conntrack::before_translation) {
        before.write_source(&mut packet);
    }
    packet
}

/// Is this an address of the host?
fn is_here(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_ok()
}

/// One that stays open is given all ICMP that arrives, unless it says that it wants none.
fn open(v6: bool) -> io::Result<Socket> {
    let (domain, protocol) =
        if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    sys::socket::refuse_icmp(socket.as_fd(), v6)?;
    socket.set_recv_buffer_size(0)?; // the least that there is, for what is no ICMP
    if !v6 {
        socket.set_tos_v4(INTERNETWORK_CONTROL)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
