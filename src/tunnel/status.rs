//! Everything that can be seen of a tunnel.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use crate::forward::{Evidence, PeerId, Refusal};
use crate::noise::{PresharedKey, PrivateKey, PublicKey};

/// A tunnel at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Our key pair, if we have one. The private key is for the control socket's `get` alone.
    pub private_key: Option<PrivateKey>,
    /// Our public key.
    pub public_key: Option<PublicKey>,
    /// In the order in which they were made.
    pub peers: Vec<PeerStatus>,
    /// Reasons that were counted at least once.
    pub refusals: Vec<(Refusal, u64, Option<Evidence>)>,
    /// Are cookies demanded?
    pub under_load: bool,
}

/// A peer at one moment.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Names it for the life of the process.
    pub id: PeerId,
    /// Its static key.
    pub public_key: PublicKey,
    /// Its name.
    pub label: String,
    /// Set and not zero.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// From which of our addresses we talk to it.
    pub local: Option<std::net::IpAddr>,
    /// Wall time (since the epoch) of the last completed handshake.
    pub last_handshake: Option<Duration>,
    /// Age of the session that we seal with, if it lives.
    pub session_age: Option<Duration>,
    /// Since the last authentic packet from it.
    pub last_received: Option<Duration>,
    /// UDP payload bytes of authentic messages.
    pub rx_bytes: u64,
    /// UDP payload bytes sent.
    pub tx_bytes: u64,
    /// Data packets delivered.
    pub rx_packets: u64,
    /// Data packets sealed.
    pub tx_packets: u64,
    /// Seconds, 0: off.
    pub persistent_keepalive: u16,
    /// Sorted.
    pub allowed_ips: Vec<IpNet>,
    /// Packets that wait for a session.
    pub staged: usize,
    /// Unanswered initiations in a row.
    pub attempts: u32,
}
