//! Our values ⇄ netlink messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol},
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::plan::{MAIN_TABLE, Route, is_v6};

/// Written into each address, route and rule that we place, so that it is known as ours: `proto 118` in the
/// words of `ip` ('v'; free in iproute2's rt_protos). The kernel itself does nothing with it.
pub const PROTOCOL: u8 = b'v';

/// The kernel's table for the host's own addresses.
pub(super) const LOCAL_TABLE: u32 = 255;

/// The marks that daemons choose for themselves (wg-quick begins at 51820, too). A default route into one tunnel
/// lets the packets of all of them pass by: else two such tunnels on one host would seal each other's packets,
/// larger each time, without end.
pub(super) const OWN_MARKS: std::ops::RangeInclusive<u32> = 0xca00..=0xcaff;
const OWN_MARKS_MASK: u32 = !0xff;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) flags: LinkFlags,
    /// Such as "tun" or "wireguard"; none for hardware.
    pub(super) kind: Option<String>,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }

    pub(super) fn by_name(name: &str) -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetLink(LinkMessageBuilder::<LinkUnspec>::new().name(name).build())
    }

    pub(super) fn by_index(index: u32) -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetLink(LinkMessageBuilder::<LinkUnspec>::new().index(index).build())
    }

    pub(super) fn deletion(index: u32) -> RouteNetlinkMessage {
        RouteNetlinkMessage::DelLink(LinkMessageBuilder::<LinkUnspec>::new().index(index).build())
    }

    pub(super) fn all() -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetLink(LinkMessage::default())
    }

    /// While it is up there is no multicast, as on the kernel's own WireGuard: no group is told into the tunnel.
    pub(super) fn set(index: u32, mtu: u32, up: bool, gso_max_segs: Option<u32>) -> RouteNetlinkMessage {
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(index).mtu(mtu).multicast(!up);
        let mut link = if up { link.up() } else { link.down() }.build();
        link.attributes.extend(gso_max_segs.map(LinkAttribute::GsoMaxSegs));
        RouteNetlinkMessage::SetLink(link)
    }

    /// Before it is up: the kernel is to give it no link-local address, with which it would ask for routers.
    pub(super) fn without_link_local(index: u32) -> RouteNetlinkMessage {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let mut link = LinkMessageBuilder::<LinkUnspec>::new().index(index).build();
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        RouteNetlinkMessage::SetLink(link)
    }

    pub(super) fn read(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            flags: message.header.flags,
            kind: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) network: IpNet,
    /// Marked as placed by us (kernels from 5.18 on keep the mark).
    pub(super) ours: bool,
}

impl Address {
    /// Without duplicate address detection (IPv6), so that it is usable at once: there is no link to ask.
    pub(super) fn message(index: u32, network: IpNet) -> AddressMessage {
        let mut message = match network {
            IpNet::V4(n) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(n.addr(), n.prefix_len())
                .build(),
            IpNet::V6(n) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(n.addr(), n.prefix_len())
                .build(),
        };
        // A tunnel has no broadcast.
        message.attributes.retain(|a| !matches!(a, AddressAttribute::Broadcast(_)));
        if is_v6(&network) {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
        message
    }

    pub(super) fn all() -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetAddress(AddressMessage::default())
    }

    /// Where a device has a far end, LOCAL is ours and ADDRESS is the other's; IPv6 often has ADDRESS alone.
    pub(super) fn read(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address, mut ours) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Protocol(protocol) => ours = u8::from(*protocol) == PROTOCOL,
                _ => {}
            }
        }
        let network = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Self { index: message.header.index, network, ours })
    }
}

/// A route that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PresentRoute {
    pub(super) route: Route,
    /// The device it leads to; none for multipath, unreachable and the like.
    pub(super) index: Option<u32>,
    pub(super) ours: bool,
    /// A cache entry, not a route that somebody placed.
    pub(super) cloned: bool,
    /// The largest packet, where the route names one.
    pub(super) mtu: Option<u32>,
}

impl PresentRoute {
    pub(super) fn message(index: u32, route: Route) -> RouteMessage {
        let builder = RouteMessageBuilder::<IpAddr>::new()
            .output_interface(index)
            .table_id(route.table)
            .protocol(RouteProtocol::Other(PROTOCOL))
            .scope(if is_v6(&route.destination) { RouteScope::Universe } else { RouteScope::Link });
        let (address, length) = (route.destination.addr(), route.destination.prefix_len());
        // Addresses of our own making: the length was checked when the prefix was made.
        builder.destination_prefix(address, length).expect("a prefix has a valid length").build()
    }

