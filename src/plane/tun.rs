//! The TUN device: opened, named and owned through the `tun` crate; read and written on its raw descriptor.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use tun::AbstractDevice;

use super::holder::{self, Holder};
use crate::sys;

/// Packets that may wait for us in the device; what comes on top is lost. The kernel's WireGuard has 1000. With
/// super-packets of 64 KB that would be 64 MB of bufferbloat; of single packets it is 1.4 MB, and 200 of them
/// lose what one burst of a TCP connection sends.
const QUEUE_LENGTH: u16 = 1000;

/// An open TUN device; it vanishes when this is dropped.
pub struct TunDevice {
    device: tun::Device,
    name: String,
}

impl TunDevice {
    /// Makes the device `name`, down and without addresses (the host room does the rest). An error names what
    /// is missing: the capability, `/dev/net/tun`, or who holds the name.
    pub fn create(name: &str, mtu: u16) -> io::Result<Self> {
        // The crate cannot pass IFF_TUN_EXCL, without which the kernel would attach us to a persistent device
        // of that name, with whatever addresses and routes it has, and leave it behind when we end.
        if sys::tun::device_exists(name) {
            return Err(taken(name));
        }
        let mut wanted = tun::Configuration::default();
        wanted.tun_name(name).mtu(mtu);
        let device = tun::create(&wanted).map_err(|error| explained(name, mtu, error))?;
        let name = device.tun_name().map_err(|error| explained(name, mtu, error))?;
        let made = Self { device, name };
        sys::tun::set_nonblocking(made.as_fd())?;
        // The kernel lets only the machine's own root set it, not that of a user namespace: then the device keeps
        // its 500, and a large burst may lose packets, but there is a tunnel.
        if let Err(error) = sys::tun::set_queue_length(&made.name, QUEUE_LENGTH) {
            tracing::info!(device = made.name, %error, "the device keeps the kernel's queue length");
        }
        Ok(made)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet; `WouldBlock` when there is none, EBADFD when the device is gone. With offloads this is
    /// where a super-packet behind its virtio header arrives: `buffer` already has room for 65,535 bytes.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::tun::read(self.as_fd(), buffer)
    }

    /// Writes one packet. EIO: the device is down; EBADFD: it is gone; EINVAL: the kernel does not like it.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        let written = sys::tun::write(self.as_fd(), packet)?;
        // A TUN takes a packet whole or not at all.
        if written == packet.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::tun::descriptor_of(&self.device)
    }
}

/// The name is there already.
fn taken(name: &str) -> io::Error {
    let message = match holder::of_tun(name) {
        Holder::Unseen => format!(
            "the network device {name} exists already, and no process that can be seen from here holds it: \
             another kind of device, or a persistent TUN; remove it (`ip link delete {name}`), or choose another name"
        ),
        seen => format!("the TUN device {name} is held by {seen}; end it, or choose another name"),
    };
    io::Error::new(io::ErrorKind::AlreadyExists, message)
}

/// What the `tun` crate or the kernel did not like, and what to do.
fn explained(name: &str, mtu: u16, error: tun::Error) -> io::Error {
    let tun::Error::Io(error) = error else {
        let message = format!("making the TUN device {name}: {error}");
        return io::Error::new(io::ErrorKind::InvalidInput, message);
    };
    let remedy = match error.raw_os_error() {
        // Someone was faster between the look and the leap.
        Some(libc::EBUSY) => return taken(name),
        Some(libc::EPERM) => "it needs CAP_NET_ADMIN: run as root, or give the capability",
        Some(libc::EACCES) => "/dev/net/tun may not be opened by this user: see its permissions",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "there is no /dev/net/tun: load the module (`modprobe tun`), or give the container the device"
        }
        Some(libc::EINVAL) => {
            "is the name a device name (at most 15 bytes, no slash), and the MTU at least 68?"
        }
        _ => "nothing is known to help",
    };
    io::Error::new(
        error.kind(),
        format!("making the TUN device {name} with an MTU of {mtu}: {error}; {remedy}"),
    )
}
