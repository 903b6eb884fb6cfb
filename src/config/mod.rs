//! peer.toml → [`Config`] → [`Change`](crate::tunnel::Change)s. Errors name file, line, key, what was found and what would do.
//! No file is opened here: key files are read by the caller's [`KeyFiles`].

pub mod problem;
pub mod wg_quick; // wg-quick's files ⇄ ours

// The walk of a file: pieces of TOML, the tables in them, their keys, the values; then what peers share.
mod document;
mod reader;
mod report;
mod secrecy;

pub mod date; // dates as moments, and back
mod fields;
pub mod hook;
mod interface;
mod keys;
mod peer;
mod unknown;
mod values;

mod allot;
#[cfg(test)]
mod arbitrary;
mod census;
mod changes;
mod clients;
pub mod edit; // a file with one peer more, less, or altered
#[cfg(test)]
mod tests;
mod words; // differences

use std::{net::SocketAddr, num::NonZeroUsize, path::Path, time::Duration};

use ipnet::IpNet;

pub use allot::{AllotError, own_addresses};
pub use changes::{Baseline, Difference, Followed, Own, Running, followed};
pub use clients::Clients;
pub use edit::EditError;
pub use hook::Hook;
pub use keys::CREDENTIAL;
pub use problem::{Problem, Problems};
pub use unknown::nearest_name;

use crate::noise::{PresharedKey, PrivateKey, PublicKey};

/// A file's content and who may read it.
pub struct KeyFile {
    /// Its text.
    pub text: zeroize::Zeroizing<String>,
    /// Its permission bits.
    pub mode: u32,
}

/// Reads a key file; given by the caller (the disk, or a test).
pub type KeyFiles<'a> = &'a dyn Fn(&Path) -> std::io::Result<KeyFile>;

/// A checked file.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[interface]`.
    pub interface: Interface,
    /// `[[peer]]`, in order.
    pub peers: Vec<Peer>,
    /// `[[hook]]`, in order.
    pub hooks: Vec<Hook>,
}

/// `[interface]`.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Device name; default `vpn0`; 1 to 15 bytes, no `/`, no white space.
    pub name: String,
    /// From `private_key` or `private_key_file`.
    pub private_key: PrivateKey,
    /// Absent: the kernel chooses.
    pub listen_port: Option<u16>,
    /// Addresses of the device.
    pub address: Vec<IpNet>,
    /// 576 (1280 if there is an IPv6 address) to 65,455; default 1420.
    pub mtu: u16,
    /// Mark of the tunnel's own packets; with a default route and none given, the daemon takes one.
    pub fwmark: Option<u32>,
    /// Where the routes go.
    pub table: Table,
    /// `offload = "auto" | "off"`: may many packets travel by one system call?
    pub offload: bool,
    /// `clamp_mss`: is the MSS of TCP through the tunnel lowered to what its MTU carries?
    pub clamp_mss: bool,
    /// Data threads for each direction; absent ("auto"): as the machine has cores.
    pub workers: Option<NonZeroUsize>,
    /// Of the data threads, -20 to 19; absent: -10 where the kernel grants it.
    pub nice: Option<i8>,
    /// For the configurations that `vpnd add-peer` makes for clients.
    pub clients: Clients,
    /// Where metrics are served over TCP; absent: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Who may speak to the control sockets.
    pub sockets: SocketAccess,
    /// `sandbox = "on" | "off"`: does the daemon give up what it does not need?
    pub sandbox: bool,
    /// `capture_secrets`: may root have the tunnel's keys in a capture?
    pub capture_secrets: bool,
}

/// `socket_owner`, `socket_group`, `socket_mode`: of both control sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Name or number of a user; absent: who runs the daemon.
    pub owner: Option<String>,
    /// Name or number of a group; absent: that of who runs the daemon.
    pub group: Option<String>,
    /// 0600, or 0660 where a group is named, if the file does not say it. Never anything for others.
    pub mode: u32,
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self { owner: None, group: None, mode: 0o600 }
    }
}

/// `table = "auto" | "off" | number`, as in wg-quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The main table; default routes into a table of our own, with policy rules.
    Auto,
    /// No routes.
    Off,
    /// This table, no policy rules.
    Number(u32),
}

/// `[[peer]]`.
#[derive(Clone, Debug)]
pub struct Peer {
    /// For people.
    pub name: Option<String>,
    /// Its static key.
    pub public_key: PublicKey,
    /// From `preshared_key` or `preshared_key_file`.
    pub preshared_key: Option<PresharedKey>,
    /// Name or address, and port.
    pub endpoint: Option<EndpointName>,
    /// Prefixes.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds, 1 to 65535; 0: none.
    pub persistent_keepalive: u16,
    /// Wall time (since the Unix epoch) from which on it is not let in.
    pub expires: Option<Duration>,
}

impl Peer {
    /// Its name, or the start of its key.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.public_key.short())
    }
}

/// `endpoint = "host:port"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointName {
    /// An address: nothing to resolve.
    Address(SocketAddr),
    /// A name; `port` behind it.
    Name {
        /// DNS name.
        host: String,
        /// UDP port.
        port: u16,
    },
}

/// Reads and checks a whole file. All problems are told, not just the first. `keys` is given each path as it
/// stands in the file: relative ones, and those that begin with [`CREDENTIAL`], are for it to resolve.
pub fn parse(text: &str, file: &Path, keys: KeyFiles<'_>) -> Result<Config, Problems> {
    reader::read(text, file, None, None, keys)
}

/// The same for a file with these permission bits: one that others can read must not hold secrets itself.
pub fn parse_with_mode(text: &str, file: &Path, mode: u32, keys: KeyFiles<'_>) -> Result<Config, Problems> {
    reader::read(text, file, Some(mode), None, keys)
}
