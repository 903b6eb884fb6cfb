//! `GET /v1/samples`: the figures of many peers, compactly: what `vpnd status --watch` asks for each second. A peer is
//! an array, not an object, and whoever has a sample is told only what changed since. (10,000 peers take 5 MB as a
//! status, 1.5 MB as a whole sample, and 150 bytes for each that did something as a later one.)

use std::net::SocketAddr;

use serde::ser::{Serialize, SerializeTuple, Serializer};
use serde::{Deserialize, Serialize as DeriveSerialize};

use super::InterfaceSample;
use crate::tunnel::PeerSample;

/// An interface's figures at one moment.
#[derive(Clone, Debug, PartialEq, DeriveSerialize, Deserialize)]
pub struct SampleReport {
    /// Device name.
    pub interface: String,
    /// Wall time, in Unix seconds.
    pub now: f64,
    /// Time since boot in nanoseconds: `since` of the next request.
    pub boot: u64,
    /// `generation` of the next request.
    pub generation: u64,
    /// Are cookies demanded?
    pub under_load: bool,
    /// UDP port in use.
    pub listen_port: u16,
    /// How many peers there are.
    pub total: usize,
    /// How many of them are connected.
    pub connected: usize,
    /// Are all of them here? Else those alone of which something came or went since.
    pub whole: bool,
    /// Their figures.
    pub peers: Vec<Row>,
}

/// A peer's figures, written as an array in this order; each as in the status.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs)]
pub struct Row {
    /// Names it for the life of the daemon.
    pub id: u64,
    pub name: String,
    pub public_key: String,
    pub endpoint: Option<SocketAddr>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub last_received_s: Option<f64>,
    pub last_handshake: Option<f64>,
    pub connected_since: Option<f64>,
    pub session_age_s: Option<f64>,
    pub attempts: u32,
    pub untaken: u32,
    pub staged: usize,
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_tuple(13)?;
        row.serialize_element(&self.id)?;
        row.serialize_element(&self.name)?;
        row.serialize_element(&self.public_key)?;
        row.serialize_element(&self.endpoint)?;
        row.serialize_element(&self.rx_bytes)?;
        row.serialize_element(&self.tx_bytes)?;
        row.serialize_element(&self.last_received_s.map(thousandths))?;
        row.serialize_element(&self.last_handshake.map(thousandths))?;
        row.serialize_element(&self.connected_since.map(thousandths))?;
        row.serialize_element(&self.session_age_s.map(thousandths))?;
        row.serialize_element(&self.attempts)?;
        row.serialize_element(&self.untaken)?;
        row.serialize_element(&self.staged)?;
        row.end()
    }
}

/// Nobody looks at more of a second.
fn thousandths(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl From<&InterfaceSample> for SampleReport {
    fn from(sample: &InterfaceSample) -> Self {
        let tunnel = &sample.tunnel;
        Self {
            interface: sample.name.clone(),
            now: sample.now.as_secs_f64(),
            boot: sample.boot.0,
            generation: tunnel.generation,
            under_load: tunnel.under_load,
            listen_port: sample.listen_port,
            total: tunnel.total,
            connected: tunnel.connected,
            whole: tunnel.whole,
            peers: tunnel.peers.iter().map(Row::from).collect(),
        }
    }
}

impl From<&PeerSample> for Row {
    fn from(peer: &PeerSample) -> Self {
        let seconds = |time: std::time::Duration| time.as_secs_f64();
        Self {
            id: peer.id.0,
            name: peer.label.as_ref().clone(),
            public_key: peer.public_key.to_string(),
            endpoint: peer.endpoint,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            last_received_s: peer.last_received.map(seconds),
            last_handshake: peer.last_handshake.map(seconds),
            connected_since: peer.connected_since.map(seconds),
            session_age_s: peer.session_age.map(seconds),
            attempts: peer.attempts,
            untaken: peer.untaken,
            staged: peer.staged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_from_the_array_that_it_is_written_as() {
        let row = Row {
            id: 4,
            name: "laptop".to_owned(),
            public_key: "KEY=".to_owned(),
            endpoint: None,
            rx_bytes: 1,
            tx_bytes: 2,
            last_received_s: Some(0.25),
            last_handshake: Some(1_700_000_000.5),
            connected_since: None,
            session_age_s: Some(3.0),
            attempts: 5,
            untaken: 6,
            staged: 7,
        };
        let text = serde_json::to_string(&row).expect("it is plain");
        assert_eq!(text, r#"[4,"laptop","KEY=",null,1,2,0.25,1700000000.5,null,3.0,5,6,7]"#);
        assert_eq!(serde_json::from_str::<Row>(&text).expect("its own text"), row);
    }
}
