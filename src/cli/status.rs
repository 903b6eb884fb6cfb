//! `vpnd status`: asks the daemons that run for what they are doing, and shows it to people or programs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::{process::ExitCode, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use crate::control::schema::{PeerReport, StatusReport};

/// Shows interfaces and peers: who is connected, what was carried, what was refused and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The interface; all that run, if it is left out
    name: Option<String>,
    /// Print what the daemon says, as JSON: one line for each interface
    #[arg(long)]
    json: bool,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

/// A daemon that does not answer within this time does not work.
const PATIENCE: Duration = Duration::from_secs(10);

/// No report is larger.
const REPORT_BYTES: usize = 1 << 30;

#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error("no vpnd is running: nothing listens in {0}")]
    NoneRuns(PathBuf),
    #[error("no vpnd runs interface {name}: nothing listens at {socket}")]
    NotRunning { name: String, socket: PathBuf },
    #[error("cannot ask {socket}: permission denied; run as root")]
    Denied { socket: PathBuf },
    #[error("cannot read {path}: {error}")]
    Folder { path: PathBuf, error: io::Error },
    #[error("{socket} gave no answer: {why}")]
    NoAnswer { socket: PathBuf, why: String },
}

/// Runs the command: 0 if at least one daemon was shown, else 1.
pub async fn run(args: Args) -> ExitCode {
    match show(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpnd status: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn show(args: &Args) -> Result<(), StatusError> {
    let folder = args.run_dir.join("vpnd");
    let paint =
        Paint(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()));
    let sockets = match &args.name {
        Some(name) => vec![folder.join(format!("{name}.sock"))],
        None => sockets(&folder)?,
    };
    let mut shown = 0;
    for socket in sockets {
        let json = match fetch(&socket).await {
            Err(StatusError::NotRunning { .. }) if args.name.is_none() => continue, // left by a killed daemon
            answer => answer?,
        };
        let text = match args.json {
            true => json,
            false => Bytes::from(page(&read(&socket, &json)?, paint, shown > 0)),
        };
        if io::stdout().write_all(&text).is_err() {
            return Ok(()); // the reader has seen enough
        }
        shown += 1;
    }
    if shown == 0 { Err(StatusError::NoneRuns(folder)) } else { Ok(()) }
}

/// The sockets of all instances, in the order of their names.
fn sockets(folder: &Path) -> Result<Vec<PathBuf>, StatusError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| StatusError::Folder { path: folder.to_owned(), error })?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    found.sort();
    Ok(found)
}

/// `GET /v1/status`.
async fn fetch(socket: &Path) -> Result<Bytes, StatusError> {
    let no_answer = |why: String| StatusError::NoAnswer { socket: socket.to_owned(), why };
    let stream = match timeout(PATIENCE, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable_because(socket, &error)),
        Err(_) => return Err(no_answer("it takes no more clients".to_owned())),
    };
    match timeout(PATIENCE, ask(stream)).await {
        Ok(Ok((200, json))) => Ok(json),
        Ok(Ok((_, json))) => Err(no_answer(String::from_utf8_lossy(&json).trim_end().to_owned())),
        Ok(Err(error)) => Err(no_answer(error.to_string())),
        Err(_) => Err(no_answer(format!("nothing came for {} seconds", PATIENCE.as_secs()))),
    }
}

fn unreachable_because(socket: &Path, error: &io::Error) -> StatusError {
    let socket = socket.to_owned();
    let name = socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            StatusError::NotRunning { name, socket }
        }
        io::ErrorKind::PermissionDenied => StatusError::Denied { socket },
        _ => StatusError::NoAnswer { socket, why: error.to_string() },
    }
}

async fn ask(stream: UnixStream) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get("/v1/status").header(HOST, "vpnd").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = client.send_request(request).await?;
        let code = response.status().as_u16();
        Ok((code, Limited::new(response, REPORT_BYTES).collect().await?.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before its answer has been read.
        _ = connection => exchange.await,
    }
}

fn read(socket: &Path, json: &[u8]) -> Result<StatusReport, StatusError> {
    serde_json::from_slice(json).map_err(|error| StatusError::NoAnswer {
        socket: socket.to_owned(),
        why: format!("not a report: {error}; is it another version of vpnd?"),
    })
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: impl std::fmt::Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
    fn bold(self, text: impl std::fmt::Display) -> String {
        self.with("1", text)
    }
    fn good(self, text: impl std::fmt::Display) -> String {
        self.with("32", text)
    }
    fn bad(self, text: impl std::fmt::Display) -> String {
        self.with("33", text)
    }
}

