//! What the tunnel is, as the lines that answer `get=1`.

use std::fmt::{self, Write};
use std::iter;

use ipnet::IpNet;

use super::{EndOfGet, Errno, NO_KEY};
use crate::control::InterfaceStatus;
use crate::tunnel::PeerStatus;

/// Writes the whole answer to `get=1`. It holds the private key and the preshared keys.
pub fn render(status: &InterfaceStatus, to: &mut impl Write) -> fmt::Result {
    lines(status).try_for_each(|part| write!(to, "{part}"))?;
    write!(to, "{}", EndOfGet(Errno(0)))
}

/// The answer without its end, in parts of less than 1 KiB, so that it can be sent piece by piece.
pub fn lines(status: &InterfaceStatus) -> impl Iterator<Item = Part<'_>> + Send {
    let peers = status.tunnel.peers.iter();
    iter::once(Part(Of::Interface(status))).chain(peers.flat_map(|peer| {
        let prefixes = peer.allowed_ips.iter();
        iter::once(Part(Of::Peer(peer))).chain(prefixes.map(|prefix| Part(Of::AllowedIp(prefix))))
    }))
}

/// Some lines that belong together.
pub struct Part<'a>(Of<'a>);

enum Of<'a> {
    Interface(&'a InterfaceStatus),
    Peer(&'a PeerStatus),
    AllowedIp(&'a IpNet),
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Of::Interface(status) => interface(status, f),
            Of::Peer(status) => peer(status, f),
            Of::AllowedIp(prefix) => writeln!(f, "allowed_ip={prefix}"),
        }
    }
}

fn interface(status: &InterfaceStatus, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(key) = &status.tunnel.private_key {
        writeln!(f, "private_key={}", *key.to_hex())?;
    }
    if status.listen_port != 0 {
        writeln!(f, "listen_port={}", status.listen_port)?;
    }
    if status.fwmark != 0 {
        writeln!(f, "fwmark={}", status.fwmark)?;
    }
    Ok(())
}

fn peer(status: &PeerStatus, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let preshared_key = status.preshared_key.as_ref().map(|key| key.to_hex());
    let handshake = status.last_handshake.unwrap_or_default();
    writeln!(f, "public_key={}", status.public_key.to_hex())?;
    writeln!(f, "preshared_key={}", preshared_key.as_ref().map_or(NO_KEY, |key| key.as_str()))?;
    writeln!(f, "protocol_version=1")?;
    if let Some(endpoint) = status.endpoint {
        writeln!(f, "endpoint={endpoint}")?;
    }
    writeln!(f, "last_handshake_time_sec={}", handshake.as_secs())?;
    writeln!(f, "last_handshake_time_nsec={}", handshake.subsec_nanos())?;
    writeln!(f, "tx_bytes={}", status.tx_bytes)?;
    writeln!(f, "rx_bytes={}", status.rx_bytes)?;
    writeln!(f, "persistent_keepalive_interval={}", status.persistent_keepalive)
}
