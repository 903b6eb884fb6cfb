//! A route as the kernel keeps it, as far as it decides which way a packet goes.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType,
    },
};

use super::{kind_name, table_name};

/// A route of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibRoute {
    /// Where to.
    pub destination: IpNet,
    /// In which table.
    pub table: u32,
    /// For packets from here alone (IPv6).
    pub source: Option<IpNet>,
    /// Unicast, local, blackhole, …
    pub kind: RouteType,
    /// Type of service; 0: any.
    pub tos: u8,
    /// Of routes to the same prefix the lowest counts.
    pub metric: u32,
    /// The address that a packet without one gets.
    pub prefsrc: Option<IpAddr>,
    /// The largest packet, where it says one.
    pub mtu: Option<u32>,
    /// Where the packet may go next; several: one is chosen for each flow.
    pub hops: Vec<Hop>,
    /// A cache entry.
    pub(super) cloned: bool,
}

/// One way on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the device.
    pub index: Option<u32>,
    /// Next router; none: the destination itself is on that link.
    pub via: Option<IpAddr>,
    /// The device is gone or down.
    pub dead: bool,
    /// The device has no carrier.
    pub linkdown: bool,
}

impl FibRoute {
    /// None if it is of another family.
    pub(super) fn read(message: &RouteMessage, v6: bool) -> Option<Self> {
        let header = &message.header;
        let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        if header.address_family != family {
            return None;
        }
        let unspecified: IpAddr = if v6 { [0; 16].into() } else { [0; 4].into() };
        let (mut destination, mut source) = (unspecified, None);
        let mut hop = Hop {
            index: None,
            via: None,
            dead: header.flags.contains(RouteFlags::Dead),
            linkdown: header.flags.contains(RouteFlags::Linkdown),
        };
        let mut route = Self {
            destination: IpNet::new(unspecified, 0).ok()?,
            table: header.table.into(),
            source: None,
            kind: header.kind,
            tos: header.tos,
            metric: 0,
            prefsrc: None,
            mtu: None,
            hops: Vec::new(),
            cloned: header.flags.contains(RouteFlags::Cloned),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Source(address) => source = ip(address),
                RouteAttribute::Table(number) => route.table = *number,
                RouteAttribute::Oif(index) => hop.index = Some(*index),
                RouteAttribute::Gateway(address) => hop.via = ip(address),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::PrefSource(address) => route.prefsrc = ip(address),
                RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
                RouteAttribute::MultiPath(hops) => {
                    route.hops = hops
                        .iter()
                        .map(|next| Hop {
                            index: Some(next.interface_index),
                            via: next.attributes.iter().find_map(|attribute| match attribute {
                                RouteAttribute::Gateway(address) => ip(address),
                                _ => None,
                            }),
                            dead: next.flags.contains(RouteNextHopFlags::Dead),
                            linkdown: next.flags.contains(RouteNextHopFlags::Linkdown),
                        })
                        .collect();
                }
                _ => {}
            }
        }
        if route.hops.is_empty() {
            route.hops.push(hop);
        }
        route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        route.source = source.and_then(|source| IpNet::new(source, header.source_prefix_length).ok());
        Some(route)
    }

    /// The errno by which it refuses; none: it leads somewhere. `EAGAIN` (throw): the next rule is asked.
    pub(super) fn refusal(&self) -> Option<i32> {
        Some(match self.kind {
            RouteType::BlackHole => libc::EINVAL,
            RouteType::Unreachable => libc::EHOSTUNREACH,
            RouteType::Prohibit => libc::EACCES,
            RouteType::Throw => libc::EAGAIN,
            _ => return None,
        })
    }
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

pub(super) fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

impl fmt::Display for FibRoute {
    /// As `ip route` takes it, but for the device, whose name is not known here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != RouteType::Unicast {
            write!(f, "{} ", kind_name(self.kind))?;
        }
        match self.destination.prefix_len() {
            0 => f.write_str("default")?,
            _ => write!(f, "{}", self.destination)?,
        }
        self.source.map_or(Ok(()), |source| write!(f, " from {source}"))?;
        if let [Hop { via: Some(via), .. }] = &self.hops[..] {
            write!(f, " via {via}")?;
        }
        write!(f, " table {}", table_name(self.table))?;
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        self.mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
    }
}
