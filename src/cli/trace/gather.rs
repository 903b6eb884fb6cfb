//! The witnesses at work: vpnd's own records, netfilter's trace, a probe; until they have nothing more to tell.

use std::{
    collections::{HashMap, HashSet},
    fs,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{Args, TraceError};
use crate::{
    cli::ask::{self, Lines},
    host::fib::{Device, Fib},
    sys,
    trace::{
        Event, Filter, Host, Kind, Outcome, Packet, Page, Passage, Place, Probe, Record, Seen, Sight, drafts,
        station::VERSION,
    },
    witness::{Carried, Counters, Messages, NfTrace, Placement, Prober, Ruleset, Shape, routing},
};

/// When nothing came for so long, nothing more will.
const QUIET: Duration = Duration::from_millis(200);
/// And no longer than this after all was seen that was asked for: others go on sending.
const AFTER: Duration = Duration::from_secs(1);
/// How often it is asked whether that is so.
const TICK: Duration = Duration::from_millis(20);
/// Bytes of each packet that vpnd is asked for: its headers tell it from others.
const SNAP: usize = 128;
/// Messages of netfilter that are kept.
const EVENTS: usize = 200_000;
/// Headers of UDP, of the transport message, and its tag.
const AROUND: u64 = 8 + 16 + 16;

/// The tunnel, if there is one.
struct Tunnel {
    lines: Lines,
    interface: String,
    port: u16,
}

/// All that is told until the end.
struct Gathered {
    events: Vec<Event>,
    seen: Vec<Seen>,
    probe: Option<Probe>,
    notes: Vec<String>,
    /// vpnd has told all that was asked for.
    ended: bool,
}

/// A page for each packet, its routes answered.
pub(super) async fn pages(args: &Args) -> Result<Vec<Page>, TraceError> {
    let prober = match args.dest {
        Some(to) => {
            let prober = Prober::new(to, args.from, args.shape(), args.mark);
            Some(
                prober
                    .map_err(|source| TraceError::Io { attempted: "make a socket for the probe", source })?,
            )
        }
        None => None,
    };
    let filter = match (&args.follow, &prober) {
        (Some(filter), _) => filter.clone(),
        (None, Some(prober)) => filter_for(prober.packet())?,
        (None, None) => Filter::all(),
    };
    let mut tunnel = if args.forwards { None } else { Some(attach(args, &filter).await?) };
    let carried = carried(args, tunnel.as_ref(), prober.as_ref());
    let mut notes = Vec::new();
    let placed = place(&filter, &carried, &mut notes)?;
    let began_ns = sys::clock::boottime();
    let wall_ns = u64::try_from(sys::clock::wall().as_nanos()).unwrap_or(u64::MAX);
    let (table, mut nftrace, ruleset) =
        placed.map_or((None, None, None), |(t, n, r)| (Some(t), Some(n), Some(r)));
    let counters = Counters::read();
    // Whoever started us, to send what is to be followed, waits for this.
    eprintln!("vpnd trace: watching");
    let probing = prober.map(|prober| {
        let patience = Duration::from_secs(args.seconds.min(5));
        tokio::task::spawn_blocking(move || prober.send(patience))
    });
    let mut gathered = Gathered { events: Vec::new(), seen: Vec::new(), probe: None, notes, ended: false };
    gathered.gather(args, &filter, tunnel.as_mut(), nftrace.as_mut(), probing).await?;
    let losses = Counters::read().moved_since(&counters);
    drop((nftrace, table));
    gathered.explain_rules(ruleset);
    let mut fib = Fib::open()?;
    let devices = fib.devices().await?;
    let interface = tunnel.map(|tunnel| tunnel.interface);
    let host = Host { name: host_name(), interface, boot_id: boot_id(), began_ns: Some(wall_ns) };
    let sight = gathered.sight(host, began_ns, filter, &devices);
    let mut pages = Vec::new();
    for mut draft in drafts(&sight).into_iter().take(usize::try_from(args.packets).unwrap_or(usize::MAX)) {
        routing::answer(&mut draft, &mut fib, &devices).await?;
        pages.push(draft.conclude(losses.as_deref()));
    }
    if pages.is_empty() {
        pages.push(nothing(&sight, args.seconds));
    }
    Ok(pages)
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
        notes: sight.notes.clone(),
    }
}

