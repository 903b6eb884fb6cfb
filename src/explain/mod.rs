//! What would become of a packet, without sending one: the kernel is asked for its way, the running tunnels for the
//! peer that owns it, and the kernel again for the way of the carrier. Makes the same page as a trace, as a plan.
//!
//! What cannot be known without a packet (what netfilter's rules would say, whether the peer answers) is named as such.

mod carrier; // the datagram around it
mod forwarded; // what a packet of another host needs, and lacks
mod inner; // the packet itself
mod owner; // whose an address is
mod tunnel; // the tunnel in between
mod way; // the kernel's decision, in the words of a page

use std::net::IpAddr;

use ipnet::IpNet;

use crate::control::schema::StatusReport;
use crate::host::{
    HostError,
    fib::{Answer, Decision, Device, Fib, ICMP, ICMP6, Question, TCP, UDP},
};
use crate::trace::{
    Death, Direction, Host, Killer, Kind, Outcome, Packet, Page, Place, Station, VERSION, Verdict, Walk,
    facts,
};
use crate::witness::decision;

pub use owner::{Owned, owner};

/// Tunnels within tunnels are followed so far; vpnd itself seals no packet more often (`wire/outer.rs`).
const DEEPEST: usize = 4;

/// The packet that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Destination.
    pub to: IpAddr,
    /// Source; none: the kernel chooses.
    pub from: Option<IpAddr>,
    /// The device by which it comes; none: a program of this host sends it.
    pub iif: Option<String>,
    /// Its mark, 0: none.
    pub mark: u32,
    /// Protocol number.
    pub protocol: Protocol,
    /// Who sends it.
    pub user: u32,
}

/// What the packet carries; rules may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A ping.
    Icmp,
    /// With source and destination port, 0: any.
    Udp(u16, u16),
    /// With source and destination port, 0: any.
    Tcp(u16, u16),
}

/// A vpnd that runs here.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// What it says.
    pub status: StatusReport,
    /// As whom it runs: rules may ask for the user of a socket.
    pub user: u32,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Netlink failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// What was asked does not make a packet.
    #[error("{0}")]
    Asked(String),
}

/// The plan. `tunnels`: those whose devices are in this network namespace.
pub async fn explain(
    fib: &mut Fib,
    tunnels: &[Tunnel],
    host: &str,
    asked: &Asked,
) -> Result<Page, ExplainError> {
    let (devices, addresses) = (fib.devices().await?, fib.addresses().await?);
    // As rules say it: what came by `lo` is of this host.
    let asked = &Asked { iif: asked.iif.clone().filter(|iif| iif != "lo"), ..asked.clone() };
    let mut planner = Planner {
        fib,
        devices,
        addresses,
        tunnels,
        stations: Vec::new(),
        notes: Vec::new(),
        death: None,
        source: asked.from,
    };
    let mut left_by = planner.inner(asked).await?;
    let mut to = asked.to;
    let mut through = Vec::new();
    while let Some(tunnel) = left_by.as_deref().and_then(|device| planner.tunnel_of(device)) {
        through.push(tunnel.status.interface.clone());
        if through.len() > DEEPEST {
            planner.die(Killer::Vpnd, format!("sealed {DEEPEST} times over already, it is sealed no more"));
            break;
        }
        let Some(peer) = planner.seal(tunnel, to) else { break };
        let Some(endpoint) = peer.endpoint else { break };
        left_by = planner.carry(tunnel, peer, endpoint).await?;
        to = endpoint.ip();
    }
    planner.remark_on_owners(asked.to, through.first().map(String::as_str));
    Ok(planner.page(host, through.first(), asked))
}

/// A plan in the making.
struct Planner<'a> {
    fib: &'a mut Fib,
    devices: Vec<Device>,
    addresses: Vec<(IpNet, u32)>,
    tunnels: &'a [Tunnel],
    stations: Vec<Station>,
    notes: Vec<String>,
    death: Option<Death>,
    /// Of the inner packet, once it is known.
    source: Option<IpAddr>,
}

