//! vpnd: a WireGuard daemon for Linux. The rooms, in the order a packet walks them.
//!
//! Pure rooms: no clock, no socket, no file, no tokio; time and randomness are handed in.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod config; // peer.toml → Config → Changes
pub mod forward; // lower half: allowed IPs, sessions, replay window, seal and open, segment and coalesce
pub mod noise; // the handshake as a calculation: initiator, responder, macs and cookies, keys
pub mod trace; // a packet's way as a value: filters, stations, what vpnd saw
pub mod tunnel; // upper half: peers, handshakes, timers, load; the one owner of the truth
pub mod wire; // bytes ⇄ types: the four messages, IP and ICMP headers, ECN

// The world.
#[cfg(feature = "daemon")]
pub mod capture; // what vpnd carries, as a pcapng file
#[cfg(feature = "daemon")]
pub mod cli; // the commands; the only place that prints
#[cfg(feature = "daemon")]
pub mod control; // the control sockets: `wg`'s text protocol; status, events and metrics over HTTP
#[cfg(feature = "daemon")]
pub mod daemon; // composition: start order, signals, stop order
#[cfg(feature = "daemon")]
pub mod explain; // what would become of a packet, without sending one
#[cfg(feature = "daemon")]
pub mod host; // what the host should look like, and its application by netlink
#[cfg(feature = "daemon")]
pub mod lab; // hosts in network namespaces, for the demo and for the tests
#[cfg(feature = "daemon")]
pub mod plane; // the data loops: tun, udp, buffers, workers, the one clock
#[cfg(feature = "daemon")]
pub mod sys; // every unsafe line of the tree, each with its reason
#[cfg(feature = "daemon")]
pub mod witness; // what the kernel tells of a packet under way: netfilter's trace, a probe, routing
