//! `vpnd events`: what happens, as lines of JSON, until Ctrl-C or the daemon's end.

use std::io::{self, Write as _};
use std::{path::PathBuf, process::ExitCode, time::Duration};

use super::ask::{self, AskError};
use crate::daemon::wall_clock;

/// Prints what happens as lines of JSON (docs/schema.md): who connects, roams, falls silent, what was refused.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The interface; may be left out if only one runs
    name: Option<String>,
    /// Begin with what happened so long ago, as far as it is kept (1024 events): 90s, 10m, 2h, 1d, or all
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Events of this peer alone, by its name or public key
    #[arg(long, value_name = "NAME-OR-KEY")]
    peer: Option<String>,
    /// End after what is kept, instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    All,
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if text == "all" {
        return Ok(Since::All);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = digits.parse::<u64>().ok().filter(|_| unit > 0).and_then(|number| number.checked_mul(unit));
    seconds
        .map(|seconds| Since::Ago(Duration::from_secs(seconds)))
        .ok_or("give 90s, 10m, 2h, 1d, or all".to_owned())
}

/// Runs the command: 0 after all that is kept was shown, or the reader left; 1 when the daemon ends or cannot be asked.
pub async fn run(args: Args) -> ExitCode {
    match follow(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpnd events: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn follow(args: &Args) -> Result<(), AskError> {
    let socket = ask::the_one(&args.run_dir, args.name.as_deref()).await?;
    let mut path = format!("/v1/events?follow={}", u8::from(!args.no_follow));
    let since = args.since.or(args.no_follow.then_some(Since::All));
    match since {
        Some(Since::All) => path += "&since=0",
        Some(Since::Ago(time)) => {
            path += &format!("&since={:.3}", wall_clock().saturating_sub(time).as_secs_f64());
        }
        None => {}
    }
    if let Some(peer) = &args.peer {
        path += &format!("&peer={}", ask::encoded(peer));
    }
    let mut lines = ask::stream(&socket, &path).await?;
    while let Some(line) = lines.next().await? {
        // A line at a time, so that a pipe sees each at once.
        if writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush()).is_err() {
            return Ok(()); // the reader has seen enough
        }
    }
    if args.no_follow {
        return Ok(());
    }
    Err(AskError::NoAnswer { socket, why: "the daemon has ended".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ago_are_read_in_four_units() {
        let told = [("90s", 90), ("90", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)];
        for (text, seconds) in told {
            assert_eq!(since(text), Ok(Since::Ago(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(since("all"), Ok(Since::All));
        for wrong in ["", "m", "1w", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
