//! What is asked: a packet, as far as routing looks at it.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
};

/// The protocols that the kernel takes in such a question.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const ICMP: u8 = 1;
/// See [`TCP`].
pub const ICMP6: u8 = 58;

/// A packet that came by a device has no socket: the kernel takes root for its user.
const ROOT: u32 = 0;

/// A packet as routing sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Destination.
    pub to: IpAddr,
    /// Source; none: the kernel shall choose.
    pub from: Option<IpAddr>,
    /// The device that it came by; none: a program of this host sends it.
    pub iif: Option<String>,
    /// The index of that device, 0 where there is none.
    pub iif_index: u32,
    /// Mark.
    pub mark: u32,
    /// Transport protocol: [`TCP`], [`UDP`], [`ICMP`] or [`ICMP6`].
    pub protocol: u8,
    /// Source port; 0: not known.
    pub source_port: u16,
    /// Destination port; 0: not known.
    pub destination_port: u16,
    /// The user of the socket.
    pub user: u32,
}

impl Question {
    /// A datagram of this host to `to`, sent by this user.
    pub fn local(to: IpAddr, user: u32) -> Self {
        Self {
            to,
            from: None,
            iif: None,
            iif_index: 0,
            mark: 0,
            protocol: UDP,
            source_port: 0,
            destination_port: 0,
            user,
        }
    }

    /// A datagram that came by the device `iif` from `from`.
    pub fn forwarded(to: IpAddr, from: IpAddr, iif: &str, iif_index: u32) -> Self {
        Self { from: Some(from), iif: Some(iif.to_owned()), iif_index, ..Self::local(to, ROOT) }
    }

    /// IPv6?
    pub fn is_v6(&self) -> bool {
        self.to.is_ipv6()
    }

    /// As netlink takes it. `matched`: the answer is to be the route that stands in the table, rather than what becomes
    /// of it for this packet.
    pub(super) fn message(&self, matched: bool) -> RouteNetlinkMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = if self.is_v6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        header.kind = RouteType::Unspec;
        if !self.is_v6() {
            // IPv6 tells it unasked, and takes the flag for an error.
            header.flags |= RouteFlags::LookupTable;
        }
        if matched {
            header.flags |= RouteFlags::FibMatch;
        }
        let whole = if self.is_v6() { 128 } else { 32 };
        header.destination_prefix_length = whole;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(address(self.to)));
        if let Some(from) = self.from {
            header.source_prefix_length = whole;
            attributes.push(RouteAttribute::Source(address(from)));
        }
        if self.iif.is_some() {
            attributes.push(RouteAttribute::Iif(self.iif_index));
        }
        if self.mark != 0 {
            attributes.push(RouteAttribute::Mark(self.mark));
        }
        attributes.push(RouteAttribute::Uid(self.user));
        attributes.push(RouteAttribute::IpProto(self.protocol));
        if matches!(self.protocol, TCP | UDP) {
            let ports = [
                (self.source_port, RouteAttribute::Sport as fn(u16) -> RouteAttribute),
                (self.destination_port, RouteAttribute::Dport),
            ];
            attributes
                .extend(ports.into_iter().filter(|(port, _)| *port != 0).map(|(port, said)| said(port)));
        }
        RouteNetlinkMessage::GetRoute(message)
    }
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}
