//! Pages from witnesses whose words are written down here.

use std::net::SocketAddr;

use super::{
    Batch, Carrier, Clock, Crossing, Death, Edge, Event, Facts, Host, Killer, Link, Meant, Opened, Outcome,
    Page, Passage, Place, Probe, Refused, Sealed, Seen, Sight, Verdict, Vpnd, drafts, drops::Steps,
    facts::tests::echo, join, passage::tests::event,
};

const TUN: u32 = 7;
const WIRE: u32 = 3;

/// A packet passes this hook; `oif` is where it leaves.
fn passes(id: u32, place: Place, iif: Option<u32>, oif: Option<u32>, carrier: Option<Carrier>) -> Vec<Event> {
    [Edge::First, Edge::Last]
        .map(|edge| Event { iif, oif, carrier, ..event(id, Some((place, edge)), "accept") })
        .into()
}

fn carrier(counter: u32) -> Option<Carrier> {
    Some(Carrier { session: 9, counter_low: counter })
}

fn endpoint() -> SocketAddr {
    "192.0.2.2:51820".parse().unwrap()
}

fn seen(vpnd: Vpnd) -> Seen {
    let packet = echo();
    let facts = Facts::of(&packet).unwrap();
    Seen { at_ns: 20, done_ns: Some(30), packet: Some(facts.into()), vpnd, inner: packet, outer: Vec::new() }
}

fn sealed(counter: u64, first: u64) -> Vpnd {
    let text = |text: &str| text.to_owned();
    Vpnd::Sealed(Sealed {
        peer: text("right"),
        public_key: text("k"),
        prefix: text("10.77.0.2/32"),
        session: 9,
        counter,
        segments: 1,
        inner_bytes: 84,
        datagram_bytes: 128,
        staged: false,
        local: None,
        endpoint: endpoint(),
        mark: 0,
        batch: Some(Batch { datagrams: 1, place: counter - first, bytes: 128, first }),
        error: None,
    })
}

fn opened(counter: u64) -> Vpnd {
    let text = |text: &str| text.to_owned();
    Vpnd::Opened(Opened {
        peer: text("left"),
        public_key: text("k"),
        prefix: text("10.77.0.1/32"),
        session: 9,
        counter,
        from: endpoint(),
        datagram_bytes: 128,
        inner_bytes: 84,
        batch: Batch { datagrams: 1, place: 0, bytes: 128, first: counter },
        merged: 1,
    })
}

fn link(name: &str, header: u64) -> Link {
    Link { name: name.to_owned(), mtu: 1420, header: Some(header), running: true }
}

fn sight(name: &str, events: &[Event], seen: Vec<Seen>) -> Sight {
    Sight {
        host: Host { name: name.into(), interface: Some("vpn0".into()), boot_id: None, began_ns: None },
        meant: Meant { filter: "icmp".parse().unwrap(), answers: None, probe: None, tun: Some(TUN) },
        devices: [(TUN, link("vpn0", 0)), (WIRE, link("eth0", 14))].into(),
        began_ns: 10,
        passages: Passage::gather(events),
        crossings: Vec::new(),
        seen,
        probe: None,
        notes: Vec::new(),
    }
}

fn pages(sight: &Sight) -> Vec<Page> {
    drafts(sight).into_iter().map(|draft| draft.conclude(None, &Steps::default())).collect()
}

fn names(page: &Page) -> Vec<String> {
    page.stations.iter().map(super::Station::name).collect()
}

/// The way down, whose carrier is the second of its send.
fn down() -> Sight {
    let events = [
        passes(1, Place::Output, None, Some(TUN), None),
        passes(1, Place::Postrouting, None, Some(TUN), None),
        passes(2, Place::Output, None, Some(WIRE), carrier(4)),
        passes(2, Place::Postrouting, None, Some(WIRE), carrier(4)),
    ];
    sight("left", &events.concat(), vec![seen(sealed(5, 4))])
}

