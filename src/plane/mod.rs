//! The data loops: plain OS threads with their own file descriptors. Outbound: TUN → forward → UDP.
//! Inbound: UDP → forward → TUN. One thread for both directions, which calls a second when there is much to do; or
//! several for each, which take batches in turn. An eventfd for each direction wakes and stops it. Knows no config and no control.

mod asker;
mod bind;
mod both;
pub mod clock;
mod conntrack;
mod errors;
mod holder;
mod inbound;
mod lane;
pub mod offload;
mod order;
mod outbound;
mod pace;
mod pulse;
mod relief;
mod rest;
mod shared;
mod sync;
pub mod tun;
pub mod udp;
pub mod workers;

pub use clock::Clock;
pub use errors::Errors;
pub use offload::Offload;
pub use pulse::Beat;
pub use tun::TunDevice;
pub use udp::UdpSockets;
pub use workers::{Fatal, NICE, Plane, PlaneSettings, Threads, Workers};
