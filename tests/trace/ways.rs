//! Packets that arrive: each station, its order, its verdict, and the joining of both ends.

use vpnd::trace::{Outcome, Place, Vpnd, Walk};

use super::{
    common::need_root,
    world::{Traced, World},
};

const WHOLE_WAY: [&str; 20] = [
    "l program socket",
    "l inner OUTPUT",
    "l inner routing",
    "l inner POSTROUTING",
    "l inner vpn0",
    "l program vpnd",
    "l outer OUTPUT",
    "l outer routing",
    "l outer POSTROUTING",
    "l outer eth0",
    "r outer eth0",
    "r outer PREROUTING",
    "r outer routing",
    "r outer INPUT",
    "r program vpnd",
    "r inner vpn0",
    "r inner PREROUTING",
    "r inner routing",
    "r inner INPUT",
    "r program socket unknown",
];

#[track_caller]
fn assert_arrived(traced: &Traced) {
    let outcome = &traced.page().outcome;
    assert!(
        matches!(outcome, Outcome::Arrived { answered_us: Some(_) }),
        "{outcome:?}\n{}",
        traced.as_text()
    );
    assert_eq!(traced.code, Some(0));
}

/// What one end sealed is what the other opened.
#[track_caller]
fn assert_joined(traced: &Traced) {
    let (left, right) = ("l", "r");
    let sealed = match &traced.at(left, Walk::Program, Place::Vpnd).vpnd {
        Some(Vpnd::Sealed(sealed)) => sealed.clone(),
        other => panic!("{other:?}"),
    };
    let opened = match &traced.at(right, Walk::Program, Place::Vpnd).vpnd {
        Some(Vpnd::Opened(opened)) => opened.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((sealed.session, sealed.counter), (opened.session, opened.counter));
    assert_eq!((sealed.inner_bytes, sealed.datagram_bytes), (opened.inner_bytes, opened.datagram_bytes));
    assert_eq!((sealed.peer.as_str(), opened.peer.as_str()), ("right", "left"));
}

#[test]
fn a_ping_over_ipv4_shows_its_whole_way_on_both_ends() {
    if !need_root() {
        return;
    }
    let world = World::new("v4");
    world.shake_hands();
    let traced = world.trace_both("10.77.0.2", "icmp and dst host 10.77.0.2");
    traced.assert_way(&WHOLE_WAY);
    assert_arrived(&traced);
    assert_joined(&traced);
    let Some(Vpnd::Sealed(sealed)) = &traced.at("l", Walk::Program, Place::Vpnd).vpnd else { panic!() };
    assert_eq!(
        (sealed.prefix.as_str(), sealed.inner_bytes, sealed.datagram_bytes),
        ("10.77.0.2/32", 84, 128)
    );
    assert_eq!(sealed.endpoint, "192.0.2.2:51820".parse().unwrap());
    let route = traced.at("l", Walk::Inner, Place::Route).route.clone().expect("an answer");
    assert_eq!(route.device.as_deref(), Some("vpn0"));
    assert_eq!(route.prefix.as_deref(), Some("10.77.0.0/24"));
    let route = traced.at("l", Walk::Outer, Place::Route).route.clone().expect("an answer");
    assert_eq!((route.device.as_deref(), route.table), (Some("eth0"), Some(254)));
    let route = traced.at("r", Walk::Inner, Place::Route).route.clone().expect("an answer");
    assert_eq!(route.answer.as_deref(), Some("local"));
    let text = traced.as_text();
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn a_ping_over_ipv6_shows_its_whole_way_on_both_ends() {
    if !need_root() {
        return;
    }
    let world = World::new("v6");
    world.shake_hands();
    let traced = world.trace_both("fd77::2", "icmp6 and dst host fd77::2");
    traced.assert_way(&WHOLE_WAY);
    assert_arrived(&traced);
    assert_joined(&traced);
}

#[test]
fn a_packet_without_a_session_waits_and_leaves_when_there_is_one() {
    if !need_root() {
        return;
    }
    let world = World::new("first");
    let traced = world.trace_both("10.77.0.2", "icmp and dst host 10.77.0.2");
    let way = traced.way();
    let at =
        way.iter().position(|words| words == "l program vpnd staged").unwrap_or_else(|| panic!("{way:?}"));
    assert_eq!(way[at + 1], "l program vpnd");
    assert_arrived(&traced);
    let Some(Vpnd::Sealed(sealed)) = &traced.page().stations[at + 1].vpnd else { panic!("{way:?}") };
    assert!(sealed.staged);
}
