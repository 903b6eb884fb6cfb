//! What the data loops need of a TUN descriptor beyond opening it.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// What a TUN with vnet headers may hand out (linux/if_tun.h).
pub mod offload {
    /// Packets whose checksum is not finished.
    pub const CSUM: u32 = 0x01;
    /// TCP super-packets over IPv4.
    pub const TSO4: u32 = 0x02;
    /// Over IPv6.
    pub const TSO6: u32 = 0x04;
    /// Those with CWR, too.
    pub const TSO_ECN: u32 = 0x08;
    /// UDP super-packets over IPv4; only together with the next, from Linux 6.2 on.
    pub const USO4: u32 = 0x20;
    /// Over IPv6.
    pub const USO6: u32 = 0x40;
}

/// What the device may hand out from now on, as a set of [`offload`] bits (TUNSETOFFLOAD). EINVAL: one of them is
/// unknown to this kernel, and nothing has changed.
pub fn set_offload(tun: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its bits as the argument itself, no pointer.
    super::checked(unsafe {
        libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(offloads))
    })?;
    Ok(())
}

/// What a descriptor of a TUN says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The device's name.
    pub name: String,
    /// IFF_TUN, IFF_NO_PI, IFF_VNET_HDR, …
    pub flags: libc::c_int,
    /// Bytes before each packet.
    pub vnet_header: usize,
}

/// The device behind this descriptor (TUNGETIFF). EBADFD: there is none any more; ENOTTY: it is no TUN at all.
pub fn attached(tun: BorrowedFd<'_>) -> io::Result<Attached> {
    // SAFETY: all zero is a valid ifreq: it is plain old data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one ifreq.
    super::checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF as _, &mut request) })?;
    let mut vnet_header: libc::c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one int.
    super::checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETVNETHDRSZ as _, &mut vnet_header) })?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
    // SAFETY: TUNGETIFF fills the flags of the union.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & 0xffff;
    Ok(Attached {
        name: String::from_utf8(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        flags,
        vnet_header: usize::try_from(vnet_header).unwrap_or(0),
    })
}

/// One read: one packet, or EAGAIN.
pub fn read(tun: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for its length.
    super::length(unsafe { libc::read(tun.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// One write: one packet, whole.
pub fn write(tun: BorrowedFd<'_>, packet: &[u8]) -> io::Result<usize> {
    // SAFETY: `packet` is readable for its length.
    super::length(unsafe { libc::write(tun.as_raw_fd(), packet.as_ptr().cast(), packet.len()) })
}

/// Is there a network device of this name in the namespace of this thread?
pub fn device_exists(name: &str) -> bool {
    // SAFETY: a CString is terminated; the call only reads it.
    CString::new(name).is_ok_and(|name| unsafe { libc::if_nametoindex(name.as_ptr()) } != 0)
}

/// How many packets may wait in the device for a reader (SIOCSIFTXQLEN, netdevice(7)).
pub fn set_queue_length(name: &str, packets: u16) -> io::Result<()> {
    // SAFETY: takes no pointers; the result is checked before it is used.
    let control =
        super::checked(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was made just now and has no other owner.
    let control = unsafe { OwnedFd::from_raw_fd(control) };
    // SAFETY: all zero is a valid ifreq: it is plain old data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is left for the terminating zero.
    let space = request.ifr_name.len() - 1;
    if name.len() > space {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // The queue length is the int that the kernel calls ifr_qlen; it shares the union with ifr_metric.
    request.ifr_ifru.ifru_metric = packets.into();
    // SAFETY: SIOCSIFTXQLEN reads one ifreq, whose name is terminated.
    super::checked(unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFTXQLEN as _, &request) })?;
    Ok(())
}

/// Non-blocking from now on; what else was set stays.
pub fn set_nonblocking(tun: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = super::checked(unsafe { libc::fcntl(tun.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes one integer.
    super::checked(unsafe { libc::fcntl(tun.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// The descriptor of a device for as long as the device is borrowed.
pub fn descriptor_of(device: &::tun::Device) -> BorrowedFd<'_> {
    // SAFETY: a `Device` owns its descriptor and closes it on drop, which the borrow forbids.
    unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) }
}
