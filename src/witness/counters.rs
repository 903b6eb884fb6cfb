//! The kernel's own counters of what it dropped, in this network namespace: which moved while a packet was watched. They
//! count everybody's packets, so they are hints and no proof.

use std::{collections::BTreeMap, fs};

/// Those that count losses (Documentation/networking/snmp_counter.rst).
const LOSSES: [&str; 22] = [
    "Ip.InHdrErrors",
    "Ip.InAddrErrors",
    "Ip.InUnknownProtos",
    "Ip.InDiscards",
    "Ip.OutDiscards",
    "Ip.OutNoRoutes",
    "Ip.ReasmFails",
    "Ip.FragFails",
    "Udp.NoPorts",
    "Udp.InErrors",
    "Udp.RcvbufErrors",
    "Udp.SndbufErrors",
    "Udp.InCsumErrors",
    "IpExt.InNoRoutes",
    "IpExt.InTruncatedPkts",
    "IpExt.InCsumErrors",
    "TcpExt.IPReversePathFilter",
    "TcpExt.TCPTimeWaitOverflow",
    "TcpExt.ListenDrops",
    "Ip6.InDiscards",
    "Ip6.OutNoRoutes",
    "Ip6.InNoRoutes",
];

/// Their values at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// As they stand now; those that this kernel does not have are left out.
    pub fn read() -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        let mut all = pairs(&(read("snmp") + &read("netstat")));
        all.extend(lines(&read("snmp6")));
        all.retain(|name, _| LOSSES.contains(&name.as_str()));
        Self(all)
    }

    /// What went up since then: a sentence.
    pub fn moved_since(&self, before: &Self) -> Option<String> {
        let grown = |(name, now): (&String, &u64)| {
            let more = now.saturating_sub(before.0.get(name).copied().unwrap_or(0));
            (more > 0).then(|| format!("{name} by {more}"))
        };
        let moved: Vec<_> = self.0.iter().filter_map(grown).collect();
        (!moved.is_empty()).then(|| {
            format!("meanwhile the kernel counted losses, of whatever packets: {} (nstat)", moved.join(", "))
        })
    }
}

/// Two lines each: `Ip: InReceives …` and `Ip: 7 …`.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut names: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        let Some((group, rest)) = line.split_once(':') else { continue };
        let words: Vec<_> = rest.split_whitespace().collect();
        match names.take() {
            Some((same, names)) if same == group && names.len() == words.len() => {
                let values = words.iter().map(|word| word.parse().unwrap_or(0));
                found
                    .extend(names.iter().zip(values).map(|(name, value)| (format!("{group}.{name}"), value)));
            }
            _ => names = Some((group, words)),
        }
    }
    found
}

/// `Ip6InDiscards 7`.
fn lines(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        Some((format!("Ip6.{}", name.strip_prefix("Ip6")?), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name_and_what_moved_is_told() {
        let text = "Ip: InDiscards OutNoRoutes\nIp: 3 4\nTcpExt: IPReversePathFilter X\nTcpExt: 0 9\n";
        let before = Counters(pairs(text));
        assert_eq!(before.0["Ip.OutNoRoutes"], 4);
        let after = Counters(pairs(&text.replace("3 4", "3 5").replace("0 9", "2 9")));
        let said = after.moved_since(&before).expect("two moved");
        assert!(said.contains("Ip.OutNoRoutes by 1, TcpExt.IPReversePathFilter by 2"), "{said}");
        assert_eq!(before.moved_since(&before), None);
        assert_eq!(lines("Ip6InDiscards   \t7\nIcmp6X 2\n"), [("Ip6.InDiscards".to_owned(), 7)].into());
    }

    #[test]
    fn a_kernel_has_the_counter_of_its_reverse_path_filter() {
        assert!(Counters::read().0.contains_key("TcpExt.IPReversePathFilter"));
    }
}
