//! The source that a socket gets before a route is known: IPv6 chooses one by the destination alone (RFC 6724) where
//! routing without a source led nowhere, and asks for the route again (ip6_dst_lookup_tail).

use std::{io, net::IpAddr, net::SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::question::Question;

/// What a port may be where none is known; nothing is sent to it.
const ANY_PORT: u16 = 9;

/// A datagram socket is connected, which sends nothing, and asked for its address. The error is that of the second
/// question for the route.
pub(super) fn chosen(question: &Question) -> io::Result<IpAddr> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    if question.mark != 0 {
        socket.set_mark(question.mark)?;
    }
    if question.source_port != 0 {
        // Rules may ask for it; where somebody else has it, they must do without.
        let any = SocketAddr::from(([0u16; 8], question.source_port));
        let _ = socket.set_reuse_address(true).and_then(|()| socket.bind(&SockAddr::from(any)));
    }
    let port = if question.destination_port == 0 { ANY_PORT } else { question.destination_port };
    socket.connect(&SockAddr::from(SocketAddr::new(question.to, port)))?;
    let own = socket.local_addr()?.as_socket().map(|own| own.ip());
    own.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}
