//! What happened, as it is told to people and programs: one line of JSON for each event, the last 1024 of them
//! kept, and handed to whoever listens. The names and meanings are stable (`docs/schema.md`):
//! fields may be added, none changes. No secret ever stands in it.

mod hooks;
mod ring;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use hooks::{HookCounts, HookEnd};
pub use ring::{About, Events, KEPT, Listener};

use crate::noise::PublicKey;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventReport {
    /// Counts from 1 for each run of the daemon.
    pub seq: u64,
    /// Wall time, in Unix seconds.
    pub time: f64,
    /// Device name.
    pub interface: String,
    /// The name of the peer it is about; null: about none.
    pub peer: Option<String>,
    /// That peer's public key, base64.
    pub public_key: Option<String>,
    /// Its name, in `event`, and the fields of its own.
    #[serde(flatten)]
    pub what: What,
}

/// The peer that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// For people.
    pub name: String,
    /// Its static key.
    pub key: PublicKey,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The tunnel is up.
    Started {
        /// UDP port in use.
        port: u16,
        /// How many the file has.
        peers: usize,
    },
    /// The daemon ends.
    Stopping {
        /// A signal, or what went wrong.
        why: String,
    },
    /// The peer has a session again after a time without one.
    Connected {
        /// Where it is.
        endpoint: SocketAddr,
        /// Did we begin?
        initiator: bool,
    },
    /// The session was renewed before the last one died.
    Handshake {
        /// Where it is.
        endpoint: SocketAddr,
        /// Did we begin?
        initiator: bool,
    },
    /// Its endpoint followed an authentic packet.
    Roamed {
        /// Where it was; null: nobody knew.
        from: Option<SocketAddr>,
        /// Where it is.
        to: SocketAddr,
    },
    /// An initiation went unanswered for 5 seconds.
    Unanswered {
        /// How many in a row.
        attempts: u32,
    },
    /// 90 s of initiations went unanswered: no more until there is something to send.
    GivenUp,
    /// Its last session expired and no new one came.
    Silent,
    /// The time up to which the peer is let in is over.
    Expired,
    /// A prefix moved from one peer to another by a change.
    PrefixMoved {
        /// Which.
        prefix: String,
        /// The key of its owner before, base64.
        from: String,
        /// The key of its owner now, base64.
        to: String,
    },
    /// Handshakes must show a cookie, or need not any more.
    UnderLoad {
        /// Must they?
        on: bool,
    },
    /// Something was refused: told at once, then at growing intervals of up to a minute.
    Refused {
        /// As in the status.
        reason: String,
        /// How often since this was last told.
        count: u64,
        /// The UDP address it came from, the last time.
        from: Option<SocketAddr>,
        /// The public key it was about, base64.
        key: Option<String>,
        /// The inner address it was about.
        inner: Option<IpAddr>,
        /// Who owns `inner`: the name of a peer, else its key.
        owner: Option<String>,
        /// A sentence for people.
        text: String,
    },
    /// The file was read again, and what differed was applied.
    Reloaded {
        /// What was altered, a line each, up to 50.
        changes: Vec<String>,
        /// It is on trial: taken back after so long, unless it is confirmed.
        confirm_within_s: Option<u64>,
    },
    /// The file was read again and changed nothing.
    ReloadRefused {
        /// Why.
        why: String,
    },
    /// What was reloaded on trial stays.
    Confirmed,
    /// What was reloaded on trial was not confirmed, and is undone.
    TakenBack {
        /// What was altered, a line each, up to 50.
        changes: Vec<String>,
    },
    /// It could not be undone, and is tried again.
    NotTakenBack {
        /// Why.
        why: String,
    },
    /// Something of ours on the host was removed by somebody else, and put back.
    Drift {
        /// What, in the words of `ip`.
        what: String,
        /// How many things.
        count: u64,
        /// Is it removed again and again?
        contested: bool,
    },
    /// Something of somebody else stands in the place of ours.
    Displaced {
        /// What is wrong.
        why: String,
    },
    /// Our device was set down or up by somebody else.
    Link {
        /// Is it up?
        up: bool,
    },
    /// Keys that open what the tunnel carries are given to a capture that asked for them, or no longer.
    SecretsGiven {
        /// Are they?
        on: bool,
    },
    /// Told to a listener alone: so many events are gone, as it read too slowly or came too late.
    Lost {
        /// How many.
        count: u64,
    },
}

impl What {
    /// The name of each event that is recorded, as it stands in `event`.
    pub const NAMES: [&'static str; 21] = [
        "started",
        "stopping",
        "connected",
        "handshake",
        "roamed",
        "unanswered",
        "given_up",
        "silent",
        "expired",
        "prefix_moved",
        "under_load",
        "refused",
        "reloaded",
        "reload_refused",
        "confirmed",
        "taken_back",
        "not_taken_back",
        "drift",
        "displaced",
        "link",
        "secrets_given",
    ];

    /// Its name, as it stands in `event`.
    pub fn name(&self) -> &'static str {
        match self {
            What::Started { .. } => "started",
            What::Stopping { .. } => "stopping",
            What::Connected { .. } => "connected",
            What::Handshake { .. } => "handshake",
            What::Roamed { .. } => "roamed",
            What::Unanswered { .. } => "unanswered",
            What::GivenUp => "given_up",
            What::Silent => "silent",
            What::Expired => "expired",
            What::PrefixMoved { .. } => "prefix_moved",
            What::UnderLoad { .. } => "under_load",
            What::Refused { .. } => "refused",
            What::Reloaded { .. } => "reloaded",
            What::ReloadRefused { .. } => "reload_refused",
            What::Confirmed => "confirmed",
            What::TakenBack { .. } => "taken_back",
            What::NotTakenBack { .. } => "not_taken_back",
            What::Drift { .. } => "drift",
            What::Displaced { .. } => "displaced",
            What::Link { .. } => "link",
            What::SecretsGiven { .. } => "secrets_given",
            What::Lost { .. } => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_that_reads_back() {
        let event = EventReport {
            seq: 7,
            time: 1_700_000_000.25,
            interface: "vpn0".to_owned(),
            peer: Some("laptop".to_owned()),
            public_key: Some("KEY=".to_owned()),
            what: What::Roamed { from: None, to: "[2001:db8::7]:51820".parse().expect("an address") },
        };
        let text = serde_json::to_string(&event).expect("it is plain");
        let expected = r#"{"seq":7,"time":1700000000.25,"interface":"vpn0","peer":"laptop","public_key":"KEY=","event":"roamed","from":null,"to":"[2001:db8::7]:51820"}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<EventReport>(&text).expect("its own text"), event);
    }
}