/// The page of one interface; `next`: there is one above it.
fn page(report: &StatusReport, paint: Paint, next: bool) -> String {
    let mut page = String::new();
    if next {
        page.push('\n');
    }
    let connected = report.peers.iter().filter(|peer| peer.connected).count();
    let name = paint.bold(format!("interface {}", printable(&report.interface)));
    put(&mut page, format_args!("{name}: {connected} of {} connected", count(report.peers.len(), "peer")));
    put(
        &mut page,
        format_args!("  public key    {}", report.public_key.as_deref().unwrap_or("(no private key is set)")),
    );
    let mark = if report.fwmark == 0 { String::new() } else { format!(", mark {:#x}", report.fwmark) };
    put(&mut page, format_args!("  UDP port      {}, MTU {}{mark}", report.listen_port, report.mtu));
    if report.under_load {
        put(&mut page, format_args!("  {}", paint.bad("under load: handshakes are answered with cookies")));
    }
    for shown in &report.peers {
        peer(&mut page, shown, report.now, paint);
    }
    if !report.refusals.is_empty() {
        put(&mut page, format_args!("\n{}", paint.bold("what was refused")));
    }
    for refusal in &report.refusals {
        let ago = refusal.last.as_ref().map_or(String::new(), |last| format!(" (last {})", ago(last.ago_s)));
        put(&mut page, format_args!("  {} {}{ago}", paint.bad("•"), printable(&refusal.text)));
    }
    page
}

fn peer(page: &mut String, peer: &PeerReport, now: f64, paint: Paint) {
    put(
        page,
        format_args!("\n{}  {}", paint.bold(format!("peer {}", printable(&peer.name))), peer.public_key),
    );
    put(page, format_args!("  state         {}", state(peer, now, paint)));
    let endpoint = peer.endpoint.map_or("not known yet".to_owned(), |endpoint| endpoint.to_string());
    let local = peer.local.map_or(String::new(), |local| format!(", reached from {local}"));
    put(page, format_args!("  endpoint      {endpoint}{local}"));
    let (received, sent) = (bytes(peer.rx_bytes), bytes(peer.tx_bytes));
    put(page, format_args!("  transfer      {received} received, {sent} sent"));
    put(page, format_args!("  allowed IPs   {}", prefixes(&peer.allowed_ips)));
    if peer.persistent_keepalive != 0 {
        let every = count(peer.persistent_keepalive.into(), "second");
        put(page, format_args!("  keepalive     every {every}"));
    }
}

fn put(page: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(page, "{line}").expect("a string takes every text");
}

fn state(peer: &PeerReport, now: f64, paint: Paint) -> String {
    let handshake = match peer.last_handshake {
        Some(at) => format!("last handshake {}", ago(now - at)),
        None => "no handshake yet".to_owned(),
    };
    let mut state = match peer.connected {
        true => format!("{}, {handshake}", paint.good("connected")),
        false => format!("{}, {handshake}", paint.bad("not connected")),
    };
    if peer.attempts > 0 {
        write!(state, ", {} unanswered", count(peer.attempts as usize, "initiation"))
            .expect("a string takes it");
    }
    if peer.staged > 0 {
        write!(state, ", {} waiting", count(peer.staged, "packet")).expect("a string takes it");
    }
    state
}

/// The first few: a peer may have 100,000.
fn prefixes(all: &[String]) -> String {
    const SHOWN: usize = 8;
    match all.len() {
        0 => "(none)".to_owned(),
        n if n > SHOWN => format!("{} and {} more", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    }
}

/// "2 minutes ago": the largest unit that fits, and the next one below it.
fn ago(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let seconds = seconds.max(0.0) as u64;
    let Some(first) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else {
        return "just now".to_owned();
    };
    let (unit, name) = UNITS[first];
    let mut text = count((seconds / unit) as usize, name);
    if let Some((below, name)) = UNITS.get(first + 1)
        && seconds % unit >= *below
    {
        write!(text, ", {}", count((seconds % unit / below) as usize, name)).expect("a string takes it");
    }
    text + " ago"
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = (n | 1).ilog2().checked_div(10).filter(|power| *power > 0) else {
        return format!("{n} B");
    };
    format!("{:.2} {}", n as f64 / (1u64 << (10 * power)) as f64, UNITS[power as usize - 1])
}

/// Names come from a file or the network's edge: nothing in them may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