/// The way up.
fn up() -> Sight {
    let events = [
        passes(1, Place::Prerouting, Some(WIRE), None, carrier(5)),
        passes(1, Place::Input, Some(WIRE), None, carrier(5)),
        passes(2, Place::Prerouting, Some(TUN), None, None),
        passes(2, Place::Input, Some(TUN), None, None),
    ];
    sight("right", &events.concat(), vec![seen(opened(5))])
}

#[test]
fn the_way_down_is_one_page_whose_carrier_is_found_by_the_first_of_its_send() {
    let pages = pages(&down());
    assert_eq!(pages.len(), 1);
    let expected = [
        "socket",
        "OUTPUT",
        "routing",
        "POSTROUTING",
        "vpn0",
        "vpnd",
        "OUTPUT",
        "routing",
        "POSTROUTING",
        "eth0",
    ];
    assert_eq!(names(&pages[0]), expected);
    assert_eq!((&pages[0].outcome, pages[0].carrier), (&Outcome::Left { answered_us: None }, carrier(5)));
}

#[test]
fn both_halves_are_joined_by_session_and_counter_alone() {
    let (left, right) = (pages(&down()).remove(0), pages(&up()).remove(0));
    let joined = join(left.clone(), std::slice::from_ref(&right));
    assert_eq!(joined.stations.len(), 20);
    assert_eq!(joined.outcome, Outcome::Arrived { answered_us: None });
    assert!(joined.stations[..10].iter().all(|station| station.host == 0));
    assert!(joined.stations[10..].iter().all(|station| station.host == 1));
    let other = Page { carrier: carrier(6), ..right };
    let apart = join(left, &[other]);
    assert_eq!(apart.stations.len(), 10);
    let Outcome::Unknown { why } = &apart.outcome else { panic!("{:?}", apart.outcome) };
    assert_eq!(why, "its carrier left by eth0, and right did not see it");
}

#[test]
fn a_death_on_the_other_end_is_counted_from_there() {
    let mut dead = up();
    dead.seen = vec![Seen {
        packet: None,
        inner: Vec::new(),
        ..seen(Vpnd::Refused(Refused {
            reason: "no_such_session".into(),
            from: Some(endpoint()),
            session: Some(9),
            counter: Some(5),
            ..Refused::default()
        }))
    }];
    let joined = join(pages(&down()).remove(0), &pages(&dead));
    let Outcome::Died(Death { station, by, why, .. }) = &joined.outcome else {
        panic!("{:?}", joined.outcome)
    };
    assert_eq!((joined.stations[*station].name().as_str(), *by), ("vpnd", Killer::Vpnd));
    assert!(*station >= 10 && why.contains("no_such_session"), "{why}");
}

#[test]
fn what_comes_into_a_hook_and_not_out_of_it_was_taken_by_something_that_is_not_traced() {
    let mut sight = down();
    sight.passages =
        Passage::gather(&[event(1, Some((Place::Output, Edge::First)), "accept"), event(1, None, "accept")]);
    sight.seen.clear();
    let page = pages(&sight).remove(0);
    let Outcome::Died(death) = &page.outcome else { panic!("{:?}", page.outcome) };
    assert_eq!((death.station, death.by), (1, Killer::UnseenNetfilter));
    assert_eq!(page.stations[1].verdict, Verdict::Dropped);
}

#[test]
fn a_packet_that_leaves_by_another_device_went_past_the_tunnel() {
    let events = [
        passes(1, Place::Output, None, Some(WIRE), None),
        passes(1, Place::Postrouting, None, Some(WIRE), None),
    ];
    let page = pages(&sight("left", &events.concat(), Vec::new())).remove(0);
    let Outcome::Died(death) = &page.outcome else { panic!("{:?}", page.outcome) };
    assert_eq!((death.by, page.stations[death.station].place), (Killer::Route, Place::Route));
    assert!(death.why.contains("eth0") && death.why.contains("past the tunnel"), "{}", death.why);
}

