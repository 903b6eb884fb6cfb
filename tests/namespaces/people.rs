//! Peers that come and go by the operator's commands, and those whose time is over.

use std::time::Duration;

use vpnd::{config::date, noise::PrivateKey, sys::random::os_rng};

use crate::{
    common::need_root,
    world::{NodeFile, PORT, Running, cable, start_vpnd, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The wall clock, as the daemon sees it.
fn wall() -> Duration {
    vpnd::sys::clock::wall()
}

#[test]
fn a_peer_whose_time_is_over_is_cut_off_while_it_talks_without_a_reload() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("expires", 1500);
    let keys = [PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng())];
    // To the second, as the file says it; far enough to be connected before.
    let moment = Duration::from_secs(wall().as_secs() + 8);
    let start = |host, own: usize, more: &str| {
        let other = 1 - own;
        let peers = format!(
            "[[peer]]\nname = \"guest\"\npublic_key = \"{}\"\nallowed_ips = [\"10.77.0.{}/32\"]\nendpoint = \"192.0.2.{}:{PORT}\"\n{more}",
            keys[other].public_key(),
            other + 1,
            other + 1
        );
        let address = [format!("10.77.0.{}/24", own + 1)];
        let file =
            NodeFile { private: &keys[own], address: &address, mtu: 1420, interface: "", peers: &peers };
        match start_vpnd(host, &file.toml(), &[]) {
            Running::Vpnd(daemon) => daemon,
            Running::Other(..) => unreachable!("vpnd was asked for"),
        }
    };
    let gateway = start(&left, 0, &format!("expires = {}\n", date::written(moment)));
    let guest = start(&right, 1, "");
    let to_gateway = "10.77.0.1".parse().expect("an address");
    let reaches = || right.ping(to_gateway, 1).is_ok_and(|pings| pings.received == 1);
    assert!(wait_until(Duration::from_secs(6), reaches), "not connected: {}", gateway.log());
    let status = || gateway.status("vpn0").expect("a status");
    assert_eq!(
        (status()["peers"][0]["expired"].as_bool(), status()["peers"][0]["connected"].as_bool()),
        (Some(false), Some(true))
    );

    assert!(wait_until(PATIENCE, || wall() >= moment), "time goes on");
    assert!(wait_until(PATIENCE, || status()["peers"][0]["connected"] == false), "{}", status());
    assert!(!reaches(), "an expired peer was answered");
    assert_eq!(status()["peers"][0]["expired"], true);
    assert_eq!(status()["peers"][0]["expires"].as_f64(), Some(moment.as_secs_f64()));
    assert!(gateway.log().contains("expired: its time"), "{}", gateway.log());
    // Its own end notices after 15 s; a handshake of another host with this key shows the reason sooner.
    drop(guest);
    let _guest = start(&right, 1, "persistent_keepalive = 1\n");
    let refused = || {
        let status = status();
        let refusals = status["refusals"].as_array().expect("a list").clone();
        refusals.into_iter().find(|refusal| refusal["reason"] == "peer_expired")
    };
    assert!(wait_until(PATIENCE, || refused().is_some()), "{}", status());
    assert_eq!(refused().expect("it was refused")["last"]["peer"], "guest");
    assert!(!reaches());
}
