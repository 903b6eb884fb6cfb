//! The kernel's decision in the words of a page: the route, the rule that led to it, and why a packet goes nowhere.

use std::io;

use super::{Answer, Decision, Planner, Question};
use crate::host::fib::{self, FibRoute, FibRule};
use crate::trace::{Route, RoutingRule, Station};

/// So many rules are named where it may have been any of them.
const NAMED: usize = 4;

impl Planner<'_> {
    /// What was asked and what was told, at a station of its own; what is not told stands there, too.
    pub(super) fn describe(&self, station: &mut Station, question: &Question, decision: &Decision) {
        station.mark = Some(question.mark);
        let mut route = Route {
            destination: Some(question.to),
            from: question.from,
            iif: question.iif.clone(),
            mark: question.mark,
            rule: decision.rule().map(routing_rule),
            ..Route::default()
        };
        let end = decision.by.first().or_else(|| decision.listed.last());
        let matched = decision.matched.as_ref().or_else(|| end.and_then(|end| end.route.as_ref()));
        match &decision.told {
            Ok(answer) => {
                route.answer = Some(fib::kind_name(answer.kind).to_owned());
                route.device = Some(self.device_name(answer.index));
                (route.via, route.source, route.table) = (answer.via, answer.source, answer.table);
                station.device.clone_from(&route.device);
            }
            Err(error) => {
                route.error = Some(errno_name(error));
                route.table = matched.map(|route| route.table);
            }
        }
        if let Some(matched) = matched {
            route.prefix = Some(matched.destination.to_string());
            route.text = Some(self.route_words(matched));
        }
        station.route = Some(route);
        station.unknown.extend(doubt(decision));
    }

    /// In the words of `ip route`.
    pub(super) fn route_words(&self, route: &FibRoute) -> String {
        let mut text = route.to_string();
        let hops: Vec<_> = route.hops.iter().filter_map(|hop| Some((hop.index?, hop.via))).collect();
        match &hops[..] {
            [] => {}
            [(index, _)] => text += &format!(" dev {}", self.device_name(*index)),
            several => {
                for (index, via) in several {
                    let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
                    text += &format!(" nexthop{via} dev {}", self.device_name(*index));
                }
            }
        }
        text
    }

    /// Why a packet goes nowhere, as far as rules and routes are to blame.
    pub(super) fn refused_by_routing(&self, question: &Question, decision: &Decision) -> Option<String> {
        let error = decision.told.as_ref().err()?;
        let mut reasons: Vec<_> = decision
            .by
            .iter()
            .map(|end| match (&end.rule, &end.route) {
                (Some(rule), Some(route)) => format!("route \"{}\" ({rule})", self.route_words(route)),
                (Some(rule), None) => format!("rule \"{rule}\""),
                (None, _) => format!("no rule leads to a route for {}", question.to),
            })
            .collect();
        reasons.dedup();
        match &reasons[..] {
            [] => None,
            [one] => Some(format!("{one}: {}", consequence(error))),
            several => {
                let several = several[..several.len().min(NAMED)].join(", or ");
                Some(format!("{}: {several}; the kernel does not tell which", consequence(error)))
            }
        }
    }
}

pub(super) fn routing_rule(rule: &FibRule) -> RoutingRule {
    let text = rule.to_string();
    let text = text.split_once(": ").map_or(text.clone(), |(_, text)| text.to_owned());
    RoutingRule { priority: rule.priority, text }
}

/// What is not told about a decision.
fn doubt(decision: &Decision) -> Option<String> {
    let several = decision.by.len() > 1 && decision.rule().is_none();
    if several {
        let mut rules: Vec<_> =
            decision.by.iter().filter_map(|end| end.rule.as_ref()).map(FibRule::to_string).collect();
        rules.dedup();
        let rules = rules[..rules.len().min(NAMED)].join("; or ");
        return Some(format!("the kernel does not tell by which rule: it may have been {rules}"));
    }
    let told = decision.told.as_ref().ok()?;
    match (decision.by.is_empty(), told.table) {
        (false, _) => None,
        (true, None) => {
            Some("no table has such a route: the kernel takes it to be on the device's own link".to_owned())
        }
        (true, Some(_)) => {
            Some("the rules and routes that the kernel lists do not lead to what it answers".to_owned())
        }
    }
}

/// What a program sees.
fn consequence(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "it is dropped without a word (EINVAL)",
        Some(libc::EACCES) => "it is refused as prohibited (EACCES)",
        Some(libc::EHOSTUNREACH) => "it is refused as unreachable (EHOSTUNREACH)",
        Some(libc::ENETUNREACH) => "the network is unreachable (ENETUNREACH)",
        _ => "it is refused",
    }
}

pub(super) fn errno_name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "EINVAL".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH".to_owned(),
        Some(libc::ENETUNREACH) => "ENETUNREACH".to_owned(),
        Some(libc::EXDEV) => "EXDEV".to_owned(),
        Some(libc::ENETDOWN) => "ENETDOWN".to_owned(),
        Some(libc::ENODEV) => "ENODEV".to_owned(),
        _ => error.to_string(),
    }
}

/// The largest packet on this way: what the route or the path said, else the device.
pub(super) fn path_mtu(planner: &Planner<'_>, answer: &Answer, matched: Option<&FibRoute>) -> Option<u32> {
    let device = planner.device(answer.index).map(|device| device.mtu);
    [answer.mtu, matched.and_then(|route| route.mtu), device].into_iter().flatten().min()
}

/// IPv6 found no way without a source, chose one, and asked again.
pub(super) fn asked_twice(question: &Question, first: Option<&Decision>) -> Option<String> {
    let error = errno_name(first?.told.as_ref().err()?);
    let source = question.from?;
    Some(format!("without a source there is no way ({error}): so the kernel chose {source} and asked again"))
}

/// "main", or a number.
pub(super) fn table(number: u32) -> String {
    fib::table_name(number)
}

/// The kernel said no, and neither rules nor routes say why.
pub(super) fn unexplained(decision: &Decision) -> String {
    let error = decision.told.as_ref().err().map(errno_name).unwrap_or_default();
    format!("the kernel refuses it ({error}), and does not tell why")
}
