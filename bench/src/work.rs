//! What is measured: each work is done by one contender at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    arguments::Arguments,
    contender::{Contender, Kind},
    failure::Result,
    iperf::{self, Stream},
    packets::{self, Sending},
    pair::Pair,
    ping::{self, Rhythm},
    proc,
    record::Figures,
};

/// One kind of load.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// TCP, one stream, on all cores.
    Tcp,
    /// The same in the other direction.
    Reverse,
    /// TCP, four streams.
    Four,
    /// TCP, one stream, both daemons and both ends of iperf3 on one core.
    Onecore,
    /// Round trips through the idle tunnel.
    Ping,
    /// Packets of 64 bytes a second.
    Udp64,
    /// The same, handed over by UDP_SEGMENT, as QUIC does: where each packet has a call of its own in the kernel's stack, the
    /// sender is at its end before the tunnel is.
    Udp64burst,
    /// Of 512 bytes.
    Udp512,
    /// Of 1400 bytes.
    Udp1400,
    /// TCP, one stream, while each end knows thousands of peers; vpnd alone.
    Peers,
}

impl Work {
    /// In the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::Tcp,
        Self::Reverse,
        Self::Four,
        Self::Onecore,
        Self::Ping,
        Self::Udp64,
        Self::Udp64burst,
        Self::Udp512,
        Self::Udp1400,
        Self::Peers,
    ];

    /// For a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP, 1 stream",
            Self::Reverse => "TCP, 1 stream, reverse",
            Self::Four => "TCP, 4 streams",
            Self::Onecore => "TCP, 1 stream, all on one core",
            Self::Ping => "Ping through the idle tunnel",
            Self::Udp64 => "UDP, packets of 64 bytes",
            Self::Udp64burst => "UDP, packets of 64 bytes, sent by UDP_SEGMENT",
            Self::Udp512 => "UDP, packets of 512 bytes",
            Self::Udp1400 => "UDP, packets of 1400 bytes",
            Self::Peers => "TCP, 1 stream, many peers",
        }
    }

    /// Starts the contender, does the work, and ends it.
    pub fn measure(self, contender: &Contender, arguments: &Arguments) -> Result<Figures> {
        let core = (self == Self::Onecore).then(|| arguments.core.unwrap_or_else(proc::last_core));
        proc::on_core(core, || {
            let pair = Pair::start(contender, self.strangers(arguments))?;
            match self {
                Self::Tcp | Self::Onecore | Self::Peers => tcp(&pair, arguments, Stream::default()),
                Self::Reverse => tcp(&pair, arguments, Stream { reverse: true, ..Stream::default() }),
                Self::Four => tcp(&pair, arguments, Stream { parallel: 4, ..Stream::default() }),
                Self::Ping => latency(&pair),
                Self::Udp64 => packets(&pair, 64, Sending::OneByOne),
                Self::Udp64burst => packets(&pair, 64, Sending::Segmented),
                Self::Udp512 => packets(&pair, 512, Sending::OneByOne),
                Self::Udp1400 => packets(&pair, 1400, Sending::OneByOne),
            }
        })
    }

    /// Is it meant for this kind?
    pub fn suits(self, kind: Kind) -> bool {
        self != Self::Peers || kind == Kind::Vpnd
    }

    /// Peers of each end that never come.
    fn strangers(self, arguments: &Arguments) -> usize {
        if self == Self::Peers { arguments.peers.saturating_sub(1) as usize } else { 0 }
    }
}

fn latency(pair: &Pair) -> Result<Figures> {
    let mut figures = Figures::default();
    let spaced = ping::run(pair, Rhythm::Spaced)?;
    figures.set("ping_median_us", spaced.median);
    figures.set("ping_p99_us", spaced.p99);
    let flood = ping::run(pair, Rhythm::BackToBack)?;
    figures.set("ping_flood_median_us", flood.median);
    figures.set("ping_flood_p99_us", flood.p99);
    Ok(figures)
}

/// `size` counts from the IP header on: 1400 bytes fit the MTU inside.
fn packets(pair: &Pair, size: usize, sending: Sending) -> Result<Figures> {
    let rate = packets::search(pair, size, sending)?;
    let mut figures = Figures::default();
    figures.set("pps", rate.packets_per_second);
    figures.set("loss", rate.loss);
    figures.set("reordered", rate.reordered as f64);
    figures.set("duplicated", rate.duplicated as f64);
    figures.set("sender_limited", rate.sender_limited.into());
    Ok(figures)
}

/// Speed, and what it costs.
fn tcp(pair: &Pair, arguments: &Arguments, stream: Stream) -> Result<Figures> {
    let (before, machine_before) = (pair.cpu_seconds()?, proc::machine_cpu_seconds());
    let seconds = Duration::from_secs(arguments.seconds.into());
    let flow = iperf::run(pair, stream, seconds, arguments.congestion.as_deref())?;
    let gigabytes = flow.bytes / 1e9;
    let mut figures = Figures::default();
    figures.set("gbps", flow.bits_per_second / 1e9);
    figures.set("retransmits", flow.retransmits);
    figures.set("machine_cpu_s_per_gb", (proc::machine_cpu_seconds() - machine_before) / gigabytes);
    if let Some(memory) = pair.memory()? {
        figures.set("cpu_s_per_gb", (pair.cpu_seconds()? - before) / gigabytes);
        figures.set("rss_mb", memory.now);
        figures.set("rss_peak_mb", memory.peak);
    }
    Ok(figures)
}
