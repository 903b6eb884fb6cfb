//! `vpnd status`: asks the daemons that run for what they are doing, and shows it to people or programs.

mod page;

use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::{collections::HashMap, process::ExitCode, time::Duration};

use hyper::body::Bytes;

use self::page::Page;
use super::ask::{self, AskError};
use super::{watch, words::Paint};
use crate::control::{events::About, samples::SampleReport, schema::StatusReport};

/// Shows interfaces and peers: who is connected, what was carried, what was refused and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The interface; all that run, if it is left out
    name: Option<String>,
    /// Print what the daemon says, as JSON: one line for each interface (docs/schema.md)
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Show this peer alone, by its name or public key
    #[arg(long, value_name = "NAME-OR-KEY")]
    peer: Option<String>,
    /// Show a live view of the whole screen, until `q`
    #[arg(long, short, conflicts_with = "peer")]
    watch: bool,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

/// Rates are measured over this time.
const MEASURED: Duration = Duration::from_millis(500);

/// Runs the command: 0 if at least one daemon was shown, else 1.
pub async fn run(args: Args) -> ExitCode {
    let done = match args.watch {
        true => watch::run(&args.run_dir, args.name.as_deref()).await.map_err(|error| error.to_string()),
        false => show(&args).await.map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpnd status: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("no peer is called {0}, or has that public key")]
    NoSuchPeer(String),
}

async fn show(args: &Args) -> Result<(), StatusError> {
    let sockets = match &args.name {
        Some(name) => vec![ask::socket(&args.run_dir, name)],
        None => ask::sockets(&args.run_dir)?,
    };
    let mut shown = 0;
    for socket in sockets {
        let text = match text(&socket, args, shown > 0).await {
            // Left by a killed daemon.
            Err(AskError::NotRunning { .. }) if args.name.is_none() => continue,
            text => text?,
        };
        let Some(text) = text else { continue }; // the peer is not here
        if io::stdout().write_all(&text).is_err() {
            return Ok(()); // the reader has seen enough
        }
        shown += 1;
    }
    match &args.peer {
        _ if shown > 0 => Ok(()),
        Some(peer) => Err(StatusError::NoSuchPeer(peer.clone())),
        None => Err(AskError::NoneRuns(args.run_dir.join("vpnd")).into()),
    }
}

/// What is shown of one interface; `None`: it has no such peer.
async fn text(socket: &Path, args: &Args, next: bool) -> Result<Option<Bytes>, AskError> {
    if args.json && args.peer.is_none() {
        return ask::get(socket, "/v1/status").await.map(Some);
    }
    let rates = if args.json { HashMap::new() } else { rates(socket).await? };
    let mut report: StatusReport = ask::read(socket, &ask::get(socket, "/v1/status").await?)?;
    if let Some(wanted) = &args.peer {
        let wanted = About::new(wanted);
        report.peers.retain(|peer| wanted.is(&peer.name, &peer.public_key));
        if report.peers.is_empty() {
            return Ok(None);
        }
    }
    if args.json {
        let mut json = serde_json::to_vec(&report).expect("it was read from such a text");
        json.push(b'\n');
        return Ok(Some(json.into()));
    }
    let page = Page { report: &report, rates: &rates, paint: Paint::of_stdout(), width: width() };
    Ok(Some(page.text(next, args.peer.is_some()).into()))
}

/// Bytes per second from and to each peer, by its public key: what two samples differ by.
async fn rates(socket: &Path) -> Result<HashMap<String, (f64, f64)>, AskError> {
    let first: SampleReport = ask::read(socket, &ask::get(socket, "/v1/samples").await?)?;
    tokio::time::sleep(MEASURED).await;
    let path = format!("/v1/samples?since={}&generation={}", first.boot, first.generation);
    let second: SampleReport = ask::read(socket, &ask::get(socket, &path).await?)?;
    let seconds = second.boot.saturating_sub(first.boot) as f64 / 1e9;
    let before: HashMap<u64, (u64, u64)> =
        first.peers.iter().map(|peer| (peer.id, (peer.rx_bytes, peer.tx_bytes))).collect();
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds.max(0.001);
    let changed = second.peers.into_iter().filter_map(|peer| {
        let (rx, tx) = before.get(&peer.id)?;
        Some((peer.public_key, (rate(peer.rx_bytes, *rx), rate(peer.tx_bytes, *tx))))
    });
    Ok(changed.collect())
}

