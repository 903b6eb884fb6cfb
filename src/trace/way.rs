//! One packet's way on this host, station by station: hooks, routing, devices, vpnd, and its carrier's way.

use super::{
    Carrier, Clock, Crossing, Direction, Facts, Kind, Outcome, Packet, Page, Place, Route, Sealed, Seen,
    Station, VERSION, Verdict, Vpnd, Walk,
    build::{Draft, Left, Sight, facts_of},
    conclude::End,
    leaving::Leaving,
    passage::{Hook, Passage},
};

/// What is looked for at a device.
enum Look {
    Carrier(Option<Carrier>),
    Packet {
        facts: Option<Facts>,
        /// It may be part of a larger one there.
        merged: bool,
    },
}

impl Look {
    fn packet(facts: Option<Facts>) -> Self {
        Self::Packet { facts, merged: false }
    }

    fn is_of(&self, crossing: &Crossing) -> bool {
        match self {
            Self::Carrier(carrier) => carrier.is_some() && crossing.carrier == *carrier,
            Self::Packet { facts, .. } => facts.is_some_and(|facts| facts.is_same_packet(&crossing.facts)),
        }
    }
}

/// A page that grows station by station.
pub(super) struct Way<'a> {
    sight: &'a Sight,
    stations: Vec<Station>,
    /// It ends here.
    pub(super) end: Option<End>,
    pub(super) carrier: Option<Carrier>,
    /// The inner packet, as it was seen.
    looks: Vec<Facts>,
    quoted: Option<Facts>,
    leaving: Vec<Leaving>,
    /// When somebody whose clock can be trusted had it last (CLOCK_BOOTTIME, nanoseconds).
    had_ns: Option<u64>,
}

impl<'a> Way<'a> {
    pub(super) fn begin(sight: &'a Sight) -> Self {
        Self {
            sight,
            stations: Vec::new(),
            end: None,
            carrier: None,
            looks: Vec::new(),
            quoted: None,
            leaving: Vec::new(),
            had_ns: None,
        }
    }

    fn station(&mut self, walk: Walk, direction: Direction, place: Place, verdict: Verdict) -> &mut Station {
        // The page of one host: its host is the first.
        self.stations.push(Station::new(0, walk, direction, place, verdict));
        self.stations.last_mut().expect("pushed just now")
    }

    /// Where the next station will stand.
    fn next(&self) -> usize {
        self.stations.len()
    }

