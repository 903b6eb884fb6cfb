//! Pages from what the witnesses of one host saw: which messages and records are about the same packet, and in which
//! order its stations stand. Routing is asked in between: a [`Draft`] has the questions, its page the answers.

use std::collections::HashMap;

use super::{
    Carrier, Clock, Direction, Facts, Filter, Host, Kind, Packet, Page, Place, Route, Sealed, Seen, Station,
    Verdict, Vpnd, Walk,
    conclude::End,
    passage::{Hook, Passage},
    station::{Outcome, VERSION},
};

/// All that was seen on one host.
#[derive(Debug)]
pub struct Sight {
    /// Which host.
    pub host: Host,
    /// Index of the tunnel's device; `None`: this host only forwards carriers.
    pub tun: Option<u32>,
    /// Names of devices by index.
    pub devices: HashMap<u32, String>,
    /// Time 0: CLOCK_BOOTTIME, nanoseconds.
    pub began_ns: u64,
    /// Which packets are meant.
    pub filter: Filter,
    /// What netfilter told.
    pub passages: Vec<Passage>,
    /// What vpnd told.
    pub seen: Vec<Seen>,
    /// What the prober told, where one packet of our own was sent.
    pub probe: Option<Probe>,
    /// Witnesses that were not there, or lost something: sentences.
    pub notes: Vec<String>,
}

/// A packet that was sent in order to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it is; its length, source, identification and sequence number are the kernel's to choose.
    pub packet: Packet,
    /// Its mark.
    pub mark: u32,
    /// When the system call began (CLOCK_BOOTTIME, nanoseconds).
    pub sent_ns: u64,
    /// Name of the errno that it gave.
    pub error: Option<String>,
    /// When the answer came.
    pub answered_ns: Option<u64>,
    /// An answer that says that it was not delivered: who sent it, and what it says.
    pub refused: Option<String>,
}

/// A page whose routing stations have questions and no answers yet.
#[derive(Debug)]
pub struct Draft {
    /// The page.
    pub page: Page,
    pub(super) end: End,
    pub(super) answered_us: Option<f64>,
}

/// A page for each packet, in the order of their times.
pub fn drafts(sight: &Sight) -> Vec<Draft> {
    let mut left = Left { passages: sight.passages.iter().collect(), seen: sight.seen.iter().collect() };
    let mut drafts = Vec::new();
    while let Some(passage) = left.take_passage(|passage| sight.begins_inner(passage)) {
        drafts.push(sight.outbound(Some(passage), None, &mut left));
    }
    // vpnd may know of packets that netfilter's trace left out (its rate is limited).
    while let Some(seen) = left.take_seen(|seen| is_outbound(&seen.vpnd)) {
        drafts.push(sight.outbound(None, Some(seen), &mut left));
    }
    while let Some(seen) = left.take_seen(|seen| !is_outbound(&seen.vpnd)) {
        drafts.push(sight.inbound(None, Some(seen), &mut left));
    }
    // Carriers of others pass INPUT, too; one that does not is worth a page, whatever is in it.
    let ends_here = |passage: &Passage| {
        let last = passage.last();
        let is_carrier = passage.carrier.is_some() && passage.first().place == Place::Prerouting;
        is_carrier && !(sight.tun.is_some() && last.place == Place::Input && last.passed)
    };
    while let Some(passage) = left.take_passage(ends_here) {
        drafts.push(sight.inbound(Some(passage), None, &mut left));
    }
    if drafts.is_empty() && sight.probe.is_some() {
        drafts.push(sight.outbound(None, None, &mut left));
    }
    let time = |draft: &Draft| draft.page.stations.iter().find_map(|station| station.at_us).unwrap_or(0.0);
    drafts.sort_by(|a, b| time(a).total_cmp(&time(b)));
    drafts
}

/// Of a record that says nothing of where the datagram came from.
fn is_outbound(vpnd: &Vpnd) -> bool {
    match vpnd {
        Vpnd::Sealed(_) | Vpnd::Staged { .. } | Vpnd::Owned { .. } => true,
        Vpnd::Refused(refused) => refused.from.is_none(),
        Vpnd::Opened(_) => false,
    }
}

/// What no page has yet.
struct Left<'a> {
    passages: Vec<&'a Passage>,
    seen: Vec<&'a Seen>,
}

