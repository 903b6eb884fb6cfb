//! An application hears at once that a destination belongs to nobody.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use vpnd::lab::{Host, link};

use crate::{
    common::{need_root, program},
    world::{Pair, Spec, carries, sh},
};

#[test]
fn a_destination_that_no_peer_owns_is_unreachable_at_once() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("nobody", &Spec::default());
    let left = &pair.left.host;
    sh(left, "ip route add 10.99.0.0/24 dev vpn0; ip -6 route add fd99::/64 dev vpn0");
    for nobody in ["10.99.0.1", "fd99::1"] {
        let address = nobody.parse().expect("an address");
        assert_eq!(left.ping(address, 1).expect("ping runs").refused, 1, "{nobody}");
        // A socket that is bound to the device hears what comes from there alone.
        for bound in ["", "-I vpn0"] {
            let page = sh(left, &format!("ping -c 1 -W 5 {bound} {nobody} || true"));
            assert!(page.contains("+1 errors") && page.to_lowercase().contains("unreachable"), "{page}");
        }
        // Without an answer it would be TimedOut.
        let connect = || TcpStream::connect_timeout(&SocketAddr::new(address, 80), Duration::from_secs(5));
        let error = left.run(connect).expect_err("nobody is there");
        let errno = error.raw_os_error().expect("the kernel's answer");
        assert!([libc::EHOSTUNREACH, libc::ENETUNREACH].contains(&errno), "{nobody}: {error}");
    }
    assert!(pair.left.refused("no_peer") >= 6);
}

#[test]
fn a_peer_whose_place_is_not_known_is_unreachable_at_once() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("nowhere", &Spec { right_knows_left: false, ..Spec::default() });
    for inner in [pair.left.inner4, pair.left.inner6] {
        assert_eq!(pair.right.host.ping(inner, 1).expect("ping runs").refused, 1, "{inner}");
    }
    pair.left.ping(pair.right.inner4, 1);
    pair.right.ping(pair.left.inner6, 1);
}

/// A host behind this one, of either family, without NAT: the router's own address speaks, as any router's.
#[test]
fn a_host_behind_hears_from_its_router_that_nobody_has_the_destination() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("behind", &Spec::default());
    let router = &pair.left.host;
    let behind = Host::create("vpnd-behind-host").expect("a namespace");
    link::veth(&behind, "eth0", router, "eth1").expect("a cable");
    for (host, device, number) in [(router, "eth1", 1), (&behind, "eth0", 2)] {
        host.add_address(device, &format!("198.51.100.{number}/24")).expect("an address");
        host.add_address(device, &format!("2001:db8:1::{number}/64")).expect("an address");
    }
    for forwarding in ["ipv4.ip_forward", "ipv6.conf.all.forwarding"] {
        router.sysctl(forwarding, "1").expect("a router");
    }
    carries(&behind, router, ["198.51.100.1", "2001:db8:1::1"]);
    sh(&behind, "ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:1::1");
    sh(router, "ip route add 10.99.0.0/24 dev vpn0; ip -6 route add fd99::/64 dev vpn0");
    for (nobody, from) in [("10.99.0.1", "From 198.51.100.1 "), ("fd99::1", "From 2001:db8:1::1 ")] {
        let page = sh(&behind, &format!("LANG=C ping -c 1 -W 5 {nobody} || true"));
        // Who may open no raw socket speaks in the name of whom nobody has.
        let from = if program::user().is_some() { format!("From {nobody} ") } else { from.to_owned() };
        assert!(page.contains(&from) && page.to_lowercase().contains("unreachable"), "{page}");
    }
}
