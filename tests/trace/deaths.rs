//! Where and by what a packet ends: rule, routing, refusal.

use vpnd::{
    lab::{Host, Ping, link},
    trace::{Killer, Outcome, Place, Vpnd, Walk, join},
};

use super::{
    common::need_root,
    world::{Spec, Traced, Watcher, World, ip, nft, on},
};

/// A table with one base chain and one rule.
fn one_rule(hook: &str, rule: &str) -> String {
    format!(
        "table inet mine {{\n chain c {{\n  type filter hook {hook} priority 0; policy accept;\n  {rule}\n }}\n}}\n"
    )
}

#[track_caller]
fn assert_death(traced: &Traced, at: &str, by: Killer, parts: &[&str]) {
    let (place, killer, why) = traced.death();
    assert_eq!((place.as_str(), killer), (at, by), "{}\n{}", traced.as_text(), traced.said);
    for part in parts {
        assert!(why.contains(part), "{part:?} is missing: {why}");
    }
}

#[test]
fn a_drop_in_the_inner_output_names_the_rule() {
    let Some(world) = World::ready("out", &Spec::default()) else { return };
    let rule = "ip daddr 10.77.0.2 icmp type echo-request counter drop comment \"no pings\"";
    nft(&world.left, &one_rule("output", rule));
    let traced = world.trace("10.77.0.2");
    traced.assert_way(&["l program socket", "l inner OUTPUT dropped"]);
    let parts = ["comment \"no pings\"", "(handle ", "chain c of table inet mine"];
    assert_death(&traced, "l inner OUTPUT dropped", Killer::Netfilter, &parts);
    assert_eq!(traced.code, Some(1));
}

#[test]
fn a_rejection_is_told_from_a_drop_and_a_policy_from_a_rule() {
    let Some(world) = World::ready("reject", &Spec::default()) else { return };
    nft(&world.left, &one_rule("output", "ip daddr 10.77.0.2 reject with icmp admin-prohibited"));
    let traced = world.trace("10.77.0.2");
    assert_death(
        &traced,
        "l inner OUTPUT rejected",
        Killer::Netfilter,
        &["rejected at OUTPUT", "admin-prohibited"],
    );
    nft(
        &world.left,
        "delete table inet mine\ntable inet mine {\n chain c {\n  type filter hook output priority 0; policy drop;\n  \
         udp sport 51820 accept\n }\n}\n",
    );
    let traced = world.trace("10.77.0.2");
    assert_death(&traced, "l inner OUTPUT dropped", Killer::Netfilter, &["the policy of chain c"]);
}

#[test]
fn a_carrier_that_the_firewall_drops_dies_in_the_outer_output() {
    let Some(world) = World::ready("carrier", &Spec::default()) else { return };
    nft(&world.left, &one_rule("output", "udp dport 51820 drop"));
    let traced = world.trace("10.77.0.2 --seconds 3");
    let way = traced.way();
    assert_eq!(way[5..], ["l program vpnd refused", "l outer OUTPUT dropped"], "{}", traced.as_text());
    assert_death(&traced, "l outer OUTPUT dropped", Killer::Netfilter, &["udp dport 51820 drop"]);
}

#[test]
fn a_carrier_that_the_far_firewall_drops_dies_in_its_input() {
    let Some(world) = World::ready("farin", &Spec::default()) else { return };
    nft(&world.right, &one_rule("input", "udp dport 51820 counter drop"));
    let traced = world.trace_both("10.77.0.2 --seconds 3", "icmp and dst host 10.77.0.2");
    let way = traced.way();
    let expected = ["r outer eth0", "r outer PREROUTING", "r outer routing", "r outer INPUT dropped"];
    assert_eq!(way[10..], expected, "{}", traced.as_text());
    assert_death(&traced, "r outer INPUT dropped", Killer::Netfilter, &["udp dport 51820 counter drop"]);
}

