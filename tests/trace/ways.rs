//! Packets that arrive: each station, its order, its verdict, and the joining of both ends.

use std::{collections::HashMap, thread, time::Duration};

use vpnd::{
    lab::{Host, Ping, tcp_transfer},
    trace::{Clock, Outcome, Page, Place, Vpnd, Walk},
};

use super::{
    common::need_root,
    world::{PATIENCE, Spec, TUN, Traced, Watcher, World, ip},
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

/// The answer's way back, when both ends look for it.
const WAY_BACK: [&str; 20] = [
    "r program socket",
    "r inner OUTPUT",
    "r inner routing",
    "r inner POSTROUTING",
    "r inner vpn0",
    "r program vpnd",
    "r outer OUTPUT",
    "r outer routing",
    "r outer POSTROUTING",
    "r outer eth0",
    "l outer eth0",
    "l outer PREROUTING",
    "l outer routing",
    "l outer INPUT",
    "l program vpnd",
    "l inner vpn0",
    "l inner PREROUTING",
    "l inner routing",
    "l inner INPUT",
    "l program socket",
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

/// Packet sockets saw it at each, there and back, one after the other.
#[track_caller]
fn assert_seen_at_the_devices(traced: &Traced) {
    let page = traced.page();
    let answer = page.answer.iter().flat_map(|answer| &answer.stations);
    let stations = page.stations.iter().chain(answer).filter(|station| station.place == Place::Device);
    let devices: Vec<_> = stations.collect();
    assert!(devices.len() >= 4, "{}", traced.as_text());
    for station in &devices {
        assert!(
            !station.inferred && station.clock == Some(Clock::Kernel),
            "{station:?}\n{}",
            traced.as_text()
        );
        assert!(station.packet.is_some(), "{station:?}");
    }
    let times: Vec<_> = devices.iter().filter_map(|station| station.at_us).collect();
    // The kernel's stamps are of the wall clock, and each process compares that with the boot clock for itself.
    const APART_US: f64 = 50.0;
    assert!(times.is_sorted_by(|a, b| *a <= b + APART_US), "{times:?}");
}

#[test]
fn a_ping_over_ipv4_shows_its_whole_way_on_both_ends() {
    let Some(world) = World::ready("v4", &Spec::default()) else { return };
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
    // In the table where `ip route` lists it, although the kernel says another while no rule was added.
    assert_eq!((route.answer.as_deref(), route.table), (Some("local"), Some(255)));
    assert_eq!(route.rule.map(|rule| rule.priority), Some(0));
    assert!(
        traced.at("r", Walk::Inner, Place::Route).unknown.is_empty(),
        "{:?}",
        traced.at("r", Walk::Inner, Place::Route).unknown
    );
    assert_seen_at_the_devices(&traced);
    let text = traced.as_text();
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn a_ping_over_ipv6_shows_its_whole_way_on_both_ends() {
    let Some(world) = World::ready("v6", &Spec::default()) else { return };
    let traced = world.trace_both("fd77::2", "icmp6 and dst host fd77::2");
    traced.assert_way(&WHOLE_WAY);
    assert_arrived(&traced);
    assert_joined(&traced);
}

#[test]
fn the_answers_way_back_is_shown_on_both_ends_and_joined() {
    let Some(world) = World::ready("back", &Spec::default()) else { return };
    for (arguments, follow) in [
        ("10.77.0.2", "icmp and dst host 10.77.0.2"),
        ("fd77::2", "icmp6 and dst host fd77::2"),
        ("10.77.0.2 --tcp 7", "tcp and dst host 10.77.0.2"),
        // The answer is ICMP's complaint that nobody listens.
        ("10.77.0.2 --udp 7", "udp and dst host 10.77.0.2"),
    ] {
        let far = Watcher::with(&world.right, &world.daemons[1], follow, "watch", &["--answers"]);
        let traced = world.trace_with(arguments, std::slice::from_ref(&far.file));
        let mut whole = WHOLE_WAY;
        whole[19] = "r program socket"; // its answer shows that it was taken
        traced.assert_way(&whole);
        assert_arrived(&traced);
        assert_joined(&traced);
        assert_eq!(traced.way_back(), WAY_BACK, "{}", traced.as_text());
        let page = traced.page();
        let answer = page.answer.as_ref().expect("an answer");
        assert!(matches!(answer.outcome, Outcome::Arrived { .. }), "{:?}", answer.outcome);
        let [there, back] =
            [page.packet.as_ref(), answer.packet.as_ref()].map(|packet| packet.expect("a packet"));
        assert_eq!((there.source, there.destination), (back.destination, back.source));
        assert_seen_at_the_devices(&traced);
        // One kernel, one clock: they follow each other.
        let times = page.stations.iter().chain(&answer.stations).filter(|s| s.place == Place::Vpnd);
        let times: Vec<_> = times.filter_map(|station| station.at_us).collect();
        assert!(times.len() == 4 && times.is_sorted_by(|a, b| *a <= b + 50.0), "{times:?}");
        let plain = vpnd::trace::text::plain(page);
        assert!(plain.contains("\nanswer\t") && plain.matches("\nend\t").count() == 2, "{plain}");
    }
}

#[test]
fn the_near_end_alone_shows_how_the_answer_came() {
    let Some(world) = World::ready("near", &Spec::default()) else { return };
    let traced = world.trace("10.77.0.2");
    assert_eq!(traced.way_back(), WAY_BACK[10..], "{}", traced.as_text());
    let text = traced.as_text();
    assert!(text.contains("Its answer: icmp 10.77.0.2 → 10.77.0.1"), "{text}");
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
    let Some(world) = World::ready("tcp", &Spec::default()) else { return };
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
    let Some(world) = World::ready("ports", &Spec::default()) else { return };
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
    let Some(world) = World::ready("mid", &Spec::default()) else { return };
    let middle = Host::create("vpnd-trace-mid-m").expect("a namespace");
    world.pull_through(&middle);
    let between = Watcher::between(&middle, "between", &["--answers"]);
    let follow = "icmp and dst host 10.77.0.2";
    let far = Watcher::with(&world.right, &world.daemons[1], follow, "watch", &["--answers"]);
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
    assert_arrived(&traced);
    let back = traced.way_back();
    let expected = [
        "r outer eth1",
        "m outer right",
        "m outer PREROUTING",
        "m outer routing",
        "m outer FORWARD",
        "m outer POSTROUTING",
        "m outer left",
        "l outer eth1",
    ];
    assert_eq!(back[9..17], expected, "{}", traced.as_text());
    assert_eq!(back.len(), WAY_BACK.len() + 6);
}

#[test]
fn others_lose_nothing_while_one_flow_is_traced() {
    let Some(world) = World::ready("load", &Spec::default()) else { return };
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
