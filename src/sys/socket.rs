//! UDP datagrams in or out, with what rides beside them: our own address (IP_PKTINFO, ip(7); IPV6_PKTINFO,
//! RFC 3542), the TOS or traffic-class byte (IP_TOS, IPV6_TCLASS), the TTL or hop limit (IP_TTL, IPV6_HOPLIMIT), and
//! the length of each where several travel together (UDP_SEGMENT, UDP_GRO; udp(7)).

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    num::NonZeroU8,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{c_int, c_void, socklen_t};

/// An address of ours, and the interface it belongs to (0: any).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Never unspecified.
    pub address: IpAddr,
    /// Interface index.
    pub interface: u32,
}

/// What came with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes written to the buffer.
    pub len: usize,
    /// The datagram was larger than the buffer (MSG_TRUNC).
    pub truncated: bool,
    /// Who sent it.
    pub remote: SocketAddr,
    /// Which of our addresses it was sent to, and the interface it came in by; needs [`enable_pktinfo_v4`] or
    /// [`enable_pktinfo_v6`].
    pub own: Option<Own>,
    /// TOS or traffic class; 0 unless the socket was told to report it.
    pub tos: u8,
    /// Several datagrams of this length each came together, the last of which may be shorter; only after
    /// [`enable_gro`].
    pub segment: Option<usize>,
}

/// Bytes of control messages: room for PKTINFO of either family and three ints each way, with some to spare.
const CONTROL: usize = 128;

/// Aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const _: () = assert!(mem::align_of::<libc::cmsghdr>() <= mem::align_of::<Control>());

/// Receives one datagram without waiting.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    // SAFETY: all zero is a valid sockaddr_storage: it is plain old data.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut control = Control([0; CONTROL]);
    let mut part = part(buffer);
    let mut message = asked(&mut name, &mut control, &mut part);
    // SAFETY: every pointer in `message` is to a live, writable object of the length that stands beside it.
    let len = super::length(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) })?;
    answered(&message, len.min(buffer.len()), &name)
}

/// Datagrams that one call takes at most.
pub const AT_ONCE: usize = 8;

/// What several datagrams bring beside their bytes; kept from call to call, as it is large.
pub struct Several {
    names: [libc::sockaddr_storage; AT_ONCE],
    controls: [Control; AT_ONCE],
}

impl Several {
    /// Nothing came yet.
    #[expect(clippy::new_without_default, reason = "there is nothing that is usual about it")]
    pub fn new() -> Self {
        Self {
            // SAFETY: all zero is a valid sockaddr_storage: it is plain old data.
            names: [unsafe { mem::zeroed() }; AT_ONCE],
            controls: [const { Control([0; CONTROL]) }; AT_ONCE],
        }
    }

    /// Receives, without waiting, one datagram into each of these rooms, at most [`AT_ONCE`], until there are no more;
    /// how many. `each` is told the number of the room.
    pub fn receive<'b>(
        &mut self,
        socket: BorrowedFd<'_>,
        rooms: impl Iterator<Item = &'b mut [u8]>,
        mut each: impl FnMut(usize, io::Result<Datagram>),
    ) -> io::Result<usize> {
        let Self { names, controls } = self;
        // SAFETY: all zero is a valid iovec, and a valid mmsghdr: null pointers with zero lengths.
        let (mut parts, mut messages): ([libc::iovec; AT_ONCE], [libc::mmsghdr; AT_ONCE]) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut count = 0;
        let places = names.iter_mut().zip(controls).zip(&mut parts).zip(&mut messages);
        for (room, (((name, control), place), message)) in rooms.zip(places) {
            *place = part(room);
            message.msg_hdr = asked(name, control, place);
            count += 1;
        }
        // By number: some C libraries try another call first, which the sandbox does not know.
        // SAFETY: the first `count` messages are set, and every pointer in them is to a live, writable object of the length
        // that stands beside it.
        let received = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null::<libc::timespec>(),
            )
        };
        let received = super::length(received as libc::ssize_t)?;
        for (at, (message, part)) in messages.iter().zip(&parts).take(received).enumerate() {
            let len = (message.msg_len as usize).min(part.iov_len);
            each(at, answered(&message.msg_hdr, len, &names[at]));
        }
        Ok(received)
    }
}

