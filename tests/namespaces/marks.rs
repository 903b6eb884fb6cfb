//! Packets that are bound to a device or an address, and packets whose way a mark decides.

use vpnd::lab::link::{self, Passed};

use crate::{
    common::need_root,
    sources::second_cable,
    world::{Node, Pair, Spec, sh},
};

/// Scenario 16.
#[test]
fn a_ping_that_is_bound_to_the_device_or_its_address_is_answered() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("bound", &Spec::default());
    bound_pings(&pair);
}

fn bound_pings(pair: &Pair) {
    for from in ["vpn0", "10.77.0.1"] {
        sh(&pair.left.host, &format!("ping -c 1 -W 1 -I {from} 10.77.0.2"));
    }
    for from in ["vpn0", "fd77::1"] {
        sh(&pair.left.host, &format!("ping -6 -c 1 -W 1 -I {from} fd77::2"));
    }
}

/// Scenario 17, as the kernel's own test has it: a mark that netfilter gives makes the host route the packet a
/// second time, on its inner and on its outer way.
#[test]
fn a_packet_that_gets_a_mark_is_routed_again_and_arrives() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("remark", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    sh(
        &left.host,
        "nft 'table inet vpnd_test { chain output { type route hook output priority mangle; meta mark set 1; }; }'",
    );
    left.ping(right.inner4, 1);
    bound_pings(&pair);

    // Now the mark alone leads into the tunnel.
    right.host.add_address("vpn0", "10.88.0.2/32").expect("an address");
    left.set(&format!("peer {} allowed-ips 10.77.0.2/32,fd77::2/128,10.88.0.2/32", right.key()));
    sh(&left.host, "ip route add 10.88.0.2 via 192.0.2.2 dev eth0");
    sh(&left.host, "ip route add 10.88.0.2 dev vpn0 table 100; ip rule add fwmark 1 lookup 100");
    let before = right.transfer(&left.key()).0;
    sh(&left.host, "ping -c 1 -W 1 -I 10.77.0.1 10.88.0.2");
    assert_eq!(right.transfer(&left.key()).0, before + 128, "it came through the tunnel");
}

/// Scenario 17, for the tunnel's own mark: it decides by which cable the outer packets leave, and from where.
#[test]
fn outer_packets_take_another_way_when_the_mark_is_changed() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("fwmark", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    second_cable(&left.host, &right.host);
    left.host.add_address("eth1", "198.51.100.1/24").expect("an address");
    right.host.add_address("eth1", "198.51.100.2/24").expect("an address");
    sh(&left.host, "ip route add 192.0.2.2 via 198.51.100.2 dev eth1 src 198.51.100.1 table 100");
    sh(&left.host, "ip rule add fwmark 0x77 lookup 100");
    left.ping(right.inner4, 1);
    assert_eq!(right.shown("endpoints", &left.key()), "192.0.2.1:51820");

    for (mark, cable, endpoint) in
        [("0x77", "eth1", "198.51.100.1:51820"), ("off", "eth0", "192.0.2.1:51820")]
    {
        left.set(&format!("fwmark {mark}"));
        let before = left.sent_by(cable);
        left.ping(right.inner4, 20);
        assert!(left.sent_by(cable) - before >= 20, "mark {mark}: by {cable}; log: {}", left.log());
        assert_eq!(right.shown("endpoints", &left.key()), endpoint, "mark {mark}");
    }
}

impl Node {
    /// Packets that left by this device.
    fn sent_by(&self, device: &str) -> u64 {
        let Passed { tx_packets, .. } = link::passed(&self.host, device).expect("counters");
        tx_packets
    }
}
