//! Padding hides a packet's length and must not make it too large for its way.

use std::{net::IpAddr, time::Duration};

use vpnd::lab::Ping;

use crate::{
    common::need_root,
    world::{Node, Outer, Pair, Spec, sh, wait_until},
};

const LIMIT: Duration = Duration::from_secs(5);
/// What the tunnel adds over IPv4: IP, UDP, transport header, tag.
const OVERHEAD: usize = 60;

/// Outer packets over IPv4 that are longer do not arrive at either end.
fn refuse_longer_than(length: usize, pair: &Pair) {
    let rules = format!(
        "table inet vpnd_test {{ chain input {{ type filter hook input priority 0; \
         iifname eth0 udp dport 51820 ip length > {length} drop; }}; }}"
    );
    at_both_ends(pair, &format!("nft '{rules}'"));
}

fn at_both_ends(pair: &Pair, line: &str) {
    sh(&pair.left.host, line);
    sh(&pair.right.host, line);
}

/// Is an inner packet of this many bytes answered by one of the same length?
fn passes(from: &Node, inner: IpAddr, length: usize) -> bool {
    let headers = if inner.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let ping = Ping { payload: length - headers, patience: Duration::from_millis(200), ..Ping::to(inner) };
    from.host.ping_with(&ping).expect("ping runs").received == 1
}

#[test]
fn padding_never_exceeds_the_mtu_of_the_device() {
    if !need_root() {
        return;
    }
    let mtu = 1421;
    let pair = Pair::start("pad", &Spec { outer: Outer::V4, mtu, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);
    refuse_longer_than(usize::from(mtu) + OVERHEAD, &pair);
    for length in usize::from(mtu) - 16..=usize::from(mtu) {
        let arrived = wait_until(LIMIT, || passes(&pair.left, pair.right.inner4, length));
        assert!(arrived, "a packet of {length} bytes was padded beyond {mtu}");
    }
}

/// Scenario 7. The route by which a packet came into the device is not told to its reader. So a packet that fits
/// through any route to the device is never padded beyond that route's MTU, whichever route it took. (What the
/// kernel learns of a path by itself, from ICMP errors inside the tunnel, is told to nobody and bounds nothing.)
#[test]
fn padding_never_exceeds_the_mtu_of_a_route() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("padroute", &Spec { mtu: 1300, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);
    refuse_longer_than(1299 + OVERHEAD, &pair);
    assert!(!passes(&pair.left, pair.right.inner4, 1297), "padded to 1300, it is refused");
    for (node, other) in [(&pair.left, 2), (&pair.right, 1)] {
        sh(&node.host, &format!("ip route replace 10.77.0.{other}/32 dev vpn0 mtu 1299"));
        sh(&node.host, &format!("ip -6 route replace fd77::{other}/128 dev vpn0 mtu 1299"));
    }
    for inner in [pair.right.inner4, pair.right.inner6] {
        assert!(wait_until(LIMIT, || passes(&pair.left, inner, 1297)), "log: {}", pair.left.log());
    }
}

#[test]
fn padding_follows_an_mtu_that_is_changed_from_outside() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("padmtu", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    refuse_longer_than(1301 + OVERHEAD, &pair);
    assert!(!passes(&pair.left, pair.right.inner4, 1301), "padded to 1312, it is refused");
    at_both_ends(&pair, "ip link set vpn0 mtu 1301");
    for inner in [pair.right.inner4, pair.right.inner6] {
        assert!(wait_until(LIMIT, || passes(&pair.left, inner, 1301)), "log: {}", pair.left.log());
    }
    assert_eq!(pair.left.status()["mtu"], 1301);
}
