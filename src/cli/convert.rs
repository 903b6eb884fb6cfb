//! `import` and `export`: wg-quick's files ⇄ ours.

use std::{io, path::PathBuf, process::ExitCode};

use super::{
    check::EX_CONFIG,
    disk::{self, ReadError},
    keys,
};
use crate::config::wg_quick::{self, Converted};

/// What to convert, and where to.
#[derive(Debug, clap::Args)]
pub struct Convert {
    /// The file to convert
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write to this new file, readable by its owner alone, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// `vpnd import wg0.conf`: a wg-quick file as one of ours. What cannot be kept is said on standard error; 78 if
/// the file is wrong.
pub fn import(args: &Convert) -> ExitCode {
    let text = match disk::read_secret(&args.file) {
        Ok(text) => text,
        Err(error) => return fail("import", &error.to_string(), ExitCode::FAILURE),
    };
    match wg_quick::import(&text, &args.file) {
        Ok(converted) => hand_out("import", args, &converted),
        Err(problems) => fail("import", &problems.to_string(), ExitCode::from(EX_CONFIG)),
    }
}

/// `vpnd export peer.toml`: one of our files, with its keys, as a wg-quick file.
pub fn export(args: &Convert) -> ExitCode {
    match disk::read_config(&args.file) {
        Ok(config) => hand_out("export", args, &wg_quick::export(&config)),
        Err(error @ ReadError::Refused(_)) => fail("export", &error.to_string(), ExitCode::from(EX_CONFIG)),
        Err(error) => fail("export", &error.to_string(), ExitCode::FAILURE),
    }
}

fn hand_out(command: &str, args: &Convert, converted: &Converted) -> ExitCode {
    let done = match &args.output {
        Some(path) => match disk::write_secret(path, &converted.text, args.force) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => return fail(command, &error.to_string(), ExitCode::FAILURE),
        },
        None => {
            keys::warn_of_readers(command, io::stdout());
            disk::print(command, &converted.text)
        }
    };
    for note in &converted.notes {
        eprintln!("vpnd {command}: {}: {note}", args.file.display());
    }
    done
}

/// Problems speak for themselves, a line each.
fn fail(command: &str, error: &str, code: ExitCode) -> ExitCode {
    for line in error.lines() {
        eprintln!("vpnd {command}: {line}");
    }
    code
}
