//! Where the kernel would send a packet (its forwarding information base): rules and routes as values, its own answer
//! to the question (RTM_GETROUTE), and which rule led to that answer. Changes nothing.
//!
//! The kernel tells the table and the route, but no rule. So its walk is done over again with the rules and routes
//! that it lists, and what comes out is held against what it told: where they agree on one rule, it was that one.

mod device; // network devices, and addresses of this host
mod question; // a packet, as routing sees it
mod route;
mod rule;
pub mod settings; // sysctls that let packets through or stop them
mod source; // where IPv6 chooses an address before a route
mod walk; // rules and routes, walked

pub use netlink_packet_route::route::RouteType;

pub use device::Device;
pub use question::{ICMP, ICMP6, Question, TCP, UDP};
pub use route::{FibRoute, Hop};
pub use rule::{Action, FibRule, Matches};
pub use walk::{Listed, Outcome};

use std::{collections::HashMap, io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
    rule::RuleMessage,
};

use super::{
    HostError,
    exchange::Exchange,
    message::{LOCAL_TABLE, PresentRoute},
    plan::MAIN_TABLE,
};

/// The kernel's table for what no other has.
const DEFAULT_TABLE: u32 = 253;

/// Lists and answer are read one after the other; when they do not fit, something may have changed in between.
const ATTEMPTS: usize = 3;

/// A netlink conversation in the network namespace of the thread that opened it.
pub struct Fib {
    exchange: Exchange,
}

/// The kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Unicast, local, broadcast, …
    pub kind: RouteType,
    /// Index of the device by which the packet leaves; for an address of this host, by which it comes back.
    pub index: u32,
    /// In which table it was found; none: in none (the kernel assumes it on the link).
    pub table: Option<u32>,
    /// The source address: as asked, or as the kernel chooses.
    pub source: Option<IpAddr>,
    /// Next router; none: the destination itself is on that link.
    pub via: Option<IpAddr>,
    /// The largest packet, where a route says one or the path has told one.
    pub mtu: Option<u32>,
}

/// What becomes of a packet, and why.
#[derive(Debug)]
pub struct Decision {
    /// What the kernel told.
    pub told: Result<Answer, io::Error>,
    /// The route as it stands in the table; only where the packet goes somewhere.
    pub matched: Option<FibRoute>,
    /// Ends of the walk that are what the kernel told. One: so it was. Several: it cannot be known which.
    /// None: what is listed does not explain it.
    pub by: Vec<Outcome>,
    /// All ends of the walk.
    pub listed: Vec<Outcome>,
}

impl Fib {
    /// Inside a tokio runtime with I/O and time.
    pub fn open() -> Result<Self, HostError> {
        let exchange = Exchange::open().map_err(|e| HostError::new("open a netlink socket", e.into()))?;
        Ok(Self { exchange })
    }

    /// All devices.
    pub async fn devices(&mut self) -> Result<Vec<Device>, HostError> {
        let read = |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Device::read(&link)),
            _ => None,
        };
        let question = super::message::Link::all();
        self.exchange.dump(&question, read).await.map_err(|e| HostError::new("show links", e))
    }

    /// This host's addresses, and the device (by index) that each is on.
    pub async fn addresses(&mut self) -> Result<Vec<(IpNet, u32)>, HostError> {
        let addresses = self.exchange.addresses().await?;
        Ok(addresses.into_iter().map(|address| (address.network, address.index)).collect())
    }

    /// The rules, and the routes that hold the destination.
    pub async fn list(&mut self, question: &Question) -> Result<Listed, HostError> {
        let (v6, to) = (question.is_v6(), question.to);
        let read = |message| match message {
            RouteNetlinkMessage::NewRule(rule) => FibRule::read(&rule, v6),
            _ => None,
        };
        let mut rules = RuleMessage::default();
        rules.header.family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let rules = self.exchange.dump(&RouteNetlinkMessage::GetRule(rules), read).await;
        let rules = rules.map_err(|e| HostError::new("show rules", e))?;
        let read = |message| match message {
            RouteNetlinkMessage::NewRoute(route) => {
                FibRoute::read(&route, v6).filter(|r| !r.cloned && r.destination.contains(&to))
            }
            _ => None,
        };
        let routes = self.exchange.dump(&PresentRoute::all(v6, None, None), read).await;
        let routes = routes.map_err(|e| HostError::new("show routes", e))?;
        let groups = match rules.iter().any(|rule| rule.suppress_group.is_some()) {
            true => self.devices().await?.iter().map(|device| (device.index, device.group)).collect(),
            false => HashMap::new(),
        };
        Ok(Listed { rules, routes, groups })
    }

    /// Asks the kernel, and finds the rule that led to its answer.
    pub async fn decide(&mut self, question: &Question) -> Result<Decision, HostError> {
        let mut attempt = 1;
        loop {
            let listed = self.list(question).await?.walk(question);
            let mut told = self.ask(question).await?;
            let mut matched = match &told {
                Ok(_) => self.matched(question).await?,
                Err(_) => None,
            };
            if let Ok(answer) = &mut told {
                name_table(&listed, answer, matched.as_mut());
            }
            let by: Vec<_> =
                listed.iter().filter(|end| agrees(end, &told, matched.as_ref())).cloned().collect();
            if !by.is_empty() || attempt == ATTEMPTS {
                return Ok(Decision { told, matched, by, listed });
            }
            attempt += 1;
        }
    }

    /// As for a socket of this host: where IPv6 finds no way without a source, it chooses one and asks again. Returns
    /// the question that counted, with its decision, and the first one where there were two.
    pub async fn decide_for_socket(
        &mut self,
        question: &Question,
    ) -> Result<(Question, Decision, Option<Decision>), HostError> {
        let mut first = self.decide(question).await?;
        let is_asked_again =
            first.told.is_err() && question.is_v6() && question.from.is_none() && question.iif.is_none();
        if !is_asked_again {
            return Ok((question.clone(), first, None));
        }
        match source::chosen(question) {
            Ok(source) => {
                let second = Question { from: Some(source), ..question.clone() };
                let decision = self.decide(&second).await?;
                Ok((second, decision, Some(first)))
            }
            Err(error) => {
                let same =
                    first.told.as_ref().err().and_then(io::Error::raw_os_error) == error.raw_os_error();
                if !same && is_verdict(&error) {
                    // With a source that is not told.
                    (first.told, first.by, first.listed) = (Err(error), Vec::new(), Vec::new());
                }
                Ok((question.clone(), first, None))
            }
        }
    }

    async fn ask(&mut self, question: &Question) -> Result<Result<Answer, io::Error>, HostError> {
        match self.exchange.ask(question.message(false)).await {
            Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(Ok(Answer::read(&route, question))),
            Ok(_) => Ok(Err(io::Error::from(io::ErrorKind::InvalidData))),
            // With a reason in words it is about the question.
            Err(refused) if is_verdict(&refused.error) && refused.reason.is_none() => Ok(Err(refused.error)),
            Err(refused) => Err(HostError::new(format!("ask for the route to {}", question.to), refused)),
        }
    }

    async fn matched(&mut self, question: &Question) -> Result<Option<FibRoute>, HostError> {
        match self.exchange.ask(question.message(true)).await {
            Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(FibRoute::read(&route, question.is_v6())),
            // Older than 4.13, or the kernel goes without a route.
            _ => Ok(None),
        }
    }
}