impl<'a> Left<'a> {
    fn take_passage(&mut self, is_it: impl Fn(&Passage) -> bool) -> Option<&'a Passage> {
        let at = self.passages.iter().position(|passage| is_it(passage))?;
        Some(self.passages.remove(at))
    }

    fn take_seen(&mut self, is_it: impl Fn(&Seen) -> bool) -> Option<&'a Seen> {
        let at = self.seen.iter().position(|seen| is_it(seen))?;
        Some(self.seen.remove(at))
    }

    fn outer(&mut self, first: Place, session: u32, counter: u64) -> Option<&'a Passage> {
        let carrier = Carrier { session, counter_low: counter as u32 };
        self.take_passage(|passage| passage.first().place == first && passage.carrier == Some(carrier))
    }
}

/// Of a record with the packet's first bytes.
fn facts_of(seen: &Seen) -> Option<Facts> {
    Facts::of(&seen.inner)
}

impl Sight {
    /// A packet that may be meant, on its way into the tunnel.
    fn begins_inner(&self, passage: &Passage) -> bool {
        let Some(facts) = passage.facts().filter(|facts| self.filter.matches(facts)) else { return false };
        if passage.carrier.is_some() {
            return false;
        }
        if let Some(probe) = &self.probe
            && !is_probe(&facts, &probe.packet)
        {
            return false;
        }
        match passage.first().place {
            Place::Output => true,
            // What is for this host itself, and came by another device, has nothing to do with the tunnel.
            Place::Prerouting => {
                self.tun.is_some() && passage.first().iif != self.tun && passage.at(Place::Input).is_none()
            }
            _ => false,
        }
    }

    fn begin(&self) -> Way<'_> {
        Way { sight: self, stations: Vec::new(), end: None, carrier: None }
    }

    /// Down the stack: the packet, vpnd, the carrier.
    fn outbound(&self, passage: Option<&Passage>, seen: Option<&Seen>, left: &mut Left<'_>) -> Draft {
        let mut way = self.begin();
        if passage.is_none_or(|passage| passage.first().place == Place::Output) {
            way.socket_writes(passage);
        }
        let mut packet = passage.and_then(Passage::facts).map(Packet::from);
        if let Some(passage) = passage {
            way.inner(passage, Direction::Out);
        } else if seen.is_none() {
            way.nothing_seen();
        }
        if way.end.is_none() {
            let facts = passage.and_then(Passage::facts_last).or_else(|| seen.and_then(facts_of));
            let seen = seen.or_else(|| left.take_seen(|seen| self.is_about(seen, facts)));
            packet = packet.or_else(|| seen.and_then(|seen| seen.packet.clone()));
            way.down(seen, facts, left);
        }
        let packet = packet.or_else(|| self.probe.as_ref().map(|probe| probe.packet.clone()));
        way.finish(packet)
    }

    fn is_about(&self, seen: &Seen, facts: Option<Facts>) -> bool {
        let same = facts.zip(facts_of(seen)).is_some_and(|(one, other)| one.is_same_packet(&other));
        is_outbound(&seen.vpnd) && same
    }

    /// Up the stack: the carrier, vpnd, the packet.
    fn inbound(&self, passage: Option<&Passage>, seen: Option<&Seen>, left: &mut Left<'_>) -> Draft {
        let mut way = self.begin();
        let first = seen.and_then(|seen| match &seen.vpnd {
            Vpnd::Opened(opened) => Some((opened.session, opened.counter, opened.batch.first)),
            Vpnd::Refused(refused) => refused.session.zip(refused.counter).map(|(s, c)| (s, c, c)),
            _ => None,
        });
        let passage = match (passage, first) {
            (None, Some((session, _, first))) => left.outer(Place::Prerouting, session, first),
            (passage, _) => passage,
        };
        way.carrier = match first {
            Some((session, counter, _)) => Some(Carrier { session, counter_low: counter as u32 }),
            None => passage.and_then(|passage| passage.carrier),
        };
        if let Some(passage) = passage {
            way.outer_in(passage);
        }
        let packet = seen.and_then(|seen| seen.packet.clone());
        match seen {
            Some(seen) => way.up(seen, left),
            None if way.end.is_none() => way.not_at_vpnd(),
            None => {}
        }
        way.finish(packet)
    }

    fn name(&self, device: Option<u32>) -> Option<String> {
        let device = device?;
        Some(self.devices.get(&device).cloned().unwrap_or_else(|| format!("device {device}")))
    }

    fn us(&self, at_ns: u64) -> f64 {
        (at_ns as f64 - self.began_ns as f64) / 1e3
    }
}

