//! `vpnd lab`: two hosts, a cable, a vpnd on each; and the measurement that becomes a [`Page`].

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    capture::Capture,
    daemon::{Daemon, Setup},
    error::{Attempted, LabError},
    host::Host,
    link,
    netfilter::Counters,
    page::{self, Listener, Page, Reading, Sample, Tunnel},
    ping::{MARK, Ping},
    stopwatch::poll_until,
    traffic::tcp_transfer,
};
use crate::{noise::PrivateKey, sys, trace};

/// The device of the tunnel on both hosts.
pub const TUN: &str = "vpn0";
/// The end of the cable on both hosts.
pub const WIRE: &str = "eth0";
const PORT: u16 = 51820;
const BULK_BYTES: u64 = 32 << 20;
const BULK_LIMIT: Duration = Duration::from_secs(30);

/// The two hosts, up; everything vanishes on drop.
pub struct Demo {
    left: Side,
    right: Side,
    no_netfilter: Option<String>,
    binary: PathBuf,
}

/// A host with its vpnd. The order of the fields is the order in which they end.
struct Side {
    daemon: Daemon,
    counters: Option<Counters>,
    host: Host,
    place: Place,
}

/// What is where.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    number: u8,
}

const LEFT: Place = Place { name: "left", number: 1 };
const RIGHT: Place = Place { name: "right", number: 2 };

impl Place {
    fn outer(self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, self.number).into()
    }
    fn outer_v6(self) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.number.into()).into()
    }
    fn inner(self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number).into()
    }
    fn inner_v6(self) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number.into()).into()
    }
}

impl Demo {
    /// Builds both hosts, named `PREFIX-left` and `PREFIX-right`, and starts `binary` on each.
    pub fn build(prefix: &str, binary: &Path) -> Result<Self, LabError> {
        let left = plug(prefix, LEFT)?;
        let right = plug(prefix, RIGHT)?;
        link::veth(&left, WIRE, &right, WIRE)?;
        for (host, place) in [(&left, LEFT), (&right, RIGHT)] {
            host.add_address(WIRE, &format!("{}/24", place.outer()))?;
            host.add_address(WIRE, &format!("{}/64", place.outer_v6()))?;
        }
        let mut rng = sys::random::os_rng();
        let keys = [PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng)];
        let mut no_netfilter = None;
        let mut start = |host: Host, place: Place, other: Place, own: &PrivateKey, peer: &PrivateKey| {
            let counters = Counters::place(&host, TUN, WIRE, PORT);
            let counters = counters.map_err(|reason| no_netfilter = Some(reason)).ok();
            let daemon = Daemon::start(&host, &Setup::new(binary, config(place, other, own, peer)))?;
            Ok::<_, LabError>(Side { daemon, counters, host, place })
        };
        let left = start(left, LEFT, RIGHT, &keys[0], &keys[1])?;
        let right = start(right, RIGHT, LEFT, &keys[1], &keys[0])?;
        Ok(Self { left, right, no_netfilter, binary: binary.to_owned() })
    }

    /// Sends one ping to make the daemons shake hands, one that is counted, and a bulk transfer. Fails when
    /// one of them does not come through.
    pub fn measure(&self) -> Result<Page, LabError> {
        self.ping(RIGHT.inner())?;
        let first =
            self.settled(|now| now.right.tunnel.sealed > 0 && now.left.tunnel.opened > 0)?.left.tunnel;
        let rtt_v6 = self.left.host.ping(RIGHT.inner_v6(), 1)?.rtt;
        let (ping, rtt, listener) = self.counted_ping()?;
        let before = self.read()?;
        let transfer =
            tcp_transfer(&self.left.host, &self.right.host, RIGHT.inner(), BULK_BYTES, BULK_LIMIT)?;
        let bulk = self.settled(|_| true)? - before;
        Ok(Page {
            left: self.left.described(RIGHT)?,
            right: self.right.described(LEFT)?,
            no_netfilter: self.no_netfilter.clone(),
            first,
            ping,
            ping_written: Ping::to(RIGHT.inner()).payload as u64 + 8,
            rtt,
            rtt_v6,
            listener,
            bulk,
            transfer,
        })
    }

    /// The way of one ping, as `vpnd trace` on both hosts sees it.
    pub fn trace(&self) -> Result<trace::Page, LabError> {
        let to = RIGHT.inner();
        let file = self.right.host.folder().join("trace.json");
        let attempted = || "trace a ping on both hosts".to_owned();
        let mut watching = Command::new(&self.binary);
        watching.args(["trace", "--json", "--answers", "--seconds", "30"]);
        watching.args(["--follow", &format!("icmp and dst host {to}")]);
        watching.arg("--run-dir").arg(self.right.daemon.run_dir());
        watching.stdout(File::create(&file).attempted(attempted)?);
        let mut watching = self.right.host.spawn("trace", watching)?;
        let ready = || (watching.ended().is_some() || watching.log().contains("watching")).then_some(());
        poll_until(Duration::from_secs(10), ready);
        let mut tracing = self.left.host.command(&self.binary)?;
        tracing.args(["trace", "--json", &to.to_string(), "--join"]).arg(&file);
        tracing.arg("--run-dir").arg(self.left.daemon.run_dir());
        let output = tracing.output().attempted(attempted)?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            LabError::Unexpected(format!("{}: {}{}", attempted(), said.trim(), watching.log()))
        })
    }

    /// The hosts' names.
    pub fn hosts(&self) -> [&str; 2] {
        [&self.left, &self.right].map(|side| side.host.name())
    }

    /// The right host's address inside the tunnel.
    pub fn right_address(&self) -> IpAddr {
        RIGHT.inner()
    }

    /// The last lines that the daemons logged: host, text.
    pub fn last_words(&self, lines: usize) -> [(&str, String); 2] {
        [&self.left, &self.right].map(|side| {
            let log = side.daemon.log();
            let all: Vec<&str> = log.lines().collect();
            (side.host.name(), all[all.len().saturating_sub(lines)..].join("\n"))
        })
    }

    /// Pings until nothing else moved meanwhile: a new device has its own chatter (neighbour discovery,
    /// multicast reports), and a passive keepalive may fall due.
    fn counted_ping(&self) -> Result<(Sample, Duration, Result<Listener, String>), LabError> {
        let mut last = None;
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(250));
            let before = self.read()?;
            let ears = self.listen();
            let rtt = self.ping(RIGHT.inner())?;
            let moved = self.settled(|now| (*now - before).is_one_ping())? - before;
            let listener = ears.and_then(finish).map_err(|e| e.to_string());
            let exact = moved.is_one_ping() && listener.as_ref().is_ok_and(|l| l.wire.frames == 2);
            last = Some((moved, rtt, listener));
            if exact {
                break;
            }
        }
        last.ok_or_else(|| LabError::Unexpected("no ping was sent".to_owned()))
    }

    fn ping(&self, to: IpAddr) -> Result<Duration, LabError> {
        // The first one waits for a handshake, whose first message may have to be repeated after five seconds.
        let ping = Ping { patience: Duration::from_secs(8), ..Ping::to(to) };
        let lost = || {
            LabError::Unexpected(format!("the ping from {} to {to} was not answered", self.left.host.name()))
        };
        self.left.host.ping_with(&ping)?.rtt.ok_or_else(lost)
    }

    fn listen(&self) -> Result<(Capture, Capture), LabError> {
        Ok((Capture::start(&self.left.host, TUN)?, Capture::start(&self.left.host, WIRE)?))
    }

    fn read(&self) -> Result<Sample, LabError> {
        Ok(Sample { left: self.left.read()?, right: self.right.read()? })
    }

    /// Reads when `enough` holds, or else after a moment: vpnd counts a packet just after it has handed it on.
    fn settled(&self, enough: impl Fn(&Sample) -> bool) -> Result<Sample, LabError> {
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(25));
            let now = self.read()?;
            if enough(&now) {
                return Ok(now);
            }
        }
        self.read()
    }
}

