use std::time::Duration;

use super::*;
use crate::lab::{
    Transfer,
    capture::Captured,
    link::{Decision, Passed},
    netfilter::{Count, Hooks, Walks},
    page::{Host, Listener, Reading, Sample},
};

const INNER: u64 = 84;
const OUTER: u64 = 156;

fn host(name: &str, number: u8) -> Host {
    let route = |device: &str, source: &str| Decision {
        device: device.to_owned(),
        table: 254,
        local: false,
        source: Some(source.parse().unwrap()),
        via: None,
    };
    let (inner, outer) = (format!("10.77.0.{number}"), format!("192.0.2.{number}"));
    Host {
        name: name.to_owned(),
        inner_route: route("vpn0", &inner),
        outer_route: route("eth0", &outer),
        outer: format!("{outer}:51820"),
        inner,
    }
}

/// One packet of a ping each way.
fn ping() -> Reading {
    let hooks = |bytes| {
        let one = Count { packets: 1, bytes };
        Hooks { output: one, postrouting: one, prerouting: one, input: one }
    };
    let passed = |bytes| Passed { rx_packets: 1, rx_bytes: bytes, tx_packets: 1, tx_bytes: bytes };
    Reading {
        walks: Some(Walks { inner: hooks(INNER), outer: hooks(OUTER) }),
        tun: passed(INNER),
        tunnel: Tunnel { sealed: 1, sealed_bytes: 128, opened: 1, opened_bytes: 128 },
        wire: passed(OUTER + 14),
    }
}

fn page() -> Page {
    let ping = Sample { left: ping(), right: ping() };
    let mut first = ping.left.tunnel;
    first.sealed_bytes += 148;
    first.opened_bytes += 92;
    let mut bulk = ping;
    bulk.left.tun.tx_packets = 24_500;
    bulk.left.tun.tx_bytes = 34_829_212;
    Page {
        left: host("vpnd-lab-left", 1),
        right: host("vpnd-lab-right", 2),
        no_netfilter: None,
        first,
        ping,
        ping_written: 64,
        rtt: Duration::from_micros(420),
        rtt_v6: Some(Duration::from_micros(390)),
        listener: Ok(Listener {
            tun: Captured { frames: 2, matching: 2, longest: 84 },
            wire: Captured { frames: 2, matching: 0, longest: 170 },
        }),
        bulk,
        transfer: Transfer { bytes: 33_554_432, seconds: 0.5, intact: true },
    }
}

/// The text with its lines joined, so that a test does not depend on where they are broken.
fn joined(page: &Page) -> String {
    page.render(false).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn no_line_is_longer_than_the_page_is_wide() {
    let text = page().render(false);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{} characters: {line}", line.chars().count());
    }
    assert!(!text.contains('{') && !text.contains('\x1b'), "{text}");
}

#[test]
fn colours_change_nothing_but_colours() {
    let plain = page().render(false);
    let mut coloured = page().render(true);
    assert_ne!(plain, coloured);
    for code in ["0", BOLD, DIM, "36", "33"] {
        coloured = coloured.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(plain, coloured);
}

#[test]
fn the_places_stand_in_the_order_of_the_walk() {
    let text = page().render(false);
    let numbered = |line: &str| {
        let (number, rest) = line.split_at_checked(3)?;
        number.trim().parse::<u8>().ok()?;
        Some(rest.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    };
    let places: Vec<String> = text.lines().filter_map(numbered).collect();
    let out = [
        "application 1",
        "OUTPUT inner",
        "routing inner",
        "POSTROUTING inner",
        "TUN vpn0",
        "vpnd took",
        "OUTPUT outer",
        "routing outer",
        "POSTROUTING outer",
        "the wire,",
    ];
    let back = [
        "the wire,",
        "PREROUTING outer",
        "INPUT outer",
        "vpnd received",
        "TUN vpn0",
        "PREROUTING inner",
        "INPUT inner",
        "application 1",
    ];
    assert_eq!(places, [&out[..], &back, &out, &back].concat());
}

#[test]
fn the_sizes_add_up_to_what_was_counted() {
    let text = page().render(false);
    let last = |what: &str| {
        let line = text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no line {what}"));
        line.split_whitespace().rev().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(last("IPv4 header of the inner packet"), ["84", "84"]);
    assert_eq!(last("authentication tag"), ["128", "128"]);
    assert_eq!(last("IPv4 header of the outer packet"), ["156", "156"]);
    assert_eq!(last("Ethernet header  "), ["170", "170"]);
}

#[test]
fn the_handshake_is_told_apart_from_the_ping() {
    assert!(
        joined(&page())
            .contains("sent 148 bytes more than for the ping above, and received 92 more. That is")
    );
}

#[test]
fn a_lost_ping_or_an_altered_byte_cannot_be_overlooked() {
    let mut page = page();
    assert!(page.passed());
    page.rtt_v6 = None;
    assert!(!page.passed() && joined(&page).contains("IPv6 NOT AT ALL"));
    page.rtt_v6 = Some(Duration::ZERO);
    page.transfer.intact = false;
    assert!(!page.passed() && joined(&page).contains("ALTERED ON THE WAY"));
}

#[test]
fn without_netfilter_the_other_places_are_still_counted() {
    let mut page = page();
    page.no_netfilter = Some("the program nft was not found (package nftables)".to_owned());
    for sample in [&mut page.ping, &mut page.bulk] {
        sample.left.walks = None;
        sample.right.walks = None;
    }
    let text = page.render(false);
    assert!(joined(&page).contains("Without counters of netfilter (the program nft was not found"));
    let output = text.lines().find(|line| line.starts_with("  2   OUTPUT")).unwrap();
    assert_eq!(output.matches('–').count(), 4, "{output}");
    assert!(text.lines().any(|line| line.contains("TUN vpn0") && line.contains("24,500")));
}

#[test]
fn a_loss_is_told() {
    let mut page = page();
    assert!(!joined(&page).contains("were lost"));
    page.bulk.left.tunnel.sealed += 1_234;
    assert!(joined(&page).contains("1,234 packets were lost between the two vpnds"));
}

#[test]
fn big_numbers_are_grouped() {
    assert_eq!(grouped(7), "7");
    assert_eq!(grouped(123_456), "123,456");
    assert_eq!(grouped(33_554_432), "33,554,432");
}
