//! The witnesses take their places: vpnd is asked, netfilter's table stands, a probe is ready to go.

use std::{collections::HashMap, fs, ops::RangeInclusive, process::Command};

use super::{Args, TraceError, stop::Stop};
use crate::{
    cli::ask::{self, Lines},
    host::fib::Fib,
    trace::{Filter, Meant, Packet, Record, filter::FilterError},
    witness::{Carried, Crossings, Drops, NfTrace, Placement, Prober, Ruleset, Shape},
};

/// Bytes of each packet that vpnd is asked for: its headers tell it from others.
const SNAP: usize = 128;
/// Headers of UDP, of the transport message, and its tag.
const AROUND: u64 = 8 + 16 + 16;

/// The tunnel, if there is one.
pub(super) struct Tunnel {
    pub(super) lines: Lines,
    pub(super) interface: String,
    port: u16,
}

/// What netfilter is asked with.
pub(super) struct Placed {
    /// The table stands as long as this.
    pub(super) table: Placement,
    pub(super) nftrace: NfTrace,
    /// The rules before the first packet.
    pub(super) ruleset: Ruleset,
}

/// All of them, at their places.
pub(super) struct Witnesses {
    pub(super) meant: Meant,
    pub(super) prober: Option<Prober>,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) placed: Option<Placed>,
    pub(super) crossings: Option<Crossings>,
    /// Without them the kernel does not tell why it drops.
    pub(super) drops: Option<Drops>,
    /// Names of devices by index.
    pub(super) devices: HashMap<u32, String>,
    /// Who is missing, and why: sentences.
    pub(super) notes: Vec<String>,
}

impl Witnesses {
    pub(super) async fn take_their_places(
        args: &Args,
        fib: &mut Fib,
        stop: &mut Stop,
    ) -> Result<Self, TraceError> {
        let prober = args.dest.map(|to| Prober::new(to, args.from, args.shape(), args.mark)).transpose();
        let prober =
            prober.map_err(|source| TraceError::Io { attempted: "make a socket for the probe", source })?;
        let filter = match (&args.follow, &prober) {
            (Some(filter), _) => filter.clone(),
            (None, Some(prober)) => filter_for(prober.packet())?,
            (None, None) => Filter::all(),
        };
        let answers = (args.answers || prober.is_some()).then(|| filter.answers()).transpose();
        let answers = answers.map_err(|error| in_words(&error))?;
        let watched = answers.as_ref().map(|answers| filter.or(answers)).transpose();
        let watched = watched.map_err(|error| in_words(&error))?.unwrap_or_else(|| filter.clone());
        let tunnel = match args.forwards {
            true => None,
            // A daemon that does not answer is waited for; nothing was placed yet, and nothing seen.
            false => Some(tokio::select! {
                tunnel = attach(args, &watched) => tunnel?,
                () = stop.came() => return Err(TraceError::Other("it was ended before it watched".to_owned())),
            }),
        };
        let devices = fib.devices().await?;
        let tun = |tunnel: &Tunnel| devices.iter().find(|device| device.name == tunnel.interface);
        let meant = Meant {
            answers,
            probe: prober.as_ref().map(|prober| prober.packet().clone()),
            tun: tunnel.as_ref().and_then(tun).map(|device| device.index),
            filter,
        };
        let carried = carried(args, tunnel.as_ref(), prober.as_ref());
        let mut notes = Vec::new();
        let placed = place(&watched, &carried, &mut notes)?;
        let inner = tunnel.as_ref().map(|_| &watched);
        let lengths = lengths(args, prober.as_ref(), &watched);
        let crossings = Crossings::open(inner, &carried).inspect_err(|error| {
            notes.push(format!(
                "what crosses the devices is inferred: no packet socket could be opened: {error}"
            ));
        });
        Ok(Self {
            meant,
            prober,
            tunnel,
            placed,
            crossings: crossings.ok(),
            drops: Drops::open(&mut sweeper(), &lengths).ok(),
            devices: devices.into_iter().map(|device| (device.index, device.name)).collect(),
            notes,
        })
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
    text.parse().map_err(|error| in_words(&error))
}

/// This program, as the child that removes what we leave.
fn sweeper() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["trace", "--sweep"]).arg(std::process::id().to_string());
    command
}

fn in_words(error: &FilterError) -> TraceError {
    TraceError::Other(error.to_string())
}

async fn attach(args: &Args, filter: &Filter) -> Result<Tunnel, TraceError> {
    let socket = ask::the_one(&args.run_dir, args.interface.as_deref()).await?;
    // What answers them is told besides.
    let packets = if args.answers || args.dest.is_some() { 2 * args.packets + 2 } else { args.packets };
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
    // An echo comes back as long as it went; how long other answers are nobody knows.
    let comes = udp_length.filter(|_| matches!(args.shape(), Shape::Echo(_)));
    Carried { port: tunnel.map(|tunnel| tunnel.port), endpoint: None, udp_length: [udp_length, comes] }
}

/// How long the packets are that are meant, as far as that is known.
fn lengths(args: &Args, prober: Option<&Prober>, watched: &Filter) -> RangeInclusive<u32> {
    let one =
        prober.and_then(|prober| prober.packet().bytes).filter(|_| !matches!(args.shape(), Shape::Tcp(_)));
    let one = one.and_then(|bytes| u32::try_from(bytes).ok());
    one.map_or_else(|| watched.lengths(), |bytes| bytes..=bytes)
}

/// Without nft the rest is still worth telling.
fn place(filter: &Filter, carried: &Carried, notes: &mut Vec<String>) -> Result<Option<Placed>, TraceError> {
    let name = Placement::table_name();
    let io = |source| TraceError::Io { attempted: "listen to netfilter's trace (it needs root)", source };
    let nftrace = NfTrace::open(&name).map_err(io)?;
    let table = match Placement::place(&name, filter, Some(carried)) {
        Ok(table) => table,
        Err(why) => {
            notes.push(format!("netfilter tells nothing: {why}"));
            return Ok(None);
        }
    };
    let ruleset = Ruleset::list().unwrap_or_else(|why| {
        notes.push(format!("rules are told without their words: {why}"));
        Ruleset::default()
    });
    if fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| !names.trim().is_empty())
        || fs::read_to_string("/proc/net/ip6_tables_names").is_ok_and(|names| !names.trim().is_empty())
    {
        notes.push(
            "iptables-legacy has tables here: the kernel does not trace its rules to nftables; that one took a packet \
             is seen by what comes into a hook and not out of it"
                .to_owned(),
        );
    }
    Ok(Some(Placed { table, nftrace, ruleset }))
}
