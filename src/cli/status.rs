//! `vpnd status`: asks the daemons that run for what they are doing, and shows it to people or programs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::{process::ExitCode, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use crate::config::date;
use crate::control::Operation;
use crate::control::schema::{PeerReport, RefusalReport, StatusReport};
use crate::forward::Refusal;

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
    operation(&mut page, &report.operation, paint);
    for shown in &report.peers {
        peer(&mut page, shown, report.now, paint);
    }
    let (harmless, wrong): (Vec<_>, Vec<_>) = report.refusals.iter().partition(|one| is_harmless(one));
    refusals(&mut page, "what was refused", &wrong, paint.bad("•"), paint);
    refusals(&mut page, "what was left out", &harmless, "•".to_owned(), paint);
    page
}

/// What operators and other programs did.
fn operation(page: &mut String, operation: &Operation, paint: Paint) {
    if let Some(seconds) = operation.confirm_within_s {
        let text = format!(
            "on trial: taken back in {}, unless `vpnd confirm` follows",
            count(seconds as usize, "second")
        );
        put(page, format_args!("  {}", paint.bad(text)));
    }
    if let Some(why) = &operation.not_in_force {
        let text = format!("the file, as it was reloaded last, is not in force: {}", printable(why));
        put(page, format_args!("  {}", paint.bad(text)));
    }
    if operation.link_down {
        put(
            page,
            format_args!("  {}", paint.bad("the device was set down from outside: it carries nothing")),
        );
    }
    if operation.contested {
        let text = "another program removes or replaces addresses, routes or rules of ours again and again";
        put(page, format_args!("  {}", paint.bad(text)));
    }
    if operation.put_back > 0 {
        let last = operation
            .put_back_last
            .as_deref()
            .map_or(String::new(), |last| format!(", last: {}", printable(last)));
        put(page, format_args!("  put back      {}{last}", count(operation.put_back as usize, "thing")));
    }
    if !operation.differs.is_empty() {
        put(
            page,
            format_args!(
                "  {}",
                paint.bad("differs from the file, as changed by hand (`vpnd reload` goes back to it):")
            ),
        );
    }
    for line in &operation.differs {
        put(page, format_args!("    {}", printable(line)));
    }
}

/// It tells of nothing that anybody should mend.
fn is_harmless(refusal: &RefusalReport) -> bool {
    refusal.reason == Refusal::LinkScope.name()
}

fn refusals(page: &mut String, title: &str, all: &[&RefusalReport], bullet: String, paint: Paint) {
    if !all.is_empty() {
        put(page, format_args!("\n{}", paint.bold(title)));
    }
    for refusal in all {
        let ago = refusal.last.as_ref().map_or(String::new(), |last| format!(" (last {})", ago(last.ago_s)));
        put(page, format_args!("  {bullet} {}{ago}", printable(&refusal.text)));
    }
}

fn peer(page: &mut String, peer: &PeerReport, now: f64, paint: Paint) {
    put(
        page,
        format_args!("\n{}  {}", paint.bold(format!("peer {}", printable(&peer.name))), peer.public_key),
    );
    put(page, format_args!("  state         {}", state(peer, now, paint)));
    let unknown = || "not known: the peer has not been heard from, and the file gives none".to_owned();
    let endpoint = peer.endpoint.map_or_else(unknown, |endpoint| endpoint.to_string());
    let local = peer.local.map_or(String::new(), |local| format!(", reached from {local}"));
    put(page, format_args!("  endpoint      {endpoint}{local}"));
    let (received, sent) = (bytes(peer.rx_bytes), bytes(peer.tx_bytes));
    put(page, format_args!("  transfer      {received} received, {sent} sent"));
    put(page, format_args!("  allowed IPs   {}", prefixes(&peer.allowed_ips)));
    if let Some(moment) = peer.expires.filter(|_| !peer.expired) {
        put(page, format_args!("  expires       {}", moment_shown(moment)));
    }
    if peer.persistent_keepalive != 0 {
        let every = count(peer.persistent_keepalive.into(), "second");
        put(page, format_args!("  keepalive     every {every}"));
    }
}

