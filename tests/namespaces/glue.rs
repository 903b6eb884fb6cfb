//! What the daemon's own hands must do right between the rooms.

use std::time::Duration;

use crate::{
    common::need_root,
    world::{Pair, Spec, sh, wait_until},
};

#[test]
fn a_datagram_that_cannot_be_sent_is_counted_once() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("unsent", &Spec::default());
    let key = pair.right.key();
    pair.left.set(&format!("peer {key} endpoint 203.0.113.9:51820"));
    sh(&pair.left.host, "ping -c 1 -W 1 10.77.0.2 || true");
    // The next initiation is five seconds away.
    assert!(
        wait_until(Duration::from_secs(4), || pair.left.refused("send_failed") > 0),
        "{}",
        pair.left.log()
    );
    assert_eq!(pair.left.refused("send_failed"), 1, "{}", pair.left.log());
}

#[test]
fn another_mark_or_port_forgets_from_which_address_a_peer_was_answered() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("sticky", &Spec::default());
    pair.right.host.add_address("eth0", "192.0.2.22/24").expect("a second address");
    let local = || pair.right.status()["peers"][0]["local"].clone();
    let contact = |port: u16| {
        pair.left.set(&format!("peer {} endpoint 192.0.2.22:{port}", pair.right.key()));
        pair.left.ping(pair.right.inner4, 1);
        assert_eq!(local(), "192.0.2.22", "answers leave from where the question came to");
    };
    contact(51820);
    pair.right.set("fwmark 0x7");
    assert!(local().is_null(), "the mark may lead another way: {}", local());
    contact(51820);
    pair.right.set("listen-port 51821");
    assert!(local().is_null(), "{}", local());
    contact(51821);
}
