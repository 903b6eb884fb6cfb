//! What the host should look like (a [`Plan`], pure), and its application by netlink: addresses, routes,
//! policy rules of the tunnel device; the undo stands beside each do. Knows no packets.

pub mod plan;
// private: apply (the difference, by netlink), leftovers (what a killed daemon left), watch (link events)

use std::io;

pub use plan::{Plan, Route, Rule};

/// A netlink request that failed: what was attempted, what came back, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {source}{}", remedy.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
pub struct HostError {
    /// Such as "add route 10.0.0.0/8 dev vpn0 table main".
    pub attempted: String,
    /// The kernel's answer.
    pub source: io::Error,
    /// What would do.
    pub remedy: Option<String>,
}

/// A netlink connection in the network namespace of the thread that opened it.
pub struct Host {/* private: rtnetlink handle, connection task, what we placed */}

impl Host {
    /// Opens the connection (inside a tokio runtime).
    pub async fn open() -> Result<Self, HostError> {
        todo!()
    }
    /// Removes what a killed daemon left: rules with our protocol number whose table has no route any more.
    /// Returns what was removed, for the log.
    pub async fn sweep(&self) -> Result<Vec<String>, HostError> {
        todo!()
    }
    /// Makes the host look like the plan (device `plan.device` exists): addresses, MTU, up, routes, rules.
    /// On failure what was done is undone. Things already there as planned are left.
    pub async fn apply(&mut self, plan: &Plan) -> Result<(), HostError> {
        todo!()
    }
    /// Removes everything that we placed and that does not vanish with the device.
    pub async fn undo(&mut self) -> Result<(), HostError> {
        todo!()
    }
    /// Resolves when the device is deleted, set down, or leaves this namespace; says which.
    pub async fn device_lost(&self, device: &str) -> Lost {
        todo!()
    }
    /// A table number (and mark) that no route, no rule and no other daemon uses: from 51820 up, as wg-quick.
    pub async fn free_table(&self) -> Result<u32, HostError> {
        todo!()
    }
    /// Local addresses as they come and go: for the tunnel to forget a source address that disappeared.
    /// Is `address` one of this host's?
    pub async fn has_address(&self, address: std::net::IpAddr) -> Result<bool, HostError> {
        todo!()
    }
    /// Who holds this device name, for the error ("interface vpn0 (kind tun), process 4711 vpnd").
    pub async fn device_exists(&self, device: &str) -> Result<Option<String>, HostError> {
        todo!()
    }
}

/// What became of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Deleted, or moved to another namespace.
    Deleted,
    /// Set down.
    Down,
}
