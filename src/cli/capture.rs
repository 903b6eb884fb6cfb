//! `vpnd capture`: what the tunnel carries, as a pcapng file for Wireshark and tshark.

mod output;
mod source;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use super::ask::{self, AskError, Lines};
use crate::capture::{Began, Counts, Recorder};
use crate::daemon::wall_clock;
use crate::sys::process::forbid_core_dumps;
use crate::trace::{Filter, Record};
use output::Output;
use source::Sources;

/// Write what the tunnel carries to a pcapng file: each packet, and the carrier that it travels in.
///
/// The packets inside are on the interface NAME, their carriers on NAME-carrier, with the messages of handshakes; comments
/// join them by frame, receiver index and counter. The file holds the packets in the clear: it is readable by its owner
/// alone, and needs no key to be read; no key of the tunnel is in it.
///
/// With --with-secrets it also holds what Wireshark takes to open the carriers themselves: the tunnel's private key, and
/// the keys of each handshake that begins while the capture runs (so --renew begins one at once). Whoever has such a file
/// reads what these sessions carry, and can be this end of the tunnel. The daemon gives keys to root alone, and only where
/// its file says capture_secrets = true.
///
///   vpnd capture -w - | tshark -r -        vpnd capture -w vpn0.pcapng 'host 10.77.0.2 and tcp port 443'
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which packets, such as 'host 10.77.0.2 and (icmp or tcp port 443)'; all, if it is left out
    #[arg(value_name = "FILTER")]
    filter: Option<Filter>,
    /// Where to: a file, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// The tunnel's interface; may be left out if only one runs
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// Keep so many bytes of each packet, and of each carrier's payload
    #[arg(short, long, value_name = "BYTES", default_value_t = 65_535, value_parser = clap::value_parser!(u32).range(32..=65_535))]
    snap: u32,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    packets: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// A ring of so many files, FILE.00001 and on: the oldest is removed (needs --size)
    #[arg(long, value_name = "N", requires = "size", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    files: Option<u32>,
    /// Begin the next file at so many bytes, such as 10M; without --files, end there
    #[arg(long, value_name = "BYTES", value_parser = size)]
    size: Option<u64>,
    /// Take at most so many carriers each second: what comes faster is dropped, and counted
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Write the keys that open the carriers, too: the file is then as secret as the private key
    #[arg(long)]
    with_secrets: bool,
    /// Begin a new handshake with each peer that has a session, so that it is in the file
    #[arg(long)]
    renew: bool,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

/// What the daemon gives at most (docs/schema.md).
const MOST_PACKETS: u64 = 10_000_000;
const MOST_SECONDS: u64 = 86_400;
/// The rate is kept in steps of this.
const STEP: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
enum CaptureError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot write {path}: {error}")]
    Write { path: PathBuf, error: io::Error },
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("{0}")]
    Other(String),
}

