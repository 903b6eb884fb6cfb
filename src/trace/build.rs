//! Pages from what the witnesses of one host saw: which messages and records are about the same packet, and in which
//! order its stations stand. Routing is asked in between: a [`Draft`] has the questions, its page the answers.

use std::collections::HashMap;

use super::{
    Carrier, Crossing, Direction, Facts, Host, Meant, Packet, Page, Passage, Place, Seen, Vpnd, answers,
    conclude::End, leaving::Leaving, way::Way,
};

/// All that was seen on one host.
#[derive(Debug)]
pub struct Sight {
    /// Which host.
    pub host: Host,
    /// Which packets are meant.
    pub meant: Meant,
    /// Devices by index.
    pub devices: HashMap<u32, Link>,
    /// Time 0: CLOCK_BOOTTIME, nanoseconds.
    pub began_ns: u64,
    /// What netfilter told.
    pub passages: Vec<Passage>,
    /// What packet sockets saw at the devices.
    pub crossings: Vec<Crossing>,
    /// What vpnd told.
    pub seen: Vec<Seen>,
    /// What the prober told, where one packet of our own was sent.
    pub probe: Option<Probe>,
    /// Witnesses that were not there, or lost something: sentences.
    pub notes: Vec<String>,
}

/// A device, as far as packets that leave by it are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The largest packet.
    pub mtu: u32,
    /// Bytes of the header that it puts before each, where that is known.
    pub header: Option<u64>,
    /// It is up, and has a carrier.
    pub running: bool,
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
    /// Time 0 of the page, by CLOCK_BOOTTIME.
    pub(super) began_ns: u64,
    /// Devices by which it was to leave.
    pub(super) leaving: Vec<Leaving>,
    /// The packet, as each of the witnesses saw it: NAT changes it on its way.
    pub(super) looks: Vec<Facts>,
    /// The packet that it complains about.
    pub(super) quoted: Option<Facts>,
    /// What answers it.
    pub answer: Option<Box<Draft>>,
}

/// A page for each packet, in the order of their times.
pub fn drafts(sight: &Sight) -> Vec<Draft> {
    let mut left = Left {
        passages: sight.passages.iter().collect(),
        crossings: sight.crossings.iter().collect(),
        seen: sight.seen.iter().collect(),
    };
    let mut drafts = Vec::new();
    while let Some(passage) = left.take_passage(|passage| sight.meant.begins(passage)) {
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
        is_carrier && !(sight.meant.tun.is_some() && last.place == Place::Input && last.passed)
    };
    while let Some(passage) = left.take_passage(ends_here) {
        drafts.push(sight.inbound(Some(passage), None, &mut left));
    }
    if drafts.is_empty() && sight.probe.is_some() {
        drafts.push(sight.outbound(None, None, &mut left));
    }
    let time = |draft: &Draft| draft.page.stations.iter().find_map(|station| station.at_us).unwrap_or(0.0);
    // What nobody could read may be anything: it stands behind what is known to be meant.
    let unread = |draft: &Draft| draft.looks.is_empty();
    drafts.sort_by(|a, b| unread(a).cmp(&unread(b)).then(time(a).total_cmp(&time(b))));
    answers::pair(drafts, sight)
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
pub(super) struct Left<'a> {
    passages: Vec<&'a Passage>,
    crossings: Vec<&'a Crossing>,
    seen: Vec<&'a Seen>,
}

impl<'a> Left<'a> {
    pub(super) fn take_passage(&mut self, is_it: impl Fn(&Passage) -> bool) -> Option<&'a Passage> {
        let at = self.passages.iter().position(|passage| is_it(passage))?;
        Some(self.passages.remove(at))
    }

    pub(super) fn take_crossing(&mut self, is_it: impl Fn(&Crossing) -> bool) -> Option<&'a Crossing> {
        let at = self.crossings.iter().position(|crossing| is_it(crossing))?;
        Some(self.crossings.remove(at))
    }

    pub(super) fn take_seen(&mut self, is_it: impl Fn(&Seen) -> bool) -> Option<&'a Seen> {
        let at = self.seen.iter().position(|seen| is_it(seen))?;
        Some(self.seen.remove(at))
    }

    pub(super) fn outer(&mut self, first: Place, session: u32, counter: u64) -> Option<&'a Passage> {
        let carrier = Carrier { session, counter_low: counter as u32 };
        self.take_passage(|passage| passage.first().place == first && passage.carrier == Some(carrier))
    }
}

/// Of a record with the packet's first bytes.
pub(super) fn facts_of(seen: &Seen) -> Option<Facts> {
    Facts::of(&seen.inner)
}

impl Sight {
    /// Down the stack: the packet, vpnd, the carrier.
    fn outbound(&self, passage: Option<&Passage>, seen: Option<&Seen>, left: &mut Left<'_>) -> Draft {
        let mut way = Way::begin(self);
        if passage.is_none_or(|passage| passage.first().place == Place::Output) {
            way.socket_writes(passage);
        }
        let mut packet = passage.and_then(Passage::facts).map(Packet::from);
        if let Some(passage) = passage {
            way.inner(passage, Direction::Out, left);
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

    pub(super) fn is_about(&self, seen: &Seen, facts: Option<Facts>) -> bool {
        let same = facts.zip(facts_of(seen)).is_some_and(|(one, other)| one.is_same_packet(&other));
        is_outbound(&seen.vpnd) && same
    }

    /// Up the stack: the carrier, vpnd, the packet.
    fn inbound(&self, passage: Option<&Passage>, seen: Option<&Seen>, left: &mut Left<'_>) -> Draft {
        let mut way = Way::begin(self);
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
            way.outer_in(passage, left);
        }
        let packet = seen.and_then(|seen| seen.packet.clone());
        match seen {
            Some(seen) => way.up(seen, left),
            None if way.end.is_none() => way.not_at_vpnd(),
            None => {}
        }
        way.finish(packet)
    }

    pub(super) fn name(&self, device: Option<u32>) -> Option<String> {
        let device = device?;
        let known = self.devices.get(&device).map(|link| link.name.clone());
        Some(known.unwrap_or_else(|| format!("device {device}")))
    }

    pub(super) fn us(&self, at_ns: u64) -> f64 {
        (at_ns as f64 - self.began_ns as f64) / 1e3
    }
}
