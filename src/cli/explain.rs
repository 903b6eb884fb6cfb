//! `vpnd explain`: where a packet would go, and why, without sending one.

mod page;

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    ask::{self, AskError},
    words::Paint,
};
use crate::control::schema::StatusReport;
use crate::explain::{Asked, ExplainError, Protocol, Tunnel, explain};
use crate::host::fib::Fib;
use crate::sys;
use crate::trace::{Outcome, Page, text};

/// Say where a packet would go and why, without sending one: rule, route, device, peer, and the way of its carrier.
///
/// The kernel is asked, and each vpnd that runs here; where none runs, the kernel alone. Ends with 0 if nothing that
/// can be known without a packet stops it, else with 1. netfilter's rules are not run through: `vpnd trace` sees them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to
    #[arg(value_name = "ADDRESS")]
    to: IpAddr,
    /// Its source; else the kernel chooses
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// The packet of another host, as it comes by this device (needs --from)
    #[arg(long, value_name = "DEVICE", requires = "from")]
    iif: Option<String>,
    /// The mark on it, such as 51820 or 0xca6c
    #[arg(long, value_name = "MARK", value_parser = number, default_value = "0")]
    mark: u32,
    /// A TCP packet to this port, rather than a ping; rules may ask for it
    #[arg(long, value_name = "PORT", conflicts_with = "udp")]
    tcp: Option<u16>,
    /// A UDP packet to this port
    #[arg(long, value_name = "PORT")]
    udp: Option<u16>,
    /// From this port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    source_port: u16,
    /// Print the plan as JSON (docs/schema.md)
    #[arg(long, conflicts_with = "plain")]
    json: bool,
    /// No colours, and each station on one line
    #[arg(long)]
    plain: bool,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

/// Runs the command.
pub async fn run(args: Args) -> ExitCode {
    match plan(&args).await {
        Ok(page) => {
            let text = match args.json {
                true => serde_json::to_string(&page).expect("a page has text keys") + "\n",
                false if args.plain => text::plain(&page),
                false => page::page(&page, Paint::of_stdout()),
            };
            let _ = io::stdout().write_all(text.as_bytes()); // a reader that has gone has seen enough
            match page.outcome {
                Outcome::Died(_) => ExitCode::FAILURE,
                _ => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            eprintln!("vpnd explain: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn plan(args: &Args) -> Result<Page, ExplainError> {
    let mut fib = Fib::open()?;
    let (found, notes) = tunnels(&args.run_dir).await;
    let devices = fib.devices().await?;
    // A daemon of another network namespace may have its socket here.
    let is_here = |tunnel: &Tunnel| {
        devices.iter().any(|d| d.name == tunnel.status.interface && d.kind.as_deref() == Some("tun"))
    };
    let tunnels: Vec<_> = found.into_iter().filter(is_here).collect();
    let (user, _) = sys::namespace::effective_ids();
    let protocol = match (args.tcp, args.udp) {
        (Some(port), _) => Protocol::Tcp(args.source_port, port),
        (_, Some(port)) => Protocol::Udp(args.source_port, port),
        _ => Protocol::Icmp,
    };
    let asked =
        Asked { to: args.to, from: args.from, iif: args.iif.clone(), mark: args.mark, protocol, user };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut page = explain(&mut fib, &tunnels, host.trim(), &asked).await?;
    page.notes.extend(notes);
    Ok(page)
}

/// Who runs, and why somebody who does cannot be asked.
async fn tunnels(run_dir: &Path) -> (Vec<Tunnel>, Vec<String>) {
    let (mut tunnels, mut notes) = (Vec::new(), Vec::new());
    let sockets = ask::sockets(run_dir).unwrap_or_else(|error| {
        notes.push(error.to_string());
        Vec::new()
    });
    for socket in sockets {
        match tunnel(&socket).await {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(AskError::NotRunning { .. }) => {} // left by a killed daemon
            Err(error) => notes.push(error.to_string()),
        }
    }
    (tunnels, notes)
}

async fn tunnel(socket: &Path) -> Result<Tunnel, AskError> {
    let status: StatusReport = ask::read(socket, &ask::get(socket, "/v1/status").await?)?;
    Ok(Tunnel { status, user: ask::user(socket).await? })
}

/// Decimal, or hexadecimal behind 0x.
fn number(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "give a number below 2^32, such as 51820 or 0xca6c".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_rules_are_written() {
        assert_eq!(number("51820"), Ok(51_820));
        assert_eq!(number("0xca6c"), Ok(51_820));
        for wrong in ["", "0x", "ca6c", "4294967296", "-1"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }
}
