//! Rows about paths that are narrower than anybody knows: TCP of hosts behind the two ends.

use std::{net::IpAddr, time::Duration};

use vpnd::lab::{Host, link, tcp_transfer};

use crate::{
    Torment,
    report::Figure,
    world::{Node, Outer, PORT, sh, wait_until},
};

/// A path of this MTU: host – left end – router – right end – host.
struct Path {
    near: Host,
    far: Host,
    left: Node,
    _right: Node,
    _router: Host,
}

/// What a path is like.
struct Kind {
    name: String,
    /// At its narrowest.
    mtu: u32,
    /// Is anybody told of what is too large?
    icmp: bool,
    /// What carries the tunnel.
    outer: Outer,
    /// The tunnel's own.
    inner_mtu: u16,
    /// More lines for `[interface]`.
    interface: &'static str,
}

impl Kind {
    fn new(name: impl Into<String>, mtu: u32, icmp: bool) -> Self {
        Self { name: name.into(), mtu, icmp, outer: Outer::V4, inner_mtu: 1420, interface: "" }
    }
}

/// The two cables between the ends: each end's address, and the router's.
const CABLES4: [[&str; 2]; 2] = [["192.0.2.1/24", "192.0.2.2/24"], ["198.51.100.2/24", "198.51.100.1/24"]];
const CABLES6: [[&str; 2]; 2] =
    [["2001:db8:1::1/64", "2001:db8:1::2/64"], ["2001:db8:2::2/64", "2001:db8:2::1/64"]];

fn bare(address: &str) -> IpAddr {
    let (address, _) = address.split_once('/').expect("a prefix");
    address.parse().expect("an address")
}

impl Path {
    fn new(kind: &Kind) -> Self {
        let Kind { name, mtu, icmp, outer, inner_mtu, interface } = kind;
        let [near, left, router, right, far] = ["h", "l", "m", "r", "t"]
            .map(|end| Host::create(&format!("vpnd-{name}-{end}")).expect("a namespace"));
        let cable = |a: &Host, on_a: &str, b: &Host, on_b: &str, net: &str| {
            link::veth(a, on_a, b, on_b).expect("a cable");
            a.add_address(on_a, &format!("{net}.1/24")).expect("an address");
            b.add_address(on_b, &format!("{net}.2/24")).expect("an address");
        };
        cable(&near, "eth0", &left, "lan", "10.1.0");
        cable(&right, "lan", &far, "eth0", "10.2.0");
        let cables = if *outer == Outer::V4 { CABLES4 } else { CABLES6 };
        for ([ends, routers], end, on_router) in [(cables[0], &left, "one"), (cables[1], &right, "two")] {
            link::veth(end, "eth0", &router, on_router).expect("a cable");
            end.add_address("eth0", ends).expect("an address");
            router.add_address(on_router, routers).expect("an address");
        }
        let [outer_left, outer_right] = cables.map(|[end, _]| bare(end));
        let via = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        near.add_route("10.2.0.0/24", via("10.1.0.2"), "eth0").expect("a route");
        far.add_route("10.1.0.0/24", via("10.2.0.1"), "eth0").expect("a route");
        let width = if *outer == Outer::V4 { 32 } else { 128 };
        for (host, to, [_, router]) in [(&left, outer_right, cables[0]), (&right, outer_left, cables[1])] {
            host.add_route(&format!("{to}/{width}"), Some(bare(router)), "eth0").expect("a route");
        }
        for host in [&left, &router, &right] {
            host.sysctl("ipv4.ip_forward", "1").expect("a router");
            host.sysctl("ipv6.conf.all.forwarding", "1").expect("a router");
        }
        // The narrow place is behind the router, where neither end sees it.
        link::mtu(&router, "two", *mtu).expect("an MTU");
        link::mtu(&right, "eth0", *mtu).expect("an MTU");
        let answered = || left.ping(outer_right, 1).is_ok_and(|pings| pings.received == 1);
        assert!(wait_until(Duration::from_secs(10), answered), "no way over the router");
        if !icmp {
            for host in [&left, &router, &right] {
                sh(
                    host,
                    "nft 'table inet vpnd_test { chain out { type filter hook output priority 0; \
                     icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }'",
                );
            }
        }
        let keys = [(); 2].map(|()| vpnd::noise::PrivateKey::generate(&mut vpnd::sys::random::os_rng()));
        let start = |n: usize, host: Host, endpoint: IpAddr, net: &str| {
            let peer = crate::world::PeerText {
                key: keys[2 - n].public_key(),
                preshared: None,
                endpoint: Some((endpoint, PORT)),
                allowed_ips: vec![format!("10.77.0.{}/32", 3 - n), net.to_owned()],
                keepalive: 0,
            };
            let file = crate::world::NodeFile {
                private: &keys[n - 1],
                address: &[format!("10.77.0.{n}/24")],
                mtu: *inner_mtu,
                interface,
                peers: &peer.toml(),
            };
            Node {
                kind: crate::world::Kind::Vpnd,
                private: keys[n - 1].clone(),
                inner4: format!("10.77.0.{n}").parse().expect("an address"),
                inner6: format!("fd77::{n}").parse().expect("an address"),
                outer: if n == 1 { outer_left } else { outer_right },
                running: crate::world::start_vpnd(&host, &file.toml(), &[]),
                host,
            }
        };
        let right = start(2, right, outer_left, "10.1.0.0/24");
        let left = start(1, left, outer_right, "10.2.0.0/24");
        left.ping("10.77.0.2".parse().expect("an address"), 1);
        Self { near, far, left, _right: right, _router: router }
    }
}

