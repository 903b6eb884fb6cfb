//! What is asked for on the command line.

use std::path::PathBuf;

use crate::work::Work;

/// Measures vpnd and every other VPN program found on this machine, in turn in every round, in network namespaces
/// of its own. Needs root.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "bench", max_term_width = 100)]
pub struct Arguments {
    /// Measure this one only: NAME, or NAME=PATH; more than once. The name begins with veth, vpnd, wireguard-go,
    /// boringtun, gotatun, nebula or openvpn: `--only vpnd=./a --only vpnd2=./b` compares two binaries.
    #[arg(long, value_name = "NAME[=PATH]")]
    pub only: Vec<String>,

    /// A line more in the `[interface]` of a vpnd: `--line vpnd2='workers = 1'`.
    #[arg(long, value_name = "NAME=LINE")]
    pub line: Vec<String>,

    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Work::ALL)]
    pub work: Vec<Work>,

    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// How long each TCP run takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,

    /// The TCP congestion control of all runs; the machine's own where it is absent.
    #[arg(short = 'C', long, value_name = "NAME")]
    pub congestion: Option<String>,

    /// The core for `onecore`; the last one where it is absent.
    #[arg(long)]
    pub core: Option<usize>,

    /// How many peers each end has for `peers`.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub peers: u32,

    /// Writes bench.json, bench.md and bench.svg into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,

    /// Measures nothing: tables, and with --out the plot, from an earlier bench.json.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Measures nothing: the steps of the walk, as criterion left them in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub micro: Option<PathBuf>,
}
