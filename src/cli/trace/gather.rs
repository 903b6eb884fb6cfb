//! The witnesses at work: vpnd's own records, netfilter's trace, a probe; until they have nothing more to tell.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    Args, TraceError,
    begin::{Placed, Tunnel, Witnesses},
    here,
    stop::Stop,
};
use crate::{
    host::fib::{Device, Fib},
    sys,
    trace::{
        Count, Crossing, Event, Host, Kind, Link, Meant, Outcome, Page, Passage, Place, Probe, Record, Seen,
        Sight, VERSION, drafts, drops::Neighbour,
    },
    witness::{Counters, Crossings, Drops, Messages, Ruleset, routing},
};

/// When nothing came for so long, nothing more will.
const QUIET: Duration = Duration::from_millis(200);
/// What answers is given so long.
const ANSWERS: Duration = Duration::from_secs(1);
/// And no longer than this after all was seen that was asked for: others go on sending.
const AFTER: Duration = Duration::from_secs(1);
/// How often it is asked whether that is so.
const TICK: Duration = Duration::from_millis(20);
/// And at the latest, where there is always something to read.
const LATE: Duration = Duration::from_millis(200);
/// How often it is asked whether a neighbour has answered.
const AGAIN: Duration = Duration::from_millis(500);
/// Messages of netfilter that are kept.
const EVENTS: usize = 200_000;
/// Packets at devices that are kept.
const CROSSINGS: usize = 50_000;

/// All that is told until the end.
struct Gathered {
    meant: Meant,
    events: Vec<Event>,
    /// As long as there is room for what they see.
    devices: Option<Crossings>,
    crossings: Vec<Crossing>,
    seen: Vec<Seen>,
    probe: Option<Probe>,
    notes: Vec<String>,
    /// vpnd has told all that was asked for.
    ended: bool,
}

/// A page for each packet, its routes answered; and what else was seen, which may be a half of something. What was seen
/// is told, whatever fails afterwards.
pub(super) async fn pages(args: &Args) -> Result<(Vec<Page>, Vec<Page>), TraceError> {
    let mut stop = Stop::listen()?;
    let mut fib = Fib::open()?;
    let witnesses = Witnesses::take_their_places(args, &mut fib, &mut stop).await?;
    let Witnesses { meant, prober, mut tunnel, mut placed, crossings, drops, devices, notes } = witnesses;
    let began_ns = sys::clock::boottime();
    let wall_ns = u64::try_from(sys::clock::wall().as_nanos()).unwrap_or(u64::MAX);
    let counters = Counters::read();
    // Whoever started us, to send what is to be followed, waits for this.
    eprintln!("vpnd trace: watching");
    let probing = prober.map(|prober| {
        let patience = Duration::from_secs(args.seconds.min(5));
        tokio::task::spawn_blocking(move || prober.send(patience))
    });
    let mut gathered = Gathered {
        meant,
        events: Vec::new(),
        devices: crossings,
        crossings: Vec::new(),
        seen: Vec::new(),
        probe: None,
        notes,
        ended: false,
    };
    let queues = Queues { drops: drops.as_ref(), names: devices, asked: None, said: Vec::new() };
    let sources = Sources { tunnel: tunnel.as_mut(), placed: placed.as_mut(), probing, queues };
    let failed = gathered.gather(args, &mut stop, sources).await;
    gathered.cross_last();
    let steps = drops.and_then(|drops| drops.told().ok()).unwrap_or_default();
    gathered.notes.extend(failed.err().map(|error| format!("it ended early: {error}")));
    let losses = Counters::read().moved_since(&counters);
    let before = placed.map(|placed| {
        drop((placed.nftrace, placed.table));
        placed.ruleset
    });
    gathered.explain_rules(before);
    let devices = fib.devices().await.unwrap_or_default();
    let interface = tunnel.map(|tunnel| tunnel.interface);
    let sent_ns = gathered.probe.as_ref().map_or(began_ns, |probe| probe.sent_ns);
    let host = Host {
        name: here::host_name(),
        interface,
        boot_id: here::boot_id(),
        began_ns: Some(wall_ns.saturating_add(sent_ns.saturating_sub(began_ns))),
    };
    let sight = gathered.sight(host, sent_ns, &devices);
    let mut pages = Vec::new();
    for mut draft in drafts(&sight).into_iter().take(wanted(args).saturating_mul(3)) {
        routing::answer(&mut draft, &mut fib, &devices).await;
        pages.push(draft.conclude(losses.as_deref(), &steps));
    }
    let both_ways = if args.forwards && args.answers { 2 } else { 1 };
    let loose = pages.split_off(pages.len().min(both_ways * wanted(args)));
    if pages.is_empty() {
        pages.push(nothing(&sight, args.seconds));
    }
    Ok((pages, loose))
}

