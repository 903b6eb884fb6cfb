//! Opening the UDP sockets: both families on one port, with the options that the walk relies on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{holder, udp::Family};
use crate::sys;

/// A burst of 45 full datagrams from each of many peers must fit while the thread sleeps; wireguard-go's size.
const BUFFER: u32 = 7 << 20;
/// From here on a port is anybody's (ip(7), ip_unprivileged_port_start, where nobody has changed it).
const UNPRIVILEGED: u16 = 1024;
/// How often the kernel is asked for another port when IPv6 has the first one taken.
const PORT_TRIES: usize = 32;

/// Binds both families to `port`; 0 lets the kernel choose one that is free in both. The second socket is absent
/// where the kernel has no IPv6.
pub(super) fn both(port: u16, fwmark: u32) -> io::Result<(Socket, Option<Socket>, u16)> {
    let tries = if port == 0 { PORT_TRIES } else { 1 };
    let mut taken = None;
    for _ in 0..tries {
        let v4 = one(Family::V4, port, fwmark)?;
        let bound = local_port(&v4)?;
        match one(Family::V6, bound, fwmark) {
            Ok(v6) => return Ok((v4, Some(v6), bound)),
            Err(error) if absent(&error) => {
                tracing::info!(port = bound, %error, "no IPv6 here: IPv4 only");
                return Ok((v4, None, bound));
            }
            // The next round asks for another port, while v4 lets go of this one.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(taken.expect("the loop ran at least once, and goes on only after a taken port"))
}

/// The kernel was built or booted without IPv6.
fn absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn local_port(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?.as_socket();
    Ok(address.expect("a bound UDP socket has an IP address").port())
}

/// One socket, set up and bound. Never SO_REUSEADDR or SO_REUSEPORT: two daemons on one port would each get
/// some of the packets.
fn one(family: Family, port: u16, fwmark: u32) -> io::Result<Socket> {
    let (domain, any): (_, SocketAddr) = match family {
        Family::V4 => (Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()),
        Family::V6 => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    set_up(&socket, family)?;
    // Setting a mark takes a capability, having none does not.
    if fwmark != 0 {
        set_mark(&socket, fwmark)?;
    }
    // Marked before bound: nothing that arrives in between is answered without it.
    socket.bind(&any.into()).map_err(|error| explained(family, port, error))?;
    enlarge_buffers(&socket, family)?;
    Ok(socket)
}

/// What may be set at any time.
fn set_up(socket: &Socket, family: Family) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match family {
        Family::V4 => {
            sys::socket::enable_pktinfo_v4(socket.as_fd())?;
            socket.set_recv_tos_v4(true)?;
            sys::socket::allow_fragments_v4(socket.as_fd())?;
        }
        Family::V6 => {
            sys::socket::enable_pktinfo_v6(socket.as_fd())?;
            socket.set_recv_tclass_v6(true)?;
            sys::socket::allow_fragments_v6(socket.as_fd())?;
        }
    }
    Ok(())
}

/// Takes over sockets that another process bound, with what waits in them; the second one is opened where it is missing.
/// An error says why they are not what [`both`] would have opened.
pub(super) fn adopt(
    v4: OwnedFd,
    v6: Option<OwnedFd>,
    port: u16,
    fwmark: u32,
) -> io::Result<(Socket, Option<Socket>, u16)> {
    let v4 = adopt_one(Family::V4, v4, port, fwmark)?;
    let bound = local_port(&v4)?;
    match v6.map_or_else(|| one(Family::V6, bound, fwmark), |v6| adopt_one(Family::V6, v6, bound, fwmark)) {
        Ok(v6) => Ok((v4, Some(v6), bound)),
        Err(error) if absent(&error) => Ok((v4, None, bound)),
        Err(error) => Err(error),
    }
}

/// `port`: 0 stands for any.
fn adopt_one(family: Family, descriptor: OwnedFd, port: u16, fwmark: u32) -> io::Result<Socket> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let socket = Socket::from(descriptor);
    let (domain, any) = match family {
        Family::V4 => (Domain::IPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        Family::V6 => (Domain::IPV6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    };
    let is = (socket.domain().ok(), socket.protocol().ok().flatten());
    if is != (Some(domain), Some(Protocol::UDP)) {
        return Err(wrong(format!("it is no UDP socket of {family}")));
    }
    if family == Family::V6 && !socket.only_v6()? {
        return Err(wrong("it takes IPv4, too".to_owned()));
    }
    match socket.local_addr()?.as_socket() {
        Some(at) if at.ip() == any && at.port() != 0 && (port == 0 || at.port() == port) => {}
        Some(at) if port == 0 => return Err(wrong(format!("it is bound to {at}, and not to all addresses"))),
        Some(at) => {
            return Err(wrong(format!("it is bound to {at}, and port {port} of all addresses is wanted")));
        }
        None => return Err(wrong("it has no address".to_owned())),
    }
    match sys::inherit::socket_is_here(socket.as_fd()) {
        Ok(true) => {}
        Ok(false) => return Err(wrong("it is of another network namespace".to_owned())),
        Err(error) => return Err(wrong(format!("its network namespace cannot be told: {error}"))),
    }
    set_up(&socket, family)?;
    if socket.mark()? != fwmark {
        set_mark(&socket, fwmark)?;
    }
    enlarge_buffers(&socket, family)?;
    Ok(socket)
}

/// SO_MARK.
pub(super) fn set_mark(socket: &Socket, fwmark: u32) -> io::Result<()> {
    socket.set_mark(fwmark).map_err(|error| {
        let hint =
            if error.kind() == io::ErrorKind::PermissionDenied { "; it needs CAP_NET_ADMIN" } else { "" };
        io::Error::new(
            error.kind(),
            format!("setting the mark {fwmark:#x} on the UDP sockets: {error}{hint}"),
        )
    })
}

/// A failed bind, with who holds the port. What tells that IPv6 is absent passes as it is.
fn explained(family: Family, port: u16, error: io::Error) -> io::Error {
    if absent(&error) {
        return error;
    }
    if error.kind() != io::ErrorKind::AddrInUse {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied if port < UNPRIVILEGED => {
                "; below 1024 it needs CAP_NET_BIND_SERVICE (under systemd by a drop-in: vpnd@.service has it)"
            }
            _ => "",
        };
        return io::Error::new(error.kind(), format!("binding UDP port {port} ({family}): {error}{hint}"));
    }
    let message = match in_use_by(family, port) {
        holder::Holder::Unseen => format!(
            "UDP port {port} ({family}) is in use, but by no process that can be seen from here: a WireGuard \
             device of the kernel (`wg show all listen-port`), or a process of another user or namespace; \
             choose another listen_port, or end it"
        ),
        seen => {
            format!("UDP port {port} ({family}) is held by {seen}; choose another listen_port, or end it")
        }
    };
    io::Error::new(error.kind(), message)
}

/// An IPv4 port can also be held by an IPv6 socket that takes both.
fn in_use_by(family: Family, port: u16) -> holder::Holder {
    let tables = match family {
        Family::V4 => ["udp", "udp6"],
        Family::V6 => ["udp6", "udp"],
    };
    match holder::of_udp_port(tables[0], port) {
        holder::Holder::Unseen => holder::of_udp_port(tables[1], port),
        seen => seen,
    }
}

/// 7 MB each way, or what `net.core.rmem_max` and `wmem_max` let an unprivileged process have.
fn enlarge_buffers(socket: &Socket, family: Family) -> io::Result<()> {
    if sys::socket::force_receive_buffer(socket.as_fd(), BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER as usize)?;
    }
    if sys::socket::force_send_buffer(socket.as_fd(), BUFFER).is_err() {
        socket.set_send_buffer_size(BUFFER as usize)?;
    }
    // The kernel doubles what was asked for, for its own bookkeeping (socket(7)), and reads back the double.
    let (receive, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    if receive.min(send) < BUFFER as usize {
        tracing::info!(
            %family, wanted = BUFFER, receive, send,
            "UDP buffers are smaller than wanted: bursts may be lost; net.core.rmem_max and wmem_max limit them"
        );
    }
    Ok(())
}
