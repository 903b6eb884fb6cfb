//! The kernel's routing decision in the words of a page, for a packet that was seen and for one that is only asked about.

use std::io;

use crate::{
    host::fib::{self, Decision, Device, FibRoute, FibRule},
    trace::{Route, RoutingRule},
};

/// So many rules are named where it may have been any of them.
const NAMED: usize = 4;

/// What was told to the question that stands in `route`; and what is not told about it: a sentence.
pub fn answered(route: &mut Route, decision: &Decision, devices: &[Device]) -> Option<String> {
    let end = decision.by.first().or_else(|| decision.listed.last());
    let matched = decision.matched.as_ref().or_else(|| end.and_then(|end| end.route.as_ref()));
    route.rule = decision.rule().map(routing_rule);
    match &decision.told {
        Ok(answer) => {
            route.answer = Some(fib::kind_name(answer.kind).to_owned());
            route.device = Some(device_name(answer.index, devices));
            (route.via, route.source, route.table) = (answer.via, answer.source, answer.table);
        }
        Err(error) => {
            route.error = Some(errno_name(error));
            route.table = matched.map(|route| route.table);
        }
    }
    if let Some(matched) = matched {
        route.prefix = Some(matched.destination.to_string());
        route.text = Some(route_words(matched, devices));
    }
    doubt(decision)
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

fn routing_rule(rule: &FibRule) -> RoutingRule {
    let text = rule.to_string();
    let text = text.split_once(": ").map_or(text.clone(), |(_, text)| text.to_owned());
    RoutingRule { priority: rule.priority, text }
}

/// "eth0", or its number where it is gone meanwhile.
pub fn device_name(index: u32, devices: &[Device]) -> String {
    let device = devices.iter().find(|device| device.index == index);
    device.map_or_else(|| format!("device {index}"), |device| device.name.clone())
}

/// In the words of `ip route`.
pub fn route_words(route: &FibRoute, devices: &[Device]) -> String {
    let mut text = route.to_string();
    let hops: Vec<_> = route.hops.iter().filter_map(|hop| Some((hop.index?, hop.via))).collect();
    match &hops[..] {
        [] => {}
        [(index, _)] => text += &format!(" dev {}", device_name(*index, devices)),
        several => {
            for (index, via) in several {
                let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
                text += &format!(" nexthop{via} dev {}", device_name(*index, devices));
            }
        }
    }
    text
}

/// `ENETUNREACH` and its kin; what has no name here has the kernel's words.
pub fn errno_name(error: &io::Error) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::EACCES, "EACCES"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENODEV, "ENODEV"),
        (libc::EXDEV, "EXDEV"),
        (libc::EMSGSIZE, "EMSGSIZE"),
        (libc::ENETDOWN, "ENETDOWN"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::ENOBUFS, "ENOBUFS"),
        (libc::EPROTO, "EPROTO"),
    ];
    let found = known.iter().find(|(number, _)| error.raw_os_error() == Some(*number));
    found.map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned())
}