    pub(super) fn socket_writes(&mut self, passage: Option<&Passage>) {
        let sight = self.sight;
        let facts = passage.and_then(Passage::facts);
        let is_reply = facts.is_some_and(|facts| facts.is_echo_reply());
        self.had_ns = sight.probe.as_ref().filter(|_| !is_reply).map(|probe| probe.sent_ns);
        let station = self.station(Walk::Program, Direction::Out, Place::Socket, Verdict::Passed);
        if is_reply {
            station.facts.push("the kernel itself answers an echo request".to_owned());
            return;
        }
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
    pub(super) fn nothing_seen(&mut self) {
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
    pub(super) fn inner(&mut self, passage: &Passage, direction: Direction, left: &mut Left<'_>) {
        self.looks.extend(passage.facts().into_iter().chain(passage.facts_last()));
        let first = passage.first();
        if direction == Direction::Out && first.place == Place::Prerouting {
            // Another host's, that goes on into the tunnel.
            self.device(Walk::Inner, Direction::In, first.iif, &Look::packet(passage.facts()), left);
        }
        self.hooks(passage, Walk::Inner, direction);
        if self.end.is_some() {
            return;
        }
        let (sight, last) = (self.sight, passage.last());
        match last.place {
            Place::Postrouting => {
                let route = self.stations.iter().rposition(|station| station.place == Place::Route);
                self.device(Walk::Inner, Direction::Out, last.oif, &Look::packet(passage.facts_last()), left);
                self.leaves(passage, None);
                match direction {
                    _ if last.oif == sight.meant.tun => {}
                    Direction::Out => {
                        let device = sight.name(last.oif).unwrap_or_default();
                        self.end = Some(End::Astray { station: route.unwrap_or(0), device });
                    }
                    Direction::In => self.end = Some(End::Arrived),
                }
            }
            Place::Input => self.socket_reads(passage),
            _ => {}
        }
    }

    /// A device that it crosses: seen there by a packet socket, or inferred from the hook beside it.
    fn device(
        &mut self,
        walk: Walk,
        direction: Direction,
        index: Option<u32>,
        look: &Look,
        left: &mut Left<'_>,
    ) -> &mut Station {
        let sight = self.sight;
        let crosses = |crossing: &Crossing| {
            Some(crossing.device) == index && crossing.leaves == (direction == Direction::Out)
        };
        let mut found = left.take_crossing(|crossing| crosses(crossing) && look.is_of(crossing));
        if let (None, Look::Packet { facts: Some(facts), merged: true }) = (found, look) {
            // In a super-packet the first one's header stands for all.
            found = left.take_crossing(|crossing| crosses(crossing) && crossing.facts.is_same_flow(facts));
        }
        if direction == Direction::In {
            self.had_ns = found.map(|crossing| crossing.at_ns).or(self.had_ns);
        }
        let station = self.station(walk, direction, Place::Device, Verdict::Passed);
        station.device = sight.name(index);
        match found {
            Some(crossing) => {
                (station.at_us, station.clock) = (Some(sight.us(crossing.at_ns)), Some(Clock::Kernel));
                station.packet = Some(crossing.facts.into());
            }
            None => station.inferred = true,
        }
        station
    }

    /// It is to leave by the device at whose station the way is; whoever sent it had done so at `done_ns`.
    fn leaves(&mut self, passage: &Passage, done_ns: Option<u64>) {
        let hook = passage.last();
        let link = hook.oif.and_then(|index| self.sight.devices.get(&index));
        let (Some(link), Some(facts)) = (link, passage.facts_last()) else { return };
        let Some(header) = link.header else { return };
        self.leaving.push(Leaving {
            station: self.next() - 1,
            device: link.name.clone(),
            running: link.running,
            is_cut: facts.bytes > link.mtu,
            bytes: facts.bytes.into(),
            header,
            span: Leaving::span(hook.at_ns, self.had_ns, done_ns),
        });
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
    pub(super) fn down(&mut self, seen: Option<&Seen>, facts: Option<Facts>, left: &mut Left<'_>) {
        let Some(seen) = seen else {
            let station = self.next() - 1;
            self.end = Some(End::Gap { station, why: "vpnd never got it from the device".to_owned() });
            return;
        };
        self.vpnd(seen, Direction::Out);
        let at = self.next() - 1;
        match &seen.vpnd {
            Vpnd::Sealed(sealed) => self.carried(sealed, seen.done_ns, left),
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
        self.looks.extend(facts_of(seen));
        self.quoted = self.quoted.or_else(|| Facts::quoted(&seen.inner));
        self.had_ns = Some(seen.at_ns);
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

    fn carried(&mut self, sealed: &Sealed, done_ns: Option<u64>, left: &mut Left<'_>) {
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
        let look = Look::Carrier(Some(Carrier { session: sealed.session, counter_low: first as u32 }));
        self.device(Walk::Outer, Direction::Out, passage.last().oif, &look, left);
        self.leaves(passage, done_ns);
        self.end = Some(End::Left);
    }

    pub(super) fn outer_in(&mut self, passage: &Passage, left: &mut Left<'_>) {
        let look = Look::Carrier(passage.carrier);
        self.device(Walk::Outer, Direction::In, passage.first().iif, &look, left);
        self.hooks(passage, Walk::Outer, Direction::In);
        // A host in the middle.
        if self.end.is_none() && passage.last().place == Place::Postrouting {
            self.device(Walk::Outer, Direction::Out, passage.last().oif, &look, left);
            self.leaves(passage, None);
            self.end = Some(End::Left);
        }
    }

    pub(super) fn not_at_vpnd(&mut self) {
        let station = self.next() - 1;
        let why = "it passed INPUT, and vpnd did not read it from its socket".to_owned();
        self.end = Some(End::Gap { station, why });
    }

    /// vpnd, the TUN, and the packet that was inside.
    pub(super) fn up(&mut self, seen: &Seen, left: &mut Left<'_>) {
        self.end = None; // vpnd had it, whatever netfilter's messages tell
        self.vpnd(seen, Direction::In);
        let at = self.next() - 1;
        let Vpnd::Opened(opened) = &seen.vpnd else {
            self.end = Some(End::Vpnd { station: at });
            return;
        };
        let (sight, facts) = (self.sight, facts_of(seen));
        let look = Look::Packet { facts, merged: opened.merged > 1 };
        let station = self.device(Walk::Inner, Direction::In, sight.meant.tun, &look, left);
        if let (None, Some(done)) = (station.at_us, seen.done_ns) {
            // vpnd knows that the kernel took it.
            (station.at_us, station.clock, station.inferred) =
                (Some(sight.us(done)), Some(Clock::Vpnd), false);
        }
        let is_it = |passage: &Passage, same: fn(&Facts, &Facts) -> bool| {
            let first = passage.first();
            first.place == Place::Prerouting
                && first.iif == sight.meant.tun
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
        self.inner(passage, Direction::In, left);
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

    pub(super) fn finish(self, packet: Option<Packet>) -> Draft {
        let Self { sight, stations, end, carrier, looks, quoted, leaving, had_ns: _ } = self;
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
                answer: None,
                notes: sight.notes.clone(),
            },
            end: end.unwrap_or(End::Left),
            began_ns: sight.began_ns,
            leaving,
            looks,
            quoted,
            answer: None,
            answered_us: answered.map(|(answered, sent)| answered.saturating_sub(sent) as f64 / 1e3),
        }
    }
}