/// Where bytes are to go.
fn part(buffer: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
}

/// What the kernel is asked for: a datagram, its sender's name, and its control messages. Only pointers to the three.
fn asked(name: &mut libc::sockaddr_storage, control: &mut Control, part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zero is a valid msghdr (null pointers with zero lengths).
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut *name).cast();
    message.msg_namelen = mem::size_of_val(name) as socklen_t;
    message.msg_iov = &raw mut *part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    message
}

/// What it left there.
fn answered(message: &libc::msghdr, len: usize, name: &libc::sockaddr_storage) -> io::Result<Datagram> {
    let mut datagram = Datagram {
        len,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        remote: remote(name)?,
        own: None,
        tos: 0,
        segment: None,
    };
    each_control(message, |header, data| read_control(header, data, &mut datagram));
    Ok(datagram)
}

/// The sender's address, from what the kernel left in msg_name.
fn remote(name: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, which is smaller and no stricter aligned.
            let v4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6, which is smaller and no stricter aligned.
            let v6 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            // The flow label is no part of an endpoint: two packets of one peer may differ in it.
            Ok(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}

/// Walks the control messages that the kernel left: header, and the address of its data.
pub(super) fn each_control(message: &libc::msghdr, mut visit: impl FnMut(&libc::cmsghdr, *const u8)) {
    // SAFETY: msg_control and msg_controllen describe the buffer as recvmsg left it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null, or a header that lies whole within that buffer, which
    // outlives this walk and is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: `header` lies in the buffer; its data begin right behind it.
        visit(header, unsafe { libc::CMSG_DATA(next) });
        // SAFETY: as for CMSG_FIRSTHDR; `next` is a header of that buffer.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
}

/// Takes what we asked for out of one control message; leaves others alone.
fn read_control(header: &libc::cmsghdr, data: *const u8, datagram: &mut Datagram) {
    // A message that was cut off (MSG_CTRUNC) may be shorter than its type.
    #[allow(clippy::unnecessary_cast)] // musl says u32 where glibc says usize
    let holds = |size: usize| {
        // SAFETY: CMSG_LEN only calculates.
        header.cmsg_len as usize >= unsafe { libc::CMSG_LEN(size as u32) } as usize
    };
    match (header.cmsg_level, header.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) if holds(mem::size_of::<libc::in_pktinfo>()) => {
            // SAFETY: the length was checked, the type is plain old data, the read asks for no alignment.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            // ipi_spec_dst, not ipi_addr: for a broadcast it is the address to answer from.
            let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
            datagram.own = own(address.into(), info.ipi_ifindex as u32);
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if holds(mem::size_of::<libc::in6_pktinfo>()) => {
            // SAFETY: as above.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            datagram.own = own(Ipv6Addr::from(info.ipi6_addr.s6_addr).into(), info.ipi6_ifindex);
        }
        (libc::SOL_UDP, libc::UDP_GRO) if holds(mem::size_of::<c_int>()) => {
            // SAFETY: the length was checked, the read asks for no alignment.
            let segment = unsafe { data.cast::<c_int>().read_unaligned() };
            datagram.segment = usize::try_from(segment).ok().filter(|segment| *segment > 0);
        }
        // One byte, while IPV6_TCLASS is an int.
        (libc::IPPROTO_IP, libc::IP_TOS) if holds(1) => {
            // SAFETY: the length was checked.
            datagram.tos = unsafe { data.read() };
        }
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if holds(mem::size_of::<c_int>()) => {
            // SAFETY: as above.
            datagram.tos = unsafe { data.cast::<c_int>().read_unaligned() } as u8;
        }
        _ => {}
    }
}

/// An address that can be answered from.
fn own(address: IpAddr, interface: u32) -> Option<Own> {
    let usable = !address.is_unspecified() && !address.is_multicast();
    usable.then_some(Own { address, interface })
}

/// What rides beside what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Which of our addresses it leaves from; an interface of 0 leaves the choice to routing. `None`: any.
    pub own: Option<Own>,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit; `None`: the host's own.
    pub hop_limit: Option<NonZeroU8>,
    /// The kernel is to cut the bytes into datagrams of this length, the last of which may be shorter.
    pub segment: Option<u16>,
}

