//! The host room on the real kernel: each test in a network namespace of its own, and what `ip` says as the
//! independent witness.
#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

mod common;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};

use common::need_root;
use ipnet::IpNet;
use serde_json::Value;
use vpnd::{
    host::{Host, MAIN_TABLE, Mtus, NetworkChange, PROTOCOL, Plan, Route, Rule},
    sys::namespace::unshare_network,
};

const DEVICE: &str = "vpnd0";
const OWN: u32 = 51_820;

/// Runs a test on a thread of its own in a new, empty network namespace; it vanishes with the thread.
fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !need_root() {
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare_network().expect("root may make a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in this thread's namespace.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("`ip` is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn ip_json(arguments: &str) -> Vec<Value> {
    let text = ip(&format!("-j {arguments}"));
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).expect("JSON") }
}

fn sysctl(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{}", key.replace('.', "/")), value)
        .expect("a sysctl of this namespace");
}

/// A tunnel device that outlives its makers.
fn tunnel(name: &str) {
    ip(&format!("tuntap add mode tun name {name}"));
}

/// One end of a cable whose other end is up, so that there is a carrier.
fn ethernet(name: &str) {
    ip(&format!("link add {name} type veth peer name {name}-far"));
    for end in [name, &format!("{name}-far")] {
        ip(&format!("link set {end} addrgenmode none"));
    }
    ip(&format!("link set {name}-far up"));
}

/// A device with an address that is up: the host's uplink.
fn uplink() {
    ethernet("up0");
    ip("address add 192.0.2.10/24 dev up0");
    ip("-6 address add 2001:db8::10/64 dev up0 nodad");
    ip("link set up0 up");
    ip("route add default via 192.0.2.1");
    ip("-6 route add default via 2001:db8::1");
    // The carrier is noticed a little later.
    let is_running = |link: &str| ip_json(&format!("link show {link}"))[0]["operstate"] == "UP";
    for _ in 0..200 {
        if is_running("up0") && is_running("up0-far") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no carrier on the uplink");
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix in a test")
}

fn plan(addresses: &[&str], routes: &[&str]) -> Plan {
    Plan {
        device: DEVICE.into(),
        mtu: 1420,
        gso_max_segs: Some(45),
        addresses: addresses.iter().map(|a| net(a)).collect(),
        routes: routes.iter().map(|r| Route { destination: net(r), table: MAIN_TABLE }).collect(),
        rules: Vec::new(),
        fwmark: None,
    }
}

/// With the policy for a default route of both families.
fn plan_with_default(addresses: &[&str], table: u32) -> Plan {
    let mut plan = plan(addresses, &[]);
    plan.fwmark = Some(table);
    for (v6, default) in [(false, "0.0.0.0/0"), (true, "::/0")] {
        plan.routes.push(Route { destination: net(default), table });
        plan.rules.push(Rule::SuppressDefault { v6 });
        plan.rules.push(Rule::NotMarked { v6, mark: table, table });
    }
    plan
}

/// Addresses of a device as `ip` sees them, without those that the kernel gives itself.
fn addresses(device: &str) -> BTreeSet<String> {
    let devices = ip_json(&format!("address show dev {device}"));
    let infos = devices.iter().filter_map(|d| d["addr_info"].as_array()).flatten();
    infos
        .filter(|info| info["scope"] != "link")
        .map(|info| format!("{}/{}", info["local"].as_str().expect("an address"), info["prefixlen"]))
        .collect()
}

/// Routes with our protocol, as "destination table".
fn our_routes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for family in ["-4", "-6"] {
        for route in ip_json(&format!("{family} route show table all proto {PROTOCOL}")) {
            let destination = route["dst"].as_str().expect("a destination");
            found.insert(format!("{family} {destination} {}", route["table"].as_str().unwrap_or("main")));
        }
    }
    found
}

/// Rules beyond the three of each kernel, as `ip` prints them.
fn rules(family: &str) -> Vec<String> {
    let all = ip(&format!("{family} rule show"));
    let own =
        |line: &&str| !["0:", "32766:", "32767:"].contains(&line.split_whitespace().next().unwrap_or(""));
    all.lines().filter(own).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Everything that `ip` can tell of this namespace, for comparing before and after; when it has come to rest
/// (the kernel adds the local route of an IPv6 address a moment after the address).
fn everything() -> String {
    let mut last = all_that_is_shown();
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(40));
        let now = all_that_is_shown();
        if now == last {
            return now;
        }
        last = now;
    }
    panic!("the network does not come to rest:\n{last}");
}

fn all_that_is_shown() -> String {
    let shows = [
        "address show",
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule show",
        "-6 rule show",
    ];
    shows.map(|show| ip(show).lines().filter_map(ours_to_answer_for).collect::<String>()).join("---\n")
}