#[test]
fn a_probe_that_the_kernel_would_not_send_has_a_page_although_nobody_saw_it() {
    let mut sight = sight("left", &[], Vec::new());
    let packet = Facts::of(&echo()).unwrap().into();
    sight.probe = Some(Probe {
        packet,
        mark: 0,
        sent_ns: 10,
        error: Some("ENETUNREACH".into()),
        answered_ns: None,
        refused: None,
    });
    let page = pages(&sight).remove(0);
    assert_eq!(names(&page), ["socket", "routing"]);
    let Outcome::Died(death) = &page.outcome else { panic!("{:?}", page.outcome) };
    assert!(death.by == Killer::Route && death.why.contains("ENETUNREACH"), "{death:?}");
}

#[test]
fn a_device_is_seen_where_a_packet_socket_saw_it_there_and_else_inferred() {
    let devices = |sight: &Sight| -> Vec<(String, bool, Option<Clock>)> {
        let page = pages(sight).remove(0);
        let devices = page.stations.iter().filter(|station| station.place == Place::Device);
        devices.map(|station| (station.name(), station.inferred, station.clock)).collect()
    };
    let named =
        |inferred, clock| [("vpn0".to_owned(), inferred, clock), ("eth0".to_owned(), inferred, clock)];
    let mut sight = down();
    assert_eq!(devices(&sight), named(true, None));
    let facts = Facts::of(&echo()).unwrap();
    let at = |device, leaves, carrier| Crossing { device, leaves, at_ns: 20, facts, carrier };
    // The other direction, another device, and another carrier are not it.
    sight.crossings = vec![at(TUN, false, None), at(WIRE, true, None), at(WIRE, true, carrier(5))];
    assert_eq!(devices(&sight), named(true, None));
    // The carrier's send begins with number 4.
    sight.crossings.extend([at(TUN, true, None), at(WIRE, true, carrier(4))]);
    assert_eq!(devices(&sight), named(false, Some(Clock::Kernel)));
}

/// The way down, and these lines of the kernel's trace.
fn down_with(lines: &[&str]) -> Page {
    let left = super::drops::tests::watched(lines);
    let mut drafts = drafts(&down());
    drafts.remove(0).conclude(None, &Steps { left, ..Steps::default() })
}

#[test]
fn a_carrier_that_a_queue_drops_has_not_left() {
    // 84 bytes long, as netfilter saw it.
    let queued = "vpnd-data-1 [001] b.... 0.000001: net_dev_queue: dev=eth0 skbaddr=000000005fff8cb0 len=98";
    let dropped = "vpnd-data-1 [001] b.... 0.000002: kfree_skb: skbaddr=000000005fff8cb0 rx_sk=0000000000000000 \
                   protocol=2048 location=__dev_queue_xmit+0xd01/0xf30 reason: QDISC_DROP";
    let page = down_with(&[queued, dropped]);
    let Outcome::Died(death) = &page.outcome else { panic!("{page:?}") };
    assert_eq!(death.by, Killer::Kernel);
    assert_eq!(death.drop_reason.as_deref(), Some("SKB_DROP_REASON_QDISC_DROP"));
    assert!(death.why.contains("qdisc) of eth0 dropped it"), "{}", death.why);
    let station = &page.stations[death.station];
    assert_eq!((station.name(), station.verdict), ("eth0".to_owned(), Verdict::Dropped));
    assert_eq!((station.inferred, station.clock), (false, Some(Clock::Kernel)), "it was seen there");
    assert!(station.facts[0].contains("__dev_queue_xmit (skb:kfree_skb)"), "{:?}", station.facts);
    let taken = queued.replace("net_dev_queue", "net_dev_xmit") + " rc=0";
    assert!(matches!(down_with(&[queued, &taken]).outcome, Outcome::Left { .. }));
    let Outcome::Unknown { why } = down_with(&[queued]).outcome else { panic!("it waits") };
    assert!(why.contains("waits in the queue of eth0"), "{why}");
    assert!(matches!(down_with(&[]).outcome, Outcome::Left { .. }), "the kernel does not tell");
}
