//! The demo's one ping as the page of a trace, from which a picture is drawn: what was counted at each place.

use std::net::IpAddr;

use super::{
    link::{Decision, Passed},
    netfilter::Count,
    page::{Host, Page, Reading},
    stations::address,
};
use crate::trace::{self, Direction, Kind, Outcome, Place, Route, Station, VERSION, Verdict, Walk};

impl Page {
    /// The way of the ping from left to right.
    pub fn way(&self) -> trace::Page {
        let (left, right) = (&self.left, &self.right);
        let parsed = |text: &str| text.parse::<IpAddr>().ok();
        let packet =
            parsed(&left.inner).zip(parsed(&right.inner)).map(|(source, destination)| trace::Packet {
                source,
                destination,
                protocol: "icmp".to_owned(),
                source_port: None,
                destination_port: None,
                echo: None,
                bytes: Some(self.ping.left.tun.tx_bytes),
            });
        let host = |host: &Host| trace::Host {
            name: host.name.clone(),
            interface: Some(super::demo::TUN.to_owned()),
            boot_id: None,
            began_ns: None,
        };
        let mut stations = self.outbound();
        stations.extend(self.inbound());
        trace::Page {
            version: VERSION,
            kind: Kind::Trace,
            packet,
            carrier: None,
            hosts: vec![host(left), host(right)],
            stations,
            outcome: Outcome::Arrived { answered_us: Some(self.rtt.as_secs_f64() * 1e6) },
            answer: None,
            notes: Vec::new(),
        }
    }

    fn outbound(&self) -> Vec<Station> {
        let (seen, other) =
            (Seen { host: 0, direction: Direction::Out, reading: &self.ping.left }, &self.right);
        let (tun, wire, sealed) = (&seen.reading.tun, &seen.reading.wire, &seen.reading.tunnel);
        vec![
            seen.program(Place::Socket, [format!("ping writes {} bytes", self.ping_written)]),
            seen.hook(Walk::Inner, Place::Output),
            seen.route(Walk::Inner, &self.left.inner_route, &other.inner),
            seen.hook(Walk::Inner, Place::Postrouting),
            seen.device(Walk::Inner, super::demo::TUN, sent(tun), "a TUN: vpnd reads it"),
            seen.program(
                Place::Vpnd,
                [
                    "sealed with the session's key".to_owned(),
                    counted(Count { packets: sealed.sealed, bytes: sealed.sealed_bytes }),
                ],
            ),
            seen.hook(Walk::Outer, Place::Output),
            seen.route(Walk::Outer, &self.left.outer_route, address(&other.outer)),
            seen.hook(Walk::Outer, Place::Postrouting),
            seen.device(Walk::Outer, super::demo::WIRE, sent(wire), "with its Ethernet header"),
        ]
    }

    fn inbound(&self) -> Vec<Station> {
        let seen = Seen { host: 1, direction: Direction::In, reading: &self.ping.right };
        let (tun, wire, opened) = (&seen.reading.tun, &seen.reading.wire, &seen.reading.tunnel);
        vec![
            seen.device(Walk::Outer, super::demo::WIRE, received(wire), "with its Ethernet header"),
            seen.hook(Walk::Outer, Place::Prerouting),
            seen.hook(Walk::Outer, Place::Input),
            seen.program(
                Place::Vpnd,
                [
                    "opened, its source checked".to_owned(),
                    counted(Count { packets: opened.opened, bytes: opened.opened_bytes }),
                ],
            ),
            seen.device(Walk::Inner, super::demo::TUN, received(tun), "as if a card had received it"),
            seen.hook(Walk::Inner, Place::Prerouting),
            seen.hook(Walk::Inner, Place::Input),
            seen.program(Place::Socket, ["the kernel answers the ping".to_owned()]),
        ]
    }
}

/// One host's part of the way, and what was counted there.
#[derive(Clone, Copy)]
struct Seen<'a> {
    host: usize,
    direction: Direction,
    reading: &'a Reading,
}

impl Seen<'_> {
    fn station(self, walk: Walk, place: Place, facts: impl IntoIterator<Item = String>) -> Station {
        let mut station = Station::new(self.host, walk, self.direction, place, Verdict::Passed);
        station.facts.extend(facts);
        station
    }

    fn program<const N: usize>(self, place: Place, facts: [String; N]) -> Station {
        self.station(Walk::Program, place, facts)
    }

    fn hook(self, walk: Walk, place: Place) -> Station {
        let Some(walks) = self.reading.walks else {
            let mut station = self.station(walk, place, []);
            station.verdict = Verdict::Unknown;
            station.unknown.push("nobody counted: there is no nft".to_owned());
            return station;
        };
        let hooks = if walk == Walk::Inner { walks.inner } else { walks.outer };
        let count = match place {
            Place::Output => hooks.output,
            Place::Postrouting => hooks.postrouting,
            Place::Prerouting => hooks.prerouting,
            _ => hooks.input,
        };
        self.station(walk, place, [counted(count)])
    }

    fn device(self, walk: Walk, device: &str, count: Count, words: &str) -> Station {
        let mut station = self.station(walk, Place::Device, [counted(count), words.to_owned()]);
        station.device = Some(device.to_owned());
        station
    }

    fn route(self, walk: Walk, decision: &Decision, destination: &str) -> Station {
        let mut station = self.station(walk, Place::Route, [format!("to {destination}")]);
        station.route = Some(Route {
            destination: destination.parse().ok(),
            answer: Some("unicast".to_owned()),
            device: Some(decision.device.clone()),
            via: decision.via,
            source: decision.source,
            table: Some(decision.table),
            ..Route::default()
        });
        station
    }
}

fn counted(count: Count) -> String {
    let packets = if count.packets == 1 { "packet" } else { "packets" };
    format!("{} {packets}, {} bytes", count.packets, count.bytes)
}

fn sent(passed: &Passed) -> Count {
    Count { packets: passed.tx_packets, bytes: passed.tx_bytes }
}

fn received(passed: &Passed) -> Count {
    Count { packets: passed.rx_packets, bytes: passed.rx_bytes }
}