impl Side {
    fn read(&self) -> Result<Reading, LabError> {
        let walks = self.counters.as_ref().map(Counters::read).transpose().map_err(LabError::Unexpected)?;
        let status = self.daemon.status(TUN)?;
        let peer = &status["peers"][0];
        let number = |field: &str| {
            let missing = || LabError::Unexpected(format!("vpnd on {} told no {field}", self.host.name()));
            peer[field].as_u64().ok_or_else(missing)
        };
        Ok(Reading {
            walks,
            tun: link::passed(&self.host, TUN)?,
            tunnel: Tunnel {
                sealed: number("tx_packets")?,
                sealed_bytes: number("tx_bytes")?,
                opened: number("rx_packets")?,
                opened_bytes: number("rx_bytes")?,
            },
            wire: link::passed(&self.host, WIRE)?,
        })
    }

    fn described(&self, other: Place) -> Result<page::Host, LabError> {
        let mark = self.daemon.status(TUN)?["fwmark"].as_u64().unwrap_or(0) as u32;
        Ok(page::Host {
            name: self.host.name().to_owned(),
            inner: self.place.inner().to_string(),
            outer: format!("{}:{PORT}", self.place.outer()),
            inner_route: link::decide(&self.host, other.inner(), 0)?,
            outer_route: link::decide(&self.host, other.outer(), mark)?,
        })
    }
}

fn plug(prefix: &str, place: Place) -> Result<Host, LabError> {
    Host::create(&format!("{prefix}-{}", place.name))
}

fn finish((tun, wire): (Capture, Capture)) -> Result<Listener, LabError> {
    Ok(Listener { tun: tun.finish(MARK)?, wire: wire.finish(MARK)? })
}

fn config(own: Place, other: Place, private: &PrivateKey, peer: &PrivateKey) -> String {
    format!(
        r#"# Made by `vpnd lab`; gone when it ends.
[interface]
name = "{TUN}"
private_key = "{}"
listen_port = {PORT}
address = ["{}/24", "{}/64"]

[[peer]]
name = "{}"
public_key = "{}"
endpoint = "{}:{PORT}"
allowed_ips = ["{}/32", "{}/128"]
"#,
        BASE64_STANDARD.encode(private.expose()),
        own.inner(),
        own.inner_v6(),
        other.name,
        peer.public_key(),
        other.outer(),
        other.inner(),
        other.inner_v6(),
    )
}
