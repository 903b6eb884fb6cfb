//! A policy rule as the kernel keeps it, whole: all that it asks of a packet, and what follows.

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use serde::{Deserialize, Serialize};

use super::{question::Question, table_name};

/// One rule (`ip rule`), with each of its selectors; an absent one asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FibRule {
    /// The lowest goes first.
    pub priority: u32,
    /// All selectors taken together are turned round (`not`).
    pub inverted: bool,
    /// Source.
    pub from: Option<IpNet>,
    /// Destination.
    pub to: Option<IpNet>,
    /// Device by which the packet came; `lo`: it is of this host.
    pub iif: Option<String>,
    /// Device that the socket is bound to.
    pub oif: Option<String>,
    /// Mark, compared under the mask.
    pub mark: Option<(u32, u32)>,
    /// Type of service.
    pub tos: u8,
    /// User of the socket.
    pub users: Option<RangeInclusive<u32>>,
    /// Transport protocol.
    pub protocol: Option<u8>,
    /// Source port.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Destination port.
    pub destination_ports: Option<RangeInclusive<u16>>,
    /// It asks for something that is not understood here, in words.
    pub beyond: Option<&'static str>,
    /// A device that it names is not there: then nothing comes by it.
    pub detached: bool,
    /// What follows.
    pub action: Action,
    /// A route whose prefix is this long or shorter does not count (`suppress_prefixlength`).
    pub suppress: Option<u8>,
    /// A route to a device of this group does not count.
    pub suppress_group: Option<u32>,
}

/// What a rule does with a packet that it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Look into this table; if it has no route, the next rule is asked.
    Lookup(u32),
    /// Go on with the rule of this priority.
    Goto(u32),
    /// Nothing: the next rule is asked.
    #[default]
    Nop,
    /// Dropped in silence.
    Blackhole,
    /// Refused: network unreachable.
    Unreachable,
    /// Refused: administratively prohibited.
    Prohibit,
}

/// Is a rule for a packet?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matches {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// It asks for what is not known of the packet.
    Unknown,
}

impl FibRule {
    /// None if it is of another family.
    pub(super) fn read(message: &RuleMessage, v6: bool) -> Option<Self> {
        let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let header = &message.header;
        if header.family != family {
            return None;
        }
        let gone = RuleFlags::IifDetached | RuleFlags::OifDetached;
        let mut rule = Self {
            inverted: header.flags.contains(RuleFlags::Invert),
            tos: header.tos,
            detached: header.flags.intersects(gone),
            ..Self::default()
        };
        let (mut table, mut target) = (u32::from(header.table), 0);
        let (mut mark, mut mask) = (0, None);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(number) => table = *number,
                RuleAttribute::Goto(priority) => target = *priority,
                RuleAttribute::Source(address) => rule.from = IpNet::new(*address, header.src_len).ok(),
                RuleAttribute::Destination(address) => rule.to = IpNet::new(*address, header.dst_len).ok(),
                RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
                RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
                RuleAttribute::FwMark(number) => mark = *number,
                RuleAttribute::FwMask(number) => mask = Some(*number),
                RuleAttribute::UidRange(users) => rule.users = Some(users.start..=users.end),
                RuleAttribute::IpProtocol(protocol) => rule.protocol = Some(u8::from(*protocol)),
                RuleAttribute::SourcePortRange(ports) => rule.source_ports = Some(ports.start..=ports.end),
                RuleAttribute::DestinationPortRange(ports) => {
                    rule.destination_ports = Some(ports.start..=ports.end);
                }
                RuleAttribute::SuppressPrefixLen(length) => rule.suppress = u8::try_from(*length).ok(),
                RuleAttribute::SuppressIfGroup(group) => {
                    rule.suppress_group = Some(*group).filter(|group| *group != u32::MAX);
                }
                other => rule.beyond = rule.beyond.or(beyond(other)),
            }
        }
        rule.mark = mask.filter(|mask| *mask != 0).map(|mask| (mark, mask));
        rule.action = match header.action {
            RuleAction::ToTable => Action::Lookup(table),
            RuleAction::Goto => Action::Goto(target),
            RuleAction::Blackhole => Action::Blackhole,
            RuleAction::Unreachable => Action::Unreachable,
            RuleAction::Prohibit => Action::Prohibit,
            _ => Action::Nop,
        };
        Some(rule)
    }

    /// Is it for this packet? As the kernel compares (fib_rule_match in net/core/fib_rules.c, and for the families
    /// fib4_rule_match and fib6_rule_match).
    pub fn matches(&self, question: &Question) -> Matches {
        let certain = self.certain(question);
        match (certain, self.beyond) {
            // What is not understood cannot make a packet fit that something else excludes.
            (true, Some(_)) => Matches::Unknown,
            (fits, _) if fits != self.inverted => Matches::Yes,
            _ => Matches::No,
        }
    }

    /// Does the packet have all that is asked and understood?
    fn certain(&self, question: &Question) -> bool {
        let holds = |net: &IpNet, address: Option<IpAddr>| match address {
            Some(address) => net.contains(&address),
            // No source is chosen yet: the kernel compares 0.0.0.0; in IPv6 it says no.
            None => net.addr().is_ipv4() && net.contains(&IpAddr::V4(0.into())),
        };
        let came_by = question.iif.as_deref().unwrap_or("lo");
        let within = |ports: &Option<RangeInclusive<u16>>, port: u16| {
            ports.as_ref().is_none_or(|ports| ports.contains(&port))
        };
        !self.detached
            && self.iif.as_deref().is_none_or(|iif| iif == came_by)
            && self.oif.is_none()
            && self.mark.is_none_or(|(mark, mask)| (mark ^ question.mark) & mask == 0)
            && self.users.as_ref().is_none_or(|users| users.contains(&question.user))
            && self.from.as_ref().is_none_or(|net| holds(net, question.from))
            && self.to.as_ref().is_none_or(|net| net.contains(&question.to))
            && self.tos == 0
            && self.protocol.is_none_or(|protocol| protocol == question.protocol)
            && within(&self.source_ports, question.source_port)
            && within(&self.destination_ports, question.destination_port)
    }
}

