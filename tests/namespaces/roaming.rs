//! A peer that moves is followed: its next authentic packet says where it is.

use crate::{
    common::need_root,
    world::{Pair, Spec, sh},
};

/// Scenario 8.
#[test]
fn an_end_that_changes_address_and_port_is_followed() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("roam4", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.ping(right.inner4, 1);
    assert_eq!(right.shown("endpoints", &left.key()), "192.0.2.1:51820");

    sh(&left.host, "ip address add 192.0.2.99/24 dev eth0; ip address delete 192.0.2.1/24 dev eth0");
    left.set("listen-port 9999");
    // Deleting the first address took the second with it, where promote_secondaries is off.
    sh(&left.host, "ip address replace 192.0.2.99/24 dev eth0");
    left.ping(right.inner6, 1);
    assert_eq!(right.shown("endpoints", &left.key()), "192.0.2.99:9999");
    right.ping(left.inner4, 1);

    sh(&right.host, "ip address delete 192.0.2.2/24 dev eth0; ip address add 192.0.2.98/24 dev eth0");
    right.set("listen-port 9998");
    right.ping(left.inner6, 1);
    assert_eq!(left.shown("endpoints", &right.key()), "192.0.2.98:9998");
    left.ping(right.inner4, 1);
}

/// Scenario 9.
#[test]
fn an_end_that_changes_the_family_is_followed() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("roam6", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.ping(right.inner4, 1);

    left.set(&format!("listen-port 9998 peer {} endpoint [2001:db8::2]:51820", right.key()));
    left.ping(right.inner4, 1);
    assert_eq!(right.shown("endpoints", &left.key()), "[2001:db8::1]:9998");
    right.ping(left.inner6, 1);

    right.set(&format!("peer {} endpoint 192.0.2.1:9998", left.key()));
    right.ping(left.inner6, 1);
    assert_eq!(left.shown("endpoints", &right.key()), "192.0.2.2:51820");
    left.ping(right.inner4, 1);
}
