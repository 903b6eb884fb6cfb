use super::*;
use crate::trace::station::{Death, Direction, Host, Killer, Packet, Place, Station, VERSION, Verdict};
use card::Look;

use Direction::{In, Out};
use Place::{Device, Forward, Input, Output, Postrouting, Prerouting, Route, Socket, Vpnd};
use Walk::{Inner, Outer, Program};

type Stop = (usize, Walk, Direction, Place, &'static str);

const SENDER: [Stop; 10] = [
    (0, Program, Out, Socket, ""),
    (0, Inner, Out, Output, ""),
    (0, Inner, Out, Route, ""),
    (0, Inner, Out, Postrouting, ""),
    (0, Inner, Out, Device, "vpn0"),
    (0, Program, Out, Vpnd, ""),
    (0, Outer, Out, Output, ""),
    (0, Outer, Out, Route, ""),
    (0, Outer, Out, Postrouting, ""),
    (0, Outer, Out, Device, "eth0"),
];
/// A gateway: it opens the carrier, and passes the packet on to a network behind it.
const GATEWAY: [Stop; 11] = [
    (1, Outer, In, Device, "eth0"),
    (1, Outer, In, Prerouting, ""),
    (1, Outer, In, Route, ""),
    (1, Outer, In, Input, ""),
    (1, Program, In, Vpnd, ""),
    (1, Inner, In, Device, "vpn0"),
    (1, Inner, In, Prerouting, ""),
    (1, Inner, In, Route, ""),
    (1, Inner, In, Forward, ""),
    (1, Inner, In, Postrouting, ""),
    (1, Inner, In, Device, "eth1"),
];
/// It knows the carrier alone.
const ROUTER: [Stop; 6] = [
    (1, Outer, In, Device, "eth0"),
    (1, Outer, In, Prerouting, ""),
    (1, Outer, In, Route, ""),
    (1, Outer, In, Forward, ""),
    (1, Outer, In, Postrouting, ""),
    (1, Outer, In, Device, "eth1"),
];

fn page(hosts: &[&str], stops: &[Stop]) -> Page {
    let host = |name: &&str| Host {
        name: (*name).to_owned(),
        interface: Some("vpn0".to_owned()),
        boot_id: None,
        began_ns: None,
    };
    let station = |&(host, walk, direction, place, device): &Stop| {
        let mut station = Station::new(host, walk, direction, place, Verdict::Passed);
        station.device = (!device.is_empty()).then(|| device.to_owned());
        station.facts.push("1 packet, 84 bytes".to_owned());
        station
    };
    Page {
        version: VERSION,
        kind: Kind::Trace,
        packet: Some(Packet {
            source: "10.77.0.1".parse().unwrap(),
            destination: "10.77.0.2".parse().unwrap(),
            protocol: "icmp".to_owned(),
            source_port: None,
            destination_port: None,
            echo: None,
            bytes: Some(84),
        }),
        carrier: None,
        hosts: hosts.iter().map(host).collect(),
        stations: stops.iter().map(station).collect(),
        outcome: Outcome::Arrived { answered_us: Some(412.3) },
        notes: Vec::new(),
    }
}

fn through_a_gateway() -> Page {
    page(&["left", "gateway"], &[&SENDER[..], &GATEWAY].concat())
}

/// Nothing lies on anything else, and each card in the frame of its host.
#[track_caller]
fn assert_in_order(page: &Page) {
    let layout = Layout::of(page);
    let inside = |[x, y, w, h]: [u32; 4], [fx, fy, fw, fh]: [u32; 4]| {
        x > fx && y > fy && x + w < fx + fw && y + h < fy + fh
    };
    let apart = |[ax, ay, aw, ah]: [u32; 4], [bx, by, bw, bh]: [u32; 4]| {
        ax + aw < bx || bx + bw < ax || ay + ah < by || by + bh < ay
    };
    assert_eq!(layout.cards.len(), page.stations.len());
    for (at, card) in layout.cards.iter().enumerate() {
        let frame = &layout.hosts[page.stations[at].host];
        assert!(inside(card.area, frame.area), "{} lies outside of {}", card.name, frame.name);
        for other in &layout.cards[at + 1..] {
            assert!(apart(card.area, other.area), "{} lies on {}", card.name, other.name);
        }
    }
    for wire in &layout.wires {
        for pair in wire.points.windows(2) {
            assert!(pair[0].0 == pair[1].0 || pair[0].1 == pair[1].1, "a slanted line: {pair:?}");
        }
    }
}

fn area(layout: &Layout, page: &Page, stop: Stop) -> [u32; 4] {
    let is_it = |station: &Station| {
        (station.host, station.walk, station.direction, station.place) == (stop.0, stop.1, stop.2, stop.3)
            && (stop.4.is_empty() || station.device.as_deref() == Some(stop.4))
    };
    layout.cards[page.stations.iter().position(is_it).unwrap()].area
}

#[test]
fn nothing_overlaps_whatever_the_way_is() {
    assert_in_order(&page(&["left"], &SENDER));
    assert_in_order(&through_a_gateway());
    let receiver: Vec<Stop> = GATEWAY[..8]
        .iter()
        .copied()
        .chain([(1, Inner, In, Input, ""), (1, Program, In, Socket, "")])
        .collect();
    assert_in_order(&page(&["left", "right"], &[&SENDER[..], &receiver].concat()));
    let far: Vec<Stop> = receiver.iter().map(|&(_, w, d, p, n)| (2, w, d, p, n)).collect();
    assert_in_order(&page(&["left", "router", "right"], &[&SENDER[..], &ROUTER, &far].concat()));
    // More stations than usual in one column, and a way that is cut off anywhere.
    let mut twice = SENDER.to_vec();
    twice.insert(4, (0, Inner, Out, Route, ""));
    twice.insert(5, (0, Inner, Out, Postrouting, ""));
    assert_in_order(&page(&["left"], &twice));
    let whole = [&SENDER[..], &GATEWAY].concat();
    for length in 0..whole.len() {
        assert_in_order(&page(&["left", "gateway"], &whole[..length]));
        assert_in_order(&page(&["left", "gateway"], &whole[length..]));
    }
}

#[test]
fn programs_stand_above_the_kernel_and_devices_below() {
    let page = through_a_gateway();
    let layout = Layout::of(&page);
    let [programs, kernel, devices] = [0, 1, 2].map(|band: usize| layout.bands[band].top);
    for (card, station) in layout.cards.iter().zip(&page.stations) {
        let band = match station.place {
            Socket | Vpnd => programs..kernel,
            Device => devices..layout.height,
            _ => kernel..devices,
        };
        assert!(
            band.contains(&card.area[1]) && band.contains(&(card.area[1] + card.area[3])),
            "{}",
            card.name
        );
    }
}

#[test]
fn a_packet_goes_down_up_and_behind_forward_down_again() {
    let page = through_a_gateway();
    let layout = Layout::of(&page);
    let y = |stop: Stop| area(&layout, &page, stop)[1];
    let x = |stop: Stop| area(&layout, &page, stop)[0];
    assert!(y(SENDER[1]) < y(SENDER[2]) && y(SENDER[2]) < y(SENDER[3]));
    assert!(y(GATEWAY[1]) > y(GATEWAY[2]) && y(GATEWAY[2]) > y(GATEWAY[3]));
    assert_eq!(y(SENDER[3]), y(GATEWAY[1]), "POSTROUTING and PREROUTING are both next to a device");
    assert!(x(SENDER[1]) < x(SENDER[6]), "the outer packet has a column of its own");
    assert_eq!(x(GATEWAY[5]), x(GATEWAY[8]), "what came in by vpn0 goes up to FORWARD");
    assert!(x(GATEWAY[8]) < x(GATEWAY[9]) && y(GATEWAY[8]) < y(GATEWAY[9]), "and down beside it");
    assert_eq!(layout.wires.len(), page.stations.len() - 1);
}

#[test]
fn where_it_died_is_marked_and_no_way_leads_on() {
    let mut page = through_a_gateway();
    page.stations[18].verdict = Verdict::Dropped;
    page.stations[19].verdict = Verdict::Absent;
    page.stations[20].verdict = Verdict::Absent;
    let why = "table inet filter, chain forward, handle 7: iifname \"vpn0\" drop".to_owned();
    page.outcome = Outcome::Died(Death { station: 18, by: Killer::Netfilter, why, drop_reason: None });
    let layout = Layout::of(&page);
    let looks: Vec<Look> = layout.cards.iter().map(|card| card.look).collect();
    assert_eq!(looks.iter().filter(|look| **look == Look::Dead).count(), 1);
    assert_eq!(&looks[18..], [Look::Dead, Look::Absent, Look::Absent]);
    assert_eq!(layout.wires.len(), 18);
    let picture = svg(&page);
    assert_eq!(picture.matches("class=\"cross\"").count(), 1);
    assert!(
        picture.contains("It died at FORWARD on gateway, the packet itself: table inet filter"),
        "{picture}"
    );
    assert!(!picture.contains("\"vpn0\" drop"), "quotes would end an attribute");
}

#[test]
fn a_name_cannot_become_markup() {
    let mut page = page(&["</text><script>&\u{7}"], &SENDER);
    page.stations[1].facts = vec!["<b onload=\"x\">".to_owned()];
    let picture = svg(&page);
    assert!(!picture.contains("<script") && !picture.contains("<b ") && !picture.contains('\u{7}'));
    assert!(picture.contains("&lt;/text&gt;&lt;script&gt;&amp;"));
}

#[test]
fn every_element_is_closed_and_both_modes_are_there() {
    let picture = svg(&through_a_gateway());
    for element in ["svg", "text", "g", "defs", "style", "title"] {
        let opened = picture.matches(&format!("<{element}>")).count()
            + picture.matches(&format!("<{element} ")).count();
        assert_eq!(opened, picture.matches(&format!("</{element}>")).count(), "{element}");
    }
    assert!(picture.contains("prefers-color-scheme:dark"));
    assert!(picture.contains("412 µs"));
}

#[test]
fn long_facts_are_cut_and_told_whole_to_who_points_at_them() {
    let mut page = page(&["left"], &SENDER);
    let long = "a counter of the kernel with a very long name moved by one".to_owned();
    page.stations[1].facts = vec![long.clone()];
    let layout = Layout::of(&page);
    assert!(layout.cards[1].lines[0].chars().count() <= 30 && layout.cards[1].whole.contains(&long));
}
