//! One do, and its undo beside it.

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::{
    HostError,
    error::{IPV6_IS_OFF, general_remedy},
    exchange::{Refused, Request},
    message::{Address, Link, PresentRoute, PresentRule},
    plan::{MAIN_TABLE, Route, is_v6},
};

/// A change of the host by one netlink request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    SetLink { mtu: u32, up: bool, gso_max_segs: Option<u32>, former_mtu: u32, was_up: bool },
    AddAddress(IpNet),
    RemoveAddress(IpNet),
    AddRoute(Route),
    RemoveRoute(Route),
    AddRule(PresentRule),
    RemoveRule(PresentRule),
}

impl Step {
    pub(super) fn undo(self) -> Self {
        match self {
            // What super-packets it makes matters to nobody but its holder.
            Self::SetLink { mtu, up, gso_max_segs: _, former_mtu, was_up } => {
                Self::SetLink { mtu: former_mtu, up: was_up, gso_max_segs: None, former_mtu: mtu, was_up: up }
            }
            Self::AddAddress(network) => Self::RemoveAddress(network),
            Self::RemoveAddress(network) => Self::AddAddress(network),
            Self::AddRoute(route) => Self::RemoveRoute(route),
            Self::RemoveRoute(route) => Self::AddRoute(route),
            Self::AddRule(rule) => Self::RemoveRule(rule),
            Self::RemoveRule(rule) => Self::AddRule(rule),
        }
    }

    /// As a request; `index` is the device's.
    pub(super) fn request(&self, index: u32) -> Request {
        use RouteNetlinkMessage as M;
        const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
        let (flags, message) = match *self {
            Self::SetLink { mtu, up, gso_max_segs, .. } => (0, Link::set(index, mtu, up, gso_max_segs)),
            Self::AddAddress(network) => (NEW, M::NewAddress(Address::message(index, network))),
            Self::RemoveAddress(network) => (0, M::DelAddress(Address::message(index, network))),
            Self::AddRoute(route) => (NEW, M::NewRoute(PresentRoute::message(index, route))),
            Self::RemoveRoute(route) => (0, M::DelRoute(PresentRoute::message(index, route))),
            Self::AddRule(rule) => (NEW, M::NewRule(rule.message())),
            Self::RemoveRule(rule) => (0, M::DelRule(rule.message())),
        };
        Request { flags, message }
    }

    /// Does this refusal say that there is nothing left to do?
    pub(super) fn is_met_by(&self, refused: &Refused) -> bool {
        match self {
            Self::AddAddress(_) => refused.errno() == libc::EEXIST,
            Self::RemoveAddress(_) => matches!(refused.errno(), libc::EADDRNOTAVAIL | libc::ENODEV),
            Self::RemoveRoute(_) => matches!(refused.errno(), libc::ESRCH | libc::ENODEV),
            Self::RemoveRule(_) => refused.errno() == libc::ENOENT,
            Self::SetLink { .. } | Self::AddRoute(_) | Self::AddRule(_) => false,
        }
    }

    /// In the words of `ip`.
    pub(super) fn words(&self, device: &str) -> String {
        match self {
            Self::SetLink { mtu, up, .. } => {
                format!("set link {device} mtu {mtu} {}", if *up { "up" } else { "down" })
            }
            Self::AddAddress(network) => format!("add address {network} dev {device}"),
            Self::RemoveAddress(network) => format!("delete address {network} dev {device}"),
            Self::AddRoute(route) => format!("add route {}", route_words(route, device)),
            Self::RemoveRoute(route) => format!("delete route {}", route_words(route, device)),
            Self::AddRule(rule) => format!("add rule {rule}"),
            Self::RemoveRule(rule) => format!("delete rule {rule}"),
        }
    }

    pub(super) fn error(&self, device: &str, refused: Refused) -> HostError {
        let remedy = self.remedy(refused.errno());
        HostError::with_remedy(self.words(device), refused, remedy)
    }

    fn remedy(&self, errno: i32) -> Option<String> {
        let is_ipv6 = match self {
            Self::AddAddress(network) => is_v6(network),
            Self::AddRoute(route) => is_v6(&route.destination),
            Self::AddRule(rule) => rule.v6,
            _ => false,
        };
        let specific = match (self, errno) {
            (_, libc::EACCES | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) if is_ipv6 => Some(IPV6_IS_OFF),
            (Self::SetLink { .. }, libc::EINVAL | libc::ERANGE) => Some("the device does not take this mtu"),
            (Self::AddRule(_), libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
                Some("this kernel has no policy routing (CONFIG_IP_MULTIPLE_TABLES)")
            }
            _ => None,
        };
        specific.or_else(|| general_remedy(errno)).map(str::to_owned)
    }
}

fn route_words(route: &Route, device: &str) -> String {
    format!("{} dev {device} table {}", route.destination, table_name(route.table))
}

/// As `ip` writes it.
pub(super) fn table_name(table: u32) -> String {
    if table == MAIN_TABLE { "main".into() } else { table.to_string() }
}

impl std::fmt::Display for PresentRule {
    /// As `ip rule` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.v6 { "(IPv6)" } else { "(IPv4)" })?;
        if self.inverted {
            f.write_str(" not")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
        }
        if self.mask != u32::MAX {
            write!(f, "/{:#x}", self.mask)?;
        }
        write!(f, " lookup {}", table_name(self.table))?;
        if self.suppresses_default {
            f.write_str(" suppress_prefixlength 0")?;
        }
        write!(f, " priority {}", self.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> [Step; 4] {
        let network: IpNet = "10.0.0.1/24".parse().expect("a prefix");
        [
            Step::SetLink { mtu: 1420, up: true, gso_max_segs: None, former_mtu: 1500, was_up: false },
            Step::AddAddress(network),
            Step::AddRoute(Route { destination: network.trunc(), table: MAIN_TABLE }),
            Step::AddRule(PresentRule::not_marked(true, 7, 0xca6c, 51820)),
        ]
    }

    #[test]
    fn the_undo_of_an_undo_is_the_step_itself() {
        for step in steps() {
            assert_ne!(step.undo(), step);
            assert_eq!(step.undo().undo(), step);
        }
    }

    #[test]
    fn steps_read_like_ip_commands() {
        let words = steps().map(|step| step.words("vpn0"));
        assert_eq!(
            words,
            [
                "set link vpn0 mtu 1420 up",
                "add address 10.0.0.1/24 dev vpn0",
                "add route 10.0.0.0/24 dev vpn0 table main",
                "add rule (IPv6) not fwmark 0xca6c/0xffffff00 lookup 51820 priority 7",
            ]
        );
        let suppress = Step::RemoveRule(PresentRule::suppress(false, 6));
        assert_eq!(
            suppress.words("vpn0"),
            "delete rule (IPv4) lookup main suppress_prefixlength 0 priority 6"
        );
    }

    #[test]
    fn a_refused_ipv6_address_is_explained_and_a_refused_ipv4_address_is_not_blamed_on_ipv6() {
        let refused = || Refused::from(std::io::Error::from_raw_os_error(libc::EACCES));
        let v6 = Step::AddAddress("fd00::1/64".parse().expect("a prefix"));
        assert!(v6.error("vpn0", refused()).to_string().contains("disable_ipv6"));
        assert_eq!(steps()[1].error("vpn0", refused()).remedy, None);
    }
}
