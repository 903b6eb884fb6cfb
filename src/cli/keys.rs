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
    noise::{PresharedKey, PrivateKey, PublicKey},
    sys::random::os_rng,
};

/// Where a new key goes.
#[derive(Debug, clap::Args)]
pub struct NewKey {
    /// Write the key to this new file, readable by its owner alone, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Whose public key is wanted.
#[derive(Debug, clap::Args)]
pub struct Pubkey {
    /// File with a private key; standard input if none is named.
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
    match public_key(args) {
        Ok(key) => disk::print("pubkey", &format!("{key}\n")),
        Err(error) => {
            eprintln!("vpnd pubkey: {error}");
            ExitCode::FAILURE
        }
    }
}

fn public_key(args: &Pubkey) -> Result<PublicKey, String> {
    let text = match &args.file {
        Some(path) => disk::read_secret(path).map_err(|error| error.to_string())?,
        None => standard_input().map_err(|error| format!("cannot read standard input: {error}"))?,
    };
    let text = text.trim();
    let key = text.parse::<PrivateKey>().map_err(|error| {
        let length = text.chars().count();
        format!("found {length} characters that are {error}; give the 44 that `vpnd genkey` prints")
    })?;
    Ok(key.public_key())
}

fn hand_out(command: &str, key: &[u8; 32], args: &NewKey, note: &str) -> ExitCode {
    let mut line = Zeroizing::new(String::with_capacity(64)); // base64 of 32 bytes is 44: it never grows
    STANDARD.encode_string(key, &mut line);
    line.push('\n');
    let Some(path) = &args.output else {
        warn_of_readers(command, io::stdout(), "use --output, or ");
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

/// Says, as `wg genkey` does, that a secret goes into a file that everybody can read. `remedy`: what would do beside
/// a mask.
pub(super) fn warn_of_readers(command: &str, output: impl AsFd, remedy: &str) {
    if others_can_read(output).unwrap_or(false) {
        eprintln!(
            "vpnd {command}: warning: a secret is written to a file that others can read; \
             {remedy}set `umask 077` first"
        );
    }
}

fn others_can_read(output: impl AsFd) -> io::Result<bool> {
    let metadata = File::from(output.as_fd().try_clone_to_owned()?).metadata()?;
    Ok(metadata.is_file() && metadata.mode() & 0o007 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: NewKey,
    }

    fn is_success(code: ExitCode) -> bool {
        format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS)
    }

    #[test]
    fn force_makes_sense_only_with_a_file() {
        Line::command().debug_assert();
        assert!(Line::try_parse_from(["genkey", "--force"]).is_err());
        assert!(Line::try_parse_from(["genkey", "--force", "--output", "x"]).unwrap().args.force);
    }

    #[test]
    fn a_new_key_is_written_once_for_its_owner_and_has_a_public_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpn0.key");
        let mut args = NewKey { output: Some(path.clone()), force: false };
        assert!(is_success(genkey(&args)));
        let first = fs::read_to_string(&path).unwrap();
        assert_eq!((first.len(), fs::metadata(&path).unwrap().mode() & 0o7777), (45, 0o600));
        let public = first.trim().parse::<PrivateKey>().unwrap().public_key();
        assert_eq!(public_key(&Pubkey { file: Some(path.clone()) }), Ok(public));

        assert!(!is_success(genkey(&args)), "an existing file was overwritten");
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
        args.force = true;
        assert!(is_success(genpsk(&args)));
        let second = fs::read_to_string(&path).unwrap();
        assert!(second != first && second.trim().parse::<PresharedKey>().is_ok());
    }

    #[test]
    fn a_file_without_a_key_has_no_public_key_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "hunter2\n").unwrap();
        let error = public_key(&Pubkey { file: Some(path) }).unwrap_err();
        assert!(
            error.starts_with("found 7 characters that are not a key") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_others_can_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("x")).unwrap();
        for (mode, expected) in [(0o600, false), (0o640, false), (0o604, true), (0o644, true)] {
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(others_can_read(&file).unwrap(), expected, "{mode:o}");
        }
        let (_reader, writer) = io::pipe().unwrap();
        assert!(!others_can_read(&writer).unwrap(), "a pipe is no file");
    }
}