/// What means the probe, and as little else as the words of a filter can say.
fn filter_for(packet: &Packet) -> Result<Filter, TraceError> {
    let mut text = format!("dst host {}", packet.destination);
    text += match packet.protocol.as_str() {
        "tcp" => " and tcp",
        "udp" => " and udp",
        _ => " and icmp",
    };
    for (side, port) in [("src", packet.source_port), ("dst", packet.destination_port)] {
        text += &port.map(|port| format!(" and {side} port {port}")).unwrap_or_default();
    }
    text.parse().map_err(|error: crate::trace::filter::FilterError| TraceError::Other(error.to_string()))
}

async fn attach(args: &Args, filter: &Filter) -> Result<Tunnel, TraceError> {
    let socket = ask::the_one(&args.run_dir, args.interface.as_deref()).await?;
    let packets = args.packets;
    // Longer than we wait ourselves: we end it.
    let path = format!(
        "/v1/trace?filter={}&packets={packets}&seconds={}&snap={SNAP}",
        ask::encoded(&filter.to_string()),
        args.seconds + 10
    );
    let mut lines = ask::stream(&socket, &path).await?;
    let first = lines.next().await?.unwrap_or_default();
    match ask::read(&socket, first.as_bytes())? {
        Record::Began { interface, listen_port, .. } => Ok(Tunnel { lines, interface, port: listen_port }),
        other => Err(TraceError::Other(format!("vpnd began its trace with {other:?}"))),
    }
}

/// The carriers that are meant: of a probe the length is known, so that others cost nothing.
fn carried(args: &Args, tunnel: Option<&Tunnel>, prober: Option<&Prober>) -> Carried {
    let bytes =
        prober.and_then(|prober| prober.packet().bytes).filter(|_| !matches!(args.shape(), Shape::Tcp(_)));
    let padded = bytes.map(|bytes| bytes.next_multiple_of(16) + AROUND);
    // Close to the MTU padding is cut short.
    let udp_length = padded.filter(|length| *length < 1200).and_then(|length| u16::try_from(length).ok());
    Carried { port: tunnel.map(|tunnel| tunnel.port), endpoint: None, udp_length }
}

type Placed = (Placement, NfTrace, Ruleset);

/// Without nft the rest is still worth telling.
fn place(filter: &Filter, carried: &Carried, notes: &mut Vec<String>) -> Result<Option<Placed>, TraceError> {
    let name = Placement::table_name();
    let io = |source| TraceError::Io { attempted: "listen to netfilter's trace (it needs root)", source };
    let nftrace = NfTrace::open(&name).map_err(io)?;
    let placed = match Placement::place(&name, filter, Some(carried)) {
        Ok(placement) => placement,
        Err(why) => {
            notes.push(format!("netfilter tells nothing: {why}"));
            return Ok(None);
        }
    };
    let ruleset = Ruleset::list()?;
    if fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| !names.trim().is_empty())
        || fs::read_to_string("/proc/net/ip6_tables_names").is_ok_and(|names| !names.trim().is_empty())
    {
        notes.push(
            "iptables-legacy has tables here: the kernel does not trace its rules to nftables; that one took a packet \
             is seen by what comes into a hook and not out of it"
                .to_owned(),
        );
    }
    Ok(Some((placed, nftrace, ruleset)))
}

/// What one of the witnesses told.
enum Told {
    Netfilter(Messages),
    Vpnd(Option<String>),
    Probe(Probe),
}

