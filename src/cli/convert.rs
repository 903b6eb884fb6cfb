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
    /// The file to convert.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write to this new file, readable by its owner alone, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it is there.
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
            keys::warn_of_readers(command, io::stdout(), "use --output, or ");
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn a_file_of_wg_quick_goes_in_and_out_as_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [wg0, toml, back] = ["wg0.conf", "peer.toml", "back.conf"].map(|name| folder.path().join(name));
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        fs::write(&wg0, format!("[Interface]\nPrivateKey = {key}\nMTU = 1300\nDNS = 1.1.1.1\n")).unwrap();
        let convert = |from: &PathBuf, to: &PathBuf| Convert {
            file: from.clone(),
            output: Some(to.clone()),
            force: false,
        };
        let code = |code: ExitCode| format!("{code:?}");

        assert_eq!(code(import(&convert(&wg0, &toml))), code(ExitCode::SUCCESS));
        assert_eq!(fs::metadata(&toml).unwrap().mode() & 0o7777, 0o600);
        let config = disk::read_config(&toml).unwrap();
        assert_eq!((config.interface.name.as_str(), config.interface.mtu), ("wg0", 1300));
        assert_eq!(code(import(&convert(&wg0, &toml))), code(ExitCode::FAILURE), "overwrote a file");

        assert_eq!(code(export(&convert(&toml, &back))), code(ExitCode::SUCCESS));
        assert!(fs::read_to_string(&back).unwrap().contains("MTU = 1300\n"));
        assert_eq!(fs::metadata(&back).unwrap().mode() & 0o7777, 0o600);

        fs::write(&wg0, "[Interface]\n").unwrap();
        assert_eq!(code(import(&convert(&wg0, &folder.path().join("x")))), code(ExitCode::from(EX_CONFIG)));
    }
}
