//! What other programs do to the device while the daemon runs: removed things come back, a device that was set down
//! stays down until it is set up again, and a fight between two programs ends in patience.

use std::time::Duration;

use crate::{
    common::need_root,
    world::{DEVICE, Node, Pair, Spec, sh, wait_until},
};

/// A second, as is promised, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(4);

fn operation(node: &Node) -> serde_json::Value {
    node.status()["operation"].clone()
}

/// What is there of ours; the priorities of rules are the daemon's choice.
fn seen(node: &Node) -> String {
    sh(
        &node.host,
        "ip -o addr show dev vpn0 | sed 's/valid_lft.*//'; (ip route show table all; ip -6 route show table all) \
         | grep 'vpn0.*proto 118' | sort; (ip rule; ip -6 rule) | grep 'proto 118' | sed 's/^[0-9]*://'",
    )
}

#[test]
fn what_is_removed_or_flushed_comes_back_within_a_second_and_is_counted() {
    if !need_root() {
        return;
    }
    let (_, peers) = peers();
    let node = Node::alone("drift", "", &peers);
    let before = seen(&node);
    assert_eq!(before.matches("proto 118").count(), 10, "{before}");
    let thefts = [
        "ip addr flush dev vpn0",
        "ip route flush dev vpn0; ip -6 route flush dev vpn0 proto 118",
        "ip route flush table 51820; ip -6 route flush table 51820",
        "for f in -4 -6; do ip $f rule | grep 'proto 118' | cut -d: -f1 | while read p; do ip $f rule del priority $p || true; done; done",
    ];
    for (number, theft) in thefts.iter().enumerate() {
        sh(&node.host, theft);
        let mended = wait_until(SOON, || seen(&node) == before);
        assert!(mended, "{theft}: {}\nnot\n{before}\n{}", seen(&node), node.log());
        assert!(rounds(&node) > number, "{theft}: {}", node.log());
    }
    let operation = operation(&node);
    assert!(operation["put_back"].as_u64().expect("a count") >= 12, "{operation}");
    assert!(operation["put_back_last"].as_str().expect("words").contains("add "), "{operation}");
    assert_eq!(operation["differs"], serde_json::json!([]));
    // On a busy machine one theft is mended while it goes on, more than once: then it looks like a fight.
    let rounds = rounds(&node);
    assert!(rounds > thefts.len() || operation["contested"] == false, "{rounds} rounds: {operation}");
}

/// How often it put something back: the line of the fifth time is another.
fn rounds(node: &Node) -> usize {
    let log = node.log();
    ["put back what another program removed", "again and again"]
        .map(|said| log.matches(said).count())
        .iter()
        .sum()
}

/// One peer that has all kinds of prefixes.
fn peers() -> (vpnd::noise::PublicKey, String) {
    let key = vpnd::noise::PrivateKey::generate(&mut vpnd::sys::random::os_rng()).public_key();
    let allowed_ips = ["10.1.0.0/16", "fd01::/16", "0.0.0.0/0", "::/0"];
    (key, format!("[[peer]]\npublic_key = \"{key}\"\nallowed_ips = {allowed_ips:?}\n"))
}

#[test]
fn two_programs_that_fight_do_not_wear_the_host_out_and_the_operator_is_told() {
    if !need_root() {
        return;
    }
    let (_, peers) = peers();
    let node = Node::alone("fight", "", &peers);
    // Removed as soon as it is there.
    let thief =
        "for i in $(seq 400); do ip route del 10.1.0.0/16 dev vpn0 2>/dev/null || true; sleep 0.01; done";
    sh(&node.host, thief);
    let operation = operation(&node);
    let put_back = operation["put_back"].as_u64().expect("a count");
    assert!((5..=7).contains(&put_back), "{operation}\n{}", node.log());
    assert_eq!(operation["contested"], true);
    let log = node.log();
    assert_eq!(log.matches("again and again").count(), 1, "{log}");
    assert!(log.matches("put back").count() < 12, "{log}");
}