/// Runs the command: 0 after the last packet that was asked for, a signal, or when the reader has gone.
pub async fn run(args: Args) -> ExitCode {
    match capture(&args).await {
        Ok(Counts { packets, carriers, handshakes, lost }) => {
            let handshakes = match handshakes {
                0 => String::new(),
                1 => ", and a message of a handshake".to_owned(),
                n => format!(", and {n} messages of handshakes"),
            };
            let lost =
                if lost > 0 { format!("; {lost} came too fast, and are not in it") } else { String::new() };
            eprintln!("vpnd capture: {packets} packets and {carriers} carriers{handshakes}{lost}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vpnd capture: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn capture(args: &Args) -> Result<Counts, CaptureError> {
    if args.files.is_some() && args.write.as_os_str() == "-" {
        return Err(CaptureError::Other("a ring of files (--files) needs a file name (--write)".to_owned()));
    }
    if args.with_secrets {
        let done = forbid_core_dumps();
        done.map_err(|error| CaptureError::Other(format!("cannot forbid core dumps: {error}")))?;
    }
    let socket = ask::the_one(&args.run_dir, args.interface.as_deref()).await?;
    let mut sources = Sources::of(&socket).await?;
    let filter = args.filter.as_ref().map(Filter::to_string).unwrap_or_default();
    let path = format!(
        "/v1/trace?filter={}&packets={}&seconds={}&snap={}&each=1&handshakes=1&secrets={}&renew={}",
        ask::encoded(&filter),
        args.packets.unwrap_or(MOST_PACKETS),
        args.seconds.unwrap_or(MOST_SECONDS),
        args.snap,
        u8::from(args.with_secrets),
        u8::from(args.renew),
    );
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate()].map(signal).into_iter();
    let mut end = || ends.next().expect("there are two").map_err(CaptureError::Signals);
    let (mut interrupt, mut terminate) = (end()?, end()?);
    let mut lines = ask::stream(&socket, &path).await?;
    let mut recorder = Recorder::new(began(&mut lines, filter, args.snap).await?);
    if args.with_secrets {
        say_secrets(args);
    }
    let mut output = Output::open(&args.write, args.files, args.size);
    output.begin(&recorder.header())?;
    let mut pace = Pace::new(args.rate, Instant::now());
    loop {
        let line = tokio::select! {
            line = lines.next() => line?,
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        };
        let record = line.map(|line| serde_json::from_str::<Record>(&line));
        match record {
            Some(Ok(record @ (Record::Packet(_) | Record::Handshake(_)))) => {
                let bytes = match &record {
                    Record::Packet(seen) => recorder.packet(seen, sources.ours(seen).await),
                    Record::Handshake(seen) => {
                        recorder.handshake(seen, sources.towards(seen.local, seen.remote).await)
                    }
                    _ => Vec::new(),
                };
                if !output.write(&bytes)? {
                    break; // the reader has seen enough, or the file is full
                }
                if output.is_full() {
                    output.end(&recorder.trailer(now()))?;
                    output.begin(&recorder.header())?;
                }
                let wait = pace.keep(Instant::now());
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
            }
            Some(Ok(Record::Lost { count })) => recorder.lost(count),
            Some(Ok(Record::Began { .. })) => {}
            Some(Ok(Record::Ended)) | None => break,
            Some(Err(error)) => {
                return Err(CaptureError::Other(format!("the daemon says what is not known here: {error}")));
            }
        }
    }
    output.end(&recorder.trailer(now()))?;
    Ok(recorder.counts())
}

/// Said before the first key is written.
fn say_secrets(args: &Args) {
    eprintln!(
        "vpnd capture: WITH SECRETS: {} gets the tunnel's private key and what opens each session that begins from now \
         on. Whoever has it reads them, and can be this end of the tunnel: keep it as you keep the key, and make a new key \
         before you hand it on.",
        match args.write.as_os_str() == "-" {
            true => "the output".to_owned(),
            false => args.write.display().to_string(),
        }
    );
    if !args.renew {
        eprintln!(
            "vpnd capture: sessions that began before cannot be opened; --renew begins new ones at once, else it takes up \
             to two minutes until they are renewed"
        );
    }
}

/// The first line.
async fn began(lines: &mut Lines, filter: String, snap: u32) -> Result<Began, CaptureError> {
    let line = lines.next().await?.unwrap_or_default();
    match serde_json::from_str(&line) {
        Ok(Record::Began { interface, listen_port, boot_ns, wall_ns, .. }) => {
            Ok(Began { interface, listen_port, boot_ns, wall_ns, filter, snap })
        }
        _ => Err(CaptureError::Other(format!("the daemon does not begin a trace, but says {line:?}"))),
    }
}

fn now() -> u64 {
    u64::try_from(wall_clock().as_nanos()).unwrap_or(u64::MAX)
}

/// Reads no faster than the rate allows: then the daemon's ring is full, which drops and counts, and nothing waits.
struct Pace {
    each_step: u32,
    taken: u32,
    since: Instant,
}

impl Pace {
    fn new(rate: u32, now: Instant) -> Self {
        let each_step = (rate / (1000 / STEP.as_millis() as u32)).max(1);
        Self { each_step, taken: 0, since: now }
    }

    /// One more was taken; how long to wait before the next.
    fn keep(&mut self, now: Instant) -> Duration {
        self.taken += 1;
        if self.taken < self.each_step {
            return Duration::ZERO;
        }
        let wait = STEP.saturating_sub(now.duration_since(self.since));
        (self.taken, self.since) = (0, now + wait);
        wait
    }
}

/// Bytes, or with K, M or G behind them.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes >= 4096).ok_or("give 4096 bytes or more, such as 500K, 10M or 1G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let told = [("4096", 4096), ("4K", 4096), ("10M", 10 << 20), ("1g", 1 << 30)];
        for (text, bytes) in told {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "K", "0", "4095", "1T", "-1", "99999999999999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_rate_is_kept_to() {
        let began = Instant::now();
        let (mut pace, mut now) = (Pace::new(1000, began), began);
        for _ in 0..2000 {
            now += pace.keep(now);
        }
        assert_eq!(now.duration_since(began), Duration::from_secs(2));
        // Who was slow anyway does not wait.
        let late = now + Duration::from_secs(9);
        assert!((0..50).all(|_| pace.keep(late).is_zero()));
    }
}
