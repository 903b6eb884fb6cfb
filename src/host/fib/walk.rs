//! What the rules and routes, as they are listed, do with a packet: the kernel's own walk (fib_rules_lookup), done
//! over again, since its answer names no rule.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    question::Question,
    route::FibRoute,
    rule::{Action, FibRule, Matches},
};

/// More ways than this are not followed: each rule that asks for something unknown doubles them.
const MOST: usize = 64;

/// One way that the walk may end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rule that led there; none: all rules were asked in vain.
    pub rule: Option<FibRule>,
    /// The route that was found; none: the rule itself refuses, or there is none.
    pub route: Option<FibRoute>,
    /// Why the packet goes nowhere (errno); none: it goes by the route.
    pub errno: Option<i32>,
}

/// The routing of one host, as far as it concerns one destination.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// In the order in which the kernel asks them.
    pub rules: Vec<FibRule>,
    /// Those that hold the destination, in the order in which they are listed.
    pub routes: Vec<FibRoute>,
    /// The group of each device that has one.
    pub groups: HashMap<u32, u32>,
}

/// Whether a route is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Usable {
    Yes,
    /// Unless its router does not answer and another route of the table will do (IPv6).
    OrAnother,
    /// That hangs on a setting, or on what is not known.
    Perhaps,
    No,
}

impl Listed {
    /// Every way that the walk may end; one, unless a rule or a route asks for what is not known here.
    pub fn walk(&self, question: &Question) -> Vec<Outcome> {
        let mut ends = Vec::new();
        self.walk_from(0, question, &mut ends);
        if self.is_merged(question) {
            // Until a rule is added the kernel keeps the local and the main table as one.
            let found = self.look(&[super::LOCAL_TABLE, super::MAIN_TABLE], question).0;
            // Each route belongs to the rule of its own table all the same.
            let rule = |table| self.rules.iter().find(|rule| rule.action == Action::Lookup(table));
            ends.extend(found.into_iter().filter_map(|route| Some(end_by_route(rule(route.table)?, route))));
        }
        ends.dedup();
        ends
    }

    fn is_merged(&self, question: &Question) -> bool {
        let tables: Vec<_> = self.rules.iter().map(|rule| rule.action).collect();
        let untouched = [super::LOCAL_TABLE, super::MAIN_TABLE, super::DEFAULT_TABLE].map(Action::Lookup);
        !question.is_v6() && tables == untouched
    }

    fn walk_from(&self, mut at: usize, question: &Question, ends: &mut Vec<Outcome>) {
        while let Some(rule) = self.rules.get(at) {
            at += 1;
            let matches = rule.matches(question);
            if matches == Matches::No {
                continue;
            }
            let certain = matches == Matches::Yes;
            let over = match rule.action {
                Action::Nop => false,
                Action::Goto(priority) => match self.target(at, priority) {
                    None => false,
                    Some(target) if certain => {
                        at = target;
                        false
                    }
                    Some(target) => {
                        if ends.len() < MOST {
                            self.walk_from(target, question, ends);
                        }
                        false
                    }
                },
                Action::Lookup(table) => self.look_up(rule, table, question, ends),
                Action::Blackhole => end(ends, rule, libc::EINVAL),
                Action::Unreachable => end(ends, rule, libc::ENETUNREACH),
                Action::Prohibit => end(ends, rule, libc::EACCES),
            };
            if (over && certain) || ends.len() >= MOST {
                return;
            }
        }
        ends.push(Outcome { rule: None, route: None, errno: Some(libc::ENETUNREACH) });
    }

    /// Where the rule of this priority stands; only one further on is ever gone to.
    fn target(&self, from: usize, priority: u32) -> Option<usize> {
        let rest = self.rules.get(from..)?;
        rest.iter().position(|rule| rule.priority == priority).map(|position| from + position)
    }

    /// Adds the ends in this table; true: the walk certainly ends here.
    fn look_up(&self, rule: &FibRule, table: u32, question: &Question, ends: &mut Vec<Outcome>) -> bool {
        let (found, falls_through) = self.look(&[table], question);
        let mut over = !falls_through;
        for route in found {
            match self.passes_by(rule, route) {
                // If it is this one, none other of the table is looked for, but the next rule is asked.
                true => over = false,
                false => ends.push(end_by_route(rule, route)),
            }
        }
        over
    }

    /// Is the route none for this rule: a throw, or suppressed? (A route that refuses is never suppressed.)
    fn passes_by(&self, rule: &FibRule, route: &FibRoute) -> bool {
        match route.refusal() {
            Some(libc::EAGAIN) => true,
            Some(_) => false,
            None => {
                let short = rule.suppress.is_some_and(|length| route.destination.prefix_len() <= length);
                let group = |index| self.groups.get(&index).copied().unwrap_or(0);
                let device = route.hops.first().and_then(|hop| hop.index);
                short || rule.suppress_group.is_some_and(|g| device.is_some_and(|index| group(index) == g))
            }
        }
    }

    /// The routes of these tables that may be taken, the likeliest first, up to the first that certainly is; and
    /// whether it may be none of them.
    fn look(&self, tables: &[u32], question: &Question) -> (Vec<&FibRoute>, bool) {
        let mut candidates: Vec<_> = self.routes.iter().filter(|r| tables.contains(&r.table)).collect();
        // The longest prefix, then the lowest metric; else as listed.
        candidates.sort_by_key(|route| (Reverse(route.destination.prefix_len()), route.metric));
        let (mut found, mut falls_through) = (Vec::new(), true);
        for route in candidates {
            let usable = usable(route, question);
            if usable != Usable::No {
                found.push(route);
            }
            falls_through &= matches!(usable, Usable::No | Usable::Perhaps);
            if usable == Usable::Yes {
                break;
            }
        }
        (found, falls_through)
    }
}

fn usable(route: &FibRoute, question: &Question) -> Usable {
    if route.tos != 0 {
        return Usable::No;
    }
    match (route.source, question.from) {
        (Some(source), Some(from)) if !source.contains(&from) => return Usable::No,
        (Some(_), None) => return Usable::Perhaps,
        _ => {}
    }
    if route.refusal().is_some() {
        return Usable::Yes;
    }
    let hops = || route.hops.iter().filter(|hop| !hop.dead);
    match question.is_v6() {
        _ if hops().next().is_none() => Usable::No,
        _ if hops().all(|hop| hop.linkdown) => Usable::Perhaps,
        true => Usable::OrAnother,
        false => Usable::Yes,
    }
}

fn end_by_route(rule: &FibRule, route: &FibRoute) -> Outcome {
    Outcome { rule: Some(rule.clone()), route: Some(route.clone()), errno: route.refusal() }
}

fn end(ends: &mut Vec<Outcome>, rule: &FibRule, errno: i32) -> bool {
    ends.push(Outcome { rule: Some(rule.clone()), route: None, errno: Some(errno) });
    true
}
