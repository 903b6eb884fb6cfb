//! What vpnd itself saw of a packet, as `GET /v1/trace` tells it: one line of JSON for each.

use serde::{Deserialize, Serialize};

use super::{Packet, Vpnd, handshake::Handshake};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first line: vpnd looks from now on.
    Began {
        /// Device.
        interface: String,
        /// UDP port in use.
        listen_port: u16,
        /// Mark of the sockets, 0: none.
        fwmark: u32,
        /// Boot time now (CLOCK_BOOTTIME), in nanoseconds: [`Seen::at_ns`] is measured by the same clock.
        boot_ns: u64,
        /// Wall time now, in nanoseconds since the Unix epoch.
        wall_ns: u64,
    },
    /// A packet.
    Packet(Box<Seen>),
    /// A message of a handshake, to who asked for them.
    Handshake(Box<Handshake>),
    /// So many matched, and were not told: the reader was slow.
    Lost {
        /// How many.
        count: u64,
    },
    /// The last line: as many packets or seconds are over as were asked for.
    Ended,
}

/// A packet that matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// When vpnd took it: from the TUN, or from the socket. CLOCK_BOOTTIME, in nanoseconds.
    pub at_ns: u64,
    /// When it was handed on: to the socket, or to the TUN; absent: it was not, or nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_ns: Option<u64>,
    /// What it is; absent where nobody could read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
    /// What was done with it.
    pub vpnd: Vpnd,
    /// The packet inside, from the IP header on, as much as was asked for: base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "text")]
    pub inner: Vec<u8>,
    /// The datagram around it (UDP payload), as much as was asked for: base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "text")]
    pub outer: Vec<u8>,
}

/// Bytes in base64.
pub(super) mod text {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::trace) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(in crate::trace) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}