impl Gathered {
    async fn gather(
        &mut self,
        args: &Args,
        filter: &Filter,
        mut tunnel: Option<&mut Tunnel>,
        mut nftrace: Option<&mut NfTrace>,
        mut probing: Option<JoinHandle<Probe>>,
    ) -> Result<(), TraceError> {
        let listen = |kind, attempted| signal(kind).map_err(|source| TraceError::Io { attempted, source });
        let mut interrupted = listen(SignalKind::interrupt(), "listen for SIGINT")?;
        let mut terminated = listen(SignalKind::terminate(), "listen for SIGTERM")?;
        let mut until = Instant::now() + Duration::from_secs(args.seconds);
        let (mut latest, mut enough) = (Instant::now(), None);
        loop {
            let now = Instant::now();
            enough = enough.or_else(|| self.is_enough(args, filter).then_some(now));
            let over = enough.is_some_and(|enough| now - latest >= QUIET || now - enough >= AFTER);
            if now >= until || over {
                return Ok(());
            }
            let tick = (now + TICK).min(until);
            loop {
                let told = tokio::select! {
                    messages = next_messages(&mut nftrace) => Told::Netfilter(messages?),
                    line = next_line(&mut tunnel) => Told::Vpnd(line?),
                    probe = finished(&mut probing) => {
                        probing = None;
                        Told::Probe(probe.map_err(|error| TraceError::Other(format!("the probe: {error}")))?)
                    }
                    // Enough was seen: what is under way, and what there is, is told.
                    _ = async { tokio::select! { _ = interrupted.recv() => (), _ = terminated.recv() => () } } => {
                        until = until.min(Instant::now() + QUIET);
                        break;
                    }
                    () = sleep_until(tick) => break,
                };
                latest = Instant::now();
                self.take(told);
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
            Told::Vpnd(line) => self.line(line),
            Told::Probe(probe) => self.probe = Some(probe),
        }
    }

    /// Has everything happened that was waited for? What is still under way comes soon.
    fn is_enough(&self, args: &Args, filter: &Filter) -> bool {
        if args.dest.is_some() {
            return self.probe.is_some();
        }
        // What vpnd could not open never becomes a packet.
        if self.ended || self.seen.iter().any(|seen| seen.packet.is_none()) {
            return true;
        }
        let means = |event: &&Event| event.facts.is_some_and(|facts| filter.matches(&facts));
        let begins = |event: &&Event| matches!(event.own, Some((Place::Output | Place::Prerouting, _)));
        let mut numbers: Vec<_> =
            self.events.iter().filter(begins).filter(means).map(|event| event.id).collect();
        numbers.sort_unstable();
        numbers.dedup();
        // A carrier that netfilter ends here never becomes a packet.
        let carriers = self.events.iter().filter(|event| event.carrier.is_some());
        let carriers: HashSet<_> = carriers.map(|event| event.id).collect();
        let ends = |event: &Event| args.forwards || event.rule.verdict == "drop";
        let carried = self.events.iter().any(|event| carriers.contains(&event.id) && ends(event));
        numbers.len() as u64 >= args.packets || carried
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

    fn sight(self, host: Host, began_ns: u64, filter: Filter, devices: &[Device]) -> Sight {
        let names: HashMap<_, _> = devices.iter().map(|device| (device.index, device.name.clone())).collect();
        let tun = devices.iter().find(|device| Some(&device.name) == host.interface.as_ref());
        Sight {
            tun: tun.map(|device| device.index),
            host,
            devices: names,
            began_ns: self.probe.as_ref().map_or(began_ns, |probe| probe.sent_ns),
            filter,
            passages: Passage::gather(&self.events),
            seen: self.seen,
            probe: self.probe,
            notes: self.notes,
        }
    }
}

/// Never, where there is no such witness.
async fn next_messages(nftrace: &mut Option<&mut NfTrace>) -> Result<Messages, TraceError> {
    let failed = |source| TraceError::Io { attempted: "read netfilter's trace", source };
    match nftrace {
        Some(nftrace) => nftrace.next().await.map_err(failed),
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

/// That of the host; of a network namespace with a name that one's.
fn host_name() -> String {
    let own = |name: &fs::DirEntry| {
        use std::os::unix::fs::MetadataExt;
        let (named, ours) = (fs::metadata(name.path()).ok(), fs::metadata("/proc/self/ns/net").ok());
        named.zip(ours).is_some_and(|(named, ours)| (named.dev(), named.ino()) == (ours.dev(), ours.ino()))
    };
    let namespace = fs::read_dir("/run/netns").ok().and_then(|names| names.flatten().find(own));
    if let Some(namespace) = namespace {
        return namespace.file_name().to_string_lossy().into_owned();
    }
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}
