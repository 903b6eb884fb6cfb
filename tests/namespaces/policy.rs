//! A default route among the allowed IPs: wg-quick's policy (own table, own mark, `suppress_prefixlength`).

use std::{net::IpAddr, thread};

use vpnd::{
    lab::{Capture, Daemon, Host, MARK, Setup, link},
    noise::{PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    world::{
        DEVICE, NodeFile, Outer, PORT, PeerText, Running, as_in_matrix, cable, sh, start_vpnd, wait_until,
    },
};

/// What a datagram of a tunnel of ours begins with: both its UDP ports.
const OUTER: [u8; 4] = [0xca, 0x6c, 0xca, 0x6c];
/// The mark and the table that the first daemon of a host takes.
const MARK_AND_TABLE: u32 = 51820;

/// The left host sends everything to the right one, which is its gateway and has the world behind it: the
/// tunnel's endpoints 203.0.113.1 and 2001:db8:1::1, which only the default routes know; and the servers
/// 198.51.100.1, .2 and 2001:db8:2::1.
struct World {
    left: Host,
    right: Host,
    left_key: PrivateKey,
    right_key: PrivateKey,
}

impl World {
    fn new(name: &str) -> Self {
        let (left, right) = cable(name, 1500);
        for address in ["203.0.113.1", "198.51.100.1", "198.51.100.2", "2001:db8:1::1", "2001:db8:2::1"] {
            let length = if address.contains(':') { 128 } else { 32 };
            right.add_address("lo", &format!("{address}/{length}")).expect("an address");
        }
        sh(&left, "ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2");
        let [left_key, right_key] = [(); 2].map(|()| PrivateKey::generate(&mut os_rng()));
        Self { left, right, left_key, right_key }
    }

    /// The daemon of the right host, which knows these peers, each with an address 10.77.0.N and fd77::N.
    fn start_right(&self, peers: &[(PublicKey, u8)]) -> Running {
        let peers: Vec<_> = peers
            .iter()
            .map(|(key, number)| {
                let allowed_ips = vec![format!("10.77.0.{number}/32"), format!("fd77::{number}/128")];
                PeerText { key: *key, preshared: None, endpoint: None, allowed_ips, keepalive: 0 }.toml()
            })
            .collect();
        let file = NodeFile {
            private: &self.right_key,
            address: &["10.77.0.254/24".to_owned(), "fd77::254/64".to_owned()],
            mtu: 1420,
            interface: "",
            peers: &peers.concat(),
        };
        start_vpnd(&self.right, &file.toml(), &[])
    }

    /// The left daemon's file, with everything for the right one.
    fn left_file(&self, outer: Outer) -> String {
        let address = ["10.77.0.1/24".to_owned(), "fd77::1/64".to_owned()];
        let peers = self.everything(outer).toml();
        NodeFile { private: &self.left_key, address: &address, mtu: 1420, interface: "", peers: &peers }
            .toml()
    }

    fn everything(&self, outer: Outer) -> PeerText<'_> {
        PeerText {
            key: self.right_key.public_key(),
            preshared: None,
            endpoint: Some((endpoint(outer), PORT)),
            allowed_ips: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
            keepalive: 0,
        }
    }

    #[track_caller]
    fn left_pings(&self, destination: &str) {
        let pings = self.left.ping(ip(destination), 3).expect("ping runs");
        assert_eq!(pings.received, 3, "answers of {destination}");
    }

    /// Device and table that a packet of the left host with this mark takes.
    fn way(&self, destination: &str, mark: u32) -> (String, u32) {
        let decision = link::decide(&self.left, ip(destination), mark).expect("a route");
        (decision.device, decision.table)
    }
}

