//! What vpnd did with a packet: sealed it, opened it, kept it, refused it; and the evidence.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What vpnd did with the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum Vpnd {
    /// Sealed it, and handed the carrier to the kernel.
    Sealed(Sealed),
    /// Opened the carrier, and handed the packet to the TUN.
    Opened(Opened),
    /// Kept it until there is a session.
    Staged {
        /// Whose it is.
        peer: String,
        /// That peer's key.
        public_key: String,
        /// By which of its prefixes.
        prefix: String,
    },
    /// Refused it.
    Refused(Refused),
    /// A plan: this peer would get it.
    Owned {
        /// Whose it is.
        peer: String,
        /// That peer's key.
        public_key: String,
        /// By which of its prefixes.
        prefix: String,
        /// The next shorter prefix that holds the address, and whose that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        second: Option<[String; 2]>,
        /// Where the carrier would go.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<SocketAddr>,
        /// Is there a session to seal it with?
        session: bool,
    },
}

/// A packet that was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Whose it is.
    pub peer: String,
    /// That peer's key.
    pub public_key: String,
    /// The prefix by which the destination is that peer's.
    pub prefix: String,
    /// Receiver index: the peer's number for the session, written in the clear.
    pub session: u32,
    /// Number of the message in its session; of a super-packet the first one's.
    pub counter: u64,
    /// Packets that were cut from what the TUN gave: 1, or more of a super-packet.
    pub segments: u64,
    /// Bytes that the TUN gave, from the IP header on.
    pub inner_bytes: u64,
    /// Bytes of the first datagram: header, padded packet, tag.
    pub datagram_bytes: u64,
    /// It waited for a session.
    pub staged: bool,
    /// From which of our addresses, where that is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Where the carrier goes.
    pub endpoint: SocketAddr,
    /// Mark of the socket that it leaves by; 0: none.
    pub mark: u32,
    /// The send that it left in; absent: it has not left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// What the kernel said, where it would not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Datagrams that were handed over by one call (UDP_SEGMENT, UDP_GRO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// How many; 1: it went alone.
    pub datagrams: u64,
    /// Which of them this one is, from 0 on.
    pub place: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// The counter of the first of them, which is what netfilter's trace shows of all.
    pub first: u64,
}

/// A packet that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Who sealed it.
    pub peer: String,
    /// That peer's key.
    pub public_key: String,
    /// The prefix by which the source is that peer's.
    pub prefix: String,
    /// Receiver index: our number for the session.
    pub session: u32,
    /// Number of the message in its session.
    pub counter: u64,
    /// Where the carrier came from.
    pub from: SocketAddr,
    /// Bytes of the datagram.
    pub datagram_bytes: u64,
    /// Bytes of the packet inside.
    pub inner_bytes: u64,
    /// The receive that it came in.
    pub batch: Batch,
    /// Packets that were written to the TUN as one; 1: it went alone.
    pub merged: u64,
}

/// A packet that was refused, with evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, by the name that the status and the metrics count it under.
    pub reason: String,
    /// The peer that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// That peer's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Inbound: where the carrier came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SocketAddr>,
    /// Inbound: receiver index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Inbound: number of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// The inner address that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<IpAddr>,
    /// Who owns that address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// By which prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_prefix: Option<String>,
}
