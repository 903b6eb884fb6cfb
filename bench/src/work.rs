//! What is measured: each work is done by one contender at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    arguments::Arguments,
    contender::Contender,
    failure::Result,
    iperf::{self, Stream},
    pair::Pair,
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
}

impl Work {
    /// In the order of the tables.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Reverse, Self::Four, Self::Onecore];

    /// For a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP, 1 stream",
            Self::Reverse => "TCP, 1 stream, reverse",
            Self::Four => "TCP, 4 streams",
            Self::Onecore => "TCP, 1 stream, all on one core",
        }
    }

    /// Starts the contender, does the work, and ends it.
    pub fn measure(self, contender: &Contender, arguments: &Arguments) -> Result<Figures> {
        let core = (self == Self::Onecore).then(|| arguments.core.unwrap_or_else(proc::last_core));
        proc::on_core(core, || {
            let pair = Pair::start(contender)?;
            match self {
                Self::Tcp | Self::Onecore => tcp(&pair, arguments, Stream::default()),
                Self::Reverse => tcp(&pair, arguments, Stream { reverse: true, ..Stream::default() }),
                Self::Four => tcp(&pair, arguments, Stream { parallel: 4, ..Stream::default() }),
            }
        })
    }
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