fn put(page: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(page, "{line}").expect("a string takes every text");
}

/// One word for how it stands, then why one may say so; where something can be done, what.
fn state(peer: &PeerReport, now: f64, paint: Paint) -> String {
    if let Some(moment) = peer.expires.filter(|_| peer.expired) {
        let ago = ago(now - moment);
        return format!("{} on {} ({ago}): not let in", paint.bad("expired"), moment_shown(moment));
    }
    let handshake = peer.last_handshake.map(|at| format!("last handshake {}", ago(now - at)));
    let heard = peer.last_received_s.map(|seconds| format!(", last heard {}", ago(seconds)));
    let heard = heard.unwrap_or_default();
    let unanswered = format!("{} unanswered", count(peer.attempts as usize, "handshake initiation"));
    let never = || "no handshake yet".to_owned();
    let mut state = match (peer.connected, peer.attempts) {
        (true, 0) => {
            format!("{}, {}{heard}", paint.good("connected"), handshake.unwrap_or_else(never))
        }
        (true, _) => format!("{}: {unanswered}{heard}", paint.bad("silent")),
        (false, 1..) => {
            format!("{}: {unanswered}, {}", paint.bad("not connected"), handshake.unwrap_or_else(never))
        }
        (false, 0) if peer.untaken > 0 => {
            let answers = count(peer.untaken as usize, "answer");
            let handshake = handshake.unwrap_or_else(never);
            format!("{}: {answers} to its initiations not taken up, {handshake}", paint.bad("not connected"))
        }
        (false, 0) => match (handshake, peer.endpoint) {
            (Some(handshake), Some(_)) => format!("idle, {handshake}; the next packet makes a new one"),
            (None, Some(_)) => format!("idle, {}; the first packet makes one", never()),
            (handshake, None) => format!("waiting for it to begin, {}", handshake.unwrap_or_else(never)),
        },
    };
    if peer.staged > 0 {
        write!(state, ", {} waiting", count(peer.staged, "packet")).expect("a string takes it");
    }
    let pad = " ".repeat(16);
    if peer.attempts == 0 && peer.untaken > 0 && !peer.connected {
        write!(state, "\n{pad}do the preshared keys of both sides agree,").expect("a string takes it");
        write!(state, "\n{pad}and do the firewalls on the way let our answers through?")
            .expect("a string takes it");
    }
    if peer.attempts > 0 {
        write!(state, "\n{pad}does it run at this endpoint, does it know our public key,")
            .expect("a string takes it");
        write!(state, "\n{pad}and do the firewalls on the way let UDP through?").expect("a string takes it");
    }
    state
}