/// 10 MB of TCP between hosts behind the two ends, over a path that is narrower than anybody knows.
pub fn narrow_paths(torment: &Torment) -> Vec<Figure> {
    let bytes = torment.count(10_000_000, 300_000);
    let mut figures = Vec::new();
    for mtu in [1280, 1300, 1400] {
        for icmp in [true, false] {
            figures.extend(narrow(bytes, &Kind::new(format!("mtu{mtu}{icmp}"), mtu, icmp)));
            // Over IPv6 nobody on the way cuts a packet. Where the sender hears of it, its kernel does; where it does not,
            // the operator must have said so.
            let inner_mtu = if icmp { 1420 } else { mtu as u16 - 80 };
            let kind = Kind::new(format!("six{mtu}{icmp}"), mtu, icmp);
            figures.extend(narrow(bytes, &Kind { outer: Outer::V6, inner_mtu, ..kind }));
        }
    }
    figures.push(without_clamping(bytes.min(300_000)));
    figures.push(too_big());
    figures
}

/// TCP over such a path, and whether its SYN was altered.
fn narrow(bytes: u64, kind: &Kind) -> [Figure; 2] {
    let path = Path::new(kind);
    let transfer = carried(&path, bytes);
    let clamped = path.left.status()["mss_clamped"].as_u64().unwrap_or(0);
    let told = if kind.icmp { "allowed" } else { "dropped" };
    let of =
        format!("path MTU {}, ICMP {told}, {:?} outside, tunnel {}", kind.mtu, kind.outer, kind.inner_mtu);
    [
        Figure::hard(
            format!("{:.1} MB of TCP, {of}", bytes as f64 / 1e6),
            "completes",
            transfer.map_or("no".to_owned(), |seconds| format!("in {seconds:.1} s")),
            transfer.is_some(),
        ),
        Figure::hard(format!("MSS clamped on forwarded SYNs, {of}"), "> 0", clamped, clamped > 0),
    ]
}

fn carried(path: &Path, bytes: u64) -> Option<f64> {
    let address = "10.2.0.2".parse().expect("an address");
    let limit = Duration::from_secs(30);
    let transfer = tcp_transfer(&path.near, &path.far, address, bytes, limit).ok()?;
    transfer.intact.then_some(transfer.seconds)
}

/// The counter-proof: where nothing is clamped and nobody is told, TCP hangs. Else the rows above would show nothing.
fn without_clamping(bytes: u64) -> Figure {
    let path = Path::new(&Kind { interface: "clamp_mss = false", ..Kind::new("unclamped", 1500, false) });
    // The kernel itself finds out by probing after a while (tcp_mtu_probing), where it is allowed to.
    for host in [&path.near, &path.far] {
        host.sysctl("ipv4.tcp_mtu_probing", "0").expect("a setting");
    }
    let address = "10.2.0.2".parse().expect("an address");
    let hangs = tcp_transfer(&path.near, &path.far, address, bytes, Duration::from_secs(4)).is_err();
    Figure::hard(
        "the same with clamp_mss = false and ICMP dropped",
        "hangs",
        if hangs { "it does" } else { "no" },
        hangs,
    )
}

/// A host behind the left end sends a packet that is too large, and may not be cut: it hears of it, with the MTU.
fn too_big() -> Figure {
    let path = Path::new(&Kind::new("toobig", 1500, true));
    let said = crate::world::attempt(&path.near, &{
        let mut ping = std::process::Command::new("ping");
        ping.args(["-c", "2", "-W", "1", "-i", "0.2", "-M", "do", "-s", "1450", "10.2.0.2"]);
        ping
    });
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    let told = said.contains("mtu = 1420") || said.contains("mtu=1420");
    Figure::hard("a packet too large for the tunnel: its sender is told", "mtu = 1420", told, told)
}
