//! Packets that arrive: each station, its order, its verdict, and the joining of both ends.

use std::{collections::HashMap, thread, time::Duration};

use vpnd::{
    lab::{Host, Ping, link, tcp_transfer},
    trace::{Outcome, Page, Place, Vpnd, Walk},
};

use super::{
    common::need_root,
    world::{PATIENCE, TUN, Traced, Watcher, World, ip, on},
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
    assert_eq!(route.prefix.as_deref(), Some("10.77.0.2/32"));
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

#[test]
fn a_tcp_super_packet_is_shown_whole_with_the_segments_that_were_cut_from_it() {
    if !need_root() {
        return;
    }
    let world = World::new("tcp");
    world.shake_hands();
    let follow = "tcp and dst host 10.77.0.2";
    let mut watcher = Watcher::with(&world.left, &world.daemons[0], follow, "follow", &["--packets", "60"]);
    let to = ip("10.77.0.2");
    let transfer = tcp_transfer(&world.left, &world.right, to, 4_000_000, PATIENCE).expect("a transfer");
    assert!(transfer.intact, "whoever watches, every byte arrives");
    watcher.ended_or_stopped();
    let pages = watcher.pages();
    let sealed = |page: &Page| {
        page.stations.iter().find_map(|station| match &station.vpnd {
            Some(Vpnd::Sealed(sealed)) => Some(sealed.clone()),
            _ => None,
        })
    };
    let whole = |page: &&Page| {
        let is_large = sealed(page).is_some_and(|sealed| sealed.segments > 1);
        is_large && matches!(page.outcome, Outcome::Left { .. }) && page.stations.len() == 10
    };
    let page = pages.iter().find(whole).unwrap_or_else(|| panic!("no super-packet: {} pages", pages.len()));
    let sealed = sealed(page).expect("it was found by that");
    let packet = page.packet.clone().expect("it was read");
    assert_eq!(packet.bytes, Some(sealed.inner_bytes), "netfilter saw it whole, and so did vpnd");
    let batch = sealed.batch.expect("it left");
    assert!(batch.datagrams > 1 && sealed.datagram_bytes <= 1452, "{batch:?}");
    let tcp: Vec<_> = page.stations.iter().map(|station| station.place).collect();
    assert_eq!(tcp[0], Place::Socket);
    assert_eq!(tcp[9], Place::Device);
}

#[test]
fn a_probe_by_tcp_and_by_udp_arrives_at_a_port_where_nobody_listens_and_is_answered() {
    if !need_root() {
        return;
    }
    let world = World::new("ports");
    world.shake_hands();
    for (arguments, follow) in [
        ("10.77.0.2 --tcp 7", "tcp and dst host 10.77.0.2"),
        ("10.77.0.2 --udp 7", "udp and dst host 10.77.0.2"),
    ] {
        let traced = world.trace_both(arguments, follow);
        traced.assert_way(&WHOLE_WAY);
        assert_arrived(&traced);
        assert_joined(&traced);
        assert_eq!(traced.page().packet.as_ref().and_then(|packet| packet.destination_port), Some(7));
    }
}

#[test]
fn a_host_in_the_middle_shows_its_forward_hook_between_both_ends() {
    if !need_root() {
        return;
    }
    let world = World::new("mid");
    world.shake_hands();
    // The cable is drawn anew through a host that forwards.
    let middle = Host::create("vpnd-trace-mid-m").expect("a namespace");
    for (host, own, other) in [(&world.left, 1, "left"), (&world.right, 2, "right")] {
        link::veth(host, "eth1", &middle, other).expect("a cable");
        host.add_address("eth1", &format!("203.0.113.{own}/32")).expect("an address");
        middle.add_address(other, &format!("198.51.100.{own}/32")).expect("an address");
    }
    middle.sysctl("ipv4.ip_forward", "1").expect("a sysctl");
    for (host, own, other) in [(&world.left, 1, 2), (&world.right, 2, 1)] {
        on(host, &format!("ip route add 192.0.2.{other}/32 via 198.51.100.{own} dev eth1 onlink"));
    }
    middle.add_route("192.0.2.1/32", None, "left").expect("a route");
    middle.add_route("192.0.2.2/32", None, "right").expect("a route");
    let between = Watcher::between(&middle, "between");
    let far = Watcher::start(&world.right, &world.daemons[1], "icmp and dst host 10.77.0.2", "watch");
    let traced = world.trace_with("10.77.0.2", &[between.file.clone(), far.file.clone()]);
    let way = traced.way();
    let expected = [
        "l outer eth1",
        "m outer left",
        "m outer PREROUTING",
        "m outer routing",
        "m outer FORWARD",
        "m outer POSTROUTING",
        "m outer right",
        "r outer eth1",
    ];
    assert_eq!(way[9..17], expected, "{}", traced.as_text());
    let outcome = &traced.page().outcome;
    assert!(matches!(outcome, Outcome::Arrived { .. }), "{outcome:?}");
}

#[test]
fn others_lose_nothing_while_one_flow_is_traced() {
    if !need_root() {
        return;
    }
    let world = World::new("load");
    world.shake_hands();
    // A stream of packets that the trace does not mean, and whose carriers have other lengths.
    let mut watcher = Watcher::with(
        &world.left,
        &world.daemons[0],
        "icmp and dst host 10.77.0.2",
        "follow",
        &["--packets", "1000"],
    );
    let before = sealed_and_opened(&world);
    let to = ip("10.77.0.2");
    thread::scope(|scope| {
        scope.spawn(|| {
            let transfer =
                tcp_transfer(&world.left, &world.right, to, 16_000_000, PATIENCE).expect("a transfer");
            assert!(transfer.intact);
        });
        let pings =
            Ping { count: 50, interval: Duration::from_millis(5), patience: PATIENCE, ..Ping::to(to) };
        assert_eq!(world.left.ping_with(&pings).expect("pings").received, 50);
    });
    watcher.stop();
    let traced = watcher.pages();
    assert_eq!(traced.len(), 50, "each ping has its page");
    let sealed =
        |page: &Page| page.stations.iter().any(|station| matches!(&station.vpnd, Some(Vpnd::Sealed(_))));
    assert!(traced.iter().all(sealed), "vpnd's own records lack none");
    let after = sealed_and_opened(&world);
    let refused =
        |name: &str| after.1.get(name).copied().unwrap_or(0) - before.1.get(name).copied().unwrap_or(0);
    for name in ["send_failed", "staged_overflow", "tun_write_failed"] {
        assert_eq!(refused(name), 0, "{name}");
    }
}

/// Packets that left has sealed, and what it refused by reason.
fn sealed_and_opened(world: &World) -> (u64, HashMap<String, u64>) {
    let status = world.daemons[0].status(TUN).expect("a status");
    let sealed = status["peers"][0]["tx_packets"].as_u64().expect("a number");
    let refusals = status["refusals"].as_array().expect("a list").iter().map(|refusal| {
        let reason = refusal["reason"].as_str().expect("a name").to_owned();
        (reason, refusal["count"].as_u64().expect("a number"))
    });
    (sealed, refusals.collect())
}