#[test]
fn an_answer_that_dies_says_where() {
    let Some(world) = World::ready("backdies", &Spec::default()) else { return };
    let follow = "icmp and dst host 10.77.0.2";
    nft(&world.right, &one_rule("output", "icmp type echo-reply counter drop"));
    let far = Watcher::with(&world.right, &world.daemons[1], follow, "watch", &["--answers"]);
    let traced = world.trace_with("10.77.0.2 --seconds 2", std::slice::from_ref(&far.file));
    assert_eq!(traced.way_back(), ["r program socket", "r inner OUTPUT dropped"], "{}", traced.as_text());
    let text = traced.as_text();
    assert!(text.contains("Its answer: It died on") && text.contains("icmp type echo-reply"), "{text}");
    assert_eq!(traced.code, Some(1), "that an answer dies is no success");
    // The carrier of the answer leaves, and does not come through the near firewall.
    nft(&world.right, "delete table inet mine\n");
    nft(&world.left, &one_rule("input", "udp sport 51820 counter drop"));
    let far = Watcher::with(&world.right, &world.daemons[1], follow, "watch", &["--answers"]);
    let traced = world.trace_with("10.77.0.2 --seconds 2", std::slice::from_ref(&far.file));
    let back = traced.way_back();
    assert_eq!(back.last().map(String::as_str), Some("l outer INPUT dropped"), "{}", traced.as_text());
    assert!(traced.as_text().contains("udp sport 51820 counter drop"), "{}", traced.as_text());
}

#[test]
fn without_a_route_nothing_is_sent() {
    if !need_root() {
        return;
    }
    let world = World::new("noroute");
    let traced = world.trace("203.0.113.9 --seconds 3");
    traced.assert_way(&["l program socket rejected", "l inner routing rejected"]);
    assert_death(&traced, "l inner routing rejected", Killer::Route, &["ENETUNREACH", "there is no route"]);
}

#[test]
fn a_destination_that_no_peer_owns_dies_in_vpnd() {
    if !need_root() {
        return;
    }
    let world = World::new("nopeer");
    on(&world.left, "ip route add 10.99.0.0/16 dev vpn0");
    let traced = world.trace("10.99.0.1 --seconds 3");
    let parts = ["no_peer", "no peer has 10.99.0.1 in its allowed IPs"];
    assert_death(&traced, "l program vpnd refused", Killer::Vpnd, &parts);
}

#[test]
fn a_source_that_is_not_the_peers_dies_in_the_far_vpnd_with_its_owner() {
    if !need_root() {
        return;
    }
    let spec = Spec { right_allows: Some("\"10.77.0.9/32\"".to_owned()), ..Spec::default() };
    let world = World::with("source", &spec);
    let traced = world.trace_both("10.77.0.2 --seconds 4", "icmp and dst host 10.77.0.2");
    let parts = ["source_not_allowed", "peer left sent it with the source 10.77.0.1", "belongs to no peer"];
    assert_death(&traced, "r program vpnd refused", Killer::Vpnd, &parts);
}

#[test]
fn a_session_that_the_far_end_lost_is_named() {
    let Some(mut world) = World::ready("lost", &Spec::default()) else { return };
    world.restart_right();
    let traced = world.trace_both("10.77.0.2 --seconds 2", "icmp and dst host 10.77.0.2");
    assert_death(&traced, "r program vpnd refused", Killer::Vpnd, &["no_such_session", "receiver index"]);
}

/// Left has a second cable, that leads to nobody who knows of the tunnel.
fn second_cable(world: &World, name: &str) -> Host {
    let other = Host::create(&format!("vpnd-trace-{name}-o")).expect("a namespace");
    link::veth(&world.left, "eth1", &other, "eth0").expect("a cable");
    world.left.add_address("eth1", "198.51.100.1/24").expect("an address");
    other.add_address("eth0", "198.51.100.2/24").expect("an address");
    other
}

#[test]
fn a_policy_rule_that_sends_the_carrier_astray_is_named_with_its_table() {
    let Some(world) = World::ready("astray", &Spec::default()) else { return };
    let _other = second_cable(&world, "astray");
    on(&world.left, "ip route add default via 198.51.100.2 table 100");
    on(&world.left, "ip rule add pref 50 to 192.0.2.2 ipproto udp dport 51820 lookup 100");
    let mut watcher = Watcher::start(&world.right, &world.daemons[1], "icmp", "watch");
    let mut traced = world.trace("10.77.0.2 --seconds 3");
    watcher.stop();
    let station = traced.at("l", Walk::Outer, Place::Route);
    let route = station.route.clone().expect("an answer");
    let by = (route.device.as_deref(), route.table);
    assert_eq!(by, (Some("eth1"), Some(100)), "{}", traced.as_text());
    let rule = route.rule.expect("the rule is known");
    assert_eq!(rule.priority, 50);
    assert!(rule.text.contains("192.0.2.2"), "{}", rule.text);
    assert_eq!(traced.way().last().map(String::as_str), Some("l outer eth1"));
    // The other end watched, and saw nothing.
    traced.pages[0] = join(traced.pages[0].clone(), &watcher.pages());
    let Outcome::Unknown { why } = &traced.page().outcome else {
        panic!("{:?}\n{}", traced.page().outcome, watcher.said())
    };
    assert!(why.contains("left by eth1") && why.contains("astray-r did not see it"), "{why}");
}

