//! What stands behind a handle: the rules of this network namespace in nft's words (`nft -a list ruleset`).

use std::{collections::HashMap, os::unix::process::CommandExt, process::Command};

use super::placement::{Unplaced, program};
use crate::trace::{Rule, Step};

/// Rules by family, table and handle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    rules: HashMap<(String, String, u64), String>,
}

impl Ruleset {
    /// As it is now.
    pub fn list() -> Result<Self, Unplaced> {
        let program = program().ok_or(Unplaced::NoProgram)?;
        let output = Command::new(program).args(["-a", "list", "ruleset"]).process_group(0).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Unplaced::Refused(said.lines().next().unwrap_or_default().to_owned()));
        }
        Ok(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Fills in what a rule says, where it is known.
    pub fn describe(&self, rule: &mut Rule) {
        if rule.text.is_some() || rule.step == Step::Policy {
            return;
        }
        let Some(handle) = rule.handle else { return };
        rule.text = self.rules.get(&(rule.family.clone(), rule.table.clone(), handle)).cloned();
    }

    fn read(text: &str) -> Self {
        let (mut rules, mut table) = (HashMap::new(), None);
        for line in text.lines() {
            let (line, handle) = match line.rsplit_once(" # handle ") {
                Some((line, handle)) => (line, handle.split(' ').next().and_then(|n| n.parse().ok())),
                None => (line, None),
            };
            let mut words = line.split_whitespace();
            match (words.next(), handle) {
                (Some("table"), _) => {
                    table = words.next().zip(words.next()).map(|(a, b)| (a.to_owned(), b.to_owned()));
                }
                (Some("chain" | "set" | "map" | "flowtable" | "counter"), _) if line.ends_with('{') => {}
                (Some(_), Some(handle)) => {
                    if let Some((family, table)) = &table {
                        rules.insert((family.clone(), table.clone(), handle), without_counts(line.trim()));
                    }
                }
                _ => {}
            }
        }
        Self { rules }
    }
}

/// `counter packets 7 bytes 588` is `counter`: the counts are those of the moment.
fn without_counts(line: &str) -> String {
    let mut words = line.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        kept.push(word);
        if word == "counter" && words.peek() == Some(&"packets") {
            words.by_ref().take(4).for_each(drop);
        }
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_leads_to_the_rule_in_its_table() {
        let text = "# Warning: table ip filter is managed by iptables-nft, do not touch!\n\
            table ip filter { # handle 1\n\tchain OUTPUT { # handle 1\n\
            \t\ttype filter hook output priority filter; policy accept;\n\
            \t\tmeta l4proto icmp counter packets 7 bytes 588 accept # handle 3\n\t}\n}\n\
            table inet mine { # handle 2\n\tset s { # handle 3\n\t}\n\tchain c { # handle 4\n\
            \t\ttcp dport 22 drop comment \"a # b\" # handle 3\n\t}\n}\n";
        let ruleset = Ruleset::read(text);
        let mut rule = Rule {
            family: "ip".into(),
            table: "filter".into(),
            chain: "OUTPUT".into(),
            step: Step::Rule,
            handle: Some(3),
            text: None,
            verdict: "accept".into(),
        };
        ruleset.describe(&mut rule);
        assert_eq!(rule.text.as_deref(), Some("meta l4proto icmp counter accept"));
        let mut other = Rule { family: "inet".into(), table: "mine".into(), text: None, ..rule.clone() };
        ruleset.describe(&mut other);
        assert_eq!(other.text.as_deref(), Some("tcp dport 22 drop comment \"a # b\""));
        let mut gone = Rule { handle: Some(99), text: None, ..rule.clone() };
        ruleset.describe(&mut gone);
        assert_eq!(gone.text, None);
        let mut policy = Rule { step: Step::Policy, text: None, ..rule };
        ruleset.describe(&mut policy);
        assert_eq!(policy.text, None);
    }
}
