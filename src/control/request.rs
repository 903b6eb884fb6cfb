//! What the sockets ask of the daemon, which owns the tunnel.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Tracing, events::About};
use crate::forward::Time;
use crate::trace::Wanted;
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
    /// Tell what becomes of these packets.
    Trace(AskedTrace, oneshot::Sender<Result<Tracing, NoTrace>>),
    /// Read the file again and make the tunnel what it says; take that back after so long, unless it is confirmed.
    Reload(Option<Duration>, oneshot::Sender<Result<Reloaded, NotReloaded>>),
    /// What was reloaded on trial is to stay.
    Confirm(oneshot::Sender<Result<(), NotReloaded>>),
}

/// A trace, as somebody wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedTrace {
    /// Of what.
    pub wanted: Wanted,
    /// Begin a new handshake with each peer that has a session.
    pub renew: bool,
    /// Who asks is root: what is secret is told to nobody else.
    pub by_root: bool,
}

/// Why nothing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTrace {
    /// Four may look.
    #[error("as many trace packets as may")]
    TooMany,
    /// The kernel makes no descriptor to wake the reader by: its error.
    #[error("the daemon cannot make an eventfd to tell it by: {0}")]
    NoDescriptor(std::io::ErrorKind),
    /// Who speaks to the socket need not be root: the file may let others.
    #[error("the keys of handshakes are told to root alone")]
    NotRoot,
    /// The file does not say `capture_secrets = true`.
    #[error(
        "the keys of handshakes are not told: write capture_secrets = true under [interface] into the daemon's file, and \
         `vpnd reload`; take it out again when the capture is done"
    )]
    NotPermitted,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// A line for people for each thing that is another now; none: nothing changed.
    pub changed: Vec<String>,
    /// Taken back after so many seconds, unless it is confirmed.
    pub confirm_within_s: Option<u64>,
}

/// Why nothing was changed: a sentence or several lines, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReloaded(pub String);

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
    /// How it is operated.
    pub operation: Operation,
    /// What the process may do.
    pub sandbox: Sandbox,
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

/// What operators and other programs did to it. Counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What was changed by hand since the file was read: from the file to what runs.
    pub differs: Vec<String>,
    /// Seconds until the last reload is taken back, unless it is confirmed.
    pub confirm_within_s: Option<u64>,
    /// Reloads that were carried out.
    pub reloads: u64,
    /// Reloads that were refused, and changed nothing.
    pub reloads_refused: u64,
    /// Reloads that were taken back.
    pub reloads_taken_back: u64,
    /// Why the file, as it was read last, is not what runs: the first line of what was wrong with it, or that nobody
    /// confirmed it.
    pub not_in_force: Option<String>,
    /// Was the device set down by hand?
    pub link_down: bool,
    /// Addresses, routes and rules of ours that somebody else removed, and that were put back.
    pub put_back: u64,
    /// The last of them, in the words of `ip`.
    pub put_back_last: Option<String>,
    /// Another program removes them again and again: they are put back less and less often.
    pub contested: bool,
    /// Does somebody get the keys of new sessions, with a capture?
    #[serde(default)]
    pub secrets_given: bool,
}

/// What is in force of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// False: the file switched it off.
    pub on: bool,
    /// What becomes of whoever makes a system call that is not on the list ("kill"); none: there is no list.
    pub seccomp: Option<String>,
    /// Version of Landlock that keeps files away; none: it does not.
    pub landlock: Option<i32>,
    /// Can no program give more privileges?
    pub no_new_privileges: bool,
    /// Capabilities in effect, as the kernel names them, sorted.
    pub capabilities: Vec<String>,
    /// Can none come back?
    pub bounding_set_empty: bool,
    /// Is the private key in a page of its own, locked and not dumped?
    pub key_page: bool,
    /// What should be in force and is not, and why: a line for people for each.
    pub missing: Vec<String>,
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