/// Without what the kernel does by itself, sooner or later, when a device was up: queues, carrier, multicast.
fn ours_to_answer_for(line: &str) -> Option<String> {
    if line.starts_with("multicast ff00::/8") {
        return None;
    }
    let line = line.replace("NO-CARRIER,", "").replace(",LOWER_UP", "").replace(" linkdown", "");
    let (mut kept, mut words) = (String::new(), line.split_whitespace());
    while let Some(word) = words.next() {
        if ["qdisc", "state"].contains(&word) {
            words.next();
        } else {
            kept.push_str(word);
            kept.push(' ');
        }
    }
    Some(kept + "\n")
}

#[track_caller]
fn assert_as_before(before: &str) {
    let now = everything();
    let only_in = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|l| l == *line)).map(str::to_owned).collect()
    };
    assert_eq!(now, before, "new: {:#?}, gone: {:#?}", only_in(&now, before), only_in(before, &now));
}

async fn open() -> Host {
    Host::open().await.expect("a netlink socket")
}

#[test]
fn a_plan_becomes_addresses_routes_mtu_and_an_up_device() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        let plan = plan(&["10.77.0.1/24", "fd77::1/64"], &["10.1.0.0/16", "10.2.3.4/32", "fd01::/48"]);
        host.apply(&plan).await.expect("applied");
        let link = &ip_json(&format!("-d link show {DEVICE}"))[0];
        assert_eq!((&link["mtu"], &link["gso_max_segs"]), (&1420.into(), &45.into()));
        assert!(link["flags"].as_array().expect("flags").contains(&"UP".into()));
        assert_eq!(addresses(DEVICE), BTreeSet::from(["10.77.0.1/24".into(), "fd77::1/64".into()]));
        let expected = ["-4 10.1.0.0/16 main", "-4 10.2.3.4 main", "-6 fd01::/48 main"];
        assert_eq!(our_routes(), expected.map(String::from).into());
        assert!(ip("route get 10.1.2.3").contains(&format!("dev {DEVICE} src 10.77.0.1")));
        assert!(ip("-6 route get fd01::5").contains(&format!("dev {DEVICE}")));
    });
}

#[test]
fn an_ipv6_address_is_usable_at_once() {
    in_own_network(async || {
        tunnel(DEVICE);
        open().await.apply(&plan(&["fd77::1/64"], &[])).await.expect("applied");
        let socket = std::net::UdpSocket::bind("[fd77::1]:0");
        socket.expect("no duplicate address detection stands between");
        assert!(ip("-6 route show table local").contains("local fd77::1 "), "and packets to it are taken");
    });
}

#[test]
fn applying_a_plan_twice_changes_nothing() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        let plan = plan_with_default(&["10.77.0.1/24", "fd77::1/64"], OWN);
        host.apply(&plan).await.expect("applied");
        let before = everything();
        host.apply(&plan).await.expect("applied again");
        assert_as_before(&before);
        // Nor does a fresh connection that remembers nothing double anything.
        let second = open().await;
        second.apply(&plan).await.expect("applied by another connection");
        assert_as_before(&before);
        second.undo().await.expect("undone");
        assert!(rules("-4").is_empty() && rules("-6").is_empty() && our_routes().is_empty());
    });
}

#[test]
fn a_second_plan_is_reached_by_its_difference() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        let first = plan(&["10.77.0.1/24", "fd77::1/64"], &["10.1.0.0/16", "10.2.0.0/16", "fd01::/48"]);
        host.apply(&first).await.expect("applied");
        ip(&format!("route add 10.9.0.0/16 dev {DEVICE} proto static"));
        ip(&format!("address add 10.88.0.1/24 dev {DEVICE}"));
        let second = plan(&["10.78.0.1/24", "fd77::1/64"], &["10.2.0.0/16", "10.3.0.0/16"]);
        host.apply(&second).await.expect("applied");
        let expected = ["10.78.0.1/24", "10.88.0.1/24", "fd77::1/64"];
        assert_eq!(addresses(DEVICE), expected.map(String::from).into(), "a foreign address stays");
        assert_eq!(our_routes(), ["-4 10.2.0.0/16 main", "-4 10.3.0.0/16 main"].map(String::from).into());
        assert!(ip("route show 10.9.0.0/16").contains(DEVICE), "a foreign route stays");
    });
}

#[test]
fn a_default_route_comes_and_goes_with_its_rules() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        let host = open().await;
        let plain = plan(&["10.77.0.1/24", "fd77::1/64"], &["10.1.0.0/16"]);
        host.apply(&plain).await.expect("applied");
        let before = everything();
        host.apply(&plan_with_default(&["10.77.0.1/24", "fd77::1/64"], OWN)).await.expect("applied");
        assert_eq!(rules("-4").len(), 2);
        // Another table and mark: the old pair goes, a new one comes.
        host.apply(&plan_with_default(&["10.77.0.1/24", "fd77::1/64"], OWN + 1)).await.expect("applied");
        for family in ["-4", "-6"] {
            let rules = rules(family);
            assert_eq!(rules.len(), 2, "{rules:?}");
            assert!(rules[1].contains("fwmark 0xca6d/0xffffff00 lookup 51821"), "{rules:?}");
        }
        host.apply(&plain).await.expect("applied");
        assert_as_before(&before);
    });
}