/// Columns of the terminal; none where nobody looks at it.
fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    Some(usize::from(columns)).filter(|columns| *columns >= 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        Access, ControlServer, InterfaceStatus, Operation, Request, Sandbox, events::Events,
    };

    fn args(name: Option<&str>, run_dir: &Path) -> Args {
        let (name, run_dir) = (name.map(str::to_owned), run_dir.to_owned());
        Args { name, json: true, peer: None, watch: false, run_dir }
    }

    /// A daemon that knows one thing: it has no key and no peers.
    fn daemon() -> tokio::sync::mpsc::Sender<Request> {
        let (asker, mut requests) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(Request::Get(answer)) = requests.recv().await {
                let _ = answer.send(InterfaceStatus {
                    name: "vpn7".to_owned(),
                    listen_port: 7,
                    fwmark: 0,
                    mtu: 1420,
                    tunnel: crate::tunnel::Status {
                        private_key: None,
                        public_key: None,
                        peers: Vec::new(),
                        refusals: Vec::new(),
                        under_load: false,
                        mss_clamped: 0,
                    },
                    now: Duration::ZERO,
                    operation: Operation::default(),
                    sandbox: Sandbox::default(),
                    boot: crate::forward::Time(0),
                });
            }
        });
        asker
    }

    #[tokio::test]
    async fn a_running_daemon_is_found_and_asked() {
        let run = tempfile::tempdir().expect("a run directory");
        let _server =
            ControlServer::serve("vpn7", run.path(), Access::default(), daemon(), Events::new("vpn7"))
                .await
                .expect("nobody is there");
        let found = ask::sockets(run.path()).expect("the folder can be read");
        let [socket] = &found[..] else { panic!("{found:?}") };
        let json = ask::get(socket, "/v1/status").await.expect("an answer");
        let report: StatusReport = ask::read(socket, &json).expect("a report");
        assert_eq!((report.interface.as_str(), report.listen_port), ("vpn7", 7));
        for name in [None, Some("vpn7".to_owned())] {
            show(&args(name.as_deref(), run.path())).await.expect("shown");
        }
    }

    #[tokio::test]
    async fn where_no_daemon_runs_that_is_said() {
        let run = tempfile::tempdir().expect("a run directory");
        let ask = |name: Option<&str>| {
            let args = args(name, run.path());
            async move { show(&args).await.expect_err("nobody is there").to_string() }
        };
        assert!(ask(None).await.starts_with("no vpnd is running"));
        assert!(ask(Some("vpn0")).await.starts_with("no vpnd runs interface vpn0"));
        let folder = run.path().join("vpnd");
        std::fs::create_dir(&folder).expect("the folder can be made");
        drop(std::os::unix::net::UnixListener::bind(folder.join("vpn0.sock")).expect("a free path"));
        assert!(ask(None).await.starts_with("no vpnd is running"), "a stale file is no daemon");
        assert!(ask(Some("vpn0")).await.starts_with("no vpnd runs interface vpn0"));
    }

    #[tokio::test]
    async fn what_is_not_a_report_is_named() {
        let run = tempfile::tempdir().expect("a run directory");
        let (asker, gone) = tokio::sync::mpsc::channel(1);
        drop(gone);
        let _server = ControlServer::serve("vpn0", run.path(), Access::default(), asker, Events::new("vpn0"))
            .await
            .expect("nobody is there");
        let args = args(Some("vpn0"), run.path());
        let error = show(&args).await.expect_err("the daemon is gone").to_string();
        assert!(error.contains("the daemon is stopping"), "{error}");
        assert!(ask::read::<StatusReport>(Path::new("x"), b"{}").is_err());
    }
}