/// What an attribute asks that is not understood here.
fn beyond(attribute: &RuleAttribute) -> Option<&'static str> {
    match attribute {
        RuleAttribute::L3MDev(true) => Some("l3mdev"),
        RuleAttribute::TunId(_) => Some("tun_id"),
        RuleAttribute::Other(_) => Some("an unknown selector"),
        _ => None,
    }
}

impl fmt::Display for FibRule {
    /// As `ip rule` shows it: "32766: from all lookup main".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        if self.inverted {
            f.write_str(" not")?;
        }
        match self.from {
            Some(from) => write!(f, " from {from}")?,
            None => f.write_str(" from all")?,
        }
        self.to.map_or(Ok(()), |to| write!(f, " to {to}"))?;
        if self.tos != 0 {
            write!(f, " tos {:#x}", self.tos)?;
        }
        match self.mark {
            Some((mark, u32::MAX)) => write!(f, " fwmark {mark:#x}")?,
            Some((mark, mask)) => write!(f, " fwmark {mark:#x}/{mask:#x}")?,
            None => {}
        }
        for (word, device) in [("iif", &self.iif), ("oif", &self.oif)] {
            device.as_ref().map_or(Ok(()), |device| write!(f, " {word} {device}"))?;
        }
        if self.detached {
            f.write_str(" [no such device]")?;
        }
        self.users
            .as_ref()
            .map_or(Ok(()), |users| write!(f, " uidrange {}-{}", users.start(), users.end()))?;
        self.protocol.map_or(Ok(()), |protocol| write!(f, " ipproto {protocol}"))?;
        for (word, ports) in [("sport", &self.source_ports), ("dport", &self.destination_ports)] {
            ports.as_ref().map_or(Ok(()), |ports| write!(f, " {word} {}-{}", ports.start(), ports.end()))?;
        }
        self.beyond.map_or(Ok(()), |what| write!(f, " [{what}]"))?;
        match self.action {
            Action::Lookup(table) => write!(f, " lookup {}", table_name(table))?,
            Action::Goto(priority) => write!(f, " goto {priority}")?,
            Action::Nop => f.write_str(" nop")?,
            Action::Blackhole => f.write_str(" blackhole")?,
            Action::Unreachable => f.write_str(" unreachable")?,
            Action::Prohibit => f.write_str(" prohibit")?,
        }
        self.suppress.map_or(Ok(()), |length| write!(f, " suppress_prefixlength {length}"))?;
        self.suppress_group.map_or(Ok(()), |group| write!(f, " suppress_ifgroup {group}"))
    }
}
