//! The TUN device: opened, named and owned through the `tun` crate; read and written on its raw descriptor.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
};

use tun::AbstractDevice;

use super::{
    holder::{self, Holder},
    offload::Offload,
};
use crate::{
    forward::Merge,
    sys::{
        self,
        tun::offload::{CSUM, TSO_ECN, TSO4, TSO6, USO4, USO6},
    },
    wire::vnet::VNET_HEADER_LEN,
};

/// Packets that may wait for us in the device; what comes on top is lost. A core may be another's until the next tick,
/// which is 4 ms where HZ is 250 (Debian's): in that time 2000 packets arrive at 500,000 a second. Measured, of 64 bytes,
/// without loss: 371,000 a second with 1000, 626,000 with 2000, no more with 4000. Of super-packets these are up to 128 MB,
/// where forwarded traffic comes faster than it can be sealed; a sender on this host is held back earlier (TCP small
/// queues).
const QUEUE_LENGTH: u16 = 2000;

/// What is asked for, the most first; what a kernel does not know is left out.
const WISHES: [u32; 3] = [
    CSUM | TSO4 | TSO6 | TSO_ECN | USO4 | USO6,
    // Before Linux 6.2.
    CSUM | TSO4 | TSO6 | TSO_ECN,
    CSUM | TSO4 | TSO6,
];

/// An open TUN device; it vanishes when this is dropped. Each packet stands behind its vnet header.
pub struct TunDevice {
    device: tun::Device,
    name: String,
    asked: Offload,
    /// What it may hand out.
    offloads: u32,
}

impl TunDevice {
    /// Makes the device `name`, down and without addresses (the host room does the rest). An error names what
    /// is missing: the capability, `/dev/net/tun`, or who holds the name.
    pub fn create(name: &str, mtu: u16, offload: Offload) -> io::Result<Self> {
        // The crate cannot pass IFF_TUN_EXCL, without which the kernel would attach us to a persistent device
        // of that name, with whatever addresses and routes it has, and leave it behind when we end.
        if sys::tun::device_exists(name) {
            return Err(taken(name));
        }
        let mut wanted = tun::Configuration::default();
        wanted.tun_name(name).mtu(mtu).platform_config(|platform| {
            platform.vnet_hdr(true);
        });
        let device = tun::create(&wanted).map_err(|error| explained(name, mtu, error))?;
        let name = device.tun_name().map_err(|error| explained(name, mtu, error))?;
        let mut made = Self { device, name, asked: offload, offloads: 0 };
        made.set_up()?;
        Ok(made)
    }

    /// Takes over a device that another process made, with the packets that wait in it. An error says why it is not
    /// the device that [`Self::create`] would have made.
    pub fn adopt(descriptor: OwnedFd, name: &str, mtu: u16, offload: Offload) -> io::Result<Self> {
        fit(descriptor.as_fd(), name)?;
        let mut wanted = tun::Configuration::default();
        wanted.tun_name(name).mtu(mtu).raw_fd(descriptor.into_raw_fd());
        let device = tun::create(&wanted).map_err(|error| explained(name, mtu, error))?;
        let mut made = Self { device, name: name.to_owned(), asked: offload, offloads: 0 };
        if offload == Offload::Off {
            sys::tun::set_offload(made.as_fd(), 0)?;
        }
        made.set_up()?;
        Ok(made)
    }

    /// What its maker, or we in its place, settle with the kernel.
    fn set_up(&mut self) -> io::Result<()> {
        sys::tun::set_nonblocking(self.as_fd())?;
        if self.asked == Offload::Auto {
            self.offloads = self.negotiate();
        }
        // The kernel lets only the machine's own root set it, not that of a user namespace: then the device keeps
        // its 500, and a large burst may lose packets, but there is a tunnel.
        if let Err(error) = sys::tun::set_queue_length(&self.name, QUEUE_LENGTH) {
            tracing::info!(device = self.name, %error, "the device keeps the kernel's queue length");
        }
        Ok(())
    }

    /// The most that this kernel grants.
    fn negotiate(&self) -> u32 {
        for wish in WISHES {
            match sys::tun::set_offload(self.as_fd(), wish) {
                Ok(()) if wish == WISHES[0] => return wish,
                Ok(()) => {
                    let left_out = offload_names(WISHES[0] & !wish);
                    tracing::info!(
                        device = self.name,
                        left_out,
                        "this kernel's TUN does not know all offloads"
                    );
                    return wish;
                }
                Err(error) => tracing::debug!(device = self.name, wish, %error, "TUNSETOFFLOAD"),
            }
        }
        tracing::info!(device = self.name, "this kernel's TUN has no offloads: one packet a system call");
        0
    }

    /// What it was made with.
    pub fn offload(&self) -> Offload {
        self.asked
    }

    /// What it takes in one write. The kernel takes what it also hands out.
    pub fn merge(&self) -> Merge {
        Merge { tcp: self.offloads & TSO4 != 0, udp: self.offloads & USO4 != 0 }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a vnet header and one packet, or super-packet; `WouldBlock` when there is none, EBADFD when the device
    /// is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::tun::read(self.as_fd(), buffer)
    }

    /// Writes a vnet header and one packet. EIO: the device is down; EBADFD: it is gone; EINVAL: the kernel does not
    /// like it.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        let written = sys::tun::write(self.as_fd(), frame)?;
        // A TUN takes a packet whole or not at all.
        if written == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::tun::descriptor_of(&self.device)
    }
}

/// Is this a TUN of that name, in our network namespace, with packets in the form that the walk wants? The error says
/// what is wrong.
fn fit(descriptor: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    const WANTED: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let found = match sys::tun::attached(descriptor) {
        Ok(found) => found,
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
            return wrong("its device is gone".to_owned());
        }
        Err(error) => return wrong(format!("it is no TUN device: {error}")),
    };
    let sys::tun::Attached { name: own, flags, vnet_header } = found;
    if own != name {
        return wrong(format!("it is the device {own}, and {name} is wanted"));
    }
    if flags != WANTED {
        return wrong(format!("its flags are {flags:#x}, and {WANTED:#x} are wanted (TUNGETIFF)"));
    }
    if vnet_header != VNET_HEADER_LEN {
        return wrong(format!("its vnet header has {vnet_header} bytes, and {VNET_HEADER_LEN} are wanted"));
    }
    match sys::inherit::tun_is_here(descriptor) {
        Ok(true) => Ok(()),
        Ok(false) => wrong("it is in another network namespace".to_owned()),
        Err(error) => wrong(format!("its network namespace cannot be told: {error}")),
    }
}

/// For people.
fn offload_names(offloads: u32) -> String {
    let names =
        [(CSUM, "checksum"), (TSO4, "TSO4"), (TSO6, "TSO6"), (TSO_ECN, "TSO with ECN"), (USO4, "USO4")];
    let names = names.into_iter().chain([(USO6, "USO6")]);
    let names: Vec<&str> = names.filter(|(bit, _)| offloads & bit != 0).map(|(_, name)| name).collect();
    names.join(", ")
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