#[test]
fn replacing_the_only_address_keeps_the_routes() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &["10.1.0.0/16"])).await.expect("applied");
        host.apply(&plan(&["10.78.0.1/24"], &["10.1.0.0/16"])).await.expect("applied");
        assert_eq!(our_routes(), ["-4 10.1.0.0/16 main".to_owned()].into());
        host.apply(&plan(&[], &["10.1.0.0/16"])).await.expect("applied");
        assert!(addresses(DEVICE).is_empty());
        assert_eq!(our_routes(), ["-4 10.1.0.0/16 main".to_owned()].into(), "though the kernel dropped it");
    });
}

#[test]
fn removing_the_first_address_of_a_subnet_keeps_the_second() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24", "10.77.0.2/24"], &[])).await.expect("applied");
        host.apply(&plan(&["10.77.0.2/24"], &[])).await.expect("applied");
        assert_eq!(addresses(DEVICE), ["10.77.0.2/24".to_owned()].into());
    });
}

#[test]
fn undo_leaves_nothing_and_may_be_called_twice() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        ip(&format!("link set {DEVICE} mtu 1420 up"));
        let before = everything();
        let host = open().await;
        let mut plan = plan_with_default(&["10.77.0.1/24", "fd77::1/64"], OWN);
        plan.routes.push(Route { destination: net("10.1.0.0/16"), table: MAIN_TABLE });
        host.apply(&plan).await.expect("applied");
        assert_ne!(everything(), before);
        host.undo().await.expect("undone");
        assert_as_before(&before);
        host.undo().await.expect("nothing to do");
    });
}

#[test]
fn undo_after_the_device_is_gone_removes_the_rules() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan_with_default(&["10.77.0.1/24"], OWN)).await.expect("applied");
        ip(&format!("link delete {DEVICE}"));
        assert_eq!(rules("-4").len(), 2);
        host.undo().await.expect("undone");
        assert!(rules("-4").is_empty() && rules("-6").is_empty());
    });
}

#[test]
fn the_default_route_leads_all_but_marked_and_better_known_packets_into_the_device() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        ip("-6 route add 2001:db8:5::/48 via 2001:db8::2");
        let host = open().await;
        host.apply(&plan_with_default(&["10.77.0.1/24", "fd77::1/64"], OWN)).await.expect("applied");
        let way = |arguments: &str| {
            let route = ip_json(arguments);
            route[0]["dev"].as_str().expect("a device").to_owned()
        };
        assert_eq!(way("route get 203.0.113.5"), DEVICE);
        assert_eq!(way("route get 203.0.113.5 mark 51820"), "up0");
        assert_eq!(way("route get 203.0.113.5 mark 51821"), "up0", "another daemon's packets");
        assert_eq!(way("route get 203.0.113.5 mark 51712"), "up0", "the first of such marks");
        assert_eq!(way("route get 203.0.113.5 mark 51711"), DEVICE, "any other mark");
        assert_eq!(way("route get 198.51.100.7"), "up0");
        assert_eq!(way("route get 192.0.2.77"), "up0");
        assert_eq!(way("-6 route get 2001:db8:9::5"), DEVICE);
        assert_eq!(way("-6 route get 2001:db8:9::5 mark 51820"), "up0");
        assert_eq!(way("-6 route get 2001:db8:5::7"), "up0");
    });
}

#[test]
fn the_pair_of_rules_suppresses_first_and_carries_our_protocol() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan_with_default(&["10.77.0.1/24"], OWN)).await.expect("applied");
        for family in ["-4", "-6"] {
            assert_eq!(
                rules(family),
                [
                    format!("31820: from all lookup main suppress_prefixlength 0 proto {PROTOCOL}"),
                    format!("31821: not from all fwmark 0xca6c/0xffffff00 lookup {OWN} proto {PROTOCOL}"),
                ]
            );
        }
    });
}

#[test]
fn two_daemons_on_one_host_take_pairs_and_tables_of_their_own() {
    in_own_network(async || {
        tunnel(DEVICE);
        tunnel("vpnd1");
        let (first, second) = (open().await, open().await);
        let table = first.free_table().await.expect("a table");
        first.apply(&plan_with_default(&["10.77.0.1/24"], table)).await.expect("applied");
        let other = second.free_table().await.expect("another table");
        assert_ne!(table, other);
        let mut plan = plan_with_default(&["10.78.0.1/24"], other);
        plan.device = "vpnd1".into();
        second.apply(&plan).await.expect("applied");
        assert_eq!(rules("-4").len(), 4);
        assert!(second.sweep().await.expect("swept").is_empty(), "both are alive");
        first.undo().await.expect("undone");
        let left = rules("-4");
        assert_eq!(left.len(), 2);
        assert!(left[1].contains(&format!("lookup {other}")), "{left:?}");
    });
}

