//! Rows about a bad network: what a relay between the two ends loses, doubles, damages, delays; and a narrow path.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use vpnd::lab::{Host, link, tcp_transfer};

use crate::{
    Torment,
    common::flow::Flow,
    relay::{Mess, Relay, Way},
    report::Figure,
    world::{DEVICE, Node, PORT, Pair, Spec, sh, wait_until},
};

/// Left talks to right through a relay on right's host.
fn relayed(name: &str, seed: u64) -> (Pair, Relay) {
    let pair = Pair::start(name, &Spec { right_knows_left: false, ..Spec::default() });
    let front = SocketAddr::new(pair.right.outer, 4000);
    let relay = Relay::start(&pair.right.host, front, SocketAddr::new(pair.right.outer, PORT), seed);
    pair.left.set(&format!("peer {} endpoint {front}", pair.right.key()));
    pair.left.ping(pair.right.inner4, 1);
    (pair, relay)
}

/// Loss, doubles, reordering, delay, damage; each by itself.
pub fn loss(torment: &Torment) -> Vec<Figure> {
    let millis = Duration::from_millis;
    let messes = [
        ("loss 1 %", Mess { loss: 1, ..Mess::default() }),
        ("loss 5 %", Mess { loss: 5, ..Mess::default() }),
        ("loss 20 %", Mess { loss: 20, ..Mess::default() }),
        ("duplication 10 %", Mess { duplication: 10, ..Mess::default() }),
        ("reordering 25 %", Mess { reordering: 25, delay: millis(20), ..Mess::default() }),
        ("delay 0 to 200 ms", Mess { jitter: millis(200), ..Mess::default() }),
        ("corruption 1 %", Mess { corruption: 1, ..Mess::default() }),
        ("truncation 1 %", Mess { truncation: 1, ..Mess::default() }),
    ];
    let (pair, relay) = relayed("loss", torment.seed);
    let mut figures = Vec::new();
    for (number, (name, mess)) in messes.into_iter().enumerate() {
        if !torment.is_full() && ![1, 3, 4, 6].contains(&number) {
            continue;
        }
        relay.make(mess);
        figures.extend(datagrams(torment, &pair, &relay, name));
        figures.push(stream(torment, &pair, name));
        relay.make(Mess::default());
        pair.left.ping(pair.right.inner4, 1);
    }
    figures.push(one_way_dead(&pair, &relay));
    figures.push(rebinding(&pair, &relay));
    figures
}

/// Numbered datagrams: what the relay passed on whole came out, once.
fn datagrams(torment: &Torment, pair: &Pair, relay: &Relay, name: &str) -> Vec<Figure> {
    let before = relay.lost(Way::There);
    let pace = Duration::from_micros(500);
    let flow = Flow::start(&pair.left.host, &pair.right.host, pair.right.inner4, pace, 1000);
    thread::sleep(torment.time(Duration::from_secs(20)));
    let arrived = flow.finish();
    // Keepalives and such are among those that it lost: at most, so much was lost by chance.
    let lost = relay.lost(Way::There) - before;
    let delivered = 1.0 - arrived.lost.len() as f64 / arrived.sent as f64;
    let least = 1.0 - lost as f64 / arrived.sent as f64 - 0.001;
    vec![
        Figure::hard(
            format!("datagrams delivered, {name}"),
            format!("≥ {:.2} % (1 − the relay's loss − 0.1)", least * 100.0),
            format!("{:.2} % of {}", delivered * 100.0, arrived.sent),
            delivered >= least,
        ),
        Figure::hard(
            format!("doubles and damaged ones, {name}"),
            "0, 0",
            format!("{}, {}", arrived.doubled, arrived.damaged),
            (arrived.doubled, arrived.damaged) == (0, 0),
        ),
    ]
}

