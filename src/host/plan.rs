//! The wanted state of the host, as a value.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::config::{Config, Table};

/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = 254;

/// All that we place on the host for one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Device name.
    pub device: String,
    /// Its MTU.
    pub mtu: u16,
    /// Segments that a super-packet of it has at most; absent: the kernel's own bound. No file says it: the caller does.
    pub gso_max_segs: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes to the device.
    pub routes: Vec<Route>,
    /// Policy rules, only for a default route with `table = "auto"`.
    pub rules: Vec<Rule>,
    /// Mark of the tunnel's own packets.
    pub fwmark: Option<u32>,
}

/// One route to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// In which table (254: main).
    pub table: u32,
}

/// One policy rule. The two of a family are a pair and stand in the order in which the kernel consults them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `not fwmark MARK lookup TABLE`: all but the tunnel's own packets.
    NotMarked {
        /// IPv6?
        v6: bool,
        /// Of the tunnel's own packets.
        mark: u32,
        /// Ours.
        table: u32,
    },
    /// `lookup main suppress_prefixlength 0`: more specific routes of the host go first.
    SuppressDefault {
        /// IPv6?
        v6: bool,
    },
}

impl Plan {
    /// What this file wants. `own_table`: the table and mark to use for a default route where the file names none.
    ///
    /// As wg-quick: `table = "off"` places no route; a number takes every route and no rule; "auto" fills the
    /// main table, but a default route goes into `own_table` behind a pair of rules for its family, so that
    /// the host's own routes and the tunnel's own (marked) packets pass by it.
    pub fn new(config: &Config, own_table: u32) -> Self {
        let interface = &config.interface;
        let fwmark = own_mark(config);
        let mut plan = Self {
            device: interface.name.clone(),
            mtu: interface.mtu,
            gso_max_segs: None,
            addresses: without_repeats(&interface.address),
            routes: Vec::new(),
            rules: Vec::new(),
            fwmark,
        };
        let destinations = config.peers.iter().flat_map(|peer| &peer.allowed_ips).map(IpNet::trunc);
        match interface.table {
            Table::Off => {}
            Table::Number(table) => {
                plan.routes = destinations.map(|destination| Route { destination, table }).collect();
            }
            Table::Auto => {
                let connected = connected_routes(&plan.addresses);
                plan.routes = destinations
                    .filter(|destination| !connected.contains(destination))
                    .map(|destination| Route { destination, table: table_of(&destination, own_table) })
                    .collect();
            }
        }
        plan.routes.sort_unstable();
        plan.routes.dedup();
        if interface.table == Table::Auto {
            plan.add_policy(own_table);
        }
        plan
    }

    /// Does this file want a table and a mark of its own?
    pub fn wants_own_table(config: &Config) -> bool {
        let mut prefixes = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
        config.interface.table == Table::Auto && prefixes.any(|prefix| prefix.prefix_len() == 0)
    }

    fn add_policy(&mut self, own_table: u32) {
        for v6 in [false, true] {
            let is_default = |r: &Route| r.destination.prefix_len() == 0 && is_v6(&r.destination) == v6;
            if self.routes.iter().any(is_default) {
                let mark = *self.fwmark.get_or_insert(own_table);
                self.rules.push(Rule::SuppressDefault { v6 });
                self.rules.push(Rule::NotMarked { v6, mark, table: own_table });
            }
        }
    }
}

/// Is it a prefix of IPv6?
pub(super) fn is_v6(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V6(_))
}

/// `fwmark = 0` means none, as for `wg`.
fn own_mark(config: &Config) -> Option<u32> {
    config.interface.fwmark.filter(|mark| *mark != 0)
}

fn table_of(destination: &IpNet, own_table: u32) -> u32 {
    if destination.prefix_len() == 0 { own_table } else { MAIN_TABLE }
}

fn without_repeats(addresses: &[IpNet]) -> Vec<IpNet> {
    let mut seen = BTreeSet::new();
    addresses.iter().copied().filter(|address| seen.insert(*address)).collect()
}

/// The routes in the main table that the kernel makes by itself when the device gets these addresses. A lone
/// IPv4 address (/32) makes none.
fn connected_routes(addresses: &[IpNet]) -> BTreeSet<IpNet> {
    let makes_one = |a: &&IpNet| is_v6(a) || a.prefix_len() < 32;
    addresses.iter().filter(makes_one).map(IpNet::trunc).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