#[test]
fn a_place_that_somebody_else_took_is_left_to_them() {
    in_own_network(async || {
        tunnel(DEVICE);
        ip("rule add from 10.5.0.0/16 lookup 100 priority 31821");
        let host = open().await;
        host.apply(&plan_with_default(&["10.77.0.1/24"], OWN)).await.expect("applied");
        assert!(rules("-4")[1].starts_with("31822:"), "{:?}", rules("-4"));
        host.undo().await.expect("undone");
        assert_eq!(rules("-4"), ["31821: from 10.5.0.0/16 lookup 100"]);
    });
}

#[test]
fn sweep_removes_what_a_killed_daemon_left_and_nothing_else() {
    in_own_network(async || {
        tunnel(DEVICE);
        tunnel("vpnd1");
        ip("rule add not fwmark 0x1234 lookup 4660");
        ip("rule add lookup main suppress_prefixlength 0");
        let foreign = rules("-4");
        let killed = open().await;
        killed.apply(&plan_with_default(&["10.77.0.1/24"], OWN)).await.expect("applied");
        let alive = open().await;
        let mut plan = plan_with_default(&["10.78.0.1/24"], OWN + 1);
        plan.device = "vpnd1".into();
        alive.apply(&plan).await.expect("applied");
        let of_alive: Vec<_> = rules("-6").split_off(2);
        drop(killed); // kill -9: no undo, and the device goes with its process
        ip(&format!("link delete {DEVICE}"));
        let removed = open().await.sweep().await.expect("swept");
        assert_eq!(removed.len(), 4, "{removed:?}");
        assert!(
            removed.iter().any(|r| r.contains("not fwmark 0xca6c/0xffffff00 lookup 51820")),
            "{removed:?}"
        );
        assert_eq!(rules("-6"), of_alive);
        let left = rules("-4");
        assert!(foreign.iter().all(|rule| left.contains(rule)), "{left:?}");
        assert_eq!(left.len(), foreign.len() + 2);
        assert!(open().await.sweep().await.expect("swept").is_empty());
    });
}

#[test]
fn sweep_removes_half_a_pair() {
    in_own_network(async || {
        ip(&format!("rule add lookup main suppress_prefixlength 0 priority 31820 protocol {PROTOCOL}"));
        let removed = open().await.sweep().await.expect("swept");
        assert_eq!(removed.len(), 1, "{removed:?}");
        assert!(rules("-4").is_empty());
    });
}

#[test]
fn a_start_after_a_kill_doubles_nothing() {
    in_own_network(async || {
        let plan = plan_with_default(&["10.77.0.1/24"], OWN);
        for _ in 0..3 {
            tunnel(DEVICE);
            let host = open().await;
            host.sweep().await.expect("swept");
            assert_eq!(host.free_table().await.expect("a table"), OWN);
            host.apply(&plan).await.expect("applied");
            assert_eq!((rules("-4").len(), rules("-6").len()), (2, 2));
            drop(host);
            ip(&format!("link delete {DEVICE}"));
        }
    });
}

#[test]
fn a_route_of_another_device_is_a_conflict_that_names_it_and_nothing_is_left_behind() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        ip("route add 10.5.0.0/16 dev up0");
        ip("-6 route add fd05::/48 dev up0");
        let before = everything();
        for taken in ["10.5.0.0/16", "fd05::/48"] {
            let host = open().await;
            let mut plan = plan_with_default(&["10.77.0.1/24", "fd77::1/64"], OWN);
            plan.routes.push(Route { destination: net("10.1.0.0/16"), table: MAIN_TABLE });
            plan.routes.push(Route { destination: net(taken), table: MAIN_TABLE });
            let error = host.apply(&plan).await.expect_err("a conflict");
            assert_eq!(error.source.raw_os_error(), Some(17), "EEXIST");
            assert_eq!(error.attempted, format!("add route {taken} dev {DEVICE} table main"));
            assert!(error.remedy.as_deref().unwrap_or("").contains("device up0"), "{error}");
            assert_as_before(&before);
        }
    });
}

#[test]
fn a_failed_reload_leaves_the_former_plan_in_force() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        ip("route add 10.5.0.0/16 dev up0");
        let host = open().await;
        host.apply(&plan_with_default(&["10.77.0.1/24"], OWN)).await.expect("applied");
        let before = everything();
        let bad = plan(&["10.78.0.1/24"], &["10.4.0.0/16", "10.5.0.0/16"]);
        host.apply(&bad).await.expect_err("a conflict");
        assert_as_before(&before);
        host.undo().await.expect("undone");
        assert!(rules("-4").is_empty() && our_routes().is_empty());
    });
}

#[test]
fn without_its_device_a_plan_fails_and_says_so() {
    in_own_network(async || {
        let error = open().await.apply(&plan(&["10.77.0.1/24"], &[])).await.expect_err("no device");
        assert_eq!(error.source.raw_os_error(), Some(19), "ENODEV");
        assert!(error.to_string().contains(DEVICE), "{error}");
    });
}

