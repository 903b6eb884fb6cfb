//! Everything that can be asked of a tunnel. The file, the control socket and the lab all speak it.
//! The semantics of [`PeerChange`] are those of the WireGuard cross-platform UAPI.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use crate::noise::{PresharedKey, PrivateKey, PublicKey};

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// Our private key; `None` takes it away. A peer with our own public key is removed, as the kernel does.
    /// All sessions and handshakes are dropped, unless it is the key that we have.
    PrivateKey(Option<PrivateKey>),
    /// The UDP port, 0: the kernel chooses. Carried out by the daemon, not by the tunnel.
    ListenPort(u16),
    /// The mark of the tunnel's own packets, 0: none. Carried out by the daemon.
    Fwmark(u32),
    /// Removes all peers.
    ReplacePeers,
    /// One peer: made if it is not there.
    Peer(PeerChange),
}

/// Change of one peer; `None` leaves a property as it is.
#[derive(Clone, Debug)]
pub struct PeerChange {
    /// Which one.
    pub public_key: PublicKey,
    /// Take it away; the rest is ignored.
    pub remove: bool,
    /// Do nothing if it is not there.
    pub update_only: bool,
    /// For people; empty: the start of its key.
    pub name: Option<String>,
    /// All zero: none. A changed key takes effect at the live peer: its handshake and sessions are dropped.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Nobody says any more where it is: that is forgotten, unless a session with it lives there.
    pub forget_endpoint: bool,
    /// Seconds, 0: off.
    pub persistent_keepalive: Option<u16>,
    /// Until when it is let in.
    pub expires: Option<Expires>,
    /// First take all its allowed IPs away.
    pub replace_allowed_ips: bool,
    /// Then these, in order. A prefix that another peer owns moves here (the file refuses that beforehand).
    pub allowed_ips: Vec<AllowedIpOp>,
}

impl PeerChange {
    /// A change of nothing yet.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            name: None,
            preshared_key: None,
            endpoint: None,
            forget_endpoint: false,
            persistent_keepalive: None,
            expires: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// Until when a peer is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// For good.
    Never,
    /// Up to this moment of the wall clock (since the Unix epoch), and not at it.
    At(Duration),
}

/// One prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedIpOp {
    /// Give it to this peer.
    Add(IpNet),
    /// Take it from this peer, if it has it.
    Remove(IpNet),
}

/// A change that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// More peers than [`MAX_PEERS`].
    #[error("more than {MAX_PEERS} peers")]
    TooManyPeers,
    /// Our own public key as a peer.
    #[error("{0} is our own public key")]
    OwnKey(PublicKey),
}

/// Peers in one tunnel (the kernel's limit is 2^20).
pub const MAX_PEERS: usize = 1 << 20;
