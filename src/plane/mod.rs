//! The data loops: plain OS threads with their own file descriptors. Outbound: TUN → forward → UDP.
//! Inbound: UDP → forward → TUN. An eventfd for each wakes and stops it. Knows no config and no control.

mod bind;
pub mod clock;
mod conntrack;
mod errors;
mod holder;
mod inbound;
mod outbound;
mod pace;
mod shared;
pub mod tun;
pub mod udp;
pub mod workers;

pub use clock::Clock;
pub use tun::TunDevice;
pub use udp::UdpSockets;
pub use workers::{Fatal, Plane, PlaneSettings};
