//! What the sockets ask of the daemon, which owns the tunnel.

use tokio::sync::oneshot;

use super::events::About;
use crate::forward::Time;
use crate::tunnel::{Change, ChangeError, PeerStatus, Sample, Status};

/// One request, with the place for its answer.
#[derive(Debug)]
pub enum Request {
    /// Show everything.
    Get(oneshot::Sender<InterfaceStatus>),
    /// Show one peer; none: there is no such peer.
    Peer(About, oneshot::Sender<Option<PeerStatus>>),
    /// Show the figures, of all peers or of those that did something since (see [`Tunnel::sample`]).
    ///
    /// [`Tunnel::sample`]: crate::tunnel::Tunnel::sample
    Sample(Option<(Time, u64)>, oneshot::Sender<InterfaceSample>),
    /// Alter it, in order; stops at the first that cannot be.
    Set(Vec<Change>, oneshot::Sender<Result<(), SetError>>),
}

/// The tunnel and what the daemon knows around it.
#[derive(Clone, Debug)]
pub struct InterfaceStatus {
    /// Device name.
    pub name: String,
    /// UDP port in use.
    pub listen_port: u16,
    /// Mark in use, 0: none.
    pub fwmark: u32,
    /// MTU of the device.
    pub mtu: u16,
    /// The tunnel.
    pub tunnel: Status,
    /// Wall time now, since the epoch: what [`crate::tunnel::PeerStatus::last_handshake`] is measured against.
    pub now: std::time::Duration,
    /// Boot time now: what [`crate::forward::Evidence::at`] is measured against.
    pub boot: Time,
}

/// The tunnel's figures and what the daemon knows around them.
#[derive(Clone, Debug)]
pub struct InterfaceSample {
    /// Device name.
    pub name: String,
    /// UDP port in use.
    pub listen_port: u16,
    /// The figures.
    pub tunnel: Sample,
    /// Wall time now, since the epoch.
    pub now: std::time::Duration,
    /// Boot time now.
    pub boot: Time,
}

/// Why a set failed; becomes an `errno=` line.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The tunnel refused.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The host refused (a port that is taken, …).
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
