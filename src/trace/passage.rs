//! One packet's way through netfilter's hooks, put together from the single messages of nftables' trace.

use std::collections::HashMap;

use super::{
    Carrier, Facts, Place, Rule,
    station::{Step, Verdict},
};

/// A message of nftables' trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kernel's number for the packet: the same at all hooks, and used again soon after.
    pub id: u32,
    /// The chain, and what spoke in it.
    pub rule: Rule,
    /// Which of our own chains it is.
    pub own: Option<(Place, Edge)>,
    /// The packet, as it was when it entered a base chain.
    pub facts: Option<Facts>,
    /// What stands on it, if it carries a tunnel's packet.
    pub carrier: Option<Carrier>,
    /// Index of the device that it came by.
    pub iif: Option<u32>,
    /// Index of the device that it is to leave by.
    pub oif: Option<u32>,
    /// Mark.
    pub mark: u32,
    /// When the message was read (CLOCK_BOOTTIME, nanoseconds).
    pub at_ns: u64,
}

/// Our chains stand before all others of a hook, and behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Before all others.
    First,
    /// Behind all others: what comes here has passed the hook.
    Last,
}

/// What happened at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Which.
    pub place: Place,
    /// All that saw it but our own chains.
    pub rules: Vec<Rule>,
    /// The packet as it came in, and as it was seen last.
    pub facts: [Option<Facts>; 2],
    /// Index of the device that it came by.
    pub iif: Option<u32>,
    /// Index of the device that it is to leave by.
    pub oif: Option<u32>,
    /// Mark, as it was seen last.
    pub mark: u32,
    /// When its first message was read.
    pub at_ns: u64,
    /// It came to the end of the hook.
    pub passed: bool,
}

/// The hooks that a packet met, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    id: u32,
    /// Never empty.
    pub hooks: Vec<Hook>,
    /// What stands on it, if it carries a tunnel's packet.
    pub carrier: Option<Carrier>,
}

impl Hook {
    /// What became of it here, as far as netfilter's messages tell.
    pub fn verdict(&self) -> Verdict {
        match self.deadly() {
            Some(rule) if rule.text.as_deref().is_some_and(|text| text.contains("reject")) => {
                Verdict::Rejected
            }
            Some(_) => Verdict::Dropped,
            None if self.passed => Verdict::Passed,
            None => Verdict::Unknown,
        }
    }

    /// What ended it.
    pub fn deadly(&self) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.verdict == "drop")
    }

    /// What took it away: nobody can say whether it comes back.
    pub fn taken(&self) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.verdict == "queue" || rule.verdict == "stolen")
    }

    fn begin(place: Place, event: &Event) -> Self {
        Self {
            place,
            rules: Vec::new(),
            facts: [event.facts; 2],
            iif: event.iif,
            oif: event.oif,
            mark: event.mark,
            at_ns: event.at_ns,
            passed: false,
        }
    }

    fn add(&mut self, event: &Event) {
        if event.facts.is_some() {
            self.facts[1] = event.facts;
        }
        self.mark = event.mark;
        self.iif = event.iif.or(self.iif);
        self.oif = event.oif.or(self.oif);
        match event.own {
            Some((_, Edge::Last)) => self.passed = true,
            Some((_, Edge::First)) => {}
            None => self.rules.push(event.rule.clone()),
        }
    }
}

impl Passage {
    /// From all messages in the order in which they were read.
    pub fn gather(events: &[Event]) -> Vec<Self> {
        let (mut passages, mut latest) = (Vec::<Self>::new(), HashMap::new());
        for event in events {
            let place = latest.get(&event.id).copied();
            let latest_of_id = place.and_then(|place: usize| passages.get_mut(place));
            match (latest_of_id, event.own) {
                (Some(passage), Some((place, Edge::First))) if passage.goes_on_at(place, event) => {
                    // A first chain speaks twice: the rule that began the trace, and its policy.
                    if passage.last().place != place {
                        passage.hooks.push(Hook::begin(place, event));
                    }
                    passage.add(event);
                }
                (_, Some((place, Edge::First))) => {
                    latest.insert(event.id, passages.len());
                    passages.push(Self {
                        id: event.id,
                        hooks: vec![Hook::begin(place, event)],
                        carrier: event.carrier,
                    });
                }
                (Some(passage), _) => passage.add(event),
                // Its beginning was lost.
                (None, _) => {}
            }
        }
        passages
    }

    /// The hook that it met first.
    pub fn first(&self) -> &Hook {
        self.hooks.first().expect("never empty")
    }

    /// The hook that it met last.
    pub fn last(&self) -> &Hook {
        self.hooks.last().expect("never empty")
    }

