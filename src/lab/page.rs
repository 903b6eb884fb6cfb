//! What the demo measured, as a value: a page is rendered from it without asking anybody.

use std::{ops::Sub, time::Duration};

use super::{
    capture::Captured,
    link::{Decision, Passed},
    netfilter::Walks,
    traffic::Transfer,
};

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Page {
    /// Names and addresses of the two hosts; the left one sends.
    pub left: Host,
    /// The right one answers.
    pub right: Host,
    /// Why there are no counters of netfilter; `None`: there are.
    pub no_netfilter: Option<String>,
    /// What the left vpnd had counted since its start when the very first ping was answered, for which it had to
    /// shake hands.
    pub first: Tunnel,
    /// What one ping and its answer moved after that, undisturbed by anything else.
    pub ping: Sample,
    /// Bytes that the ping program wrote: ICMP header and payload.
    pub ping_written: u64,
    /// From request to answer.
    pub rtt: Duration,
    /// The same over IPv6; `None`: it was lost.
    pub rtt_v6: Option<Duration>,
    /// A listener on the left host's devices during that ping; or why there was none.
    pub listener: Result<Listener, String>,
    /// What the bulk transfer moved, its acknowledgements included.
    pub bulk: Sample,
    /// How it went.
    pub transfer: Transfer,
}

impl Page {
    /// Did the pings and the transfer come through whole?
    pub fn passed(&self) -> bool {
        self.rtt_v6.is_some() && self.transfer.intact
    }
}

/// One of the two.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its namespace.
    pub name: String,
    /// Its address inside the tunnel.
    pub inner: String,
    /// Its address on the cable, with the UDP port.
    pub outer: String,
    /// Where its kernel sends a packet for the other's inner address.
    pub inner_route: Decision,
    /// Where its kernel sends vpnd's UDP packets.
    pub outer_route: Decision,
}

/// What both hosts counted between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// On the left.
    pub left: Reading,
    /// On the right.
    pub right: Reading,
}

/// What one host's kernel and its vpnd have counted, or counted between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// By netfilter, if it could be asked.
    pub walks: Option<Walks>,
    /// By the TUN device.
    pub tun: Passed,
    /// By vpnd.
    pub tunnel: Tunnel,
    /// By the cable's end.
    pub wire: Passed,
}

/// vpnd's own counters for its one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Data packets sealed.
    pub sealed: u64,
    /// UDP payload bytes sent, handshakes included.
    pub sealed_bytes: u64,
    /// Data packets opened.
    pub opened: u64,
    /// UDP payload bytes received, handshakes included.
    pub opened_bytes: u64,
}

/// What somebody who listens on a device can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// On the TUN device.
    pub tun: Captured,
    /// On the cable.
    pub wire: Captured,
}

impl Sub for Tunnel {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            sealed: self.sealed.saturating_sub(earlier.sealed),
            sealed_bytes: self.sealed_bytes.saturating_sub(earlier.sealed_bytes),
            opened: self.opened.saturating_sub(earlier.opened),
            opened_bytes: self.opened_bytes.saturating_sub(earlier.opened_bytes),
        }
    }
}

impl Sub for Reading {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            walks: self.walks.zip(earlier.walks).map(|(now, then)| now - then),
            tun: self.tun - earlier.tun,
            tunnel: self.tunnel - earlier.tunnel,
            wire: self.wire - earlier.wire,
        }
    }
}

impl Sub for Sample {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self { left: self.left - earlier.left, right: self.right - earlier.right }
    }
}

impl Sample {
    /// Did one packet go and one come back, and nothing else? A neighbour discovery or a keepalive in between
    /// would blur the count.
    pub fn is_one_ping(&self) -> bool {
        [self.left, self.right].iter().all(|host| {
            let devices = [host.tun, host.wire].iter().all(|d| (d.tx_packets, d.rx_packets) == (1, 1));
            devices && (host.tunnel.sealed, host.tunnel.opened) == (1, 1)
        })
    }
}
