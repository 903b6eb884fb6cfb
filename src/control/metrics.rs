//! `GET /metrics`: the figures in the text form of Prometheus (exposition format 0.0.4), by its conventions: base units,
//! `_total` for counters, and few label values: peers up to [`PEERS`], reasons and events of fixed lists.

use std::collections::HashSet;
use std::fmt::{Display, Write};

use super::InterfaceSample;
use super::events::{Events, What};
use crate::forward::Refusal;
use crate::tunnel::PeerSample;

/// More peers than this are not told each for itself; `vpnd_peers_left_out` says how many.
pub const PEERS: usize = 5000;

/// `Content-Type` of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole text. It gives way to others between families, since there are as many lines as peers in each.
pub(super) async fn render(sample: &InterfaceSample, events: &Events) -> String {
    let shown = &sample.tunnel.peers[..sample.tunnel.peers.len().min(PEERS)];
    let mut page = Page::new(&sample.name, shown);
    page.interface(sample, shown.len());
    page.counted(sample, events);
    for family in PEER_FAMILIES {
        tokio::task::yield_now().await;
        page.peers(family, shown);
    }
    page.text
}

/// A family with a line for each peer.
struct PeerFamily {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// None: there is no such figure yet.
    value: fn(&PeerSample) -> Option<Number>,
}

/// Bytes beyond 2^53 stay exact.
enum Number {
    Whole(u64),
    Seconds(f64),
}

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Whole(number) => number.fmt(f),
            Number::Seconds(seconds) => write!(f, "{seconds:.3}"),
        }
    }
}

const PEER_FAMILIES: &[PeerFamily] = &[
    PeerFamily {
        name: "vpnd_peer_connected",
        kind: "gauge",
        help: "1 if the peer has a session younger than 180 seconds, else 0.",
        value: |peer| Some(Number::Whole(peer.session_age.is_some().into())),
    },
    PeerFamily {
        name: "vpnd_peer_received_bytes_total",
        kind: "counter",
        help: "UDP payload of authentic messages from the peer.",
        value: |peer| Some(Number::Whole(peer.rx_bytes)),
    },
    PeerFamily {
        name: "vpnd_peer_sent_bytes_total",
        kind: "counter",
        help: "UDP payload sent to the peer.",
        value: |peer| Some(Number::Whole(peer.tx_bytes)),
    },
    PeerFamily {
        name: "vpnd_peer_received_packets_total",
        kind: "counter",
        help: "Packets from the peer that were delivered.",
        value: |peer| Some(Number::Whole(peer.rx_packets)),
    },
    PeerFamily {
        name: "vpnd_peer_sent_packets_total",
        kind: "counter",
        help: "Packets that were sealed for the peer.",
        value: |peer| Some(Number::Whole(peer.tx_packets)),
    },
    PeerFamily {
        name: "vpnd_peer_last_handshake_timestamp_seconds",
        kind: "gauge",
        help: "Unix time of the last handshake with the peer; absent before the first one.",
        value: |peer| peer.last_handshake.map(|at| Number::Seconds(at.as_secs_f64())),
    },
    PeerFamily {
        name: "vpnd_peer_unanswered_initiations",
        kind: "gauge",
        help: "Handshake initiations in a row that the peer did not answer.",
        value: |peer| Some(Number::Whole(peer.attempts.into())),
    },
];

struct Page {
    text: String,
    /// `interface="vpn0"`.
    interface: String,
    /// Each peer's labels, in order.
    labels: Vec<String>,
}

impl Page {
    fn new(interface: &str, peers: &[PeerSample]) -> Self {
        let interface = format!("interface=\"{}\"", Escaped(interface));
        let mut seen = HashSet::with_capacity(peers.len());
        // A name that is only the start of a key, or that two have, would not tell them apart.
        let labels = peers.iter().map(|peer| {
            let is_name = *peer.label != peer.public_key.short() && seen.insert(peer.label.clone());
            match is_name {
                true => format!("{{{interface},peer=\"{}\"}}", Escaped(&peer.label)),
                false => format!("{{{interface},peer=\"{}\"}}", peer.public_key),
            }
        });
        let labels = labels.collect();
        Self { text: String::with_capacity(16 * 1024 + peers.len() * 512), interface, labels }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes every text");
    }

    /// One figure of the whole interface.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        writeln!(self.text, "{name}{{{}}} {value}", self.interface).expect("a string takes every text");
    }

    fn interface(&mut self, sample: &InterfaceSample, shown: usize) {
        let tunnel = &sample.tunnel;
        self.head("vpnd_build_info", "gauge", "Which vpnd runs; always 1.");
        let version = env!("CARGO_PKG_VERSION");
        writeln!(self.text, "vpnd_build_info{{{},version=\"{version}\"}} 1", self.interface)
            .expect("a string takes every text");
        self.one("vpnd_peers", "gauge", "Peers that there are.", tunnel.total);
        let help = "Peers with a session younger than 180 seconds.";
        self.one("vpnd_peers_connected", "gauge", help, tunnel.connected);
        let help = "Peers without figures of their own here, since there are too many.";
        self.one("vpnd_peers_left_out", "gauge", help, tunnel.peers.len() - shown);
        let help = "1 while handshakes must show a cookie, else 0.";
        self.one("vpnd_under_load", "gauge", help, u8::from(tunnel.under_load));
        self.one("vpnd_listen_port", "gauge", "UDP port in use.", sample.listen_port);
    }

    /// What is counted by a fixed list of reasons.
    fn counted(&mut self, sample: &InterfaceSample, events: &Events) {
        let help = "Packets and messages that were refused; the reasons are those of `vpnd status`.";
        let clamped = "SYNs of TCP whose MSS was lowered to what the tunnel carries.";
        self.one("vpnd_mss_clamped_total", "counter", clamped, sample.tunnel.mss_clamped);
        let refused = Refusal::ALL.iter().map(|what| (what.name(), sample.tunnel.refusals[*what as usize]));
        self.by("vpnd_refused_total", help, "reason", refused);
        let happened = What::NAMES.into_iter().zip(events.counts());
        self.by("vpnd_events_total", "Events, as `vpnd events` tells them.", "event", happened);
        let hooks = events.hooks().read();
        self.by("vpnd_hook_runs_total", "Commands run on events, by how they ended.", "result", hooks);
    }

    fn by(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        self.head(name, "counter", help);
        for (value, count) in all {
            writeln!(self.text, "{name}{{{},{label}=\"{value}\"}} {count}", self.interface)
                .expect("a string takes every text");
        }
    }

    fn peers(&mut self, family: &PeerFamily, peers: &[PeerSample]) {
        self.head(family.name, family.kind, family.help);
        for (peer, labels) in peers.iter().zip(&self.labels) {
            if let Some(value) = (family.value)(peer) {
                writeln!(self.text, "{}{labels} {value}", family.name).expect("a string takes every text");
            }
        }
    }
}

/// A label's value: backslash, quote and line feed are written with a backslash.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
