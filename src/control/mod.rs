//! The control sockets. `/run/wireguard/NAME.sock` speaks the WireGuard cross-platform UAPI, so that `wg`
//! works; `/run/vpnd/NAME.sock` speaks HTTP with JSON. Both turn bytes into a [`Request`] for the daemon.

pub mod request;
pub mod uapi;

pub use request::{InterfaceStatus, Request, SetError};
