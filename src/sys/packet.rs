//! Packet sockets (packet(7)): every frame that passes one device, as the device sees it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// A packet socket bound to one device of the network namespace of the thread that opened it.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
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
