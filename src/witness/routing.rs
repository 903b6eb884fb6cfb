//! The kernel's answers to the routing questions of a draft: asked now, for a packet with just these addresses and mark.

use std::net::IpAddr;

use super::probe;
use crate::{
    host::{
        HostError,
        fib::{self, Decision, Device, Fib, FibRoute, FibRule, Question},
    },
    trace::{Draft, Packet, Place, Route, RoutingRule, Station},
    wire::ip::{TCP, UDP},
};

/// So many rules are named where it may have been any of them.
const NAMED: usize = 4;

/// Asks for each routing station of the draft.
pub async fn answer(draft: &mut Draft, fib: &mut Fib, devices: &[Device]) -> Result<(), HostError> {
    // As it was at the hook before: rules may ask for ports.
    let mut packet = draft.page.packet.clone();
    for station in &mut draft.page.stations {
        if station.packet.is_some() && station.place != Place::Vpnd {
            packet.clone_from(&station.packet);
        }
        let asked = station.route.as_ref().and_then(|route| question(route, packet.as_ref(), devices));
        let Some(question) = asked else { continue };
        let decision = fib.decide(&question).await?;
        describe(station, &decision, devices);
    }
    Ok(())
}

fn question(route: &Route, packet: Option<&Packet>, devices: &[Device]) -> Option<Question> {
    let to = route.destination?;
    let index = |name: &String| devices.iter().find(|device| device.name == *name).map(|device| device.index);
    let chosen = |from: &IpAddr| !from.is_unspecified();
    // What a program of root sends; which user another one runs as nobody tells.
    let mut question = Question::local(to, 0);
    question.from = route.from.filter(chosen);
    question.mark = route.mark;
    if let Some(iif) = &route.iif {
        (question.iif_index, question.iif) = (index(iif)?, Some(iif.clone()));
    }
    if let Some(packet) = packet {
        question.protocol = match packet.protocol.as_str() {
            "tcp" => TCP,
            "udp" => UDP,
            "icmpv6" => fib::ICMP6,
            _ => fib::ICMP,
        };
        question.source_port = packet.source_port.unwrap_or(0);
        question.destination_port = packet.destination_port.unwrap_or(0);
    }
    Some(question)
}

fn describe(station: &mut Station, decision: &Decision, devices: &[Device]) {
    let Some(route) = &mut station.route else { return };
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
            route.error = Some(probe::name(error));
            route.table = matched.map(|route| route.table);
        }
    }
    if let Some(matched) = matched {
        route.prefix = Some(matched.destination.to_string());
        route.text = Some(route_words(matched, devices));
    }
    if let (Some(went), Some(answered)) = (&station.device, &route.device)
        && went != answered
        && route.answer.as_deref() == Some("unicast")
    {
        station.facts.push(format!(
            "the packet went by {went}, and the kernel, asked afterwards, says {answered}: something decided otherwise \
             for it, such as a socket that is bound to a device, or a cached route"
        ));
    }
    if decision.by.len() > 1 && decision.rule().is_none() {
        let mut rules: Vec<_> =
            decision.by.iter().filter_map(|end| end.rule.as_ref()).map(FibRule::to_string).collect();
        rules.dedup();
        rules.truncate(NAMED);
        let rules = rules.join("; or ");
        station.unknown.push(format!("the kernel does not tell by which rule: it may have been {rules}"));
    }
}

fn device_name(index: u32, devices: &[Device]) -> String {
    let device = devices.iter().find(|device| device.index == index);
    device.map_or_else(|| format!("device {index}"), |device| device.name.clone())
}

/// In the words of `ip route`.
fn route_words(route: &FibRoute, devices: &[Device]) -> String {
    let mut text = route.to_string();
    for (index, via) in route.hops.iter().filter_map(|hop| Some((hop.index?, hop.via))) {
        let device = device_name(index, devices);
        match (via, route.hops.len()) {
            (Some(via), 2..) => text += &format!(" nexthop via {via} dev {device}"),
            (None, 2..) => text += &format!(" nexthop dev {device}"),
            _ => text += &format!(" dev {device}"),
        }
    }
    text
}

fn routing_rule(rule: &FibRule) -> RoutingRule {
    let text = rule.to_string();
    let text = text.split_once(": ").map_or(text.clone(), |(_, text)| text.to_owned());
    RoutingRule { priority: rule.priority, text }
}
