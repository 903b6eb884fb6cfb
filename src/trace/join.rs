//! Pages of several hosts as one: halves of a way are known by what stands in the clear on the carrier.

use super::{Answer, Death, Direction, Host, Outcome, Page, Place, Station};

/// What a page of one host says is put behind that of the host before it; so with the answer's way back.
pub fn join(first: Page, others: &[Page]) -> Page {
    let others: Vec<Page> = others.iter().map(|page| page.clone().by_the_clock_of(&first)).collect();
    let own = first.way_back();
    let mut joined = join_way(Page { answer: None, ..first }, &others);
    let back = match far_half(&joined, own.as_ref(), &others) {
        None => own,
        Some(far) => {
            // Who waited for it, and saw nothing, is asked, too.
            let near = own.unwrap_or_else(|| Page { hosts: joined.hosts[..1].to_vec(), ..silent(&far) });
            let halves: Vec<_> = std::iter::once(near).chain(others.iter().cloned()).collect();
            Some(join_way(far, &halves))
        }
    };
    joined.answer = back.map(|back| back.into_answer_of(&mut joined));
    joined
}

/// Where the answer begins: on the host that had the packet, or on one that saw the carrier leave that came to us.
fn far_half(joined: &Page, own: Option<&Page>, others: &[Page]) -> Option<Page> {
    let begins = |page: &Page| page.stations.first().is_some_and(|first| first.direction == Direction::Out);
    let same = |page: &&Page| page.carrier.is_some() && page.carrier == joined.carrier;
    let answered = others.iter().filter(same).find_map(Page::way_back).filter(begins);
    answered.or_else(|| {
        let carrier = own?.carrier?;
        others.iter().find(|page| page.carrier == Some(carrier) && begins(page)).cloned()
    })
}

/// Its host looked, and saw nothing.
fn silent(like: &Page) -> Page {
    let outcome = Outcome::Unknown { why: String::new() };
    Page {
        packet: None,
        carrier: None,
        stations: Vec::new(),
        answer: None,
        notes: Vec::new(),
        outcome,
        ..like.clone()
    }
}

fn join_way(first: Page, others: &[Page]) -> Page {
    let mut joined = first;
    let mut looked: Vec<String> = Vec::new();
    // The hosts between the two come first: there the carrier leaves again.
    let middle = |page: &&Page| page.hosts.iter().all(|host| host.interface.is_none());
    let (between, ends): (Vec<_>, Vec<_>) = others.iter().partition(middle);
    for page in between.into_iter().chain(ends) {
        for host in &page.hosts {
            if !looked.contains(&host.name) {
                looked.push(host.name.clone());
            }
        }
        let carrier_left = matches!(joined.outcome, Outcome::Left { .. } | Outcome::Unknown { .. });
        if carrier_left && joined.carrier.is_some() && page.carrier == joined.carrier {
            append(&mut joined, page);
        }
    }
    let unseen = looked.into_iter().filter(|name| !joined.hosts.iter().any(|host| host.name == *name));
    let unseen: Vec<_> = unseen.collect();
    if let (Outcome::Left { answered_us: None }, false) = (&joined.outcome, unseen.is_empty()) {
        let device = joined.stations.iter().rev().find(|station| station.place == Place::Device);
        let device = device.and_then(|station| station.device.clone()).unwrap_or_default();
        let why = format!("its carrier left by {device}, and {} did not see it", unseen.join(" and "));
        joined.outcome = Outcome::Unknown { why };
    }
    joined
}

fn append(joined: &mut Page, page: &Page) {
    let behind = joined.stations.len();
    let answered = match joined.outcome {
        Outcome::Left { answered_us } => answered_us,
        _ => None,
    };
    let hosts: Vec<_> = page.hosts.iter().map(|host| joined.place_of(host)).collect();
    let placed = |station: &Station| Station { host: hosts[station.host], ..station.clone() };
    joined.stations.extend(page.stations.iter().map(placed));
    joined.note(&page.notes);
    joined.outcome = match &page.outcome {
        Outcome::Arrived { .. } => Outcome::Arrived { answered_us: answered },
        // Whatever was not seen there: its answer came back.
        Outcome::Unknown { .. } if answered.is_some() => Outcome::Arrived { answered_us: answered },
        Outcome::Left { .. } => Outcome::Left { answered_us: answered },
        Outcome::Died(death) => Outcome::Died(Death { station: death.station + behind, ..death.clone() }),
        other => other.clone(),
    };
}

impl Page {
    /// Which of the hosts that is; it becomes the last one if it is none of them.
    fn place_of(&mut self, host: &Host) -> usize {
        let same = |own: &Host| (&own.name, &own.boot_id) == (&host.name, &host.boot_id);
        self.hosts.iter().position(same).unwrap_or_else(|| {
            self.hosts.push(host.clone());
            self.hosts.len() - 1
        })
    }

    fn note(&mut self, notes: &[String]) {
        for note in notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
    }

    /// The answer, as a page of the same hosts.
    pub fn way_back(&self) -> Option<Self> {
        let Answer { packet, carrier, stations, outcome } = self.answer.clone()?;
        Some(Self { packet, carrier, stations, outcome, answer: None, notes: Vec::new(), ..self.clone() })
    }

    fn into_answer_of(self, page: &mut Self) -> Answer {
        let hosts: Vec<_> = self.hosts.iter().map(|host| page.place_of(host)).collect();
        page.note(&self.notes);
        let placed = |station: Station| Station { host: hosts[station.host], ..station };
        Answer {
            packet: self.packet,
            carrier: self.carrier,
            stations: self.stations.into_iter().map(placed).collect(),
            outcome: self.outcome,
        }
    }

    /// Hosts that share a kernel share its clock: then all times are counted from the moment from which `first` counts.
    fn by_the_clock_of(mut self, first: &Self) -> Self {
        let Some(clock) = first.hosts.first() else { return self };
        for number in 0..self.hosts.len() {
            let host = &mut self.hosts[number];
            let same = host.boot_id.is_some() && host.boot_id == clock.boot_id;
            let (true, Some(own), Some(began)) = (same, host.began_ns, clock.began_ns) else { continue };
            host.began_ns = clock.began_ns;
            let later_us = (own as f64 - began as f64) / 1e3;
            let answers = self.answer.iter_mut().flat_map(|answer| &mut answer.stations);
            for station in self.stations.iter_mut().chain(answers).filter(|station| station.host == number) {
                station.at_us = station.at_us.map(|at_us| at_us + later_us);
            }
        }
        self
    }
}
