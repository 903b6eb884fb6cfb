//! The wanted state of the host, as a value.

use ipnet::IpNet;

use crate::config::Config;

/// All that we place on the host for one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Device name.
    pub device: String,
    /// Its MTU.
    pub mtu: u16,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// In which table (254: main).
    pub table: u32,
}

/// One policy rule.
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
    pub fn new(config: &Config, own_table: u32) -> Self {
        todo!()
    }
    /// Does this file want a table and a mark of its own?
    pub fn wants_own_table(config: &Config) -> bool {
        todo!()
    }
}
