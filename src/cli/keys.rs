//! `genkey`, `genpsk`, `pubkey`.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::disk;
use crate::{
    noise::{PresharedKey, PrivateKey},
    sys::random::os_rng,
};

/// Where a new key goes.
#[derive(Debug, clap::Args)]
pub struct NewKey {
    /// Write the key to this new file, readable by its owner alone, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Whose public key is wanted.
#[derive(Debug, clap::Args)]
pub struct Pubkey {
    /// File with a private key; standard input if none is named
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `vpnd genkey`: a new private key. Written to a file, its public key is said.
pub fn genkey(args: &NewKey) -> ExitCode {
    let key = PrivateKey::generate(&mut os_rng());
    let note = format!("its public key is {}", key.public_key());
    hand_out("genkey", key.expose(), args, &note)
}

/// `vpnd genpsk`: a new preshared key, for both ends of a pair of peers.
pub fn genpsk(args: &NewKey) -> ExitCode {
    let key = PresharedKey::generate(&mut os_rng());
    hand_out("genpsk", key.expose(), args, "copy it to the other end")
}

/// `vpnd pubkey`: the public key of a private one.
pub fn pubkey(args: &Pubkey) -> ExitCode {
    let text = match &args.file {
        Some(path) => disk::read_secret(path).map_err(|error| error.to_string()),
        None => standard_input().map_err(|error| format!("cannot read standard input: {error}")),
    };
    let key = text.and_then(|text| {
        text.trim().parse::<PrivateKey>().map_err(|error| {
            let length = text.trim().chars().count();
            format!("{length} characters that are {error}; give the 44 that `vpnd genkey` prints")
        })
    });
    match key {
        Ok(key) => disk::print("pubkey", &format!("{}\n", key.public_key())),
        Err(error) => {
            eprintln!("vpnd pubkey: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hand_out(command: &str, key: &[u8; 32], args: &NewKey, note: &str) -> ExitCode {
    let mut line = Zeroizing::new(String::with_capacity(64)); // base64 of 32 bytes is 44: it never grows
    STANDARD.encode_string(key, &mut line);
    line.push('\n');
    let Some(path) = &args.output else {
        warn_of_readers(command, io::stdout());
        return disk::print(command, &line);
    };
    match disk::write_secret(path, &line, args.force) {
        Ok(()) => {
            eprintln!("vpnd {command}: wrote {}; {note}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vpnd {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn standard_input() -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    io::stdin().take(4096).read_to_string(&mut text)?;
    Ok(text)
}

/// Says, as `wg genkey` does, that a secret goes into a file that everybody can read.
pub(super) fn warn_of_readers(command: &str, output: impl AsFd) {
    if others_can_read(output).unwrap_or(false) {
        eprintln!(
            "vpnd {command}: warning: a secret is written to a file that others can read; \
             use --output, or set `umask 077` first"
        );
    }
}

fn others_can_read(output: impl AsFd) -> io::Result<bool> {
    let metadata = File::from(output.as_fd().try_clone_to_owned()?).metadata()?;
    Ok(metadata.is_file() && metadata.mode() & 0o007 != 0)
}