/// Is it an answer about the packet, rather than a failure to ask?
fn is_verdict(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EACCES
                | libc::EXDEV
                | libc::ENETDOWN
                | libc::ENODEV
        )
    )
}

/// Until a rule is added the kernel keeps the local and the main table of IPv4 as one, and says "main" of both: a route that
/// is listed in the local one alone is that one's.
fn name_table(listed: &[Outcome], answer: &mut Answer, matched: Option<&mut FibRoute>) {
    let route = matched.as_deref();
    let is_in = |table| listed.iter().any(|end| gives(end, answer, route) && end.is_in(table));
    if answer.table == Some(MAIN_TABLE) && !is_in(MAIN_TABLE) && is_in(LOCAL_TABLE) {
        answer.table = Some(LOCAL_TABLE);
        if let Some(matched) = matched {
            matched.table = LOCAL_TABLE;
        }
    }
}

/// Does this end of the walk give what the kernel told?
fn agrees(end: &Outcome, told: &Result<Answer, io::Error>, matched: Option<&FibRoute>) -> bool {
    match told {
        Err(error) => end.errno.is_some() && error.raw_os_error() == end.errno,
        Ok(answer) => gives(end, answer, matched) && answer.table.is_some_and(|table| end.is_in(table)),
    }
}

/// In whatever table.
fn gives(end: &Outcome, answer: &Answer, matched: Option<&FibRoute>) -> bool {
    let (Some(route), None) = (&end.route, end.errno) else { return false };
    let same_route = matched
        .is_none_or(|matched| matched.destination == route.destination && matched.metric == route.metric);
    // A packet to this host itself comes by `lo`, whatever device the address is on.
    let local = matches!(answer.kind, RouteType::Local);
    same_route && (local || route.hops.iter().any(|hop| hop.index == Some(answer.index)))
}

impl Outcome {
    fn is_in(&self, table: u32) -> bool {
        self.route.as_ref().is_some_and(|route| route.table == table)
    }
}

impl Answer {
    fn read(message: &RouteMessage, question: &Question) -> Self {
        let mut answer = Self {
            kind: message.header.kind,
            index: 0,
            table: Some(message.header.table.into()),
            source: question.from,
            via: None,
            mtu: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => answer.index = *index,
                RouteAttribute::Table(number) => answer.table = Some(*number),
                RouteAttribute::PrefSource(address) => {
                    answer.source = answer.source.or_else(|| route::ip(address));
                }
                RouteAttribute::Gateway(address) => answer.via = route::ip(address),
                RouteAttribute::Metrics(metrics) => answer.mtu = route::mtu(metrics),
                _ => {}
            }
        }
        answer.table = answer.table.filter(|table| *table != 0);
        answer
    }
}

impl Decision {
    /// The rule that it was; none: it cannot be told.
    pub fn rule(&self) -> Option<&FibRule> {
        let mut rules = self.by.iter().map(|end| end.rule.as_ref());
        let first = rules.next()?;
        rules.all(|rule| rule == first).then_some(first).flatten()
    }
}

/// As `ip` writes it.
pub fn table_name(table: u32) -> String {
    match table {
        LOCAL_TABLE => "local".into(),
        MAIN_TABLE => "main".into(),
        DEFAULT_TABLE => "default".into(),
        _ => table.to_string(),
    }
}

/// As `ip` writes it.
pub fn kind_name(kind: RouteType) -> &'static str {
    match kind {
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        _ => "unknown",
    }
}