    /// The question for the routes of one family, narrowed where the kernel can do it.
    pub(super) fn all(v6: bool, table: Option<u32>, index: Option<u32>) -> RouteNetlinkMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(v6);
        message.header.kind = RouteType::Unspec;
        message.attributes.extend(table.map(RouteAttribute::Table));
        message.attributes.extend(index.map(RouteAttribute::Oif));
        RouteNetlinkMessage::GetRoute(message)
    }

    /// None if it is of another family (a kernel without IPv6 answers with IPv4).
    pub(super) fn read(message: &RouteMessage, v6: bool) -> Option<Self> {
        let header = &message.header;
        if header.address_family != family(v6) {
            return None;
        }
        let unspecified =
            if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let (mut address, mut table) = (unspecified, u32::from(header.table));
        let (mut index, mut mtu) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(a)) => address = (*a).into(),
                RouteAttribute::Destination(RouteAddress::Inet6(a)) => address = (*a).into(),
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Oif(number) => index = Some(*number),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let destination = IpNet::new(address, header.destination_prefix_length).ok()?;
        Some(Self {
            route: Route { destination, table },
            index,
            ours: header.protocol == RouteProtocol::Other(PROTOCOL),
            cloned: header.flags.contains(netlink_packet_route::route::RouteFlags::Cloned),
            mtu,
        })
    }
}

/// A policy rule as the kernel keeps it, as far as we look at rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PresentRule {
    pub(super) v6: bool,
    pub(super) priority: u32,
    pub(super) table: u32,
    pub(super) mark: Option<u32>,
    pub(super) mask: u32,
    pub(super) inverted: bool,
    pub(super) suppresses_default: bool,
    pub(super) ours: bool,
}

impl PresentRule {
    /// `lookup main suppress_prefixlength 0`, ours.
    pub(super) fn suppress(v6: bool, priority: u32) -> Self {
        Self {
            v6,
            priority,
            table: MAIN_TABLE,
            mark: None,
            mask: u32::MAX,
            inverted: false,
            suppresses_default: true,
            ours: true,
        }
    }

    /// `not fwmark MARK lookup TABLE`, ours. A mark of the file's own is compared whole.
    pub(super) fn not_marked(v6: bool, priority: u32, mark: u32, table: u32) -> Self {
        Self {
            v6,
            priority,
            table,
            mark: Some(mark),
            mask: if OWN_MARKS.contains(&mark) { OWN_MARKS_MASK } else { u32::MAX },
            inverted: true,
            suppresses_default: false,
            ours: true,
        }
    }

    /// Only for our own two kinds.
    pub(super) fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family(self.v6);
        message.header.action = RuleAction::ToTable;
        if self.inverted {
            message.header.flags = RuleFlags::Invert;
        }
        match u8::try_from(self.table) {
            Ok(table) => message.header.table = table,
            Err(_) => message.attributes.push(RuleAttribute::Table(self.table)),
        }
        message.attributes.extend(self.mark.map(RuleAttribute::FwMark));
        if self.mask != u32::MAX {
            message.attributes.push(RuleAttribute::FwMask(self.mask));
        }
        if self.suppresses_default {
            message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        }
        message.attributes.push(RuleAttribute::Priority(self.priority));
        message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
        message
    }

    pub(super) fn all(v6: bool) -> RouteNetlinkMessage {
        let mut message = RuleMessage::default();
        message.header.family = family(v6);
        RouteNetlinkMessage::GetRule(message)
    }

    pub(super) fn read(message: &RuleMessage, v6: bool) -> Option<Self> {
        if message.header.family != family(v6) {
            return None;
        }
        let mut rule = Self {
            v6,
            priority: 0, // not said when it is 0
            table: message.header.table.into(),
            mark: None,
            mask: u32::MAX,
            inverted: message.header.flags.contains(RuleFlags::Invert),
            suppresses_default: false,
            ours: false,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                RuleAttribute::FwMask(mask) => rule.mask = *mask,
                RuleAttribute::SuppressPrefixLen(length) => rule.suppresses_default = *length == 0,
                RuleAttribute::Protocol(p) => rule.ours = *p == RouteProtocol::Other(PROTOCOL),
                _ => {}
            }
        }
        Some(rule)
    }
}

fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}