fn wanted(args: &Args) -> usize {
    usize::try_from(args.packets).unwrap_or(usize::MAX)
}

/// That nothing came is worth a page, too: the other end joins it.
fn nothing(sight: &Sight, seconds: u64) -> Page {
    Page {
        version: VERSION,
        kind: Kind::Trace,
        packet: None,
        carrier: None,
        hosts: vec![sight.host.clone()],
        stations: Vec::new(),
        outcome: Outcome::Unknown { why: format!("no such packet came within {seconds} s") },
        answer: None,
        notes: sight.notes.clone(),
    }
}

/// What one of the witnesses told.
enum Told {
    Netfilter(Messages),
    Crossed(Vec<Crossing>),
    Vpnd(Option<String>),
    Probe(Probe),
}

/// From where it is told.
struct Sources<'a> {
    tunnel: Option<&'a mut Tunnel>,
    placed: Option<&'a mut Placed>,
    probing: Option<JoinHandle<Probe>>,
    queues: Queues<'a>,
}

impl Gathered {
    async fn gather(&mut self, args: &Args, stop: &mut Stop, sources: Sources<'_>) -> Result<(), TraceError> {
        let Sources { mut tunnel, mut placed, mut probing, mut queues } = sources;
        // The probe has waited for its answer then, and has told.
        let more = if probing.is_some() { ANSWERS } else { Duration::ZERO };
        let mut until = Instant::now() + Duration::from_secs(args.seconds) + more;
        let mut latest = Instant::now();
        let mut enough = Enough::default();
        loop {
            let now = Instant::now();
            if now >= until || enough.is_over(self, args, latest, now) && !queues.hold(self, now) {
                return Ok(());
            }
            let tick = (now + TICK).min(until);
            let late = (now + LATE).min(until);
            loop {
                let told = tokio::select! {
                    // In turn, and the clock last: what is there already is read before it is looked at as a whole.
                    biased;
                    // Enough was seen: what is under way, and what there is, is told.
                    () = stop.came() => {
                        until = until.min(Instant::now() + QUIET);
                        break;
                    }
                    messages = next_messages(&mut placed) => Told::Netfilter(messages?),
                    line = next_line(&mut tunnel) => Told::Vpnd(line?),
                    probe = finished(&mut probing) => {
                        probing = None;
                        Told::Probe(probe.map_err(|error| TraceError::Other(format!("the probe: {error}")))?)
                    }
                    crossed = next_crossings(&mut self.devices) => Told::Crossed(crossed?),
                    () = sleep_until(tick) => break,
                };
                // What crosses a device is told elsewhere, too, or is not about us.
                if !matches!(told, Told::Crossed(_)) {
                    latest = Instant::now();
                }
                self.take(told);
                if Instant::now() >= late {
                    break;
                }
            }
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Netfilter(messages) => {
                if messages.lost {
                    self.note(
                        "the kernel had more messages of netfilter than there was room for: some are missing",
                    );
                }
                let room = EVENTS - self.events.len().min(EVENTS);
                self.events.extend(messages.events.into_iter().take(room));
            }
            Told::Crossed(crossed) => self.cross(crossed),
            Told::Vpnd(line) => self.line(line),
            Told::Probe(probe) => self.probe = Some(probe),
        }
    }

