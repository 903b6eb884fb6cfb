//! ICMP errors to hosts behind this one, as any router says them: in its own name, about the packet as its sender
//! knows it.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::conntrack;
use crate::wire::{
    flow::Flow,
    icmp::{self, Unreachable},
    ip::{self, V4_HEADER_LEN, V6_HEADER_LEN},
};

/// RFC 1812, section 4.3.2.5: errors have the precedence of internetwork control.
const INTERNETWORK_CONTROL: u32 = 0xc0;

/// Tells the sender of a packet that was forwarded to us. The kernel chooses the source by its route to there.
///
/// False if that is not for us to say: the sender is this host, whose sockets take an error from the device that the
/// packet went to; the process may open no raw socket (CAP_NET_RAW); or the packet is one that gets no answer. Then it
/// is said into the TUN instead, in the name of the destination.
pub(super) fn tell_as_router(packet: &[u8], why: Unreachable) -> bool {
    let packet = &as_sent(packet);
    let Ok(header) = ip::parse(packet) else { return false };
    let to = SocketAddr::new(header.source, 0);
    let (domain, protocol, header_len) = match to {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, V4_HEADER_LEN),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, V6_HEADER_LEN),
    };
    if is_here(to) {
        return false;
    }
    let Some(error) = icmp::unreachable(packet, why) else { return false };
    send(domain, protocol, &to, &error[header_len..]).is_ok()
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

/// The kernel writes the IP header, and for IPv6 the checksum, which covers the source. A socket for each error: there
/// are few, and one that stays open is given all ICMP that arrives.
fn send(domain: Domain, protocol: Protocol, to: &SocketAddr, message: &[u8]) -> io::Result<()> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    if to.is_ipv4() {
        socket.set_tos_v4(INTERNETWORK_CONTROL)?;
    }
    socket.set_nonblocking(true)?;
    socket.send_to(message, &(*to).into())?;
    Ok(())
}
