//! Packet sockets (packet(7)): every frame that passes one device, as the device sees it; or the packets that a program in
//! the kernel chooses, at whatever device.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

/// A packet socket bound to one device of the network namespace of the thread that opened it.
pub struct PacketSocket(OwnedFd);

/// One step of a program that chooses packets (struct sock_filter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// So many instructions are passed over where the test holds …
    pub yes: u8,
    /// … and where it does not.
    pub no: u8,
    /// Its operand.
    pub value: u32,
}

/// A packet that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Bytes in the buffer, from the IP header on.
    pub len: usize,
    /// Index of the device.
    pub device: u32,
    /// It left by the device, rather than coming by it.
    pub leaves: bool,
    /// When the kernel saw it there: wall time since the Unix epoch; `None`: it did not say.
    pub at: Option<Duration>,
}

impl PacketSocket {
    /// Sees what the program chooses, at all devices of the network namespace of this thread, without link headers and with
    /// the kernel's time. So many bytes may wait; the kernel counts what finds no room. Needs CAP_NET_RAW.
    pub fn choose(program: &[Instruction], waiting: usize) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: plain integers go in. Protocol 0 receives nothing until bind names it: no packet comes before the
        // program is there.
        let fd = super::checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor was made just now and nobody else owns it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let step =
            |one: &Instruction| libc::sock_filter { code: one.code, jt: one.yes, jf: one.no, k: one.value };
        let mut steps: Vec<_> = program.iter().map(step).collect();
        let len = u16::try_from(steps.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
        // The kernel copies the program; `steps` outlives the call.
        socket.set(libc::SO_ATTACH_FILTER, &program)?;
        socket.set(libc::SO_TIMESTAMPNS, &1_i32)?;
        let waiting = libc::c_int::try_from(waiting).unwrap_or(libc::c_int::MAX);
        socket.set(libc::SO_RCVBUFFORCE, &waiting).or_else(|_| socket.set(libc::SO_RCVBUF, &waiting))?;
        socket.bind(0)?;
        Ok(socket)
    }

    /// For who waits in a runtime until there is one.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: it owns one open descriptor, the same one until it is dropped with the AsyncFd.
        let watched = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?;
        Ok(watched)
    }

    /// The next one, cut to the buffer; `WouldBlock` when there is none.
    pub fn next_chosen(&self, buffer: &mut [u8]) -> io::Result<Chosen> {
        // SAFETY: all zero is a valid sockaddr_ll: it is plain old data.
        let mut name: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut control = Control([0; CONTROL]);
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zero is a valid msghdr (null pointers with zero lengths).
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = size_of_val(&name) as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as _;
        // SAFETY: every pointer in `message` is to a live, writable object of the length that stands beside it.
        let len =
            super::length(unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) })?;
        let mut at = None;
        super::socket::each_control(&message, |header, data| {
            let stamp = (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS);
            // SAFETY: CMSG_LEN only calculates.
            let whole = unsafe { libc::CMSG_LEN(size_of::<libc::timespec>() as u32) } as usize;
            #[allow(clippy::unnecessary_cast)] // musl says u32 where glibc says usize
            let len = header.cmsg_len as usize;
            if stamp && len >= whole {
                // SAFETY: the length was checked, the type is plain old data, the read asks for no alignment.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                at = u64::try_from(time.tv_sec)
                    .ok()
                    .map(|seconds| Duration::new(seconds, time.tv_nsec as u32));
            }
        });
        Ok(Chosen {
            len: len.min(buffer.len()),
            device: u32::try_from(name.sll_ifindex).unwrap_or(0),
            leaves: name.sll_pkttype == libc::PACKET_OUTGOING,
            at,
        })
    }

    /// How many found no room since this was asked last.
    pub fn lost(&self) -> io::Result<u32> {
        // SAFETY: all zero is a valid tpacket_stats: it is plain old data.
        let mut stats: libc::tpacket_stats = unsafe { mem::zeroed() };
        let mut len = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: pointer and length describe `stats`, which outlives the call.
        super::checked(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        })?;
        Ok(stats.tp_drops)
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: pointer and length describe `value`, which outlives the call; what it points to (a program) does, too.
        super::checked(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (value as *const T).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        })
        .map(drop)
    }

    /// Listens to all protocols on the device with this index. Needs CAP_NET_RAW.
    pub fn open(device: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: plain integers go in. Protocol 0 receives nothing until bind names device and protocol, so
        // that no frame of another device slips in between.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and nobody else owns it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.bind(device)?;
        Ok(socket)
    }

    /// The next frame, cut to the buffer, and its whole length; `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and length describe the borrowed buffer, which outlives the call.
        let length = unsafe {
            libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC)
        };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    }

    fn bind(&self, device: u32) -> io::Result<()> {
        let index = libc::c_int::try_from(device)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a device index"))?;
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let result = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Bytes of control messages: room for the time, with some to spare.
const CONTROL: usize = 64;

/// Aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<Control>());
