//! `vpnd explain` beside what then really happens: in random topologies of routes, rules and peers, a packet is sent,
//! and has to leave by the device, with the source, to the peer, and in the carrier that the plan says.
//!
//! `VPND_SEED` and `VPND_TOPOLOGIES` repeat a run; a failure names its seed.
#![allow(clippy::disallowed_methods, reason = "tests read the environment and the files of the kernel")]

#[path = "../common/mod.rs"]
mod common;
mod stops;
mod topology;
mod world;

use std::net::{IpAddr, SocketAddr};

use common::need_root;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use topology::{MARKS, PORTS, Topology, address};
use vpnd::{
    explain::{Asked, Protocol, Tunnel, explain},
    forward::{AllowedIps, Endpoint, Local},
    host::fib::Fib,
    sys::namespace::unshare_network,
    trace::{Direction, Outcome, Page, Place, Station, Verdict, Vpnd, Walk},
};
use world::{Bare, Fate, Seen, TUNNEL, WIRES, World, batch, below, one_of, own};

/// In CI; `make long` does the thousand.
const SOME: u64 = 80;
const MANY: u64 = 1000;
/// Packets of this host, and of others, in each.
const PACKETS: usize = 4;

fn in_own_network(test: impl FnOnce() + Send + 'static) {
    if !need_root() {
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare_network().expect("root may make a network namespace");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn a_plan_is_what_then_happens_in_random_topologies() {
    in_own_network(|| compare(SOME));
}

#[test]
#[ignore = "takes minutes: make long"]
fn a_plan_is_what_then_happens_in_a_thousand_random_topologies() {
    in_own_network(|| compare(MANY));
}

/// What was compared, so that a generator that makes nothing of a kind is seen.
#[derive(Debug, Default)]
struct Tally {
    left: u32,
    arrived: u32,
    refused: u32,
    sealed: u32,
    carriers: u32,
    loops: u32,
    rules: u32,
    unnamed: u32,
    stopped: u32,
    passed_on: u32,
}

fn compare(topologies: u64) {
    let first = number("VPND_SEED").unwrap_or(1);
    let topologies = number("VPND_TOPOLOGIES").unwrap_or(topologies);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut world = World::new();
    let mut tally = Tally::default();
    runtime.block_on(async {
        let mut fib = Fib::open().expect("netlink");
        for seed in first..first + topologies {
            let mut case = Case::new(&mut world, &mut fib, seed);
            for _ in 0..PACKETS {
                case.of_this_host(&mut tally).await;
                case.of_another_host(&mut tally).await;
            }
        }
    });
    println!("{topologies} topologies from seed {first} on: {tally:?}");
    if topologies >= SOME {
        let Tally { left, arrived, refused, sealed, carriers, loops, rules, stopped, passed_on, .. } = tally;
        let each = [left, arrived, refused, sealed, carriers, loops, rules, stopped, passed_on];
        assert!(each.iter().all(|count| *count > 0), "something was never drawn: {tally:?}");
        assert!(tally.unnamed * 20 < left + refused, "too often no rule is named: {tally:?}");
    }
}

struct Case<'a> {
    world: &'a mut World,
    fib: &'a mut Fib,
    seed: u64,
    rng: ChaCha8Rng,
    topology: Topology,
    bare: Bare,
}

impl<'a> Case<'a> {
    fn new(world: &'a mut World, fib: &'a mut Fib, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let topology = Topology::draw(&mut rng, seed.is_multiple_of(2));
        topology.install();
        world.sockets.set_mark(topology.fwmark).expect("root may mark");
        let bare = Bare::new(seed, &topology.peers);
        let mut case = Self { world, fib, seed, rng, topology, bare };
        case.talk_from_our_addresses();
        let _ = case.world.leaving();
        case
    }

    /// Some peers were talked to, from one of our addresses.
    fn talk_from_our_addresses(&mut self) {
        let v6 = self.topology.v6;
        for peer in &self.topology.peers {
            let vpnd::tunnel::AllowedIpOp::Add(prefix) = peer.allowed_ips[0] else { continue };
            let found = self.bare.forward.routes.load().find(prefix.addr()).map(|(peer, _)| peer.clone());
            let (Some(shared), Some(remote)) = (found, peer.endpoint) else { continue };
            if shared.public_key == peer.public_key && below(&mut self.rng, 2) == 0 {
                let n = below(&mut self.rng, WIRES.len());
                let local = Local { address: own(v6, n), interface: 0 };
                shared.set_endpoint(Some(Endpoint { remote, local: Some(local) }));
            }
        }
    }

    async fn plan(&mut self, asked: &Asked) -> Page {
        let running: Tunnel = self.bare.running(self.world, self.topology.fwmark);
        explain(self.fib, &[running], "here", asked).await.expect("a plan")
    }

    async fn of_this_host(&mut self, tally: &mut Tally) {
        let v6 = self.topology.v6;
        let from = (below(&mut self.rng, 2) == 0).then(|| {
            let n = below(&mut self.rng, WIRES.len() + 1);
            own(v6, n)
        });
        let to = address(&mut self.rng, v6);
        let mark = one_of(&mut self.rng, &MARKS);
        let source_port = one_of(&mut self.rng, &PORTS[..3]);
        let port = self.world.port;
        let protocol = Protocol::Udp(source_port, port);
        let asked = Asked { to, from, iif: None, mark, protocol, user: 0 };
        let page = self.plan(&asked).await;
        let to = SocketAddr::new(to, port);
        let fate = self.world.send(to, from, mark, source_port);
        let wrong = |what: &str| self.wrong(&asked, &page, &fate, what);
        match route(&page, Walk::Inner).and_then(|route| route.error.as_deref()) {
            Some(error) => {
                tally.refused += 1;
                let got = fate.sent.as_ref().err().and_then(std::io::Error::raw_os_error);
                assert!(fate.left.is_empty() && !fate.arrived, "{}", wrong("it went all the same"));
                assert!(got.map(errno) == Some(error), "{}", wrong("the error is another"));
            }
            None => self.went(&asked, &page, &fate, tally),
        }
        let named = route(&page, Walk::Inner).and_then(|route| route.rule.as_ref()).map(|rule| rule.priority);
        tally.unnamed += u32::from(named.is_none() && !wrong_is_no_rule(&page));
        if let Some(priority) = named {
            self.check_rule(priority, &asked, &page, source_port, tally).await;
        }
        self.seal_and_carry(&asked, &page, &fate, tally);
    }

    /// It has a way: out by a device, or to this host itself.
    fn went(&self, asked: &Asked, page: &Page, fate: &Fate, tally: &mut Tally) {
        let wrong = |what: &str| self.wrong(asked, page, fate, what);
        if stations(page, Walk::Inner, Place::Input).next().is_some() {
            tally.arrived += 1;
            assert!(fate.arrived && fate.left.is_empty(), "{}", wrong("it did not arrive here"));
            return;
        }
        tally.left += 1;
        let out = device_out(page, Walk::Inner);
        let [Seen { device, source, .. }] = &fate.left[..] else {
            panic!("{}", wrong("it did not leave once"))
        };
        assert_eq!(out, Some(device.as_str()), "{}", wrong("the device is another"));
        let planned = page.packet.as_ref().map(|packet| packet.source);
        assert_eq!(planned, Some(*source), "{}", wrong("the source is another"));
    }

    /// Where the rule that the plan names refuses instead, the packet is refused: so it was that rule.
    async fn check_rule(&mut self, priority: u32, asked: &Asked, page: &Page, port: u16, tally: &mut Tally) {
        let Some(rule) = self
            .topology
            .rules
            .iter()
            .find(|rule| rule.priority == priority && rule.does != "prohibit")
            .cloned()
        else {
            return;
        };
        tally.rules += 1;
        let change = [format!("rule add {}", rule.prohibiting()), format!("rule del {}", rule.words())];
        batch(self.topology.v6, &change);
        let fate = self.world.send(SocketAddr::new(asked.to, self.world.port), asked.from, asked.mark, port);
        let got = fate.sent.as_ref().err().and_then(std::io::Error::raw_os_error);
        // IPv6 goes on with a source of its choice where it is refused without one, and may then be refused otherwise.
        let asks_twice = self.topology.v6 && asked.from.is_none() && got.is_some();
        let again = self.plan(asked).await;
        let refused_first = stations(&again, Walk::Inner, Place::Route)
            .any(|station| station.facts.iter().any(|fact| fact.contains("there is no way (EACCES)")));
        let right = got == Some(libc::EACCES) || refused_first || asks_twice;
        assert!(right, "{}", self.wrong(asked, page, &fate, "it was another rule"));
        let back = [format!("rule add {}", rule.words()), format!("rule del {}", rule.prohibiting())];
        batch(self.topology.v6, &back);
    }

    async fn of_another_host(&mut self, tally: &mut Tally) {
        let v6 = self.topology.v6;
        let wire = below(&mut self.rng, WIRES.len());
        let (from, to) = (address(&mut self.rng, v6), address(&mut self.rng, v6));
        let source_port = one_of(&mut self.rng, &PORTS);
        let port = self.world.port;
        let iif = Some(WIRES[wire].to_owned());
        let protocol = Protocol::Udp(source_port, port);
        let asked = Asked { to, from: Some(from), iif, mark: 0, protocol, user: 0 };
        let page = self.plan(&asked).await;
        let fate = self.world.bring(wire, SocketAddr::new(from, source_port), SocketAddr::new(to, port));
        let died_inside = match &page.outcome {
            Outcome::Died(death) => page.stations[death.station].walk == Walk::Inner,
            _ => false,
        };
        if died_inside {
            tally.stopped += 1;
            let went = !fate.left.is_empty() || fate.arrived;
            assert!(!went, "{}", self.wrong(&asked, &page, &fate, "it was passed on all the same"));
        } else {
            tally.passed_on += 1;
            self.went(&asked, &page, &fate, tally);
            self.seal_and_carry(&asked, &page, &fate, tally);
        }
    }

    /// What came to the tunnel's device goes to the peer that the plan says, and the carrier its way.
    fn seal_and_carry(&mut self, asked: &Asked, page: &Page, fate: &Fate, tally: &mut Tally) {
        let Some(frame) = fate.left.iter().find(|seen| seen.device == TUNNEL).map(|seen| seen.frame.clone())
        else {
            return;
        };
        tally.sealed += 1;
        let planned =
            stations(page, Walk::Program, Place::Vpnd).next().and_then(|station| station.vpnd.clone());
        // Each packet meets a tunnel that has sent nothing yet.
        self.bare = Bare::new(self.seed, &self.topology.peers).with_endpoints_of(&self.bare);
        let taken = self.bare.take(&frame);
        let wrong = |what: &str| self.wrong(asked, page, fate, &format!("{what}: {taken:?}"));
        match (&planned, &taken) {
            (Some(Vpnd::Refused(refused)), Err(reason)) => {
                assert_eq!(refused.reason, *reason, "{}", wrong("the reason is another"));
            }
            (Some(Vpnd::Owned { endpoint: None, public_key, .. }), taken) => {
                let right = match taken {
                    Ok(key) => key == public_key,
                    Err(reason) => *reason == "no_endpoint",
                };
                assert!(right, "{}", wrong("it has an endpoint"));
            }
            (Some(Vpnd::Owned { public_key, prefix, second, .. }), Ok(key)) => {
                assert_eq!(public_key, key, "{}", wrong("the peer is another"));
                self.check_prefixes(asked.to, prefix, second.as_ref());
                self.check_carrier(asked, page, fate, tally);
            }
            _ => panic!("{}", wrong("the peer is another")),
        }
    }

    /// By the table that the data threads use.
    fn check_prefixes(&self, to: IpAddr, prefix: &str, second: Option<&[String; 2]>) {
        let all = self.topology.peers.iter().flat_map(|peer| {
            peer.allowed_ips.iter().filter_map(|op| match op {
                vpnd::tunnel::AllowedIpOp::Add(net) => Some((*net, peer.name.clone().expect("it has one"))),
                vpnd::tunnel::AllowedIpOp::Remove(_) => None,
            })
        });
        let all: Vec<_> = all.collect();
        let length =
            |text: &str| text.split('/').nth(1).and_then(|n| n.parse::<u8>().ok()).expect("a length");
        let found = AllowedIps::build(all.clone()).find(to).map(|(_, found)| found);
        assert_eq!(found, Some(length(prefix)), "seed {}: the prefix of {to}", self.seed);
        let rest = all.into_iter().filter(|(net, _)| net.to_string() != prefix);
        let table = AllowedIps::build(rest);
        let next = table.find(to).map(|(name, length)| (name.clone(), length));
        let told = second.map(|[prefix, name]| (name.clone(), length(prefix)));
        assert_eq!(next, told, "seed {}: who would be next for {to}", self.seed);
    }

    fn check_carrier(&mut self, asked: &Asked, page: &Page, fate: &Fate, tally: &mut Tally) {
        tally.carriers += 1;
        let (sent, left) = self.bare.call(self.world);
        let wrong =
            |what: &str| self.wrong(asked, page, fate, &format!("{what}: {sent:?} {:?}", devices(&left)));
        let carrier = route(page, Walk::Outer).unwrap_or_else(|| panic!("{}", wrong("there is no carrier")));
        if let Some(error) = &carrier.error {
            let got = sent.as_ref().err().and_then(std::io::Error::raw_os_error);
            assert!(got.map(errno) == Some(error), "{}", wrong("the carrier's error is another"));
            return;
        }
        if carrier.answer.as_deref() == Some("local") {
            assert!(left.is_empty() && sent.is_ok(), "{}", wrong("the carrier left"));
            return;
        }
        let [Seen { device, source, .. }] = &left[..] else {
            panic!("{}", wrong("the carrier did not leave once"))
        };
        assert_eq!(carrier.device.as_deref(), Some(device.as_str()), "{}", wrong("its device is another"));
        let planned = carrier.source.or(carrier.from);
        assert_eq!(planned, Some(*source), "{}", wrong("its source is another"));
        let dies = matches!(&page.outcome, Outcome::Died(death) if death.why.contains("into its own tunnel"));
        assert_eq!(dies, device == TUNNEL, "{}", wrong("a loop"));
        tally.loops += u32::from(dies);
    }

    /// All that is needed to look into it.
    fn wrong(&self, asked: &Asked, page: &Page, fate: &Fate, what: &str) -> String {
        let listed = |arguments: &[&str]| {
            let family = if self.topology.v6 { "-6" } else { "-4" };
            let output = std::process::Command::new("ip").arg(family).args(arguments).output().expect("`ip`");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        format!(
            "seed {} (VPND_SEED={} VPND_TOPOLOGIES=1): {what}\n{asked:?}\nreally: {:?}, left {:?}, arrived {}\nforwards {} rp_filter {:?} fwmark {:#x}\n\
             {}\n--- rules\n{}--- routes\n{}",
            self.seed,
            self.seed,
            fate.sent,
            devices(&fate.left),
            fate.arrived,
            self.topology.forwards,
            self.topology.rp_filter,
            self.topology.fwmark,
            serde_json::to_string_pretty(page).expect("JSON"),
            listed(&["rule"]),
            listed(&["route", "show", "table", "all"]),
        )
    }
}

fn devices(seen: &[Seen]) -> Vec<(&str, IpAddr)> {
    seen.iter().map(|seen| (seen.device.as_str(), seen.source)).collect()
}

fn stations(page: &Page, walk: Walk, place: Place) -> impl Iterator<Item = &Station> {
    page.stations.iter().filter(move |station| station.walk == walk && station.place == place)
}

fn route(page: &Page, walk: Walk) -> Option<&vpnd::trace::Route> {
    stations(page, walk, Place::Route).next()?.route.as_ref()
}

fn device_out(page: &Page, walk: Walk) -> Option<&str> {
    let out = stations(page, walk, Place::Device).filter(|station| station.direction == Direction::Out);
    out.filter(|station| station.verdict == Verdict::Would).last()?.device.as_deref()
}

/// No rule led anywhere: then none can be named.
fn wrong_is_no_rule(page: &Page) -> bool {
    matches!(&page.outcome, Outcome::Died(death) if death.why.starts_with("no rule leads"))
}

fn errno(number: i32) -> &'static str {
    match number {
        libc::EINVAL => "EINVAL",
        libc::EACCES => "EACCES",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        _ => "another",
    }
}
