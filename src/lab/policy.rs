//! Policy routing on a lab's host: routes in other tables than main, and the rules that lead there.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::{
    IpVersion, RouteMessageBuilder,
    packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::{
    error::{Attempted, LabError},
    namespace::Namespace,
    netlink::{converse, link as find},
};

/// Adds a route to the table with this number.
pub fn add_route(
    namespace: &Namespace,
    table: u32,
    destination: Ipv4Net,
    via: Ipv4Addr,
    device: &str,
) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        let index = find(&handle, device).await?.header.index;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination.network(), destination.prefix_len())
            .gateway(via)
            .output_interface(index)
            .table_id(table);
        handle.route().add(route.build()).execute().await
    })
    .attempted(|| format!("add route {destination} to table {table} in {}", namespace.name()))
}

/// Sends packets with this mark to the table with this number.
pub fn add_rule(namespace: &Namespace, priority: u32, mark: u32, table: u32) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        let rule = handle.rule().add().v4().priority(priority).fw_mark(mark);
        rule.table_id(table).action(RuleAction::ToTable).execute().await
    })
    .attempted(|| format!("add a rule for mark {mark:#x} in {}", namespace.name()))
}

/// The rules for IPv4 in the order in which the kernel asks them, in the words of `ip rule`.
pub fn rules(namespace: &Namespace) -> Result<Vec<String>, LabError> {
    let rules: Vec<RuleMessage> = converse(namespace.file(), async |handle| {
        handle.rule().get(IpVersion::V4).execute().try_collect().await
    })
    .attempted(|| format!("list the rules of {}", namespace.name()))?;
    Ok(rules.iter().map(words).collect())
}

/// The name that `ip` has for a table.
pub fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        other => other.to_string(),
    }
}

fn words(rule: &RuleMessage) -> String {
    let (mut priority, mut from, mut mark, mut suppress) = (0, None::<IpAddr>, String::new(), String::new());
    let mut table = u32::from(rule.header.table);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Source(address) => from = Some(*address),
            RuleAttribute::FwMark(number) => mark = format!(" fwmark {number:#x}"),
            RuleAttribute::FwMask(mask) if *mask != u32::MAX => mark += &format!("/{mask:#x}"),
            RuleAttribute::SuppressPrefixLen(length) if *length != u32::MAX => {
                suppress = format!(" suppress_prefixlength {length}");
            }
            RuleAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let not = if rule.header.flags.contains(RuleFlags::Invert) { "not " } else { "" };
    let from = from.map_or_else(|| "all".to_owned(), |address| address.to_string());
    format!("{:<7}{not}from {from}{mark} lookup {}{suppress}", format!("{priority}:"), table_name(table))
}