#[test]
fn another_vpns_table_that_takes_the_packet_is_named_with_its_rule() {
    let Some(world) = World::ready("second", &Spec::default()) else { return };
    let _other = second_cable(&world, "second");
    // As wg-quick does for a default route, with its own mark.
    on(&world.left, "ip route add default dev eth1 table 51820");
    on(&world.left, "ip rule add pref 32764 not fwmark 51820 lookup 51820");
    on(&world.left, "ip rule add pref 32763 lookup main suppress_prefixlength 32");
    on(&world.left, "ip route add 198.51.100.0/24 dev eth1 table 51820");
    let traced = world.trace("10.77.0.2 --seconds 3");
    let all = traced.as_text();
    let inner = traced.at("l", Walk::Inner, Place::Route).route.clone().expect("an answer");
    assert_eq!((inner.device.as_deref(), inner.table), (Some("eth1"), Some(51820)), "{all}");
    let parts = ["past the tunnel", "rule 32764"];
    assert_death(&traced, "l inner routing dropped", Killer::Route, &parts);
}

/// A host behind the left end, which passes its packets on.
fn behind(world: &World, name: &str) -> Host {
    let host = Host::create(&format!("vpnd-trace-{name}-b")).expect("a namespace");
    link::veth(&world.left, "eth1", &host, "eth0").expect("a cable");
    world.left.add_address("eth1", "10.9.0.1/24").expect("an address");
    host.add_address("eth0", "10.9.0.2/24").expect("an address");
    host.add_route("0.0.0.0/0", Some(ip("10.9.0.1")), "eth0").expect("a route");
    world.left.sysctl("ipv4.ip_forward", "1").expect("a sysctl");
    host
}

fn behind_spec() -> Spec {
    let right_allows = Some("\"10.77.0.1/32\", \"10.9.0.0/24\"".to_owned());
    Spec { right_allows, ..Spec::default() }
}

/// What the left end says of a ping that the host behind it sends.
#[track_caller]
fn follow_ping(world: &World, host: &Host, source: Option<&str>) -> Traced {
    let ping = Ping { source: source.map(ip), ..Ping::to(ip("10.77.0.2")) };
    follow(world, || host.ping_with(&ping).map(|_| ()).expect("a ping is sent"))
}

/// What the left end says of a ping that is not its own.
#[track_caller]
fn follow(world: &World, send: impl FnOnce()) -> Traced {
    let follow = "icmp and dst host 10.77.0.2 and not src host 10.77.0.1";
    let mut watcher = Watcher::start(&world.left, &world.daemons[0], follow, "follow");
    send();
    watcher.ended_or_stopped();
    Traced::read(watcher.pages(), watcher.said())
}

#[test]
fn a_forwarded_packet_shows_the_forward_hook_and_dies_there() {
    let Some(world) = World::ready("fwd", &behind_spec()) else { return };
    let host = behind(&world, "fwd");
    let traced = follow_ping(&world, &host, None);
    traced.assert_way(&[
        "l inner eth1",
        "l inner PREROUTING",
        "l inner routing",
        "l inner FORWARD",
        "l inner POSTROUTING",
        "l inner vpn0",
        "l program vpnd",
        "l outer OUTPUT",
        "l outer routing",
        "l outer POSTROUTING",
        "l outer eth0",
    ]);
    nft(&world.left, &one_rule("forward", "oifname \"vpn0\" drop"));
    let traced = follow_ping(&world, &host, None);
    traced.assert_way(&["l inner eth1", "l inner PREROUTING", "l inner routing", "l inner FORWARD dropped"]);
    assert_death(
        &traced,
        "l inner FORWARD dropped",
        Killer::Netfilter,
        &["oifname \"vpn0\" drop", "FORWARD"],
    );
}