#[test]
fn a_device_that_was_set_down_stays_down_and_all_of_it_comes_back_with_up() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("downup", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.ping(right.inner4, 1);
    let (before, handshake) = (seen(left), left.last_handshake(&right.key()));
    sh(&left.host, "ip link set vpn0 down");
    assert!(wait_until(SOON, || operation(left)["link_down"] == true), "{}", left.log());
    assert!(left.log().contains("stays down"), "{}", left.log());
    assert!(!right.reaches(left.inner4), "a device that is down carries nothing");
    assert!(sh(&left.host, "ip link show vpn0").contains("state DOWN"));
    sh(&left.host, "ip link set vpn0 up");
    assert!(wait_until(SOON, || seen(left) == before), "{}\nnot\n{before}", seen(left));
    left.ping(right.inner4, 1);
    left.ping(right.inner6, 1);
    assert_eq!(left.last_handshake(&right.key()), handshake, "the session lived on");
    assert_eq!((&operation(left)["link_down"], &operation(left)["put_back"]), (&false.into(), &0.into()));

    // Faster than anybody can look, and it is up at the end: all must be there.
    sh(&left.host, "for i in $(seq 30); do ip link set vpn0 down; ip link set vpn0 up; done");
    assert!(wait_until(SOON, || seen(left) == before), "{}\nnot\n{before}", seen(left));
    left.ping(right.inner6, 1);

    // A reload is a wish for a tunnel that works, too.
    sh(&left.host, "ip link set vpn0 down");
    assert!(wait_until(SOON, || operation(left)["link_down"] == true), "{}", left.log());
    sh(&left.host, &format!("kill -HUP {}", left.pid()));
    assert!(
        wait_until(SOON, || operation(left)["link_down"] == false && seen(left) == before),
        "{}",
        left.log()
    );
    left.ping(right.inner4, 1);
}

#[test]
fn what_is_set_over_the_control_socket_differs_from_the_file_until_a_reload() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("differs", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.ping(right.inner4, 1);
    let (conf, key) = (left.wg(&["showconf", DEVICE]), right.key());
    left.set(&format!(
        "peer {key} allowed-ips 10.77.0.2/32,10.5.0.0/16 persistent-keepalive 9 endpoint 192.0.2.9:1"
    ));
    left.set("fwmark 5 listen-port 4444");
    sh(&left.host, "ip link set vpn0 mtu 1300");
    let name = key.short();
    let expected = serde_json::json!([
        "mtu 1420 → 1300",
        "listen_port 51820 → 4444",
        "fwmark off → 0x5",
        format!("peer {name}: endpoint 192.0.2.2:51820 → 192.0.2.9:1"),
        format!("peer {name}: persistent_keepalive off → 9"),
        format!("peer {name}: allowed_ips +10.5.0.0/16 -fd77::2/128"),
    ]);
    assert!(wait_until(SOON, || operation(left)["differs"] == expected), "{}", operation(left)["differs"]);
    let mut command = left.host.command(env!("CARGO_BIN_EXE_vpnd")).expect("the namespace is open");
    command.args(["status", DEVICE, "--run-dir"]).arg(left.daemon().run_dir());
    let page = command.output().expect("it can be started");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        page.contains("differs from the file") && page.contains("    listen_port 51820 → 4444"),
        "{page}"
    );
    // No routes are made for what `wg` sets, as with the kernel's own WireGuard: only the file makes routes.
    assert_eq!(sh(&left.host, "ip route show 10.5.0.0/16"), "");

    sh(&left.host, &format!("kill -HUP {}", left.pid()));
    assert!(wait_until(SOON, || operation(left)["differs"] == serde_json::json!([])), "{}", left.log());
    assert_eq!(left.wg(&["showconf", DEVICE]), conf);
    assert!(wait_until(SOON, || left.reaches(right.inner4)), "{}", left.log());
}
