//! `check`: reads configurations as the daemon would, and says all that is wrong.

use std::{path::PathBuf, process::ExitCode};

use super::disk::{self, ReadError};
use crate::config::Config;

/// Exit code for a wrong configuration (sysexits: EX_CONFIG).
pub const EX_CONFIG: u8 = 78;

/// Which files.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Configurations to check, with the key files that they name
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `vpnd check FILE…`: a line for each good file, a line on standard error for each problem. 78 if a file is
/// wrong, else 1 if one cannot be read, else 0.
pub fn run(args: &Check) -> ExitCode {
    let (mut wrong, mut unreadable) = (false, false);
    let mut good = String::new();
    for path in &args.files {
        match disk::read_config(path) {
            Ok(config) => good.push_str(&format!("{}: ok: {}\n", path.display(), summary(&config))),
            Err(error) => {
                wrong |= matches!(error, ReadError::Refused(_));
                unreadable |= matches!(error, ReadError::Unreadable(_));
                eprintln!("{error}");
            }
        }
    }
    let printed = disk::print("check", &good);
    match (wrong, unreadable) {
        (true, _) => ExitCode::from(EX_CONFIG),
        (false, true) => ExitCode::FAILURE,
        (false, false) => printed,
    }
}

fn summary(config: &Config) -> String {
    let prefixes = config.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let (peers, prefixes) =
        (count(config.peers.len(), "peer", "peers"), count(prefixes, "prefix", "prefixes"));
    format!("interface {}, {peers}, {prefixes}", config.interface.name)
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
