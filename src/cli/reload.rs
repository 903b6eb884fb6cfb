//! `vpnd reload` and `vpnd confirm`: a running daemon reads its file again; what that changed is said.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use super::{
    ask::{self, AskError},
    disk,
};
use crate::control::Reloaded;

/// The file is read again, and the difference to what runs is applied: all of it, or nothing.
///
/// Peers that the file leaves as they are keep their sessions and lose no packet. What was changed by `wg` goes back to
/// what the file says.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The interface; may be left out where one runs
    name: Option<String>,
    /// Take the change back after this time unless `vpnd confirm` follows: 60s, 5m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    confirm: Option<u64>,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

/// What was reloaded with --confirm is to stay.
#[derive(Debug, clap::Args)]
pub struct Confirm {
    /// The interface; may be left out where one runs
    name: Option<String>,
    /// Where the daemon's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    run_dir: PathBuf,
}

/// Very large files, and very many routes, take their time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A day; longer than that nobody waits for an operator.
const LONGEST: u64 = 86_400;

/// Runs `vpnd reload`: 0 if the file is in force now, else 1.
pub async fn reload(args: Args) -> ExitCode {
    match reloaded(&args).await {
        Ok(text) => disk::print("reload", &text),
        Err(error) => failed("reload", &error),
    }
}

/// Runs `vpnd confirm`: 0 if something was confirmed, else 1.
pub async fn confirm(args: Confirm) -> ExitCode {
    let confirmed = async {
        let socket = ask::the_one(&args.run_dir, args.name.as_deref()).await?;
        ask::post(&socket, "/v1/confirm", PATIENCE).await
    };
    match confirmed.await {
        Ok(_) => disk::print("confirm", "confirmed\n"),
        Err(error) => failed("confirm", &error),
    }
}

async fn reloaded(args: &Args) -> Result<String, AskError> {
    let socket = ask::the_one(&args.run_dir, args.name.as_deref()).await?;
    let path = match args.confirm {
        Some(seconds) => format!("/v1/reload?confirm={seconds}"),
        None => "/v1/reload".to_owned(),
    };
    let answer = ask::post(&socket, &path, PATIENCE).await?;
    Ok(page(&ask::read(&socket, &answer)?))
}

fn failed(command: &str, error: &AskError) -> ExitCode {
    match error {
        // The file's problems stand alone, as `vpnd check` says them.
        AskError::Refused(why) if command == "reload" => {
            eprintln!("{why}\nvpnd reload: nothing was changed");
        }
        error => eprintln!("vpnd {command}: {error}"),
    }
    ExitCode::FAILURE
}

fn page(done: &Reloaded) -> String {
    // Names come from a file: nothing in them may steer the terminal.
    let printable =
        |line: &String| line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let mut lines: Vec<String> = done.changed.iter().map(printable).collect();
    if lines.is_empty() {
        lines.push("nothing changed".to_owned());
    }
    if let Some(seconds) = done.confirm_within_s {
        lines.push(format!("`vpnd confirm` within {seconds} s, or it is taken back"));
    }
    lines.join("\n") + "\n"
}

/// `90`, `90s`, `5m`, `1h`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "m" => 60,
        "h" => 3600,
        _ => 1,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_mul(factor));
    let seconds = seconds.filter(|seconds| (1..=LONGEST).contains(seconds));
    seconds.ok_or_else(|| "write a time from 1s to 24h, such as 60s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds_and_ends_after_a_day() {
        for (text, expected) in [("60s", 60), ("90", 90), ("5m", 300), ("24h", 86_400), ("1s", 1)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "s", "0", "0s", "25h", "-1", "+1s", "1d", "1.5m", "18446744073709551615h", "6 0"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_changed_is_a_line_each_and_nothing_is_said_so() {
        assert_eq!(page(&Reloaded::default()), "nothing changed\n");
        let changed = vec!["peer a\u{1b}[2J: removed".to_owned(), "mtu 1420 → 1300".to_owned()];
        let page = page(&Reloaded { changed, confirm_within_s: Some(60) });
        assert_eq!(
            page,
            "peer a\u{fffd}[2J: removed\nmtu 1420 → 1300\n`vpnd confirm` within 60 s, or it is taken back\n"
        );
    }
}