/// TCP, each byte checked; as much as goes in the time that there is.
fn stream(torment: &Torment, pair: &Pair, name: &str) -> Figure {
    let wanted = torment.count(1_000_000_000, 100_000);
    let chunk = wanted.min(if name == "loss 20 %" { 500_000 } else { 20_000_000 });
    let limit = torment.time(Duration::from_secs(100)).max(Duration::from_secs(10));
    let begin = Instant::now();
    let (mut carried, mut intact) = (0, true);
    while carried < wanted && begin.elapsed() < limit {
        let patience = limit.saturating_sub(begin.elapsed()).max(Duration::from_secs(5));
        match tcp_transfer(&pair.left.host, &pair.right.host, pair.right.inner4, chunk, patience) {
            Ok(transfer) => {
                intact &= transfer.intact;
                carried += chunk;
            }
            // Out of time: what came before it counts.
            Err(_) => break,
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let figure = Figure {
        // How much goes is the network's affair; that it is whole is ours.
        speed: intact && carried > 0,
        ..Figure::hard(
            format!("TCP, every byte checked, {name}"),
            format!("{:.1} MB", wanted as f64 / 1e6),
            format!(
                "{:.1} MB in {seconds:.0} s, {}",
                carried as f64 / 1e6,
                if intact { "all equal" } else { "ALTERED" }
            ),
            intact && carried >= wanted,
        )
    };
    if carried < wanted { figure.note("the time for it was over; TCP is slow at such loss") } else { figure }
}

/// One direction is dead for a while: the session is found again.
fn one_way_dead(pair: &Pair, relay: &Relay) -> Figure {
    let mut recovered = true;
    let mut slowest = Duration::ZERO;
    for way in [Way::There, Way::Back] {
        relay.make(Mess { dead: Some(way), ..Mess::default() });
        recovered &= !pair.left.reaches(pair.right.inner4);
        relay.make(Mess::default());
        let begin = Instant::now();
        recovered &= wait_until(Duration::from_secs(10), || pair.left.reaches(pair.right.inner4));
        slowest = slowest.max(begin.elapsed());
    }
    Figure::hard(
        "one direction dead for a while, then traffic again",
        "≤ 6 s",
        format!("{:.1} s", slowest.as_secs_f64()),
        recovered && slowest < Duration::from_secs(6),
    )
}

/// A NAT that forgets, ten times, while pings go.
fn rebinding(pair: &Pair, relay: &Relay) -> Figure {
    let mut answered = 0;
    for _ in 0..10 {
        relay.rebind(&pair.right.host);
        answered += u32::from(pair.left.reaches(pair.right.inner4));
    }
    Figure::hard("NAT rebinding: first ping from the new port answered", "10 of 10", answered, answered == 10)
}

/// Half of all datagrams are lost: the handshake completes.
pub fn handshakes(torment: &Torment) -> Vec<Figure> {
    let pairs = torment.count(8, 1);
    let seconds: Vec<f64> = thread::scope(|scope| {
        let each = |n: u64| {
            scope.spawn(move || {
                let (pair, relay) = relayed(&format!("half{n}"), torment.seed + n);
                relay.make(Mess { loss: 50, ..Mess::default() });
                let key = pair.right.key();
                pair.left.set(&format!("peer {key} remove"));
                let begin = Instant::now();
                let endpoint = SocketAddr::new(pair.right.outer, 4000);
                pair.left.set(&format!(
                    "peer {key} endpoint {endpoint} persistent-keepalive 1 allowed-ips 10.77.0.2/32"
                ));
                let done = wait_until(Duration::from_secs(100), || pair.left.last_handshake(&key) != 0);
                if done { begin.elapsed().as_secs_f64() } else { f64::INFINITY }
            })
        };
        let running: Vec<_> = (0..pairs).map(each).collect();
        running.into_iter().map(|pair| pair.join().expect("a pair")).collect()
    });
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    vec![Figure::hard(
        format!("{pairs} handshakes at 50 % loss"),
        "≤ 90 s",
        format!("{slowest:.1} s the slowest"),
        slowest <= 90.0,
    )]
}

/// A path of this MTU: host – left end – router – right end – host.
struct Path {
    near: Host,
    far: Host,
    left: Node,
    _right: Node,
    _router: Host,
}

impl Path {
    /// `icmp`: is anybody told of what is too large?
    fn new(name: &str, mtu: u32, icmp: bool, interface: &str) -> Self {
        let [near, left, router, right, far] = ["h", "l", "m", "r", "t"]
            .map(|end| Host::create(&format!("vpnd-{name}-{end}")).expect("a namespace"));
        let cable = |a: &Host, on_a: &str, b: &Host, on_b: &str, net: &str| {
            link::veth(a, on_a, b, on_b).expect("a cable");
            a.add_address(on_a, &format!("{net}.1/24")).expect("an address");
            b.add_address(on_b, &format!("{net}.2/24")).expect("an address");
        };
        cable(&near, "eth0", &left, "lan", "10.1.0");
        cable(&left, "eth0", &router, "one", "192.0.2");
        cable(&router, "two", &right, "eth0", "198.51.100");
        cable(&right, "lan", &far, "eth0", "10.2.0");
        let via = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        near.add_route("10.2.0.0/24", via("10.1.0.2"), "eth0").expect("a route");
        far.add_route("10.1.0.0/24", via("10.2.0.1"), "eth0").expect("a route");
        left.add_route("198.51.100.0/24", via("192.0.2.2"), "eth0").expect("a route");
        right.add_route("192.0.2.0/24", via("198.51.100.1"), "eth0").expect("a route");
        for host in [&left, &router, &right] {
            host.sysctl("ipv4.ip_forward", "1").expect("a router");
        }
        // The narrow place is behind the router, where neither end sees it.
        link::mtu(&router, "two", mtu).expect("an MTU");
        link::mtu(&right, "eth0", mtu).expect("an MTU");
        if !icmp {
            for host in [&left, &router, &right] {
                sh(
                    host,
                    "nft 'table inet vpnd_test { chain out { type filter hook output priority 0; \
                     icmp type destination-unreachable drop; }; }'",
                );
            }
        }
        let keys = [(); 2].map(|()| vpnd::noise::PrivateKey::generate(&mut vpnd::sys::random::os_rng()));
        let start = |n: usize, host: Host, endpoint: &str, net: &str| {
            let peer = crate::world::PeerText {
                key: keys[2 - n].public_key(),
                preshared: None,
                endpoint: Some((endpoint.parse().expect("an address"), PORT)),
                allowed_ips: vec![format!("10.77.0.{}/32", 3 - n), net.to_owned()],
                keepalive: 0,
            };
            let file = crate::world::NodeFile {
                private: &keys[n - 1],
                address: &[format!("10.77.0.{n}/24")],
                mtu: 1420,
                interface,
                peers: &peer.toml(),
            };
            Node {
                kind: crate::world::Kind::Vpnd,
                private: keys[n - 1].clone(),
                inner4: format!("10.77.0.{n}").parse().expect("an address"),
                inner6: format!("fd77::{n}").parse().expect("an address"),
                outer: endpoint.parse().expect("an address"),
                running: crate::world::start_vpnd(&host, &file.toml(), &[]),
                host,
            }
        };
        let right = start(2, right, "192.0.2.1", "10.1.0.0/24");
        let left = start(1, left, "198.51.100.2", "10.2.0.0/24");
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
            let path = Path::new(&format!("mtu{mtu}{icmp}"), mtu, icmp, "");
            let transfer = carried(&path, bytes);
            let clamped = path.left.status()["mss_clamped"].as_u64().unwrap_or(0);
            let told = if icmp { "allowed" } else { "dropped" };
            figures.push(
                Figure::hard(
                    format!("{:.1} MB of TCP, path MTU {mtu}, ICMP {told}", bytes as f64 / 1e6),
                    "completes",
                    transfer.map_or("no".to_owned(), |seconds| format!("in {seconds:.1} s")),
                    transfer.is_some(),
                )
                .note(format!("{clamped} SYNs clamped")),
            );
            figures.push(Figure::hard(
                format!("MSS clamped on forwarded SYNs, path MTU {mtu}, ICMP {told}"),
                "> 0",
                clamped,
                clamped > 0,
            ));
        }
    }
    figures.push(without_clamping(bytes.min(300_000)));
    figures.push(too_big());
    figures
}

fn carried(path: &Path, bytes: u64) -> Option<f64> {
    let address = "10.2.0.2".parse().expect("an address");
    let limit = Duration::from_secs(30);
    let transfer = tcp_transfer(&path.near, &path.far, address, bytes, limit).ok()?;
    transfer.intact.then_some(transfer.seconds)
}

/// The counter-proof: where nothing is clamped and nobody is told, TCP hangs. Else the rows above would show nothing.
fn without_clamping(bytes: u64) -> Figure {
    let path = Path::new("unclamped", 1500, false, "clamp_mss = false");
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
    let path = Path::new("toobig", 1500, true, "");
    let said = crate::world::attempt(&path.near, &{
        let mut ping = std::process::Command::new("ping");
        ping.args(["-c", "2", "-W", "1", "-i", "0.2", "-M", "do", "-s", "1450", "10.2.0.2"]);
        ping
    });
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    let told = said.contains("mtu = 1420") || said.contains("mtu=1420");
    let _device = DEVICE;
    Figure::hard("a packet too large for the tunnel: its sender is told", "mtu = 1420", told, told)
}
