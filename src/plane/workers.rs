//! The two loops, each entered once per batch; and their life: start, rebind, stop. A panic in one ends the
//! process (the daemon sees it through [`Plane::failed`]).

use std::{net::IpAddr, sync::Arc};

use super::{TunDevice, UdpSockets};
use crate::{forward::Forward, tunnel::Transmit};

/// What the loops need to know of the file.
#[derive(Clone, Debug)]
pub struct PlaneSettings {
    /// Bounds the padding.
    pub mtu: u16,
    /// Source of ICMP errors into the TUN: the device's first addresses.
    pub icmp_from: Vec<IpAddr>,
}

/// Why the loops cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fatal {
    /// The TUN device is gone (EBADFD, POLLERR).
    #[error("the TUN device is gone: {0}")]
    TunGone(String),
    /// A data thread panicked.
    #[error("a data thread panicked: {0}")]
    Panicked(String),
}

/// The running data threads.
pub struct Plane {/* private */}

impl Plane {
    /// Starts them.
    pub fn start(
        forward: Arc<Forward>,
        tun: TunDevice,
        sockets: UdpSockets,
        settings: PlaneSettings,
    ) -> std::io::Result<Self> {
        todo!()
    }
    /// Sends what the upper half wants to send (handshakes, keepalives, staged data).
    pub fn send(&self, transmit: &Transmit) -> std::io::Result<super::udp::Sent> {
        todo!()
    }
    /// Binds another port (or mark) and swaps the sockets under the running loops.
    pub fn rebind(&self, port: u16, fwmark: u32) -> std::io::Result<()> {
        todo!()
    }
    /// The port in use.
    pub fn port(&self) -> u16 {
        todo!()
    }
    /// SO_MARK.
    pub fn set_mark(&self, fwmark: u32) -> std::io::Result<()> {
        todo!()
    }
    /// Changes MTU and ICMP sources.
    pub fn set(&self, settings: PlaneSettings) {
        todo!()
    }
    /// Resolves when a loop cannot go on.
    pub async fn failed(&self) -> Fatal {
        todo!()
    }
    /// Stops and joins the threads; the device vanishes with them.
    pub fn stop(self) {
        todo!()
    }
}
