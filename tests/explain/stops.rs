//! What stops a packet and can be known without one: each cause in a host made for it, with a packet as the witness.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use vpnd::{
    explain::{Asked, Protocol, explain},
    host::fib::Fib,
    noise::PublicKey,
    trace::{Outcome, Page, Station, Vpnd, Walk},
    tunnel::{AllowedIpOp, PeerChange},
};

use super::{in_own_network, world::*};

/// A packet to a peer, to an address of the first wire's network, and to one behind it.
const PEER: &str = "10.40.0.2";
const NEIGHBOUR: &str = "10.0.0.9";

struct Host {
    world: World,
    fib: Fib,
    peers: Vec<PeerChange>,
    fwmark: u32,
    runtime: tokio::runtime::Runtime,
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address in a test")
}

fn peer(name: &str, prefixes: &[&str], endpoint: Option<&str>) -> PeerChange {
    let mut peer = PeerChange::new(PublicKey([name.len() as u8; 32]));
    peer.name = Some(name.to_owned());
    peer.endpoint = endpoint.map(|endpoint| endpoint.parse().expect("an endpoint"));
    let prefix = |text: &&str| AllowedIpOp::Add(text.parse::<IpNet>().expect("a prefix"));
    peer.allowed_ips = prefixes.iter().map(prefix).collect();
    peer
}

impl Host {
    fn new(peers: Vec<PeerChange>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let world = World::new();
        let fib = runtime.block_on(async { Fib::open().expect("netlink") });
        let host = Self { world, fib, peers, fwmark: 0, runtime };
        ip("route add 10.40.0.0/16 dev vpn0");
        host
    }

    fn asked(&self, to: &str) -> Asked {
        let protocol = Protocol::Udp(4000, self.world.port);
        Asked { to: address(to), from: None, iif: None, mark: 0, protocol, user: 0 }
    }

    fn plan(&mut self, asked: &Asked) -> Page {
        let running = [Bare::new(1, &self.peers).running(&self.world, self.fwmark)];
        let plan = explain(&mut self.fib, &running, "here", asked);
        self.runtime.block_on(plan).expect("a plan")
    }

    /// Another host's packet that comes by the second wire, and its plan.
    fn brought(&mut self, from: &str, to: &str) -> (Page, Fate) {
        let asked = Asked { from: Some(address(from)), iif: Some("e1".to_owned()), ..self.asked(to) };
        let page = self.plan(&asked);
        let port = self.world.port;
        let fate =
            self.world.bring(1, SocketAddr::new(address(from), 4000), SocketAddr::new(address(to), port));
        (page, fate)
    }
}

#[track_caller]
fn why(page: &Page) -> &str {
    match &page.outcome {
        Outcome::Died(death) => &death.why,
        other => panic!("it would go: {other:?} {:#?}", page.stations),
    }
}

