//! `vpnd trace`: a packet's whole way, through both walks of the stack, as it happened.

mod begin; // the witnesses take their places
mod gather; // and tell, until they have nothing more
mod half; // what the other end saw
mod here; // this host's name
mod stop; // Ctrl-C

use std::{
    io::{self, IsTerminal, Write as _},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
};

use super::ask::AskError;
use crate::{
    host::HostError,
    trace::{Answer, Filter, Outcome, Page, picture, text},
    witness::{self, Shape, Unplaced},
};

/// Show a packet's whole way: through the stack, netfilter, routing, vpnd, and through the stack again as a carrier.
///
/// Sends one probe to DEST (an echo request, or with --tcp or --udp the first packet of a flow), or follows the next
/// packets that --follow means. Run it on the other end, too, with --follow, --answers and --json, and give its output
/// to --join: then one page shows both ends, there and back. Needs root; all that it places is gone when it ends, however it ends.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the probe goes: an address that a peer owns
    #[arg(required_unless_present_any = ["follow", "sweep"], conflicts_with = "follow")]
    dest: Option<IpAddr>,
    /// Follow packets that this expression means, such as 'host 10.77.0.2 and (icmp or tcp port 443)'
    #[arg(long, value_name = "EXPR")]
    follow: Option<Filter>,
    /// Follow what answers them, too: its way back stands behind theirs. Always so for a probe
    #[arg(long, requires = "follow")]
    answers: bool,
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
    /// Wait until the standard input ends, and remove what that trace has left
    #[arg(long, value_name = "PID", hide = true, conflicts_with_all = ["dest", "follow"])]
    sweep: Option<u32>,
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

/// Runs the command: 0 when the packet went its way as far as it could be seen, 1 when it or its answer died, or nothing
/// was seen.
pub async fn run(args: Args) -> ExitCode {
    if let Some(process) = args.sweep {
        let swept = witness::sweep_behind(process);
        return swept.map_or_else(|error| failed(&error.to_string()), |()| ExitCode::SUCCESS);
    }
    let (pages, loose) = match gather::pages(&args).await {
        Err(error) => return failed(&error.to_string()),
        Ok(all) => all,
    };
    match half::join_all(pages, loose, &args.join).await {
        Err(why) => failed(&why),
        Ok(pages) => {
            say(&args, &pages);
            if let (Some(file), Some(page)) = (&args.svg, pages.first())
                && let Err(error) = std::fs::write(file, picture::svg(page))
            {
                return failed(&format!("write {}: {error}", file.display()));
            }
            let well = |end: &Outcome| matches!(end, Outcome::Arrived { .. } | Outcome::Left { .. });
            let died = |answer: &Answer| matches!(answer.outcome, Outcome::Died(_));
            let well = |page: &Page| well(&page.outcome) && !page.answer.as_ref().is_some_and(died);
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