/// Is it the packet that was sent to be traced? Its source may have been the kernel's choice.
fn is_probe(facts: &Facts, probe: &Packet) -> bool {
    let packet = Packet::from(*facts);
    packet.destination == probe.destination
        && packet.protocol == probe.protocol
        && packet.echo == probe.echo
        && packet.destination_port == probe.destination_port
        && (probe.source_port.is_none() || packet.source_port == probe.source_port)
}

/// A page that grows station by station.
struct Way<'a> {
    sight: &'a Sight,
    stations: Vec<Station>,
    /// It ends here.
    end: Option<End>,
    carrier: Option<Carrier>,
}

impl Way<'_> {
    fn station(&mut self, walk: Walk, direction: Direction, place: Place, verdict: Verdict) -> &mut Station {
        // The page of one host: its host is the first.
        self.stations.push(Station::new(0, walk, direction, place, verdict));
        self.stations.last_mut().expect("pushed just now")
    }

    /// Where the next station will stand.
    fn next(&self) -> usize {
        self.stations.len()
    }

    fn socket_writes(&mut self, passage: Option<&Passage>) {
        let sight = self.sight;
        let station = self.station(Walk::Program, Direction::Out, Place::Socket, Verdict::Passed);
        let Some(probe) = &sight.probe else {
            station.unknown.push("the kernel does not tell which program sent it".to_owned());
            return;
        };
        station.at_us = Some(sight.us(probe.sent_ns));
        station.clock = Some(Clock::Reader);
        station.packet = Some(probe.packet.clone());
        if let Some(error) = &probe.error {
            station.facts.push(format!("the system call that sent it was answered with {error}"));
            if passage.is_none() {
                station.verdict = Verdict::Rejected;
            }
        }
    }

    /// Neither netfilter nor vpnd saw it: routing comes first, and may have had no route.
    fn nothing_seen(&mut self) {
        let sight = self.sight;
        let Some(probe) = &sight.probe else { return };
        let (packet, mark) = (probe.packet.clone(), probe.mark);
        let at = self.next();
        if probe.error.is_none() {
            self.end = Some(End::Gap {
                station: at - 1,
                why: "neither netfilter's trace nor vpnd saw it".to_owned(),
            });
        }
        let station = self.station(Walk::Inner, Direction::Out, Place::Route, Verdict::Rejected);
        station.route = Some(Route { destination: Some(packet.destination), mark, ..Route::default() });
        if let Some(error) = &probe.error {
            self.end = Some(End::Unsent { station: at, error: error.clone() });
        }
    }

    /// The inner packet from hook to hook, to the device by which it leaves, or to the socket.
    fn inner(&mut self, passage: &Passage, direction: Direction) {
        self.hooks(passage, Walk::Inner, direction);
        if self.end.is_some() {
            return;
        }
        let (sight, last) = (self.sight, passage.last());
        match last.place {
            Place::Postrouting if last.oif == sight.tun => {
                let station = self.station(Walk::Inner, Direction::Out, Place::Device, Verdict::Passed);
                station.device = sight.name(last.oif);
            }
            Place::Postrouting if direction == Direction::Out => {
                let route = self.stations.iter().rposition(|station| station.place == Place::Route);
                let device = sight.name(last.oif).unwrap_or_default();
                let station = self.station(Walk::Inner, Direction::Out, Place::Device, Verdict::Passed);
                station.device = Some(device.clone());
                self.end = Some(End::Astray { station: route.unwrap_or(0), device });
            }
            Place::Postrouting => {
                let station = self.station(Walk::Inner, Direction::Out, Place::Device, Verdict::Passed);
                station.device = sight.name(last.oif);
                self.end = Some(End::Arrived);
            }
            Place::Input => self.socket_reads(passage),
            _ => {}
        }
    }

    /// Each hook, and the routing decision where the packet meets it.
    fn hooks(&mut self, passage: &Passage, walk: Walk, direction: Direction) {
        for (at, hook) in passage.hooks.iter().enumerate() {
            self.hook(hook, walk, direction);
            let next = passage.hooks.get(at + 1);
            let routed = matches!(hook.place, Place::Output | Place::Prerouting);
            if routed && (hook.passed || next.is_some()) {
                self.route(hook, walk, direction, next);
            }
            if next.is_none() && self.end.is_none() {
                self.end = self.ends_at(hook);
            }
        }
    }

    fn hook(&mut self, hook: &Hook, walk: Walk, direction: Direction) {
        let sight = self.sight;
        let leaves = matches!(hook.place, Place::Output | Place::Forward | Place::Postrouting);
        let station = self.station(walk, direction, hook.place, hook.verdict());
        station.at_us = Some(sight.us(hook.at_ns));
        station.clock = Some(Clock::Reader);
        station.device = sight.name(if leaves { hook.oif } else { hook.iif });
        station.packet = hook.facts[0].map(Packet::from);
        station.mark = Some(hook.mark);
        station.rules.clone_from(&hook.rules);
    }

    /// The decision: for what this host sends it stands behind OUTPUT, where a rule may have altered what decides.
    fn route(&mut self, hook: &Hook, walk: Walk, direction: Direction, next: Option<&Hook>) {
        let sight = self.sight;
        let Some(facts) = hook.facts[1] else { return };
        let came = hook.place == Place::Prerouting;
        let verdict = if next.is_some() { Verdict::Passed } else { Verdict::Unknown };
        let station = self.station(walk, direction, Place::Route, verdict);
        station.route = Some(Route {
            destination: Some(facts.destination),
            from: Some(facts.source),
            iif: came.then(|| sight.name(hook.iif)).flatten(),
            mark: hook.mark,
            ..Route::default()
        });
        station.device = next.and_then(|next| sight.name(next.oif));
    }

    /// Its last hook, if nothing can come behind it.
    fn ends_at(&self, hook: &Hook) -> Option<End> {
        let last = self.next() - 1;
        let station = self.stations.iter().rposition(|station| station.place == hook.place).unwrap_or(last);
        match hook.verdict() {
            Verdict::Dropped | Verdict::Rejected => Some(End::Netfilter { station }),
            Verdict::Passed => match hook.place {
                Place::Prerouting => Some(End::Unrouted { station: last }),
                Place::Output | Place::Forward => Some(End::Gap {
                    station,
                    why: format!("it passed {}, and did not come to POSTROUTING", hook.place.name()),
                }),
                _ => None,
            },
            _ if hook.taken().is_some() => Some(End::Taken { station }),
            _ => Some(End::Unseen { station }),
        }
    }

    /// vpnd, and the carrier.
    fn down(&mut self, seen: Option<&Seen>, facts: Option<Facts>, left: &mut Left<'_>) {
        let Some(seen) = seen else {
            let station = self.next() - 1;
            self.end = Some(End::Gap { station, why: "vpnd never got it from the device".to_owned() });
            return;
        };
        self.vpnd(seen, Direction::Out);
        let at = self.next() - 1;
        match &seen.vpnd {
            Vpnd::Sealed(sealed) => self.carried(sealed, left),
            Vpnd::Staged { .. } => {
                let facts = facts.or_else(|| facts_of(seen));
                let later = left.take_seen(|later| {
                    matches!(later.vpnd, Vpnd::Sealed(_)) && self.sight.is_about(later, facts)
                });
                match later {
                    Some(later) => self.down(Some(later), facts, left),
                    None => self.end = Some(End::Staged { station: at }),
                }
            }
            _ => self.end = Some(End::Vpnd { station: at }),
        }
    }

    fn vpnd(&mut self, seen: &Seen, direction: Direction) {
        let sight = self.sight;
        let verdict = match &seen.vpnd {
            Vpnd::Staged { .. } => Verdict::Staged,
            Vpnd::Refused(_) => Verdict::Refused,
            Vpnd::Sealed(sealed) if sealed.error.is_some() => Verdict::Refused,
            _ => Verdict::Passed,
        };
        let station = self.station(Walk::Program, direction, Place::Vpnd, verdict);
        station.at_us = Some(sight.us(seen.at_ns));
        station.clock = Some(Clock::Vpnd);
        station.packet.clone_from(&seen.packet);
        station.vpnd = Some(seen.vpnd.clone());
        if let Some(done) = seen.done_ns {
            let took = (done.saturating_sub(seen.at_ns)) as f64 / 1e3;
            station.facts.push(format!("it was in vpnd for {took:.0} µs"));
        }
    }

    fn carried(&mut self, sealed: &Sealed, left: &mut Left<'_>) {
        let at = self.next() - 1;
        self.carrier = Some(Carrier { session: sealed.session, counter_low: sealed.counter as u32 });
        let first = sealed.batch.map_or(sealed.counter, |batch| batch.first);
        let Some(passage) = left.outer(Place::Output, sealed.session, first) else {
            self.end = Some(match &sealed.error {
                Some(_) => End::Vpnd { station: at },
                None => End::CarrierUnseen { station: at },
            });
            return;
        };
        self.hooks(passage, Walk::Outer, Direction::Out);
        if self.end.is_some() {
            return;
        }
        let (sight, oif) = (self.sight, passage.last().oif);
        let station = self.station(Walk::Outer, Direction::Out, Place::Device, Verdict::Passed);
        station.device = sight.name(oif);
        self.end = Some(End::Left);
    }

    fn outer_in(&mut self, passage: &Passage) {
        let (sight, iif) = (self.sight, passage.first().iif);
        let station = self.station(Walk::Outer, Direction::In, Place::Device, Verdict::Passed);
        station.device = sight.name(iif);
        self.hooks(passage, Walk::Outer, Direction::In);
        // A host in the middle.
        if self.end.is_none() && passage.last().place == Place::Postrouting {
            let station = self.station(Walk::Outer, Direction::Out, Place::Device, Verdict::Passed);
            station.device = sight.name(passage.last().oif);
            self.end = Some(End::Left);
        }
    }

    fn not_at_vpnd(&mut self) {
        let station = self.next() - 1;
        let why = "it passed INPUT, and vpnd did not read it from its socket".to_owned();
        self.end = Some(End::Gap { station, why });
    }

    /// vpnd, the TUN, and the packet that was inside.
    fn up(&mut self, seen: &Seen, left: &mut Left<'_>) {
        self.end = None; // vpnd had it, whatever netfilter's messages tell
        self.vpnd(seen, Direction::In);
        let at = self.next() - 1;
        let Vpnd::Opened(opened) = &seen.vpnd else {
            self.end = Some(End::Vpnd { station: at });
            return;
        };
        let sight = self.sight;
        let station = self.station(Walk::Inner, Direction::In, Place::Device, Verdict::Passed);
        station.device = sight.name(sight.tun);
        if let Some(done) = seen.done_ns {
            (station.at_us, station.clock) = (Some(sight.us(done)), Some(Clock::Vpnd));
        }
        let facts = facts_of(seen);
        let is_it = |passage: &Passage, same: fn(&Facts, &Facts) -> bool| {
            let first = passage.first();
            first.place == Place::Prerouting
                && first.iif == sight.tun
                && passage.facts().zip(facts).is_some_and(|(one, other)| same(&one, &other))
        };
        let exact = left.take_passage(|passage| is_it(passage, Facts::is_same_packet));
        let passage = match exact {
            // In a super-packet the first one's header stands for all.
            None if opened.merged > 1 => left.take_passage(|passage| is_it(passage, Facts::is_same_flow)),
            exact => exact,
        };
        let Some(passage) = passage else {
            self.end = Some(End::InnerUnseen { station: at + 1 });
            return;
        };
        self.inner(passage, Direction::In);
        // What goes on into the tunnel, to another peer.
        if self.end.is_none() {
            let facts = passage.facts_last();
            let seen = left.take_seen(|seen| sight.is_about(seen, facts));
            self.down(seen, facts, left);
        }
    }

    fn socket_reads(&mut self, passage: &Passage) {
        let station = self.station(Walk::Program, Direction::In, Place::Socket, Verdict::Unknown);
        station.packet = passage.facts_last().map(Packet::from);
        station.unknown.push("the kernel does not tell whether a program took it".to_owned());
        self.end = Some(End::Arrived);
    }

    fn finish(self, packet: Option<Packet>) -> Draft {
        let Self { sight, stations, end, carrier } = self;
        let answered = sight.probe.as_ref().and_then(|probe| Some((probe.answered_ns?, probe.sent_ns)));
        Draft {
            page: Page {
                version: VERSION,
                kind: Kind::Trace,
                packet,
                carrier,
                hosts: vec![sight.host.clone()],
                stations,
                outcome: Outcome::Unknown { why: String::new() },
                notes: sight.notes.clone(),
            },
            end: end.unwrap_or(End::Left),
            answered_us: answered.map(|(answered, sent)| answered.saturating_sub(sent) as f64 / 1e3),
        }
    }
}
