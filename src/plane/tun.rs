//! The TUN device: opened, named and owned through the `tun` crate; read and written on its raw descriptor.

use std::io;

/// An open TUN device; it vanishes when this is dropped.
pub struct TunDevice {/* private */}

impl TunDevice {
    /// Makes the device `name`, down and without addresses (the host room does the rest). An error names what
    /// is missing: the capability, `/dev/net/tun`, or who holds the name.
    pub fn create(name: &str, mtu: u16) -> io::Result<Self> {
        todo!()
    }
    /// Its name.
    pub fn name(&self) -> &str {
        todo!()
    }
    /// Reads one packet; `WouldBlock` when there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
    /// Writes one packet.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        todo!()
    }
}