#[test]
fn a_masqueraded_packet_has_another_source_in_vpnd() {
    let Some(world) = World::ready("masq", &Spec::default()) else { return };
    let host = behind(&world, "masq");
    nft(
        &world.left,
        "table ip nat {\n chain post {\n  type nat hook postrouting priority srcnat; policy accept;\n  \
         oifname \"vpn0\" masquerade\n }\n}\n",
    );
    // vpnd sees the address that it has behind POSTROUTING.
    let mut watcher = Watcher::start(&world.left, &world.daemons[0], "icmp and dst host 10.77.0.2", "follow");
    assert_eq!(host.ping(ip("10.77.0.2"), 1).expect("a ping").received, 1);
    watcher.ended_or_stopped();
    let traced = Traced::read(watcher.pages(), watcher.said());
    let post = traced.at("l", Walk::Inner, Place::Postrouting);
    assert!(
        post.rules.iter().any(|rule| rule.text.as_deref() == Some("oifname \"vpn0\" masquerade")),
        "{post:?}"
    );
    assert_eq!(post.packet.as_ref().map(|packet| packet.source), Some(ip("10.9.0.2")));
    let vpnd = traced.at("l", Walk::Program, Place::Vpnd);
    assert_eq!(vpnd.packet.as_ref().map(|packet| packet.source), Some(ip("10.77.0.1")));
    assert!(matches!(&vpnd.vpnd, Some(Vpnd::Sealed(_))), "{}", traced.as_text());
}

#[test]
fn a_host_that_does_not_forward_says_so() {
    let Some(world) = World::ready("nofwd", &behind_spec()) else { return };
    let host = behind(&world, "nofwd");
    world.left.sysctl("ipv4.ip_forward", "0").expect("a sysctl");
    let traced = follow_ping(&world, &host, None);
    traced.assert_way(&["l inner eth1", "l inner PREROUTING", "l inner routing dropped"]);
    let parts = ["EHOSTUNREACH", "ip_forward"];
    assert_death(&traced, "l inner routing dropped", Killer::Route, &parts);
}

#[test]
fn a_source_that_is_routed_another_way_dies_by_rp_filter() {
    let Some(world) = World::ready("rp", &behind_spec()) else { return };
    let host = behind(&world, "rp");
    // So that the neighbours know each other: the filter stops questions of such a source, too.
    assert_eq!(host.ping(ip("10.9.0.1"), 1).expect("a ping").received, 1);
    host.add_address("eth0", "192.0.2.77/32").expect("an address");
    for device in ["all", "eth1"] {
        world.left.sysctl(&format!("ipv4.conf.{device}.rp_filter"), "1").expect("a sysctl");
    }
    let traced = follow_ping(&world, &host, Some("192.0.2.77"));
    traced.assert_way(&["l inner eth1", "l inner PREROUTING", "l inner routing dropped"]);
    assert_death(&traced, "l inner routing dropped", Killer::Route, &["EINVAL", "rp_filter"]);
    let notes = traced.page().notes.join("\n");
    assert!(notes.contains("TcpExt.IPReversePathFilter by 1"), "{notes}");
    // A length that no other packet has, so that it can be told from all others in this kernel.
    let ping = Ping { source: Some(ip("192.0.2.77")), payload: 571, ..Ping::to(ip("10.77.0.2")) };
    let traced = follow(&world, || host.ping_with(&ping).map(|_| ()).expect("a ping is sent"));
    let Outcome::Died(death) = &traced.page().outcome else { panic!("{}", traced.as_text()) };
    assert_eq!(death.drop_reason.as_deref(), Some("SKB_DROP_REASON_IP_RPFILTER"), "{}", traced.as_text());
    let facts = &traced.page().stations[death.station].facts;
    let basis = |fact: &String| fact.contains("the only packet of 599 bytes that came by eth1");
    assert!(facts.iter().any(basis), "{facts:?}");
}

#[test]
fn iptables_of_both_kinds_are_seen_each_as_far_as_the_kernel_tells() {
    let Some(world) = World::ready("ipt", &Spec::default()) else { return };
    on(&world.left, "iptables-nft -A OUTPUT -d 10.77.0.2 -p icmp -j DROP");
    let traced = world.trace("10.77.0.2 --seconds 3");
    let parts = ["ip daddr 10.77.0.2", "chain OUTPUT of table ip filter", "handle"];
    assert_death(&traced, "l inner OUTPUT dropped", Killer::Netfilter, &parts);
    on(&world.left, "iptables-nft -F OUTPUT");
    on(&world.left, "iptables-legacy -A OUTPUT -d 10.77.0.2 -p icmp -j DROP");
    let traced = world.trace("10.77.0.2 --seconds 3");
    assert_death(
        &traced,
        "l inner OUTPUT dropped",
        Killer::UnseenNetfilter,
        &["does not trace", "iptables-legacy"],
    );
    let notes = traced.page().notes.join("\n");
    assert!(notes.contains("iptables-legacy has tables here"), "{notes}");
}
