//! Differences in words, as `vpnd reload` and `vpnd status` show them; and what of a file cannot change while it runs.

use std::{fmt::Display, net::SocketAddr};

use ipnet::IpNet;

use super::{Interface, SocketAccess, Table};

/// More prefixes than this are counted, not named.
const NAMED: usize = 16;

/// `a → b`, or the other way round.
pub(super) fn from_to(now: impl Display, to: impl Display, forward: bool) -> String {
    if forward { format!("{now} → {to}") } else { format!("{to} → {now}") }
}

/// `+10.1.0.0/16 -10.2.0.0/16`.
pub(super) fn plus_minus(plus: &[IpNet], minus: &[IpNet]) -> String {
    let signed = plus.iter().map(|net| format!("+{net}")).chain(minus.iter().map(|net| format!("-{net}")));
    let mut words: Vec<_> = signed.take(NAMED).collect();
    let all = plus.len() + minus.len();
    if all > NAMED {
        words.push(format!("and {} more", all - NAMED));
    }
    words.join(" ")
}

impl Interface {
    /// What of the interface becomes another. Keys, port and mark are the caller's: what runs may differ from both.
    pub fn becomes(&self, new: &Interface) -> Vec<String> {
        let mut lines = Vec::new();
        let lacks = |nets: &[IpNet], other: &[IpNet]| -> Vec<IpNet> {
            nets.iter().filter(|net| !other.contains(net)).copied().collect()
        };
        let (plus, minus) = (lacks(&new.address, &self.address), lacks(&self.address, &new.address));
        if !(plus.is_empty() && minus.is_empty()) {
            lines.push(format!("address {}", plus_minus(&plus, &minus)));
        }
        if self.mtu != new.mtu {
            lines.push(format!("mtu {}", from_to(self.mtu, new.mtu, true)));
        }
        if self.clamp_mss != new.clamp_mss {
            lines.push(format!("clamp_mss {}", from_to(self.clamp_mss, new.clamp_mss, true)));
        }
        if self.capture_secrets != new.capture_secrets {
            let words = from_to(self.capture_secrets, new.capture_secrets, true);
            lines.push(format!("capture_secrets {words}"));
        }
        if self.table != new.table {
            lines.push(format!("table {}", from_to(self.table, new.table, true)));
        }
        if self.sockets != new.sockets {
            lines.push(format!("sockets {}", from_to(&self.sockets, &new.sockets, true)));
        }
        if self.metrics_listen != new.metrics_listen {
            let words = |at: Option<SocketAddr>| at.map_or("absent".to_owned(), |at| at.to_string());
            lines.push(format!(
                "metrics_listen {}",
                from_to(words(self.metrics_listen), words(new.metrics_listen), true)
            ));
        }
        lines
    }

    /// A sentence for each key that differs and cannot change while the tunnel runs.
    pub fn cannot_become(&self, new: &Interface) -> Vec<String> {
        let offload = |on: bool| if on { "auto" } else { "off" };
        let sandbox = |on: bool| if on { "on" } else { "off" };
        let workers = |interface: &Interface| interface.workers.map_or("auto".to_owned(), |n| n.to_string());
        let nice = |interface: &Interface| interface.nice.map_or("absent".to_owned(), |n| n.to_string());
        let keys = [
            ("name", self.name.clone(), new.name.clone()),
            ("sandbox", sandbox(self.sandbox).to_owned(), sandbox(new.sandbox).to_owned()),
            ("offload", offload(self.offload).to_owned(), offload(new.offload).to_owned()),
            ("workers", workers(self), workers(new)),
            ("nice", nice(self), nice(new)),
        ];
        let differs = keys.into_iter().filter(|(_, now, to)| now != to);
        let sentence = |(key, now, to)| {
            format!(
                "interface.{key}: found {to}, and {now} runs, which cannot change; restart vpnd, or put {now} back"
            )
        };
        differs.map(sentence).collect()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Display for SocketAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "{}:{} {:04o}", name(&self.owner), name(&self.group), self.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_prefixes_are_counted_and_few_are_named() {
        let nets: Vec<IpNet> = (0..20).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        assert_eq!(plus_minus(&nets[..1], &nets[1..2]), "+10.0.0.0/16 -10.1.0.0/16");
        let text = plus_minus(&nets[..10], &nets[10..]);
        assert!(text.starts_with("+10.0.0.0/16 ") && text.ends_with(" -10.15.0.0/16 and 4 more"), "{text}");
    }
}