    /// That hook, if it came there.
    pub fn at(&self, place: Place) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.place == place)
    }

    /// The packet as it was first seen.
    pub fn facts(&self) -> Option<Facts> {
        self.hooks.iter().find_map(|hook| hook.facts[0])
    }

    /// The packet as it was seen last.
    pub fn facts_last(&self) -> Option<Facts> {
        self.hooks.iter().rev().find_map(|hook| hook.facts[1])
    }

    fn add(&mut self, event: &Event) {
        self.carrier = self.carrier.or(event.carrier);
        self.hooks.last_mut().expect("never empty").add(event);
    }

    /// Is it the same packet that now comes to this hook, or is its number used again?
    fn goes_on_at(&self, place: Place, event: &Event) -> bool {
        let last = self.last();
        let speaks_again =
            last.place == place && !last.passed && last.rules.is_empty() && event.facts.is_none();
        let next = match last.place {
            Place::Prerouting => matches!(place, Place::Input | Place::Forward),
            Place::Forward | Place::Output => place == Place::Postrouting,
            _ => false,
        };
        speaks_again || next && last.passed
    }
}

/// What speaks, by nftables' number for it.
pub fn step(number: u32) -> Option<Step> {
    match number {
        1 => Some(Step::Policy),
        2 => Some(Step::Return),
        3 => Some(Step::Rule),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::facts::tests::echo, *};

    fn rule(chain: &str, verdict: &str) -> Rule {
        Rule {
            family: "ip".into(),
            table: "filter".into(),
            chain: chain.into(),
            step: Step::Rule,
            handle: Some(1),
            text: None,
            verdict: verdict.into(),
        }
    }

    /// A message about packet `id`, at one of our chains, or a foreign one with that verdict.
    pub(in crate::trace) fn event(id: u32, own: Option<(Place, Edge)>, verdict: &str) -> Event {
        Event {
            id,
            rule: rule("x", verdict),
            own,
            facts: own.map(|_| Facts::of(&echo()).unwrap()),
            carrier: None,
            iif: None,
            oif: Some(3),
            mark: 0,
            at_ns: 10,
        }
    }

    fn passes(id: u32, place: Place) -> Vec<Event> {
        vec![
            event(id, Some((place, Edge::First)), "continue"),
            Event { facts: None, ..event(id, Some((place, Edge::First)), "accept") },
            event(id, None, "accept"),
            event(id, Some((place, Edge::Last)), "accept"),
        ]
    }

    #[test]
    fn hooks_of_one_packet_come_together_whatever_comes_between() {
        let mut events = Vec::new();
        for place in [Place::Output, Place::Postrouting] {
            for (one, two) in passes(1, place).into_iter().zip(passes(2, place)) {
                events.extend([one, two]);
            }
        }
        let passages = Passage::gather(&events);
        assert_eq!(passages.len(), 2);
        for passage in &passages {
            let places: Vec<_> = passage.hooks.iter().map(|hook| hook.place).collect();
            assert_eq!(places, [Place::Output, Place::Postrouting]);
            assert!(passage.hooks.iter().all(|hook| hook.rules.len() == 1 && hook.passed));
            assert_eq!(passage.hooks[1].verdict(), Verdict::Passed);
        }
    }

    #[test]
    fn a_number_that_is_used_again_is_another_packet() {
        let events: Vec<_> = [passes(1, Place::Output), passes(1, Place::Output)].concat();
        assert_eq!(Passage::gather(&events).len(), 2);
        let events: Vec<_> = [passes(1, Place::Postrouting), passes(1, Place::Prerouting)].concat();
        assert_eq!(Passage::gather(&events).len(), 2);
        assert_eq!(Passage::gather(&[event(1, None, "accept")]), [], "whose beginning was lost");
    }

    #[test]
    fn a_drop_a_rejection_and_a_silent_end_are_told_apart() {
        let verdict = |events: &[Event]| Passage::gather(events)[0].last().verdict();
        let first = event(1, Some((Place::Input, Edge::First)), "accept");
        assert_eq!(verdict(&[first.clone(), event(1, None, "drop")]), Verdict::Dropped);
        let mut rejected = event(1, None, "drop");
        rejected.rule.text = Some("reject with icmp port-unreachable".into());
        assert_eq!(verdict(&[first.clone(), rejected]), Verdict::Rejected);
        assert_eq!(verdict(&[first.clone(), event(1, None, "accept")]), Verdict::Unknown);
        let queued = Passage::gather(&[first, event(1, None, "queue")]);
        assert!(queued[0].last().taken().is_some());
    }
}
