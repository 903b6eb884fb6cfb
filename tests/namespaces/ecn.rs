//! Congestion marks pass in and out (RFC 6040); what kind of traffic it is stays inside.

use vpnd::lab::Host;

use crate::{
    common::need_root,
    world::{Node, Outer, Pair, Spec, counter, sh},
};

/// Names and TOS values of the four congestion fields.
const FIELDS: [(&str, u8); 4] = [("not-ect", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)];
/// "Expedited forwarding", in its place above the two congestion bits.
const EF: u8 = 46 << 2;

#[test]
fn the_outer_packet_has_the_congestion_field_of_the_inner_one_and_nothing_else_of_it() {
    if !need_root() {
        return;
    }
    for outer in [Outer::V4, Outer::V6] {
        let pair = Pair::start("ecnout", &Spec { outer, ..Spec::default() });
        let (left, right) = (&pair.left, &pair.right);
        left.ping(right.inner4, 1);
        count_fields(&right.host, outer);
        for (field, tos) in FIELDS {
            for inner in ["-4 10.77.0.2", "-6 fd77::2"] {
                let seen = || [counter(&right.host, field), counter(&right.host, "dscp-inside")];
                let before = seen();
                sh(&left.host, &format!("ping -c 1 -W 1 -Q {} {inner}", EF | tos));
                assert_eq!(seen(), before.map(|n| n + 1), "{field}, ping {inner} in {outer:?}");
            }
        }
        assert_eq!(counter(&right.host, "dscp-outside"), 0, "the kind of traffic is seen from outside");
    }
}

#[test]
fn congestion_met_on_the_way_is_told_inside_or_the_packet_is_dropped() {
    if !need_root() {
        return;
    }
    for outer in [Outer::V4, Outer::V6] {
        let pair = Pair::start("ecnin", &Spec { outer, ..Spec::default() });
        let (left, right) = (&pair.left, &pair.right);
        left.ping(right.inner4, 1);
        count_fields(&right.host, outer);
        mark_congestion(left, outer);
        for (field, tos) in FIELDS {
            for inner in ["-4 10.77.0.2", "-6 fd77::2"] {
                let seen = || (counter(&right.host, "congestion-inside"), right.refused("ecn_dropped"));
                let (marked, dropped) = seen();
                let ping = format!("ping -c 1 -W 1 -Q {tos} {inner}");
                let what = format!("{field}, ping {inner} in {outer:?}");
                if field == "not-ect" {
                    let answered = sh(&left.host, &format!("{ping} >&2 && echo yes || echo no"));
                    assert_eq!((answered.trim(), seen()), ("no", (marked, dropped + 1)), "{what}");
                } else {
                    sh(&left.host, &ping);
                    assert_eq!(seen(), (marked + 1, dropped), "{what}");
                }
            }
        }
    }
}

/// Counts what arrives: outer packets by their fields, inner echo requests by what of it matters here.
fn count_fields(host: &Host, outer: Outer) {
    let family = match outer {
        Outer::V4 => "ip",
        Outer::V6 => "ip6",
    };
    let mut counters = String::new();
    let mut rules = String::new();
    for (field, _) in FIELDS {
        counters += &format!("counter {field} {{ }}; ");
        rules += &format!("iifname eth0 udp dport 51820 {family} ecn {field} counter name {field}; ");
    }
    rules += &format!("iifname eth0 udp dport 51820 {family} dscp != cs0 counter name dscp-outside; ");
    for (family, request) in [("ip", "icmp type echo-request"), ("ip6", "icmpv6 type echo-request")] {
        rules += &format!("iifname vpn0 {request} {family} dscp ef counter name dscp-inside; ");
        rules += &format!("iifname vpn0 {request} {family} ecn ce counter name congestion-inside; ");
    }
    counters += "counter dscp-outside { }; counter dscp-inside { }; counter congestion-inside { }; ";
    let chain = format!("chain pre {{ type filter hook prerouting priority 0; {rules} }};");
    sh(host, &format!("nft 'table inet vpnd_test {{ {counters} {chain} }}'"));
}

/// A congested router, which marks whatever it sees.
fn mark_congestion(node: &Node, outer: Outer) {
    let family = match outer {
        Outer::V4 => "ip",
        Outer::V6 => "ip6",
    };
    sh(
        &node.host,
        &format!(
            "nft 'table inet vpnd_test {{ chain post {{ type filter hook postrouting priority 0; \
             oifname eth0 udp dport 51820 {family} ecn set ce; }}; }}'"
        ),
    );
}