impl<'a> Planner<'a> {
    fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.index == index)
    }

    fn device_named(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    fn device_name(&self, index: u32) -> String {
        decision::device_name(index, &self.devices)
    }

    fn tunnel_of(&self, device: &str) -> Option<&'a Tunnel> {
        self.tunnels.iter().find(|tunnel| tunnel.status.interface == device)
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|(network, _)| network.addr() == address)
    }

    fn station(&mut self, walk: Walk, direction: Direction, place: Place) -> &mut Station {
        self.stations.push(Station::new(0, walk, direction, place, Verdict::Would));
        self.stations.last_mut().expect("one was pushed just now")
    }

    /// A hook: without a packet nobody says what its rules would do.
    fn hook(&mut self, walk: Walk, direction: Direction, place: Place) {
        let station = self.station(walk, direction, place);
        station.verdict = Verdict::Unknown;
        station.unknown.push("what netfilter's rules do here shows only a packet: `vpnd trace`".to_owned());
    }

    /// It would end at the last station.
    fn die(&mut self, by: Killer, why: String) {
        if let Some(last) = self.stations.last_mut() {
            last.verdict = Verdict::WouldNot;
        }
        let station = self.stations.len().saturating_sub(1);
        self.death.get_or_insert(Death { station, by, why, drop_reason: None });
    }

    /// Out by this device; says so if it is down.
    fn leave(&mut self, walk: Walk, device: &Device, mark: u32) {
        let station = self.station(walk, Direction::Out, Place::Device);
        (station.device, station.mark) = (Some(device.name.clone()), Some(mark));
        if !device.up {
            let why = format!("{} is down: `ip link set {} up`", device.name, device.name);
            self.die(Killer::Kernel, why);
        } else if !device.running {
            station.facts.push(format!("{} has no carrier: nothing leaves by it now", device.name));
        }
    }

    /// A tunnel may own the address, and the kernel not lead there: the commonest riddle of all.
    fn remark_on_owners(&mut self, to: IpAddr, through: Option<&str>) {
        for tunnel in self.tunnels.iter().filter(|tunnel| Some(&*tunnel.status.interface) != through) {
            let interface = &tunnel.status.interface;
            let Some(Owned { peer, prefix, .. }) = owner(&tunnel.status.peers, to) else { continue };
            let down = match self.device_named(interface) {
                Some(device) if !device.up => ", which is down, so that it has no routes",
                _ => "",
            };
            self.notes.push(format!(
                "peer {} of {interface}{down} owns {to} by {prefix}, but no route sends this packet to {interface}",
                peer.name
            ));
        }
        if self.tunnels.is_empty() {
            self.notes.push("no vpnd runs here that could be asked: no device belongs to one".to_owned());
        }
    }

    fn page(self, host: &str, interface: Option<&String>, asked: &Asked) -> Page {
        let unspecified: IpAddr = if asked.to.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
        let (number, ports) = asked.protocol.parts(asked.to.is_ipv6());
        let port = |port: u16| Some(port).filter(|port| *port != 0);
        Page {
            version: VERSION,
            kind: Kind::Plan,
            packet: Some(Packet {
                source: self.source.unwrap_or(unspecified),
                destination: asked.to,
                protocol: facts::protocol_name(number),
                source_port: port(ports[0]),
                destination_port: port(ports[1]),
                echo: None,
                bytes: None,
            }),
            carrier: None,
            hosts: vec![Host {
                name: host.to_owned(),
                interface: interface.cloned(),
                boot_id: None,
                began_ns: None,
            }],
            stations: self.stations,
            outcome: self.death.map_or(Outcome::Planned, Outcome::Died),
            answer: None,
            notes: self.notes,
        }
    }
}

impl Protocol {
    /// Its number, and both ports.
    fn parts(self, v6: bool) -> (u8, [u16; 2]) {
        match self {
            Self::Icmp if v6 => (ICMP6, [0; 2]),
            Self::Icmp => (ICMP, [0; 2]),
            Self::Udp(source, destination) => (UDP, [source, destination]),
            Self::Tcp(source, destination) => (TCP, [source, destination]),
        }
    }
}