/// Sends one datagram, or several. The families of `beside.own` and `remote` must be the socket's.
pub fn send(socket: BorrowedFd<'_>, remote: &SocketAddr, beside: Beside, datagram: &[u8]) -> io::Result<()> {
    let (name, name_len) = sockaddr(remote);
    let mut control = Control([0; CONTROL]);
    let control_len = write_controls(&mut control, remote, beside);
    let mut part = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
    // SAFETY: all zero is a valid msghdr (null pointers with zero lengths).
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw const name).cast_mut().cast();
    message.msg_namelen = name_len;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if control_len > 0 {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control_len as _;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: every pointer in `message` is to a live object of the length that stands beside it; sendmsg only
    // reads them, so the casts to mut are never used to write.
    super::length(unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) })?;
    Ok(())
}

/// As the kernel wants a destination.
fn sockaddr(remote: &SocketAddr) -> (libc::sockaddr_storage, socklen_t) {
    // SAFETY: all zero is a valid sockaddr_storage: it is plain old data.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    match remote {
        SocketAddr::V4(remote) => {
            // SAFETY: sockaddr_storage is made to hold each sockaddr, and is aligned for it.
            let v4 = unsafe { &mut *(&raw mut name).cast::<libc::sockaddr_in>() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = remote.port().to_be();
            v4.sin_addr.s_addr = u32::from_ne_bytes(remote.ip().octets());
            (name, mem::size_of::<libc::sockaddr_in>() as socklen_t)
        }
        SocketAddr::V6(remote) => {
            // SAFETY: as above.
            let v6 = unsafe { &mut *(&raw mut name).cast::<libc::sockaddr_in6>() };
            v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            v6.sin6_port = remote.port().to_be();
            v6.sin6_addr.s6_addr = remote.ip().octets();
            v6.sin6_scope_id = remote.scope_id();
            (name, mem::size_of::<libc::sockaddr_in6>() as socklen_t)
        }
    }
}

