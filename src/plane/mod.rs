//! The data loops: plain OS threads with their own file descriptors. Outbound: TUN → forward → UDP.
//! Inbound: UDP → forward → TUN. A pipe (eventfd) stops them. Knows no config and no control.

pub mod clock;
pub mod tun;
pub mod udp;
pub mod workers;

pub use clock::Clock;
pub use tun::TunDevice;
pub use udp::UdpSockets;
pub use workers::{Fatal, Plane, PlaneSettings};