    fn cross(&mut self, crossed: Vec<Crossing>) {
        let room = CROSSINGS - self.crossings.len().min(CROSSINGS);
        if crossed.len() > room {
            // Who sees too much costs others too much.
            self.devices = None;
            self.note("more packets crossed the devices than are kept: what came later is inferred");
        }
        self.crossings.extend(crossed.into_iter().take(room));
    }

    /// What had not been read.
    fn cross_last(&mut self) {
        match self.devices.take().map(Crossings::rest) {
            None => {}
            Some(Ok((rest, lost))) => {
                self.cross(rest);
                if lost > 0 {
                    self.note(
                        "more packets crossed the devices than the kernel had room for: some are inferred",
                    );
                }
            }
            Some(Err(error)) => {
                self.note(&format!("the packet sockets could not be read to their end: {error}"))
            }
        }
    }

    /// Has everything happened that was waited for? What is still under way comes soon.
    fn is_enough(&self, args: &Args) -> bool {
        if args.dest.is_some() {
            return self.probe.is_some();
        }
        // What vpnd could not open never becomes a packet.
        if self.ended || self.seen.iter().any(|seen| seen.packet.is_none()) {
            return true;
        }
        let wanted = wanted(args);
        let count = self.count(wanted);
        // A carrier that netfilter ends here never becomes a packet.
        count.packets >= wanted || args.forwards && count.carriers >= wanted || self.a_carrier_was_dropped()
    }

    /// Of what is followed.
    fn is_answered(&self, args: &Args) -> bool {
        let wanted = 2 * wanted(args);
        let count = self.count(wanted);
        count.packets + count.answers >= wanted || args.forwards && count.carriers >= wanted
    }

    /// Fewer than `wanted` are not counted: there may be many messages.
    fn count(&self, wanted: usize) -> Count {
        let begins = |event: &&Event| matches!(event.own, Some((Place::Output | Place::Prerouting, _)));
        match self.events.iter().filter(begins).count() >= wanted {
            true => self.meant.count(&Passage::gather(&self.events)),
            false => Count::default(),
        }
    }

    fn a_carrier_was_dropped(&self) -> bool {
        let carriers = self.events.iter().filter(|event| event.carrier.is_some());
        let carriers: HashSet<_> = carriers.map(|event| event.id).collect();
        self.events.iter().any(|event| carriers.contains(&event.id) && event.rule.verdict == "drop")
    }

    fn line(&mut self, line: Option<String>) {
        let Some(line) = line else {
            self.ended = true;
            return;
        };
        match serde_json::from_str(&line) {
            Ok(Record::Packet(seen)) => self.seen.push(*seen),
            Ok(Record::Lost { count }) => {
                self.note(&format!("vpnd saw {count} more packets, and had no room for them"))
            }
            Ok(Record::Ended) => self.ended = true,
            Ok(Record::Began { .. } | Record::Handshake(_)) | Err(_) => {}
        }
    }

    fn note(&mut self, text: &str) {
        if !self.notes.iter().any(|note| note == text) {
            self.notes.push(text.to_owned());
        }
    }

    /// Rules by their handles: as they stood when the trace began, or as they stand now.
    fn explain_rules(&mut self, before: Option<Ruleset>) {
        let after = Ruleset::list().ok();
        for event in &mut self.events {
            for ruleset in [&before, &after].into_iter().flatten() {
                ruleset.describe(&mut event.rule);
            }
        }
        // Another trace that runs at the same time is nobody's firewall.
        self.events.retain(|event| event.own.is_some() || !event.rule.table.starts_with("vpnd_trace_"));
    }

    /// Devices by which packets were to leave that were not seen there.
    fn not_seen_to_leave(&self) -> Vec<u32> {
        let passages = Passage::gather(&self.events);
        let waits = passages.iter().filter_map(|passage| {
            let last = passage.last();
            let (device, facts) = (last.oif?, passage.facts_last()?);
            let is_it = |crossing: &&Crossing| {
                crossing.leaves && crossing.device == device && crossing.facts.is_same_packet(&facts)
            };
            let through = last.place == Place::Postrouting && last.passed;
            (through && self.devices.is_some() && !self.crossings.iter().any(|one| is_it(&one)))
                .then_some(device)
        });
        waits.collect()
    }

