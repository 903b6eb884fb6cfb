//! The UDP sockets: one port on IPv4 and IPv6; answers leave from the address that was contacted.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Offload, bind};
use crate::{
    forward::{Endpoint, Local},
    sys::{
        poll::{self, Interest},
        socket::{self, Beside, Datagram, Own, Several},
    },
    wire::{ecn::Ecn, outer::Outer},
};

/// Both sockets. Where the kernel has no IPv6 there is only the first.
#[derive(Debug)]
pub struct UdpSockets {
    v4: Socket,
    v6: Option<Socket>,
    port: u16,
    /// Several datagrams may leave by one call (UDP_SEGMENT).
    segments: bool,
    /// Several may come by one call (UDP_GRO).
    gathers: bool,
    /// Drops that were told of, by family.
    dropped: [AtomicU32; 2],
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and only IPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// What one receive call gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// Larger than the buffer: cut, to be refused.
    pub truncated: bool,
    /// From where, and to which of our addresses.
    pub from: Endpoint,
    /// Outer ECN.
    pub ecn: Ecn,
    /// Bytes of each datagram but the last, where several came together; else of the one.
    pub stride: usize,
}

impl From<Datagram> for Received {
    fn from(datagram: Datagram) -> Self {
        Self {
            len: datagram.len,
            truncated: datagram.truncated,
            from: Endpoint { remote: datagram.remote, local: datagram.own.map(local) },
            ecn: Ecn::from_tos(datagram.tos),
            stride: datagram.segment.unwrap_or(datagram.len),
        }
    }
}

/// What is to be sent in one call: one datagram, or several behind each other.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// All bytes.
    pub bytes: &'a [u8],
    /// Bytes of each datagram but the last.
    pub stride: usize,
}