fn facts(page: &Page) -> String {
    let said = |station: &Station| [station.facts.join("\n"), station.unknown.join("\n")].join("\n");
    page.stations.iter().map(said).chain([page.notes.join("\n")]).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_route_or_rule_that_refuses_is_named() {
    in_own_network(|| {
        let mut host = Host::new(Vec::new());
        for (kind, consequence) in
            [("blackhole", "EINVAL"), ("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES")]
        {
            ip(&format!("route add {kind} 10.60.0.0/16 table 100"));
            ip("rule add to 10.60.0.0/16 lookup 100 priority 77");
            let page = host.plan(&host.asked("10.60.0.1"));
            let told = why(&page);
            assert!(told.contains(&format!("{kind} 10.60.0.0/16 table 100")), "{told}");
            assert!(told.contains("77: from all to 10.60.0.0/16 lookup 100"), "{told}");
            assert!(told.contains(consequence), "{told}");
            ip("rule del priority 77");
            ip("route flush table 100");
            ip(&format!("rule add to 10.61.0.0/16 priority 78 {kind}"));
            let told = host.plan(&host.asked("10.61.0.1"));
            assert!(why(&told).contains(&format!("78: from all to 10.61.0.0/16 {kind}")), "{}", why(&told));
            ip("rule del priority 78");
        }
        let nowhere = host.plan(&host.asked("192.0.2.1"));
        assert!(why(&nowhere).contains("no rule leads to a route for 192.0.2.1"), "{}", why(&nowhere));
    });
}

#[test]
fn forwarding_that_is_off_and_a_sender_that_is_not_believed_are_told() {
    in_own_network(|| {
        let mut host = Host::new(Vec::new());
        let (page, fate) = host.brought("10.1.0.9", NEIGHBOUR);
        assert!(why(&page).contains("net.ipv4.conf.e1.forwarding"), "{}", why(&page));
        assert!(fate.left.is_empty());
        sysctl("ipv4/conf/all/forwarding", "1");
        let (page, fate) = host.brought("10.1.0.9", NEIGHBOUR);
        assert_eq!((&page.outcome, fate.left.len()), (&Outcome::Planned, 1), "{page:#?}");
        sysctl("ipv4/conf/e1/rp_filter", "1");
        let (page, fate) = host.brought("10.2.0.9", NEIGHBOUR);
        let told = why(&page);
        assert!(told.contains("strict reverse-path filtering on e1") && told.contains("dev e2"), "{told}");
        assert!(fate.left.is_empty());
        let (page, fate) = host.brought("10.0.0.1", NEIGHBOUR);
        assert!(why(&page).contains("10.0.0.1 is an address of this host"), "{}", why(&page));
        assert!(fate.left.is_empty());
    });
}

#[test]
fn what_vpnd_would_refuse_is_told_with_its_reason() {
    in_own_network(|| {
        let mut host = Host::new(vec![
            peer("a", &["10.40.0.2/32"], None),
            peer("bb", &["10.40.3.0/24"], Some("10.40.3.9:5")),
            peer("ccc", &["10.40.4.0/24", "10.40.4.128/25"], Some("10.0.0.9:5")),
        ]);
        let plan = |host: &mut Host, to: &str| host.plan(&host.asked(to));
        let page = plan(&mut host, "10.40.9.9");
        assert!(why(&page).contains("no peer of vpn0 has 10.40.9.9"), "{}", why(&page));
        let page = plan(&mut host, PEER);
        assert!(why(&page).contains("where peer a is, is not known"), "{}", why(&page));
        let page = plan(&mut host, "10.40.3.3");
        assert!(why(&page).contains("led into its own tunnel"), "{}", why(&page));
        let page = plan(&mut host, "10.40.4.200");
        assert_eq!(page.outcome, Outcome::Planned, "{page:#?}");
        let owned = page.stations.iter().find_map(|station| station.vpnd.clone());
        let Some(Vpnd::Owned { peer, prefix, second, session, .. }) = owned else { panic!("{page:#?}") };
        assert_eq!((peer.as_str(), prefix.as_str(), session), ("ccc", "10.40.4.128/25", false));
        assert_eq!(second, Some(["10.40.4.0/24".to_owned(), "ccc".to_owned()]));
    });
}

#[test]
fn a_carrier_that_does_not_fit_and_answers_that_are_filtered_are_told() {
    in_own_network(|| {
        let mut host = Host::new(vec![peer("ccc", &["10.40.0.0/16"], Some("10.0.0.9:5"))]);
        let page = host.plan(&host.asked(PEER));
        assert!(!facts(&page).contains("fragments"), "{}", facts(&page));
        ip("link set e0 mtu 1400");
        let page = host.plan(&host.asked(PEER));
        let told = facts(&page);
        assert!(
            told.contains("1420 bytes becomes a carrier of 1480") && told.contains("an MTU of 1340"),
            "{told}"
        );
        // All but the carriers are led into the tunnel, as by a default route: so the way back is, too.
        host.fwmark = 0xca6c;
        sysctl("ipv4/conf/e0/rp_filter", "1");
        ip("route add default dev vpn0 table 200");
        ip("rule add not fwmark 0xca6c lookup 200 priority 50");
        let page = host.plan(&host.asked(PEER));
        assert_eq!(page.outcome, Outcome::Planned, "{page:#?}");
        let told = facts(&page);
        assert!(told.contains("the answers of peer ccc may not come in"), "{told}");
        assert!(told.contains("strict reverse-path filtering on e0"), "{told}");
        let carrier =
            page.stations.iter().find(|station| station.walk == Walk::Outer && station.route.is_some());
        let route = carrier.and_then(|station| station.route.clone()).expect("a carrier");
        assert_eq!((route.device.as_deref(), route.mark), (Some("e0"), 0xca6c));
    });
}

#[test]
fn a_tunnel_that_is_down_and_one_that_is_passed_by_are_told() {
    in_own_network(|| {
        let mut host = Host::new(vec![peer("ccc", &["10.40.0.0/16"], Some("10.0.0.9:5"))]);
        ip("link set vpn0 down");
        ip("route add default dev e2");
        let page = host.plan(&host.asked(PEER));
        let told = facts(&page);
        assert!(
            told.contains("peer ccc of vpn0, which is down") && told.contains("by 10.40.0.0/16"),
            "{told}"
        );
        ip("link set vpn0 up");
        let page = host.plan(&host.asked(PEER));
        assert!(facts(&page).contains("no route sends this packet to vpn0"), "{}", facts(&page));
    });
}

#[test]
fn where_a_rule_asks_for_what_is_not_known_that_is_said() {
    in_own_network(|| {
        let mut host = Host::new(Vec::new());
        ip("rule add tun_id 5 lookup main priority 50");
        let page = host.plan(&host.asked(NEIGHBOUR));
        let told = facts(&page);
        assert!(told.contains("it may have been 50: from all [tun_id] lookup main"), "{told}");
        assert!(told.contains("32766: from all lookup main"), "{told}");
        let route = page.stations.iter().find_map(|station| station.route.clone()).expect("a route");
        assert_eq!((route.device.as_deref(), route.rule), (Some("e0"), None));
    });
}

#[test]
fn a_program_that_connects_asks_a_second_time_and_that_is_told() {
    in_own_network(|| {
        let mut host = Host::new(Vec::new());
        ip("route add default dev e0");
        ip("route add default dev e2 table 300");
        ip("rule add from 10.0.0.1 lookup 300 priority 60");
        let page = host.plan(&host.asked("192.0.2.1"));
        let told = facts(&page);
        assert!(told.contains("now from 10.0.0.1: its packet leaves by e2"), "{told}");
    });
}

#[test]
fn the_command_works_without_a_daemon_and_says_so() {
    in_own_network(|| {
        let _host = Host::new(Vec::new());
        let folder = tempfile::tempdir().expect("a folder");
        let run = |arguments: &str| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vpnd"));
            command.arg("explain").args(arguments.split_whitespace()).arg("--run-dir").arg(folder.path());
            let output = command.output().expect("vpnd runs");
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let (code, text, _) = run(NEIGHBOUR);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("by e0, source 10.0.0.1") && text.contains("no vpnd runs here"), "{text}");
        assert!(text.contains("32766: from all lookup main"), "{text}");
        let (code, text, _) = run("--json --mark 0x1 --tcp 443 192.0.2.1");
        let page: Page = serde_json::from_str(&text).expect("a page");
        assert_eq!((code, page.packet.expect("one").destination_port), (Some(1), Some(443)));
        let (code, _, error) = run("--iif e9 --from 10.1.0.9 10.0.0.9");
        assert!(code == Some(1) && error.contains("there is no device e9"), "{error}");
        assert_eq!(run("--iif e1 10.0.0.9").0, Some(2), "a packet that comes by a device has a source");
        let (code, text, _) = run("--plain --iif e1 --from 10.1.0.9 10.0.0.9");
        assert!(code == Some(1) && text.contains("forwarding"), "{text}");
    });
}