fn moment_shown(unix_seconds: f64) -> String {
    date::shown(Duration::try_from_secs_f64(unix_seconds).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::schema::EvidenceReport;
    use crate::control::{Access, ControlServer, InterfaceStatus, Request};

    fn report() -> StatusReport {
        let peer = PeerReport {
            name: "laptop".to_owned(),
            public_key: "KEY=".to_owned(),
            preshared: false,
            endpoint: Some("192.0.2.7:51820".parse().expect("an address")),
            local: None,
            connected: true,
            session_age_s: Some(1.0),
            last_handshake: Some(1000.0),
            last_received_s: Some(3.0),
            rx_bytes: 1536,
            tx_bytes: 5 << 20,
            rx_packets: 1,
            tx_packets: 1,
            allowed_ips: (0..10).map(|n| format!("10.0.{n}.0/24")).collect(),
            persistent_keepalive: 25,
            expires: None,
            expired: false,
            staged: 0,
            attempts: 0,
            untaken: 0,
        };
        let silent = PeerReport {
            name: "phone\x1b[2J".to_owned(),
            endpoint: None,
            connected: false,
            last_handshake: None,
            allowed_ips: Vec::new(),
            persistent_keepalive: 0,
            attempts: 2,
            staged: 1,
            ..peer.clone()
        };
        StatusReport {
            interface: "vpn0".to_owned(),
            public_key: None,
            listen_port: 51820,
            fwmark: 0x51,
            mtu: 1420,
            under_load: true,
            now: 1125.0,
            operation: Operation::default(),
            peers: vec![peer, silent],
            refusals: vec![
                RefusalReport {
                    reason: "link_scope".to_owned(),
                    count: 1,
                    last: None,
                    text: "nothing is wrong.".to_owned(),
                },
                RefusalReport {
                    reason: "mac1".to_owned(),
                    count: 1,
                    last: Some(EvidenceReport {
                        ago_s: 3.0,
                        from: None,
                        peer: None,
                        key: None,
                        inner: None,
                        owner: None,
                    }),
                    text: "something came once.".to_owned(),
                },
            ],
        }
    }

    #[test]
    fn what_operators_and_other_programs_did_is_said_in_words_and_nothing_where_nothing_was() {
        let nothing = page(&report(), Paint(false), false);
        for word in ["differs", "trial", "put back", "set down", "in force", "again and again"] {
            assert!(!nothing.contains(word), "{word}: {nothing}");
        }
        let operation = Operation {
            differs: vec!["mtu 1420 → 1300".to_owned(), "peer a\u{1b}: added".to_owned()],
            confirm_within_s: Some(1),
            not_in_force: Some("peer.toml:3: found nothing".to_owned()),
            link_down: true,
            put_back: 2,
            put_back_last: Some("add route 10.0.0.0/8 dev vpn0 table main".to_owned()),
            contested: true,
            ..Operation::default()
        };
        let text = page(&StatusReport { operation, ..report() }, Paint(false), false);
        for line in [
            "  on trial: taken back in 1 second, unless `vpnd confirm` follows",
            "  the file, as it was reloaded last, is not in force: peer.toml:3: found nothing",
            "  the device was set down from outside: it carries nothing",
            "  another program removes or replaces addresses, routes or rules of ours again and again",
            "  put back      2 things, last: add route 10.0.0.0/8 dev vpn0 table main",
            "  differs from the file, as changed by hand (`vpnd reload` goes back to it):",
            "    mtu 1420 → 1300",
            "    peer a\u{fffd}: added",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_page_says_it_in_words() {
        let expected = "\
interface vpn0: 1 of 2 peers connected
  public key    (no private key is set)
  UDP port      51820, MTU 1420, mark 0x51
  under load: handshakes are answered with cookies

peer laptop  KEY=
  state         connected, last handshake 2 minutes, 5 seconds ago, last heard 3 seconds ago
  endpoint      192.0.2.7:51820
  transfer      1.50 KiB received, 5.00 MiB sent
  allowed IPs   10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24, 10.0.3.0/24, 10.0.4.0/24, 10.0.5.0/24, 10.0.6.0/24, \
10.0.7.0/24 and 2 more
  keepalive     every 25 seconds

peer phone\u{fffd}[2J  KEY=
  state         not connected: 2 handshake initiations unanswered, no handshake yet, 1 packet waiting
                does it run at this endpoint, does it know our public key,
                and do the firewalls on the way let UDP through?
  endpoint      not known: the peer has not been heard from, and the file gives none
  transfer      1.50 KiB received, 5.00 MiB sent
  allowed IPs   (none)

what was refused
  • something came once. (last 3 seconds ago)

what was left out
  • nothing is wrong.
";
        assert_eq!(page(&report(), Paint(false), false), expected);
    }

    #[test]
    fn each_state_of_a_peer_has_its_own_words() {
        let told = |change: fn(&mut PeerReport)| {
            let mut peer = report().peers.remove(0);
            change(&mut peer);
            state(&peer, 1125.0, Paint(false)).lines().next().expect("a line").to_owned()
        };
        let states = [
            told(|_| {}),
            told(|peer| peer.attempts = 3),
            told(|peer| peer.connected = false),
            told(|peer| (peer.connected, peer.last_handshake) = (false, None)),
            told(|peer| (peer.connected, peer.last_handshake, peer.endpoint) = (false, None, None)),
            told(|peer| (peer.connected, peer.attempts) = (false, 1)),
            told(|peer| (peer.connected, peer.untaken, peer.last_handshake) = (false, 2, None)),
        ];
        let expected = [
            "connected, last handshake 2 minutes, 5 seconds ago, last heard 3 seconds ago",
            "silent: 3 handshake initiations unanswered, last heard 3 seconds ago",
            "idle, last handshake 2 minutes, 5 seconds ago; the next packet makes a new one",
            "idle, no handshake yet; the first packet makes one",
            "waiting for it to begin, no handshake yet",
            "not connected: 1 handshake initiation unanswered, last handshake 2 minutes, 5 seconds ago",
            "not connected: 2 answers to its initiations not taken up, no handshake yet",
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let mut colourful = page(&report(), Paint(true), true);
        assert!(colourful.contains("\x1b[32mconnected\x1b[0m"));
        for code in ["\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[0m"] {
            colourful = colourful.replace(code, "");
        }
        assert_eq!(colourful, page(&report(), Paint(false), true));
    }

    #[test]
    fn times_are_told_in_two_units_at_most() {
        let told = [
            (-5.0, "just now"),
            (0.9, "just now"),
            (1.0, "1 second ago"),
            (59.9, "59 seconds ago"),
            (60.0, "1 minute ago"),
            (3600.0 + 59.0, "1 hour ago"),
            (2.0 * 86_400.0 + 3600.0, "2 days, 1 hour ago"),
        ];
        for (seconds, text) in told {
            assert_eq!(ago(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn bytes_change_unit_at_each_1024() {
        let told = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            ((1 << 20) - 1, "1024.00 KiB"),
            (1 << 20, "1.00 MiB"),
            (u64::MAX, "16.00 EiB"),
        ];
        for (n, text) in told {
            assert_eq!(bytes(n), text, "{n}");
        }
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
                    },
                    now: Duration::ZERO,
                    operation: Operation::default(),
                    boot: crate::forward::Time(0),
                });
            }
        });
        asker
    }

    #[tokio::test]
    async fn a_running_daemon_is_found_and_asked() {
        let run = tempfile::tempdir().expect("a run directory");
        let _server = ControlServer::serve("vpn7", run.path(), Access::default(), daemon())
            .await
            .expect("nobody is there");
        let found = sockets(&run.path().join("vpnd")).expect("the folder can be read");
        let [socket] = &found[..] else { panic!("{found:?}") };
        let json = fetch(socket).await.expect("an answer");
        let report = read(socket, &json).expect("a report");
        assert_eq!((report.interface.as_str(), report.listen_port), ("vpn7", 7));
        for name in [None, Some("vpn7".to_owned())] {
            show(&Args { name, json: true, run_dir: run.path().to_owned() }).await.expect("shown");
        }
    }

    #[tokio::test]
    async fn where_no_daemon_runs_that_is_said() {
        let run = tempfile::tempdir().expect("a run directory");
        let ask = |name: Option<&str>| {
            let args = Args { name: name.map(str::to_owned), json: false, run_dir: run.path().to_owned() };
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
        let _server = ControlServer::serve("vpn0", run.path(), Access::default(), asker)
            .await
            .expect("nobody is there");
        let args = Args { name: Some("vpn0".to_owned()), json: false, run_dir: run.path().to_owned() };
        let error = show(&args).await.expect_err("the daemon is gone").to_string();
        assert!(error.contains("the daemon is stopping"), "{error}");
        assert!(read(Path::new("x"), b"{}").is_err());
    }
}