#[test]
fn where_ipv6_is_disabled_the_error_names_the_sysctl() {
    in_own_network(async || {
        sysctl("net.ipv6.conf.default.disable_ipv6", "1");
        tunnel(DEVICE);
        let before = everything();
        let host = open().await;
        let error = host.apply(&plan(&["10.77.0.1/24", "fd77::1/64"], &[])).await.expect_err("disabled");
        assert_eq!(error.attempted, format!("add address fd77::1/64 dev {DEVICE}"));
        assert!(error.to_string().contains("disable_ipv6"), "{error}");
        assert!(addresses(DEVICE).is_empty());
        let error = host.apply(&plan(&[], &["fd01::/48"])).await.expect_err("disabled");
        assert!(error.to_string().contains("disable_ipv6"), "{error}");
        assert_as_before(&before);
    });
}

#[test]
fn twenty_thousand_routes_take_well_under_a_second() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        let mut many = plan(&["10.0.0.1/32"], &[]);
        for i in 0..10_000_u32 {
            let v4 = IpAddr::from((0x0b00_0000 + i * 256).to_be_bytes());
            let v6 = IpAddr::from((0xfd00_u128 << 112 | u128::from(i) << 64).to_be_bytes());
            many.routes.push(Route { destination: IpNet::new(v4, 24).expect("a prefix"), table: MAIN_TABLE });
            many.routes.push(Route { destination: IpNet::new(v6, 64).expect("a prefix"), table: MAIN_TABLE });
        }
        let start = Instant::now();
        host.apply(&many).await.expect("applied");
        let first = start.elapsed();
        assert_eq!(our_routes().len(), 20_000);
        let start = Instant::now();
        host.apply(&many).await.expect("applied again");
        let again = start.elapsed();
        let start = Instant::now();
        host.undo().await.expect("undone");
        let undone = start.elapsed();
        assert!(our_routes().is_empty());
        println!("20,000 routes: applied in {first:?}, again in {again:?}, undone in {undone:?}");
        // Several times what it takes on an idle machine, so that a busy one does not fail.
        for took in [first, again, undone] {
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
    });
}

/// Waits for the loss while something is done to the device; says how long it took.
async fn lost_by(host: &Host, commands: &[&str]) -> Duration {
    let loss = host.device_lost(DEVICE);
    tokio::pin!(loss);
    // Once polled it is waiting.
    let early = tokio::time::timeout(Duration::from_millis(50), &mut loss).await;
    assert!(early.is_err(), "nothing happened yet, and it said {early:?}");
    commands.iter().for_each(|command| drop(ip(command)));
    let start = Instant::now();
    tokio::time::timeout(Duration::from_secs(5), loss).await.expect("it is noticed");
    start.elapsed()
}

#[test]
fn a_deleted_device_is_noticed_within_a_second() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &[])).await.expect("applied");
        let took = lost_by(&host, &[&format!("link delete {DEVICE}")]).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        host.device_lost(DEVICE).await; // and it stays lost
    });
}

#[test]
fn a_device_set_down_is_told_and_what_it_lost_comes_back_when_it_is_up_again() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24", "fd77::1/64"], &["10.1.0.0/16", "fd01::/16"]))
            .await
            .expect("applied");
        changes(&host).await;
        let before = (addresses(DEVICE), our_routes());
        ip(&format!("link set {DEVICE} down"));
        assert!(changes(&host).await.contains(&NetworkChange::OwnLink(false)));
        assert_eq!(host.mend().await.expect("looked").count, 0, "it is down by somebody's will");
        assert_ne!((addresses(DEVICE), our_routes()), before);
        ip(&format!("link set {DEVICE} up"));
        assert!(changes(&host).await.contains(&NetworkChange::OwnLink(true)));
        let mended = host.mend().await.expect("mended");
        assert_eq!(mended.count, 3, "{mended:?}");
        assert_eq!((addresses(DEVICE), our_routes()), before);
        let lost = tokio::time::timeout(Duration::from_millis(100), host.device_lost(DEVICE)).await;
        assert!(lost.is_err(), "it is there");
    });
}