fn endpoint(outer: Outer) -> IpAddr {
    ip(match outer {
        Outer::V4 => "203.0.113.1",
        Outer::V6 => "2001:db8:1::1",
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The rules of a host that are not the kernel's own, both families.
fn rules(host: &Host) -> Vec<String> {
    let text = sh(host, "ip -4 rule show; ip -6 rule show");
    let own =
        ["0:\tfrom all lookup local", "32766:\tfrom all lookup main", "32767:\tfrom all lookup default"];
    text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !own.contains(&line.as_str())).collect()
}

/// Scenario 20.
#[test]
fn a_default_route_takes_everything_but_the_tunnels_own_packets() {
    if !need_root() {
        return;
    }
    for outer in [Outer::V4, Outer::V6] {
        let world = World::new("policy");
        let _right = world.start_right(&[(world.left_key.public_key(), 1)]);
        let left = start_vpnd(&world.left, &world.left_file(outer), &[]);
        let wire = Capture::start(&world.left, "eth0").expect("a capture");
        let inside = Capture::start(&world.left, DEVICE).expect("a capture");
        world.left_pings("198.51.100.1");
        world.left_pings("2001:db8:2::1");

        let readable = wire.finish(MARK).expect("captured");
        assert_eq!(readable.matching, 0, "echo requests in the clear, of {} frames", readable.frames);
        assert!(readable.frames >= 12, "{} frames", readable.frames);
        let entered = inside.finish(&OUTER).expect("captured");
        assert_eq!(entered.matching, 0, "the tunnel's own packets in the tunnel, of {}", entered.frames);
        assert!(entered.frames >= 12, "{} packets", entered.frames);

        for (server, outer) in [("198.51.100.1", "203.0.113.1"), ("2001:db8:2::1", "2001:db8:1::1")] {
            assert_eq!(world.way(server, 0), (DEVICE.to_owned(), MARK_AND_TABLE));
            assert_eq!(world.way(outer, 0), (DEVICE.to_owned(), MARK_AND_TABLE));
            assert_eq!(world.way(outer, MARK_AND_TABLE), ("eth0".to_owned(), 254));
        }
        assert_eq!(rules(&world.left).len(), 4, "a pair for each family");
        drop(left);
        assert_eq!(rules(&world.left), [""; 0], "left behind");
        assert_eq!(world.way("198.51.100.1", 0), ("eth0".to_owned(), 254));
    }
}

#[test]
fn a_more_specific_route_of_the_host_goes_before_the_tunnel() {
    if !need_root() {
        return;
    }
    let world = World::new("specific");
    let _right = world.start_right(&[(world.left_key.public_key(), 1)]);
    let _left = start_vpnd(&world.left, &world.left_file(Outer::V4), &[]);
    world.left.add_route("198.51.100.2/32", Some(ip("192.0.2.2")), "eth0").expect("a route");
    assert_eq!(world.way("198.51.100.2", 0), ("eth0".to_owned(), 254));
    let wire = Capture::start(&world.left, "eth0").expect("a capture");
    world.left_pings("198.51.100.2");
    world.left_pings("192.0.2.2");
    assert_eq!(wire.finish(MARK).expect("captured").matching, 12, "requests and answers, in the clear");
    world.left_pings("198.51.100.1");
}

/// Each would otherwise take what the other has sealed, and seal it again, without end.
#[test]
fn two_tunnels_for_everything_start_at_once_and_do_not_swallow_each_other() {
    if !need_root() {
        return;
    }
    let world = World::new("both");
    let second_key = PrivateKey::generate(&mut os_rng());
    let _right = world.start_right(&[(world.left_key.public_key(), 1), (second_key.public_key(), 2)]);
    let mut second = Setup::new(
        program::daemon(),
        as_in_matrix(&format!(
            "[interface]\nname = \"vpn1\"\nprivate_key = \"{}\"\nlisten_port = {}\naddress = [\"10.77.0.2/32\"]\n{}",
            *second_key.to_base64(),
            PORT + 1,
            world.everything(Outer::V4).toml()
        )),
    );
    second.label = "second".to_owned();
    let (first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| Daemon::start(&world.left, &second));
        (start_vpnd(&world.left, &world.left_file(Outer::V4), &[]), second.join().expect("no panic"))
    });
    let second = second.unwrap_or_else(|error| panic!("the second does not start: {error}"));

    let placed = rules(&world.left);
    let priority = |rule: &str| rule.split(':').next().unwrap_or_default().to_owned();
    let priorities: Vec<_> = placed.iter().map(|rule| priority(rule)).collect();
    let wanted = ["31820", "31821", "31822", "31823"].repeat(2);
    assert_eq!(priorities, wanted, "two pairs for each family: {placed:#?}");
    let tables = |table: u32| placed.iter().filter(|rule| rule.contains(&format!("lookup {table}"))).count();
    assert_eq!((tables(51820), tables(51821)), (2, 2), "{placed:#?}");

    let captures = [DEVICE, "vpn1"].map(|device| Capture::start(&world.left, device).expect("a capture"));
    world.left_pings("198.51.100.1");
    let entered = captures.map(|capture| capture.finish(&OUTER[2..]).expect("captured").matching);
    assert_eq!(entered, [0, 0], "sealed packets in the tunnels");

    drop(first);
    let gone = wait_until(std::time::Duration::from_secs(2), || rules(&world.left).len() == 4);
    assert!(gone, "{:#?}", rules(&world.left));
    assert_eq!(world.way("198.51.100.1", 0).0, "vpn1");
    world.left_pings("198.51.100.1");
    drop(second);
    assert_eq!(rules(&world.left), [""; 0], "left behind");
}

/// `wg syncconf` and panels send a mark of 0 where their file has none.
#[test]
fn the_mark_that_the_rules_rely_on_is_not_taken_away_by_wg() {
    if !need_root() {
        return;
    }
    let world = World::new("mark");
    let _right = world.start_right(&[(world.left_key.public_key(), 1)]);
    let left = start_vpnd(&world.left, &world.left_file(Outer::V4), &[]);
    let Running::Vpnd(daemon) = &left else { unreachable!("it was started as vpnd") };
    let set = |mark: &str| {
        crate::world::try_wg(
            &world.left,
            &daemon.run_dir().join("wireguard"),
            &["set", DEVICE, "fwmark", mark],
        )
    };
    assert!(set("0").is_ok(), "0 asks for no mark of one's own");
    assert_eq!(daemon.status(DEVICE).expect("a status")["fwmark"], MARK_AND_TABLE);
    assert!(set("7").is_err(), "the rules let only the other mark pass");
    world.left_pings("198.51.100.1");
}
