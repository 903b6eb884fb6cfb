//! From which of its addresses an end talks: from the one that was contacted, as long as it has it, and not
//! longer than that way is the best one.

use std::time::Duration;

use vpnd::lab::{Host, link};

use crate::{
    common::need_root,
    world::{Outer, Pair, Spec, sh, wait_until},
};

/// Scenario 22.
#[test]
fn an_ipv4_source_that_was_removed_is_forgotten() {
    source_removed("src4", Outer::V4, "192.0.2.1/24", "192.0.2.10/24", "192.0.2.10:51820");
}

/// Scenario 23.
#[test]
fn an_ipv6_source_that_was_removed_is_forgotten() {
    source_removed("src6", Outer::V6, "2001:db8::1/64", "2001:db8::10/64", "[2001:db8::10]:51820");
}

#[track_caller]
fn source_removed(name: &str, outer: Outer, old: &str, new: &str, endpoint: &str) {
    if !need_root() {
        return;
    }
    let pair = Pair::start(name, &Spec { outer, ..Spec::default() });
    pair.left.host.sysctl("ipv4.conf.eth0.promote_secondaries", "1").expect("a sysctl of this host");
    pair.left.ping(pair.right.inner4, 1);
    pair.left.host.add_address("eth0", new).expect("an address");
    sh(&pair.left.host, &format!("ip address delete {old} dev eth0"));
    pair.left.ping(pair.right.inner4, 1);
    pair.right.ping(pair.left.inner4, 1);
    assert_eq!(pair.right.shown("endpoints", &pair.left.key()), endpoint);
}

/// Scenario 24.
#[test]
fn the_answer_leaves_from_the_address_that_was_contacted() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("reply", &Spec::default());
    pair.left.host.add_address("eth0", "192.0.2.11/24").expect("an address");
    pair.left.host.add_address("eth0", "2001:db8::11/64").expect("an address");
    for endpoint in ["192.0.2.1:51820", "[2001:db8::1]:51820", "192.0.2.11:51820", "[2001:db8::11]:51820"] {
        contacted(&pair, endpoint);
    }
}

/// Scenario 25.
#[test]
fn the_address_that_was_contacted_may_belong_to_another_interface() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("elsewhere", &Spec::default());
    let left = &pair.left.host;
    link::veth(left, "eth1", left, "eth2").expect("a cable that leads nowhere");
    left.add_address("eth1", "198.51.100.1/24").expect("an address");
    left.add_address("eth1", "2001:db8:50::1/64").expect("an address");
    // Forwarding makes no router of this host: the addresses are its own.
    sh(&pair.right.host, "ip route add 198.51.100.0/24 dev eth0");
    sh(&pair.right.host, "ip -6 route add 2001:db8:50::/64 via 2001:db8::1");
    for endpoint in ["198.51.100.1:51820", "[2001:db8:50::1]:51820"] {
        contacted(&pair, endpoint);
    }
}

/// The right end contacts the left one there, and still knows it there when the answer has come.
#[track_caller]
fn contacted(pair: &Pair, endpoint: &str) {
    pair.right.set(&format!("peer {} endpoint {endpoint}", pair.left.key()));
    pair.right.ping(pair.left.inner4, 2);
    assert_eq!(pair.right.shown("endpoints", &pair.left.key()), endpoint);
}

/// Scenario 26.
#[test]
fn the_source_moves_when_a_better_route_appears() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("better", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    second_cable(&left.host, &right.host);
    left.host.add_address("eth1", "192.0.2.3/24").expect("an address");
    sh(&left.host, "ip -4 route flush dev eth0; ip -4 route flush dev eth1");
    sh(&left.host, "ip route add 192.0.2.0/24 dev eth0 src 192.0.2.1 metric 2");
    left.ping(right.inner4, 1);
    assert_eq!(right.shown("endpoints", &left.key()), "192.0.2.1:51820");

    sh(&left.host, "ip route add 192.0.2.0/24 dev eth1 src 192.0.2.3 metric 1");
    // The route is heard of a moment later.
    let moved = || left.reaches(right.inner4) && right.shown("endpoints", &left.key()) == "192.0.2.3:51820";
    assert!(wait_until(Duration::from_secs(5), moved), "log: {}", left.log());
}

/// `eth1` on both hosts, without addresses. Packets may come by either cable.
pub fn second_cable(left: &Host, right: &Host) {
    link::veth(left, "eth1", right, "eth1").expect("a second cable");
    for host in [left, right] {
        for device in ["all", "eth0", "eth1"] {
            host.sysctl(&format!("ipv4.conf.{device}.rp_filter"), "0").expect("a sysctl of this host");
        }
    }
}
