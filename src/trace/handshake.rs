//! Messages of handshakes, as they are told to a capture: they carry no packet, and have no way to be traced.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{record::text, station::Direction};

/// One message that came or was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handshake {
    /// When vpnd took it, or made it. CLOCK_BOOTTIME, in nanoseconds.
    pub at_ns: u64,
    /// From this host, or to it.
    pub way: Direction,
    /// Which of the three it is.
    pub message: Message,
    /// Name of the peer that it is from, or to, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Its place.
    pub remote: SocketAddr,
    /// Our address towards it; absent: the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// It was refused, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The message: base64.
    #[serde(with = "text")]
    pub bytes: Vec<u8>,
    /// What opens the handshake, and the session that comes of it: of an initiation that we sent, or answered. Only to who
    /// may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Secrets>,
}

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response,
    /// Type 3.
    CookieReply,
}

/// Keys as lines of text; erase themselves, and cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Zeroizing<String>);

impl Secrets {
    /// These lines.
    pub fn new(lines: Zeroizing<String>) -> Self {
        Self(lines)
    }

    /// For the file that was asked for alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'a> Deserialize<'a> for Secrets {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|lines| Self(Zeroizing::new(lines)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::trace) fn response(secrets: bool) -> Handshake {
        Handshake {
            at_ns: 5,
            way: Direction::Out,
            message: Message::Response,
            peer: Some("laptop".to_owned()),
            remote: ([192, 0, 2, 2], 51820).into(),
            local: None,
            refused: None,
            bytes: vec![2, 0, 0, 0],
            secrets: secrets.then(|| Secrets::new(Zeroizing::new("KEY=x\n".to_owned()))),
        }
    }

    #[cfg(feature = "daemon")] // which brings serde_json
    #[test]
    fn a_message_reads_back_and_its_keys_are_not_printed() {
        for secrets in [true, false] {
            let told = response(secrets);
            let text = serde_json::to_string(&told).expect("plain");
            assert_eq!(text.contains("KEY"), secrets);
            assert_eq!(serde_json::from_str::<Handshake>(&text).expect("its own text"), told);
            assert!(!format!("{told:?}").contains("KEY"), "{told:?}");
        }
    }
}