#[test]
fn what_somebody_else_removes_is_told_and_put_back_and_nothing_else_is_touched() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        let host = open().await;
        let mut plan = plan_with_default(&["10.77.0.1/24", "10.77.0.9/24", "fd77::1/64"], OWN);
        plan.routes.push(Route { destination: net("10.1.0.0/16"), table: MAIN_TABLE });
        plan.routes.sort_unstable();
        host.apply(&plan).await.expect("applied");
        ip(&format!("address add 10.99.0.1/24 dev {DEVICE}"));
        let seen = || (addresses(DEVICE), our_routes(), rules("-4").len(), rules("-6").len());
        let before = seen();
        changes(&host).await;
        assert_eq!(host.mend().await.expect("looked").count, 0, "nothing is missing");
        let thefts = [
            format!("address delete 10.77.0.1/24 dev {DEVICE}"),
            format!("-6 address delete fd77::1/64 dev {DEVICE}"),
            format!("route flush dev {DEVICE} proto 118 table main"),
            format!("-6 route flush table {OWN}"),
            format!("rule delete priority {}", rule_of_ours("-4")),
            format!("-6 rule delete priority {}", rule_of_ours("-6")),
        ];
        for theft in thefts {
            ip(&theft);
            assert!(changes(&host).await.contains(&NetworkChange::OwnLost), "{theft}");
            let mended = host.mend().await.expect("mended");
            assert!(mended.count > 0 && mended.refused.is_none(), "{theft}: {mended:?}");
            assert_eq!(seen(), before, "{theft}: {mended:?}");
        }
        host.undo().await.expect("undone");
        assert_eq!(rules("-4").len() + rules("-6").len(), before.2 + before.3 - 4, "no rule was forgotten");
    });
}

/// The priority of our last rule.
fn rule_of_ours(family: &str) -> u64 {
    let rules = ip_json(&format!("{family} rule show"));
    rules.iter().rfind(|rule| rule["protocol"] == "118").expect("a rule of ours")["priority"]
        .as_u64()
        .expect("a number")
}

#[test]
fn a_route_that_another_program_put_in_place_of_ours_is_told_and_left_to_it() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &["10.1.0.0/16", "10.2.0.0/16"])).await.expect("applied");
        changes(&host).await;
        ip("route replace 10.1.0.0/16 dev up0");
        assert!(changes(&host).await.contains(&NetworkChange::OwnLost));
        ip("route delete 10.2.0.0/16");
        let mended = host.mend().await.expect("looked");
        assert_eq!(mended.put_back, ["add route 10.2.0.0/16 dev vpnd0 table main"]);
        let refused = mended.refused.expect("the other one is taken").to_string();
        assert!(refused.contains("routes 10.1.0.0/16 to device up0 already"), "{refused}");
        assert!(ip("route show 10.1.0.0/16").contains("dev up0"));
    });
}

#[test]
fn another_device_that_takes_the_name_is_not_mistaken_for_ours() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &[])).await.expect("applied");
        let delete = format!("link delete {DEVICE}");
        let add = format!("tuntap add mode tun name {DEVICE}");
        let up = format!("link set {DEVICE} up");
        lost_by(&host, &[&delete, &add, &up]).await;
    });
}

#[test]
fn a_device_that_another_one_of_the_host_resembles_is_not_lost_with_it() {
    in_own_network(async || {
        tunnel(DEVICE);
        ethernet("other0");
        ip("link set other0 up");
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &[])).await.expect("applied");
        ip("link set other0 down");
        ip("link delete other0");
        let rename = format!("link set {DEVICE} alias still-here");
        ip(&rename);
        let wait = tokio::time::timeout(Duration::from_millis(300), host.device_lost(DEVICE)).await;
        assert!(wait.is_err(), "{wait:?}");
    });
}

#[test]
fn a_device_moved_to_another_namespace_is_lost() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &[])).await.expect("applied");
        let mut sleeper = Command::new("unshare").args(["--net", "sleep", "20"]).spawn().expect("a process");
        // Until it is in its own namespace.
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("ours");
        let theirs = format!("/proc/{}/ns/net", sleeper.id());
        for _ in 0..100 {
            if std::fs::read_link(&theirs).is_ok_and(|ns| ns != own) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lost_by(&host, &[&format!("link set {DEVICE} netns {}", sleeper.id())]).await;
        sleeper.kill().expect("our own child");
        sleeper.wait().expect("our own child");
    });
}

#[test]
fn a_loss_is_seen_though_the_subscription_overran() {
    in_own_network(async || {
        tunnel(DEVICE);
        ethernet("noise0");
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &[])).await.expect("applied");
        // Nobody reads meanwhile: the receive buffer fills, and the deletion itself is dropped.
        let mut batch = String::new();
        for i in 0..3000 {
            batch.push_str(&format!("link set noise0 mtu {}\n", 1400 + i % 2));
        }
        batch.push_str(&format!("link delete {DEVICE}\n"));
        let file = std::env::temp_dir().join(format!("vpnd-host-batch-{}", std::process::id()));
        std::fs::write(&file, batch).expect("a temporary file");
        ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).expect("our own file");
        let lost = tokio::time::timeout(Duration::from_secs(1), host.device_lost(DEVICE)).await;
        lost.expect("noticed");
    });
}

#[test]
fn waiting_for_a_loss_costs_nothing() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24"], &[])).await.expect("applied");
        let used = || -> u64 {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("our own");
            let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
            fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
        };
        let before = used();
        let wait = async { tokio::join!(host.device_lost(DEVICE), host.network_changed()) };
        assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
        assert!(used() - before <= 2, "{} ticks of 10 ms", used() - before);
    });
}

