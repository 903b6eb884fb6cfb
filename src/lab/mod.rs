//! Hosts in network namespaces, for the demo and for the tests: namespaces, links, addresses and routes by
//! netlink; everything vanishes on drop.
//!
//! ```no_run
//! use vpnd::lab::{Host, link};
//! # fn main() -> Result<(), vpnd::lab::LabError> {
//! let (left, right) = (Host::create("vpnd-doc-left")?, Host::create("vpnd-doc-right")?);
//! link::veth(&left, "eth0", &right, "eth0")?;
//! left.add_address("eth0", "192.0.2.1/24")?;
//! right.add_address("eth0", "192.0.2.2/24")?;
//! assert_eq!(left.ping("192.0.2.2".parse().unwrap(), 3)?.received, 3);
//! # Ok(()) }
//! ```

pub mod link; // cables, bridges, addresses, routes, counters
// private: error, stopwatch, netlink (a conversation inside a namespace), leftovers (what a killed lab left)

mod capture;
pub mod chapters; // the handbook's labs
mod control_sockets;
mod daemon;
pub mod demo; // two hosts, a vpnd on each, and the measurement
mod error;
mod host;
mod interrupt;
mod leftovers;
mod namespace;
pub mod neighbours; // who is behind which hardware address
mod netfilter;
mod netlink;
pub mod page;
mod ping;
pub mod policy; // routes in other tables, and the rules that lead there
mod process;
mod render;
pub mod rootless; // a user namespace, for a lab without root
mod stations;
mod stopwatch;
mod stories;
mod traffic;
mod way;

pub use capture::{Capture, Captured};
pub use control_sockets::{is_listening, with_control_sockets};
pub use daemon::{Daemon, Setup};
pub use error::LabError;
pub use host::Host;
pub use interrupt::Interrupt;
pub use namespace::Namespace;
pub use ping::{MARK, Ping, Pings};
pub use process::Process;
pub use traffic::{Echo, Transfer, tcp_transfer, udp_echo};