/// Writes the control messages of one send; returns their length.
fn write_controls(control: &mut Control, remote: &SocketAddr, beside: Beside) -> usize {
    let Beside { own, tos, hop_limit, segment } = beside;
    let mut used = 0;
    match own.map(|own| (own.address, own.interface)) {
        Some((IpAddr::V4(address), interface)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: interface as c_int,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += push(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some((IpAddr::V6(address), interface)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                ipi6_ifindex: interface as _,
            };
            used += push(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    let (level, tos_kind, hops_kind) = match remote {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
    };
    if tos != 0 {
        used += push(control, used, level, tos_kind, c_int::from(tos));
    }
    if let Some(hops) = hop_limit {
        used += push(control, used, level, hops_kind, c_int::from(hops.get()));
    }
    if let Some(segment) = segment {
        used += push(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    used
}

/// Writes one control message at offset `at`, a multiple of the header's alignment; returns the space it takes.
fn push<T: Copy>(control: &mut Control, at: usize, level: c_int, kind: c_int, value: T) -> usize {
    let size = mem::size_of::<T>() as u32;
    // SAFETY: both only calculate.
    let (space, len) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
    let room = &mut control.0[at..at + space];
    // SAFETY: all zero is a valid cmsghdr: it is plain old data.
    let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
    header.cmsg_len = len as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    let place = room.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: `room` holds CMSG_SPACE bytes: a header and, where CMSG_DATA points, a `T`. Neither write asks for
    // alignment, and what was there needs no drop.
    unsafe {
        place.write_unaligned(header);
        libc::CMSG_DATA(place).cast::<T>().write_unaligned(value);
    }
    space
}

/// Sets an option whose value is an int.
fn set(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer is to an int that lives through the call, and its size is said.
    super::checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast::<c_void>(),
            mem::size_of::<c_int>() as socklen_t,
        )
    })?;
    Ok(())
}

/// A raw socket that is given no ICMP message of any type (ICMP_FILTER, raw(7); ICMPV6_FILTER, RFC 3542, section 3.2): a
/// set bit is a type that is kept away.
pub fn refuse_icmp(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    const SOL_RAW: c_int = 255;
    const ICMP_FILTER: c_int = 1;
    const ICMPV6_FILTER: c_int = 1;
    let (level, option) = if v6 { (libc::IPPROTO_ICMPV6, ICMPV6_FILTER) } else { (SOL_RAW, ICMP_FILTER) };
    let all = [u32::MAX; 8];
    // IPv4 has one word of types.
    let len = if v6 { mem::size_of_val(&all) } else { mem::size_of::<u32>() };
    // SAFETY: the pointer is to words that live through the call, and no more of them are named than there are.
    super::checked(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, all.as_ptr().cast(), len as socklen_t)
    })?;
    Ok(())
}

/// From now on datagrams say to which of our addresses they came.
pub fn enable_pktinfo_v4(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

/// From now on datagrams say to which of our addresses they came.
pub fn enable_pktinfo_v6(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
}

/// Datagrams leave without DF, and are fragmented where they must be.
pub fn allow_fragments_v4(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
}

/// Datagrams larger than the path's MTU are fragmented here.
pub fn allow_fragments_v6(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
}

/// From now on datagrams that came behind each other may be received together (UDP_GRO, from Linux 5.0 on).
pub fn enable_gro(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// From now on one by one again.
pub fn disable_gro(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 0)
}

/// Does this kernel know how to cut what is sent (UDP_SEGMENT, from Linux 4.18 on)? Nothing is set by asking.
pub fn can_segment(socket: BorrowedFd<'_>) -> bool {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// How many datagrams the kernel has dropped at this socket, most often since its buffer was full (SO_MEMINFO,
/// SK_MEMINFO_DROPS; linux/sock_diag.h). The number wraps.
pub fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut numbers = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut len = mem::size_of_val(&numbers) as socklen_t;
    // SAFETY: both pointers are to live, writable objects, and `len` says how large the first is.
    super::checked(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(numbers[SK_MEMINFO_DROPS])
}

/// A receive buffer of this many bytes, beyond `net.core.rmem_max` (takes CAP_NET_ADMIN).
pub fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes as c_int)
}

/// A send buffer of this many bytes, beyond `net.core.wmem_max` (takes CAP_NET_ADMIN).
pub fn force_send_buffer(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes as c_int)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, os::fd::AsFd};

    fn pair(ip: &str) -> (UdpSocket, UdpSocket) {
        (UdpSocket::bind((ip, 0)).unwrap(), UdpSocket::bind((ip, 0)).unwrap())
    }

    #[test]
    fn the_address_a_v4_datagram_came_to_is_the_one_it_was_sent_to() {
        let (a, _) = pair("0.0.0.0");
        let (b, _) = pair("127.0.0.1");
        enable_pktinfo_v4(a.as_fd()).unwrap();
        b.send_to(b"hello", ("127.0.0.77", a.local_addr().unwrap().port())).unwrap();
        let mut buffer = [0; 64];
        let got = receive(a.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..got.len], b"hello");
        assert_eq!(got.remote, b.local_addr().unwrap());
        assert_eq!(got.own.unwrap().address, "127.0.0.77".parse::<IpAddr>().unwrap());
        assert!(!got.truncated);
    }

    #[test]
    fn a_v4_datagram_leaves_from_the_address_it_is_told_and_with_its_tos() {
        let (a, _) = pair("0.0.0.0");
        let (b, _) = pair("127.0.0.1");
        set(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
        let own = Own { address: "127.0.0.88".parse().unwrap(), interface: 0 };
        let beside = Beside { own: Some(own), tos: 3, ..Beside::default() };
        send(a.as_fd(), &b.local_addr().unwrap(), beside, b"x").unwrap();
        let got = receive(b.as_fd(), &mut [0; 8]).unwrap();
        assert_eq!(got.remote.ip(), own.address);
        assert_eq!(got.tos, 3);
    }

    #[test]
    fn a_v6_datagram_carries_address_and_traffic_class_both_ways() {
        let (a, b) = pair("::1");
        set(b.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1).unwrap();
        enable_pktinfo_v6(b.as_fd()).unwrap();
        let own = Own { address: "::1".parse().unwrap(), interface: 0 };
        let beside = Beside { own: Some(own), tos: 2, ..Beside::default() };
        send(a.as_fd(), &b.local_addr().unwrap(), beside, b"x").unwrap();
        let got = receive(b.as_fd(), &mut [0; 8]).unwrap();
        assert_eq!(got.own.map(|own| own.address), Some(own.address));
        assert_eq!((got.remote, got.tos), (a.local_addr().unwrap(), 2));
    }

    #[test]
    fn a_datagram_larger_than_the_buffer_is_cut_and_says_so() {
        let (a, b) = pair("127.0.0.1");
        a.send_to(&[7; 100], b.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 10];
        let got = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((got.len, got.truncated), (10, true));
    }

    #[test]
    fn an_empty_socket_would_block_although_it_is_blocking() {
        let (a, _) = pair("127.0.0.1");
        assert_eq!(receive(a.as_fd(), &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn several_datagrams_leave_by_one_call_and_arrive_by_one() {
        for ip in ["127.0.0.1", "::1"] {
            let (a, b) = pair(ip);
            enable_gro(b.as_fd()).unwrap();
            assert!(can_segment(a.as_fd()));
            let sent: Vec<u8> = (0..230).collect();
            let beside = Beside { segment: Some(100), ..Beside::default() };
            send(a.as_fd(), &b.local_addr().unwrap(), beside, &sent).unwrap();
            let mut buffer = [0; 512];
            let got = receive(b.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer[..got.len], got.segment), (&sent[..], Some(100)));
            send(a.as_fd(), &b.local_addr().unwrap(), Beside::default(), b"one").unwrap();
            let got = receive(b.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer[..got.len], got.segment), (&b"one"[..], None));
        }
    }

    #[test]
    fn several_datagrams_are_taken_by_one_call_each_with_what_came_beside_it() {
        for ip in ["127.0.0.1", "::1"] {
            let (a, b) = pair(ip);
            let others: Vec<_> = (0..AT_ONCE + 3).map(|_| pair(ip).0).collect();
            for (n, other) in others.iter().enumerate() {
                other.send_to(&vec![n as u8; 10 + n], a.local_addr().unwrap()).unwrap();
            }
            let (mut several, mut buffer, mut got) = (Several::new(), [0; 16 * 100], Vec::new());
            let mut take = |rooms: usize| {
                let places = buffer.chunks_exact_mut(16).take(rooms);
                several.receive(a.as_fd(), places, |at, datagram| got.push((at, datagram.unwrap())))
            };
            assert_eq!([take(3).unwrap(), take(100).unwrap()], [3, AT_ONCE]);
            assert_eq!(take(8).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let rooms: Vec<_> = got.iter().map(|(at, _)| *at).collect();
            assert_eq!(rooms, (0..3).chain(0..AT_ONCE).collect::<Vec<_>>());
            for (n, (at, datagram)) in got.into_iter().enumerate() {
                assert_eq!(datagram.remote, others[n].local_addr().unwrap());
                assert_eq!((datagram.len, datagram.truncated), ((10 + n).min(16), n > 6));
                // The first three rooms were used again.
                let content = if n < 3 { AT_ONCE.min(n + 3) } else { n };
                assert_eq!(buffer[at * 16], content as u8);
            }
            b.send_to(b"one", a.local_addr().unwrap()).unwrap();
            let places = buffer.chunks_exact_mut(16);
            let one = several.receive(a.as_fd(), places, |_, datagram| assert_eq!(datagram.unwrap().len, 3));
            assert_eq!(one.unwrap(), 1);
        }
    }

    #[test]
    fn all_control_messages_fit_with_the_widest_types() {
        let mut control = Control([0; CONTROL]);
        let own = Own { address: "::1".parse().unwrap(), interface: 1 };
        let used = write_controls(
            &mut control,
            &"[::1]:1".parse().unwrap(),
            Beside { own: Some(own), tos: 3, hop_limit: NonZeroU8::new(48), segment: Some(1) },
        );
        // SAFETY: CMSG_SPACE only calculates.
        let expected =
            unsafe { libc::CMSG_SPACE(20) + 2 * libc::CMSG_SPACE(4) + libc::CMSG_SPACE(2) } as usize;
        assert_eq!(used, expected);
    }
}