async fn next_change(host: &Host) -> Option<NetworkChange> {
    tokio::time::timeout(Duration::from_millis(500), host.network_changed()).await.ok()
}

/// All that is told until it is quiet.
async fn changes(host: &Host) -> Vec<NetworkChange> {
    let mut told = Vec::new();
    while let Some(change) = next_change(host).await {
        told.push(change);
    }
    told
}

#[test]
fn an_address_that_disappears_is_told() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24", "fd77::1/64"], &["10.1.0.0/16"])).await.expect("applied");
        let told = changes(&host).await;
        assert_eq!(
            told,
            [NetworkChange::OwnLink(true), mtus(1420, &[])],
            "of our own device nothing else counts"
        );
        ip("address delete 192.0.2.10/24 dev up0");
        let gone: IpAddr = "192.0.2.10".parse().expect("an address");
        assert!(changes(&host).await.contains(&NetworkChange::AddressRemoved(gone)));
        ip("-6 address delete 2001:db8::10/64 dev up0");
        let gone: IpAddr = "2001:db8::10".parse().expect("an address");
        let told = tokio::time::timeout(Duration::from_secs(1), host.address_removed()).await;
        assert_eq!(told.expect("told"), gone);
    });
}

#[test]
fn an_address_that_another_device_still_has_is_not_gone() {
    in_own_network(async || {
        uplink();
        ethernet("up1");
        ip("address add 192.0.2.10/32 dev up1");
        let host = open().await;
        ip("address delete 192.0.2.10/32 dev up1");
        let told = changes(&host).await;
        assert!(!told.iter().any(|c| matches!(c, NetworkChange::AddressRemoved(_))), "{told:?}");
    });
}

#[test]
fn a_better_route_is_told_by_its_destination_and_a_burst_of_many_as_one() {
    in_own_network(async || {
        uplink();
        let host = open().await;
        ip("route add 203.0.113.0/24 via 192.0.2.2");
        assert_eq!(changes(&host).await, [route_changed("203.0.113.0/24")]);
        for third in 0..250 {
            ip(&format!("route add 198.18.{third}.0/24 via 192.0.2.2"));
        }
        let told = changes(&host).await;
        assert!(
            told.len() <= 250 && told.iter().all(|c| matches!(c, NetworkChange::RouteChanged(_))),
            "{told:?}"
        );
        ip("rule add fwmark 9 lookup 99");
        assert_eq!(changes(&host).await, [route_changed("0.0.0.0/0")]);
    });
}

fn route_changed(destination: &str) -> NetworkChange {
    NetworkChange::RouteChanged(destination.parse().expect("a prefix"))
}

/// As they are told.
fn mtus(device: u32, routes: &[u32]) -> NetworkChange {
    NetworkChange::Mtus(Mtus { device, routes: routes.iter().copied().collect() })
}

#[test]
fn the_mtus_of_our_device_and_of_routes_to_it_are_told_when_they_change() {
    in_own_network(async || {
        uplink();
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24", "fd77::1/64"], &["10.1.0.0/16"])).await.expect("applied");
        assert!(changes(&host).await.contains(&mtus(1420, &[])));
        ip(&format!("link set {DEVICE} mtu 1300"));
        assert!(changes(&host).await.contains(&mtus(1300, &[])));
        ip(&format!("route add 10.2.0.0/16 dev {DEVICE} mtu 1290"));
        assert_eq!(changes(&host).await, [mtus(1300, &[1290])]);
        ip(&format!("-6 route add fd78::/64 dev {DEVICE} table 77 mtu 1280"));
        assert_eq!(changes(&host).await, [mtus(1300, &[1280, 1290])]);
        ip(&format!("route change 10.2.0.0/16 dev {DEVICE}"));
        assert_eq!(changes(&host).await, [mtus(1300, &[1280])]);
        ip(&format!("-6 route delete fd78::/64 dev {DEVICE} table 77"));
        assert_eq!(changes(&host).await, [mtus(1300, &[])]);
        ip("route add 10.3.0.0/16 dev up0 mtu 1200");
        assert_eq!(changes(&host).await, [route_changed("10.3.0.0/16")], "another device's is none of ours");
    });
}

#[test]
fn a_link_that_goes_down_is_told() {
    in_own_network(async || {
        uplink();
        let host = open().await;
        ip("link set up0 down");
        assert!(changes(&host).await.contains(&NetworkChange::LinkChanged));
    });
}

#[test]
fn an_address_lost_in_an_overrun_is_found_by_reading_again() {
    in_own_network(async || {
        uplink();
        let host = open().await;
        tunnel(DEVICE);
        let mut many = plan(&[], &[]);
        for i in 0..20_000_u32 {
            let address = IpAddr::from((0x0b00_0000 + i * 256).to_be_bytes());
            many.routes
                .push(Route { destination: IpNet::new(address, 24).expect("a prefix"), table: MAIN_TABLE });
        }
        // Our own routes fill the subscription, which nobody reads.
        host.apply(&many).await.expect("applied");
        ip("address delete 192.0.2.10/24 dev up0");
        let gone: IpAddr = "192.0.2.10".parse().expect("an address");
        assert!(changes(&host).await.contains(&NetworkChange::AddressRemoved(gone)));
    });
}

