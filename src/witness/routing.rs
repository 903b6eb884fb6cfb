//! The kernel's answers to the routing questions of a draft: asked now, for a packet with just these addresses and mark.

use std::net::IpAddr;

use super::decision;
use crate::{
    host::fib::{self, Decision, Device, Fib, Question},
    trace::{Draft, Packet, Page, Place, Route, Station},
    wire::ip::{TCP, UDP},
};

/// Asks for each routing station of the draft. A question that the kernel refuses is one thing more that it does not
/// tell: the rest of the page stands.
pub async fn answer(draft: &mut Draft, fib: &mut Fib, devices: &[Device]) {
    let mut draft = Some(draft);
    while let Some(now) = draft {
        answer_each(&mut now.page, fib, devices).await;
        draft = now.answer.as_deref_mut();
    }
}

async fn answer_each(page: &mut Page, fib: &mut Fib, devices: &[Device]) {
    // As it was at the hook before: rules may ask for ports.
    let mut packet = page.packet.clone();
    for station in &mut page.stations {
        if station.packet.is_some() && station.place != Place::Vpnd {
            packet.clone_from(&station.packet);
        }
        let asked = station.route.as_ref().and_then(|route| question(route, packet.as_ref(), devices));
        let Some(question) = asked else { continue };
        match fib.decide(&question).await {
            Ok(decision) => describe(station, &decision, devices),
            Err(error) => station.unknown.push(format!("the kernel does not tell the route: {error}")),
        }
    }
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
    let doubt = decision::answered(route, decision, devices);
    if let (Some(went), Some(answered)) = (&station.device, &route.device)
        && went != answered
        && route.answer.as_deref() == Some("unicast")
    {
        station.facts.push(format!(
            "the packet went by {went}, and the kernel, asked afterwards, says {answered}: something decided otherwise \
             for it, such as a socket that is bound to a device, or a cached route"
        ));
    }
    station.unknown.extend(doubt);
}
