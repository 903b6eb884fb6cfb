//! A table of nftables that a chapter places on a host, as text that it can show, and what its rules counted.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::Stdio,
};

use super::stage::until;
use crate::lab::{
    error::{Attempted, LabError},
    namespace::Namespace,
    netfilter::{self, Count},
};

/// Rules on one host. They go with the host.
pub(super) struct Rules {
    namespace: Namespace,
    nft: &'static str,
    /// Family and name, as they stand in the text.
    table: [String; 2],
}

/// What was counted, by the comment of the rule, or else by the name of its chain.
pub(super) type Counts = BTreeMap<String, Count>;

impl Rules {
    /// Places one table, in nft's own language, in the place of an earlier one of that name.
    pub(super) fn place(namespace: &Namespace, text: &str) -> Result<Self, LabError> {
        let nft = netfilter::program().ok_or_else(|| {
            LabError::Unexpected("the program nft was not found (package nftables)".to_owned())
        })?;
        let mut words = text.split_whitespace().skip(1).map(str::to_owned);
        let table = std::array::from_fn(|_| words.next().unwrap_or_default());
        let text = format!("add table {0}\ndelete table {0}\n{text}", table.join(" "));
        let rules = Self { namespace: namespace.clone(), nft, table };
        let what = || format!("place rules on {}", namespace.name());
        let mut command = namespace.command(nft)?;
        command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().attempted(what)?;
        let input = child.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
        let output = child.wait_with_output().attempted(what)?;
        input.transpose().attempted(what)?;
        match output.status.success() {
            true => Ok(rules),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
                .attempted(what),
        }
    }

    /// What all rules with a counter counted so far.
    pub(super) fn read(&self) -> Result<Counts, LabError> {
        let what = || format!("read the counters of {}", self.namespace.name());
        let mut command = self.namespace.command(self.nft)?;
        let output = command.args(["-j", "list", "table"]).args(&self.table).output().attempted(what)?;
        let listed: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(io::Error::other).attempted(what)?;
        let mut counts = Counts::new();
        for rule in listed["nftables"].as_array().into_iter().flatten().map(|object| &object["rule"]) {
            let Some(counter) =
                rule["expr"].as_array().into_iter().flatten().map(|e| &e["counter"]).find(|c| c.is_object())
            else {
                continue;
            };
            let name = rule["comment"].as_str().or(rule["chain"].as_str()).unwrap_or_default();
            let number = |field: &str| counter[field].as_u64().unwrap_or_default();
            let count = counts.entry(name.to_owned()).or_default();
            count.packets += number("packets");
            count.bytes += number("bytes");
        }
        Ok(counts)
    }

    /// The packets of one counter.
    pub(super) fn packets(&self, name: &str) -> Result<u64, LabError> {
        let counts = self.read()?;
        let missing = || LabError::Unexpected(format!("no counter {name} among {:?}", counts.keys()));
        counts.get(name).map(|count| count.packets).ok_or_else(missing)
    }

    /// Waits until `name` has counted `packets`; what it has counted then.
    pub(super) fn await_packets(&self, name: &str, packets: u64) -> Result<u64, LabError> {
        until(|| self.packets(name), |&now| now >= packets)
    }
}

/// The five hooks in the order in which a packet that goes through a host could meet them.
pub(super) const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// A table with a counter at each of the five hooks, for the packets that `condition` describes.
pub(super) fn five_hooks(condition: &str) -> String {
    let chain = |hook: &&str| {
        let head = format!("chain {hook} {{");
        format!("    {head:<19} type filter hook {hook} priority 0; {condition} counter; }}\n")
    };
    format!("table ip vpnd_lab {{\n{}}}\n", HOOKS.iter().map(chain).collect::<String>())
}

/// The counts of [`five_hooks`], in their order.
pub(super) fn at_hooks(rules: &Rules) -> Result<[u64; 5], LabError> {
    let counts = rules.read()?;
    Ok(HOOKS.map(|hook| counts.get(hook).map_or(0, |count| count.packets)))
}