#[test]
fn a_free_table_is_one_that_no_route_rule_or_mark_uses() {
    in_own_network(async || {
        uplink();
        let host = open().await;
        assert_eq!(host.free_table().await.expect("a table"), 51_820);
        ip("route add 203.0.113.0/24 dev up0 table 51820");
        assert_eq!(host.free_table().await.expect("a table"), 51_821);
        ip("-6 route add 2001:db8:7::/48 dev up0 table 51821");
        assert_eq!(host.free_table().await.expect("a table"), 51_822);
        ip("rule add from 10.0.0.0/8 lookup 51822");
        assert_eq!(host.free_table().await.expect("a table"), 51_823);
        ip("-6 rule add fwmark 51823 lookup 100");
        assert_eq!(host.free_table().await.expect("a table"), 51_824);
        ip("route delete 203.0.113.0/24 dev up0 table 51820");
        assert_eq!(host.free_table().await.expect("a table"), 51_820, "a table that became empty is free");
    });
}

#[test]
fn two_daemons_that_start_at_once_are_told_different_tables() {
    in_own_network(async || {
        let (first, second) = (open().await, open().await);
        assert_eq!(first.free_table().await.expect("a table"), 51_820);
        assert_eq!(second.free_table().await.expect("a table"), 51_821, "the first is not filled yet");
        drop(first);
        // A command that another test starts at this moment may inherit the descriptor for a while.
        let freed = async {
            while second.free_table().await.expect("a table") != 51_820 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), freed).await.expect("the first is gone");
    });
}

#[test]
fn the_kernel_says_nothing_into_the_tunnel_by_itself() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        host.apply(&plan(&["10.77.0.1/24", "fd77::1/64"], &[])).await.expect("applied");
        let flags = ip(&format!("link show {DEVICE}"));
        assert!(!flags.contains("MULTICAST"), "{flags}");
        let addresses = ip(&format!("-6 address show dev {DEVICE}"));
        assert!(!addresses.contains("fe80:") && addresses.contains("fd77::1/64"), "{addresses}");
    });
}

#[test]
fn the_hosts_own_addresses_are_known() {
    in_own_network(async || {
        uplink();
        let host = open().await;
        for (address, is_ours) in
            [("192.0.2.10", true), ("2001:db8::10", true), ("192.0.2.1", false), ("2001:db8::1", false)]
        {
            let address = address.parse().expect("an address");
            assert_eq!(host.has_address(address).await.expect("read"), is_ours, "{address}");
        }
    });
}

#[test]
fn an_existing_device_is_described_with_its_kind() {
    in_own_network(async || {
        let host = open().await;
        assert_eq!(host.device_exists(DEVICE).await.expect("read"), None);
        ethernet(DEVICE);
        let told = host.device_exists(DEVICE).await.expect("read").expect("it exists");
        assert_eq!(told, "interface vpnd0 exists already (a device of kind veth)");
        ip(&format!("link delete {DEVICE}"));
        tunnel(DEVICE);
        let told = host.device_exists(DEVICE).await.expect("read").expect("it exists");
        assert!(told.contains("a TUN that no process seen from here holds"), "{told}");
    });
}

#[test]
fn the_process_that_holds_a_tun_is_named() {
    in_own_network(async || {
        let host = open().await;
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(DEVICE);
        let device = tun::create(&configuration).expect("root may make a TUN");
        let told = host.device_exists(DEVICE).await.expect("read").expect("it exists");
        let held = format!("interface vpnd0 exists already (a TUN held by process {}, ", std::process::id());
        assert!(told.starts_with(&held), "{told}");
        drop(device);
        // A command that another test starts at this moment may inherit the descriptor for a while.
        let gone = async {
            while host.device_exists(DEVICE).await.expect("read").is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the device vanishes");
    });
}

#[test]
fn a_question_that_was_dropped_half_way_does_not_spoil_the_next() {
    in_own_network(async || {
        tunnel(DEVICE);
        let host = open().await;
        let routes: Vec<_> = (0..2000).map(|i| format!("10.{}.{}.0/24", i / 256, i % 256)).collect();
        let routes: Vec<_> = routes.iter().map(String::as_str).collect();
        host.apply(&plan(&["192.168.7.1/24"], &routes)).await.expect("applied");
        let address = "192.168.7.1".parse().expect("an address");
        for _ in 0..20 {
            // Polled once, then dropped: the question is sent, the answer not read to its end.
            let _ = futures_util::FutureExt::now_or_never(host.free_table());
            assert!(host.has_address(address).await.expect("read"));
        }
        assert_eq!(host.free_table().await.expect("a table"), OWN);
    });
}