impl<'a> Payload<'a> {
    /// One datagram.
    pub fn one(bytes: &'a [u8]) -> Self {
        Self { bytes, stride: bytes.len() }
    }
    /// For the kernel; only said where there is something to cut.
    fn segment(&self) -> Option<u16> {
        if self.bytes.len() > self.stride { u16::try_from(self.stride).ok() } else { None }
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

/// The words of the error that says who holds this port; `None`: it is free by now.
pub fn holder_of(port: u16) -> Option<String> {
    bind::both(port, 0)
        .err()
        .filter(|error| error.kind() == io::ErrorKind::AddrInUse)
        .map(|error| error.to_string())
}

impl UdpSockets {
    /// Binds `port` (0: the kernel chooses, the same for both; tried again if the other family has it taken).
    /// A taken port is an error that says who holds it (`/proc/net/udp` and the owner's process, if it can be seen).
    pub fn bind(port: u16, fwmark: u32) -> io::Result<Self> {
        let (v4, v6, port) = bind::both(port, fwmark)?;
        Ok(Self { v4, v6, port, segments: false, gathers: false, dropped: Default::default() })
    }

    /// Takes over the sockets of another process, with what waits in them. An error says why they are not those that
    /// [`Self::bind`] would have made.
    pub fn adopt(v4: OwnedFd, v6: Option<OwnedFd>, port: u16, fwmark: u32) -> io::Result<Self> {
        let (v4, v6, port) = bind::adopt(v4, v6, port, fwmark)?;
        for socket in [Some(&v4), v6.as_ref()].into_iter().flatten() {
            // Where it was never on, there is nothing to be switched off.
            let _ = socket::disable_gro(socket.as_fd());
        }
        let adopted = Self { v4, v6, port, segments: false, gathers: false, dropped: Default::default() };
        let _told_by_the_process_before = adopted.newly_dropped();
        Ok(adopted)
    }

    /// Lets several datagrams leave and come by one call, where that is wanted and the kernel can do it.
    pub fn with(mut self, offload: Offload) -> Self {
        if offload == Offload::Auto {
            self.enable_offload();
        }
        self
    }

    fn enable_offload(&mut self) {
        let sockets = [Some(&self.v4), self.v6.as_ref()];
        let received = sockets.into_iter().flatten().map(|socket| socket::enable_gro(socket.as_fd()));
        let received: io::Result<Vec<()>> = received.collect();
        if let Err(error) = &received {
            tracing::info!(%error, "this kernel receives datagrams one by one (no UDP_GRO)");
        }
        self.gathers = received.is_ok();
        self.segments = sockets.into_iter().flatten().all(|socket| socket::can_segment(socket.as_fd()));
        if !self.segments {
            tracing::info!("this kernel sends datagrams one by one (no UDP_SEGMENT)");
        }
    }

    /// May several datagrams leave by one call?
    pub fn segments(&self) -> bool {
        self.segments
    }

    /// May several datagrams come by one call?
    pub fn gathers(&self) -> bool {
        self.gathers
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many datagrams the kernel dropped since this was asked last, as the receive buffers were full.
    pub fn newly_dropped(&self) -> u64 {
        let newly = |(family, told): (Family, &AtomicU32)| {
            let dropped = socket::dropped(self.descriptor(family)?).ok()?;
            Some(u64::from(dropped.wrapping_sub(told.swap(dropped, Ordering::Relaxed))))
        };
        [Family::V4, Family::V6].into_iter().zip(&self.dropped).filter_map(newly).sum()
    }

    /// Is there an IPv6 socket?
    pub fn has_v6(&self) -> bool {
        self.v6.is_some()
    }

    /// SO_MARK on both.
    pub fn set_mark(&self, fwmark: u32) -> io::Result<()> {
        bind::set_mark(&self.v4, fwmark)?;
        self.v6.as_ref().map_or(Ok(()), |v6| bind::set_mark(v6, fwmark))
    }

    /// The descriptor of one family, for poll; `None` where there is no IPv6.
    pub fn descriptor(&self, family: Family) -> Option<BorrowedFd<'_>> {
        match family {
            Family::V4 => Some(self.v4.as_fd()),
            Family::V6 => self.v6.as_ref().map(AsFd::as_fd),
        }
    }

    /// The next datagram of one family, or several with the same addresses; `WouldBlock` when there is none. A datagram
    /// larger than `buffer` is cut and says so.
    pub fn receive(&self, family: Family, buffer: &mut [u8]) -> io::Result<Received> {
        let descriptor = self.descriptor(family).ok_or(io::ErrorKind::WouldBlock)?;
        socket::receive(descriptor, buffer).map(Received::from)
    }

    /// The same by one call for several, each into a room of its own; how many came. Fewer than there are rooms: no more
    /// wait.
    pub fn receive_several<'b>(
        &self,
        family: Family,
        rooms: impl Iterator<Item = &'b mut [u8]>,
        several: &mut Several,
        mut each: impl FnMut(usize, Received),
    ) -> io::Result<usize> {
        let descriptor = self.descriptor(family).ok_or(io::ErrorKind::WouldBlock)?;
        several.receive(descriptor, rooms, |room, datagram| {
            // One whose sender has an address of neither family was sent by nobody.
            if let Ok(datagram) = datagram {
                each(room, datagram.into());
            }
        })
    }

    /// Sends from `to.local` if it is known. If that address is gone (EINVAL, ENETUNREACH,
    /// EADDRNOTAVAIL, …) sends it again without, and says so in the result. `WouldBlock`: the buffer is full.
    pub fn send(&self, to: &Endpoint, outer: Outer, payload: Payload<'_>) -> io::Result<Sent> {
        let own = to.local.map(|local| Own { address: local.address, interface: local.interface });
        match self.send_once(&to.remote, own, outer, payload) {
            Ok(()) => Ok(Sent::AsAsked),
            Err(error) if own.is_some() && may_be_the_source(&error) => {
                // If it fails without the source, too, then the source was not what is wrong: it is kept.
                self.send_once(&to.remote, None, outer, payload)?;
                Ok(Sent::LocalGone)
            }
            Err(error) => Err(error),
        }
    }

    /// [`Self::send`], but a full buffer is waited for, at most this long; then it is `WouldBlock`.
    pub fn send_patiently(
        &self,
        to: &Endpoint,
        outer: Outer,
        payload: Payload<'_>,
        patience: Duration,
    ) -> io::Result<Sent> {
        match self.send(to, outer, payload) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll::wait([Some((self.descriptor_for(&to.remote)?, Interest::Write))], Some(patience))?;
                self.send(to, outer, payload)
            }
            done => done,
        }
    }

    /// A signal, or an error that an earlier datagram left on the socket (ICMP port unreachable), is no fault of
    /// this one: it is sent again, once.
    fn send_once(
        &self,
        to: &SocketAddr,
        own: Option<Own>,
        outer: Outer,
        payload: Payload<'_>,
    ) -> io::Result<()> {
        let descriptor = self.descriptor_for(to)?;
        let beside =
            Beside { own, tos: outer.ecn as u8, hop_limit: outer.hop_limit, segment: payload.segment() };
        match socket::send(descriptor, to, beside, payload.bytes) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNREFUSED)) => {
                socket::send(descriptor, to, beside, payload.bytes)
            }
            done => done,
        }
    }

    fn descriptor_for(&self, to: &SocketAddr) -> io::Result<BorrowedFd<'_>> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        self.descriptor(family).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    }
}

/// A socket for a conversation beside the tunnel, which goes past it by the mark of the tunnel's own packets (0: none).
/// Connected, so that it fails where there is no route. To be called within a runtime.
pub fn connected(to: SocketAddr, fwmark: u32) -> io::Result<tokio::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Setting a mark takes a capability, having none does not.
    if fwmark != 0 {
        bind::set_mark(&socket, fwmark)?;
    }
    socket.connect(&to.into())?;
    tokio::net::UdpSocket::from_std(socket.into())
}

/// The address that a datagram came to. An interface is only part of a link-local one: elsewhere it would bind
/// the answer to where the question came in, while routing may know better.
fn local(own: Own) -> Local {
    let link_local = matches!(own.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Local { address: own.address, interface: if link_local { own.interface } else { 0 } }
}

/// Errors of a send whose source address or interface went away. IPv4 says EINVAL, or ENETUNREACH when the route
/// went with it; IPv6 EINVAL, EADDRNOTAVAIL, ENETUNREACH, and ENODEV or ENXIO for the interface of a link-local
/// address. EHOSTUNREACH is a rule or route for that source alone. EINVAL has other reasons, too, but none that a
/// second try without the source would make worse.
fn may_be_the_source(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL
                | libc::EADDRNOTAVAIL
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENODEV
                | libc::ENXIO
        )
    )
}