    fn sight(self, host: Host, began_ns: u64, devices: &[Device]) -> Sight {
        Sight {
            host,
            meant: self.meant,
            devices: devices.iter().map(|device| (device.index, link(device))).collect(),
            began_ns,
            passages: Passage::gather(&self.events),
            crossings: self.crossings,
            seen: self.seen,
            probe: self.probe,
            notes: self.notes,
        }
    }
}

/// Packets that wait for a neighbour, which takes the kernel three seconds to give up.
struct Queues<'a> {
    drops: Option<&'a Drops>,
    /// Of devices by index.
    names: HashMap<u32, String>,
    asked: Option<Instant>,
    /// Who was waited for.
    said: Vec<Neighbour>,
}

impl Queues<'_> {
    /// Is there still something in one? It is looked at once in a while: that is not cheap.
    fn hold(&mut self, gathered: &Gathered, now: Instant) -> bool {
        let Some(drops) = self.drops else { return false };
        if self.asked.is_some_and(|asked| now - asked < AGAIN) {
            return true;
        }
        let name = |device: &u32| self.names.get(device).cloned();
        let devices: Vec<_> = gathered.not_seen_to_leave().iter().filter_map(name).collect();
        let awaited =
            if devices.is_empty() { Vec::new() } else { drops.awaited(&devices).unwrap_or_default() };
        for one in awaited.iter().filter(|one| !self.said.contains(one)) {
            eprintln!(
                "vpnd trace: waits for {} on {}, which has not said its address on the link",
                one.address, one.device
            );
        }
        self.asked = (!awaited.is_empty()).then_some(now);
        self.said.extend(awaited);
        self.asked.is_some()
    }
}

/// Since when enough was seen, as long as that holds: what looked like a packet may turn out to be none.
#[derive(Default)]
struct Enough {
    since: Option<Instant>,
    /// It was looked at when so much had been told.
    told: Option<usize>,
    /// No answer is waited for.
    answered: bool,
}

impl Enough {
    fn is_over(&mut self, gathered: &Gathered, args: &Args, latest: Instant, now: Instant) -> bool {
        let told = gathered.events.len() + gathered.seen.len() + usize::from(gathered.probe.is_some());
        if self.told.replace(told) != Some(told) || gathered.ended {
            self.since = gathered.is_enough(args).then(|| self.since.unwrap_or(now));
            self.answered = !args.answers || gathered.is_answered(args);
        }
        let quiet = if self.answered { QUIET } else { ANSWERS };
        self.since.is_some_and(|since| now - latest >= quiet || now - since >= AFTER.max(quiet))
    }
}

/// Never, where there is no such witness.
async fn next_messages(placed: &mut Option<&mut Placed>) -> Result<Messages, TraceError> {
    let failed = |source| TraceError::Io { attempted: "read netfilter's trace", source };
    match placed {
        Some(placed) => placed.nftrace.next().await.map_err(failed),
        None => std::future::pending().await,
    }
}

async fn next_crossings(crossings: &mut Option<Crossings>) -> Result<Vec<Crossing>, TraceError> {
    let failed = |source| TraceError::Io { attempted: "read what crosses the devices", source };
    match crossings {
        Some(crossings) => crossings.next().await.map_err(failed),
        None => std::future::pending().await,
    }
}

async fn next_line(tunnel: &mut Option<&mut Tunnel>) -> Result<Option<String>, TraceError> {
    match tunnel {
        Some(tunnel) => match tunnel.lines.next().await? {
            Some(line) => Ok(Some(line)),
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn finished(probing: &mut Option<JoinHandle<Probe>>) -> Result<Probe, tokio::task::JoinError> {
    match probing {
        Some(probing) => probing.await,
        None => std::future::pending().await,
    }
}

fn link(device: &Device) -> Link {
    Link { name: device.name.clone(), mtu: device.mtu, header: device.header, running: device.running }
}
