//! `vpnd trace`: a packet's whole way, through both walks of the stack, as it happened.

mod gather; // the witnesses, until they have nothing more to tell
mod half; // what the other end saw

use std::{
    io::{self, IsTerminal, Write as _},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
};

use super::ask::AskError;
use crate::{
    host::HostError,
    trace::{Filter, Outcome, Page, picture, text},
    witness::{Shape, Unplaced},
};

/// Show a packet's whole way: through the stack, netfilter, routing, vpnd, and through the stack again as a carrier.
///
/// Sends one probe to DEST (an echo request, or with --tcp or --udp the first packet of a flow), or follows the next
/// packets that --follow means. Run it on the other end, too, with --follow and --json, and give its output to --join:
/// then one page shows both ends. Needs root; all that it places is gone when it ends, however it ends.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the probe goes: an address that a peer owns
    #[arg(required_unless_present = "follow", conflicts_with = "follow")]
    dest: Option<IpAddr>,
    /// Follow packets that this expression means, such as 'host 10.77.0.2 and (icmp or tcp port 443)'
    #[arg(long, value_name = "EXPR")]
    follow: Option<Filter>,
    /// The tunnel's interface; may be left out if only one runs
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// This host has no tunnel: follow carriers that it forwards
    #[arg(long, requires = "follow", conflicts_with = "interface")]
    forwards: bool,
    /// Send from this address of this host
    #[arg(long, value_name = "ADDR", conflicts_with = "follow")]
    from: Option<IpAddr>,
    /// Send with this mark
    #[arg(long, value_name = "NUMBER", conflicts_with = "follow", default_value_t = 0)]
    mark: u32,
    /// Open a TCP connection to this port
    #[arg(long, value_name = "PORT", conflicts_with_all = ["follow", "udp"])]
    tcp: Option<u16>,
    /// Send a UDP datagram to this port
    #[arg(long, value_name = "PORT", conflicts_with = "follow")]
    udp: Option<u16>,
    /// Bytes behind the probe's ICMP or UDP header
    #[arg(long, value_name = "BYTES", conflicts_with = "follow", default_value_t = 56)]
    size: u16,
    /// Follow so many packets
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    packets: u64,
    /// Wait at most so long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// What `vpnd trace --json` printed on the other end, or on a host between; several may be given
    #[arg(long, value_name = "FILE")]
    join: Vec<PathBuf>,
    /// One line a station, without colours and stories
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// One line of JSON a packet (docs/schema.md)
    #[arg(long)]
    json: bool,
    /// Draw the first packet's way as a picture into FILE, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

impl Args {
    fn shape(&self) -> Shape {
        match (self.tcp, self.udp) {
            (Some(port), _) => Shape::Tcp(port),
            (_, Some(port)) => Shape::Udp(port, self.size),
            _ => Shape::Echo(self.size),
        }
    }
}

/// Why nothing was traced.
#[derive(Debug, thiserror::Error)]
enum TraceError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("{attempted}: {source}")]
    Io { attempted: &'static str, source: io::Error },
    #[error("netfilter cannot be asked: {0}")]
    Unplaced(#[from] Unplaced),
    #[error("{0}")]
    Other(String),
}

/// Runs the command: 0 when the packet went its way as far as it could be seen, 1 when it died or nothing was seen.
pub async fn run(args: Args) -> ExitCode {
    let pages = match gather::pages(&args).await {
        Err(error) => return failed(&error.to_string()),
        Ok(pages) => pages,
    };
    match half::join_all(pages, &args.join).await {
        Err(why) => failed(&why),
        Ok(pages) => {
            say(&args, &pages);
            if let (Some(file), Some(page)) = (&args.svg, pages.first())
                && let Err(error) = std::fs::write(file, picture::svg(page))
            {
                return failed(&format!("write {}: {error}", file.display()));
            }
            let well = |page: &Page| matches!(page.outcome, Outcome::Arrived { .. } | Outcome::Left { .. });
            if pages.iter().all(well) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn say(args: &Args, pages: &[Page]) {
    let colours = io::stdout().is_terminal();
    let text: String = match (args.json, args.plain) {
        (true, _) => {
            pages.iter().map(|page| serde_json::to_string(page).expect("text keys") + "\n").collect()
        }
        (_, true) => pages.iter().map(text::plain).collect(),
        _ => pages.iter().map(|page| text::page(page, colours)).collect(),
    };
    // A reader that has gone has seen enough.
    let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
}

fn failed(why: &str) -> ExitCode {
    eprintln!("vpnd trace: {why}");
    ExitCode::FAILURE
}
