use super::*;
use crate::trace::{Answer, Death, Direction, Host, Killer, Packet, Place, Station, VERSION, Verdict};
use card::Look;

use Direction::{In, Out};
use Place::{Device, Forward, Input, Output, Postrouting, Prerouting, Route, Socket, Vpnd};
use Walk::{Inner, Outer, Program};

type Stop = (usize, Walk, Direction, Place, &'static str);

/// Places of one packet on one host, one behind the other.
fn on(host: usize, walk: Walk, direction: Direction, places: &[(Place, &'static str)]) -> Vec<Stop> {
    places.iter().map(|&(place, device)| (host, walk, direction, place, device)).collect()
}

fn sender() -> Vec<Stop> {
    let down = |device| [(Output, ""), (Route, ""), (Postrouting, ""), (Device, device)];
    [
        on(0, Program, Out, &[(Socket, "")]),
        on(0, Inner, Out, &down("vpn0")),
        on(0, Program, Out, &[(Vpnd, "")]),
        on(0, Outer, Out, &down("eth0")),
    ]
    .concat()
}

/// Up to the hook behind routing.
fn up(host: usize, walk: Walk, device: &'static str, hook: Place) -> Vec<Stop> {
    on(host, walk, In, &[(Device, device), (Prerouting, ""), (Route, ""), (hook, "")])
}

/// On to the device behind FORWARD.
fn on_by_eth1(host: usize, walk: Walk) -> Vec<Stop> {
    on(host, walk, In, &[(Postrouting, ""), (Device, "eth1")])
}

/// A gateway: it opens the carrier, and passes the packet on to a network behind it.
fn gateway() -> Vec<Stop> {
    [
        up(1, Outer, "eth0", Input),
        on(1, Program, In, &[(Vpnd, "")]),
        up(1, Inner, "vpn0", Forward),
        on_by_eth1(1, Inner),
    ]
    .concat()
}

/// It knows the carrier alone.
fn router() -> Vec<Stop> {
    [up(1, Outer, "eth0", Forward), on_by_eth1(1, Outer)].concat()
}

/// The other end: a program takes the packet.
fn receiver(host: usize) -> Vec<Stop> {
    [
        up(host, Outer, "eth0", Input),
        on(host, Program, In, &[(Vpnd, "")]),
        up(host, Inner, "vpn0", Input),
        on(host, Program, In, &[(Socket, "")]),
    ]
    .concat()
}

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
        answer: None,
        notes: Vec::new(),
    }
}

fn through_a_gateway() -> Page {
    page(&["left", "gateway"], &[sender(), gateway()].concat())
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
        let host = &page.hosts[page.stations[at].host].name;
        let frame = layout.hosts.iter().find(|frame| frame.name == *host).unwrap();
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

/// From left to right, and the answer from right to left.
fn there_and_back() -> Page {
    let mut whole = page(&["left", "right"], &[sender(), receiver(1)].concat());
    let other =
        |stops: &[Stop]| stops.iter().map(|&(host, w, d, p, n)| (1 - host, w, d, p, n)).collect::<Vec<_>>();
    let back = page(&["left", "right"], &other(&[sender(), receiver(1)].concat()));
    whole.answer = Some(Answer {
        packet: back.packet,
        carrier: None,
        stations: back.stations,
        outcome: Outcome::Arrived { answered_us: None },
    });
    whole
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
    assert_in_order(&page(&["left"], &sender()));
    assert_in_order(&through_a_gateway());
    assert_in_order(&page(&["left", "right"], &[sender(), receiver(1)].concat()));
    assert_in_order(&page(&["left", "router", "right"], &[sender(), router(), receiver(2)].concat()));
    // More stations than usual in one column, and a way that is cut off anywhere.
    let mut twice = sender();
    twice.insert(4, (0, Inner, Out, Route, ""));
    twice.insert(5, (0, Inner, Out, Postrouting, ""));
    assert_in_order(&page(&["left"], &twice));
    let whole = [sender(), gateway()].concat();
    for length in 0..whole.len() {
        assert_in_order(&page(&["left", "gateway"], &whole[..length]));
        assert_in_order(&page(&["left", "gateway"], &whole[length..]));
    }
}

#[test]
fn an_answers_way_back_stands_below_and_begins_on_the_left_as_well() {
    let page = there_and_back();
    let back = from_left_to_right(page.way_back().expect("an answer"));
    assert_in_order(&back);
    let names: Vec<_> = Layout::of(&back).hosts.iter().map(|frame| frame.name.clone()).collect();
    assert_eq!(names, ["right", "left"]);
    let (whole, alone) = (svg(&page), svg(&Page { answer: None, ..page }));
    let height = |picture: &str| -> u32 {
        let at = picture.split_once("height=\"").expect("a height").1;
        at.split_once('"').expect("its end").0.parse().expect("a number")
    };
    assert!(height(&whole) >= 2 * height(&alone) - 40, "{} {}", height(&whole), height(&alone));
    assert!(whole.contains("The way of its answer: icmp") && !alone.contains("its answer"));
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
    assert!(y(sender()[1]) < y(sender()[2]) && y(sender()[2]) < y(sender()[3]));
    assert!(y(gateway()[1]) > y(gateway()[2]) && y(gateway()[2]) > y(gateway()[3]));
    assert_eq!(y(sender()[3]), y(gateway()[1]), "POSTROUTING and PREROUTING are both next to a device");
    assert!(x(sender()[1]) < x(sender()[6]), "the outer packet has a column of its own");
    assert_eq!(x(gateway()[5]), x(gateway()[8]), "what came in by vpn0 goes up to FORWARD");
    assert!(x(gateway()[8]) < x(gateway()[9]) && y(gateway()[8]) < y(gateway()[9]), "and down beside it");
    assert_eq!(layout.wires.len(), page.stations.len() - 1);
}

#[test]
fn where_it_died_is_marked_and_no_way_leads_on() {
    let mut page = through_a_gateway();
    page.stations[5].verdict = Verdict::Refused; // the send call was told of what happened later
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
    let mut page = page(&["</text><script>&\u{7}"], &sender());
    page.stations[1].facts = vec!["<b onload=\"x\">".to_owned()];
    let picture = svg(&page);
    assert!(!picture.contains("<script") && !picture.contains("<b ") && !picture.contains('\u{7}'));
    assert!(picture.contains("&lt;/text&gt;&lt;script&gt;&amp;"));
}

#[test]
fn every_element_is_closed_and_both_modes_are_there() {
    let picture = svg(&there_and_back());
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
    let mut page = page(&["left"], &sender());
    let long = "a counter of the kernel with a very long name moved by one".to_owned();
    page.stations[1].facts = vec![long.clone()];
    let layout = Layout::of(&page);
    assert!(layout.cards[1].lines[0].chars().count() <= 30 && layout.cards[1].whole.contains(&long));
}
