//! `check`: reads configurations as the daemon would, and says all that is wrong.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use super::disk::{self, ReadError};
use crate::{
    config::{Config, date},
    sys::clock,
};

/// Exit code for a wrong configuration (sysexits: EX_CONFIG).
pub const EX_CONFIG: u8 = 78;

/// Which files.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Configurations to check, with the key files that they name.
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
    let expired = expired(config, clock::wall());
    format!("interface {}, {peers}, {prefixes}{expired}", config.interface.name)
}

/// Peers whose time is over: nothing is wrong with the file, and yet they are not let in.
fn expired(config: &Config, now: Duration) -> String {
    const SHOWN: usize = 8;
    let over =
        config.peers.iter().filter_map(|peer| Some((peer, peer.expires?))).filter(|(_, at)| *at <= now);
    let told: Vec<String> =
        over.map(|(peer, at)| format!("{} expired on {}", peer.label(), date::shown(at))).collect();
    match told.len() {
        0 => String::new(),
        n if n > SHOWN => format!("; {}, and {} more", told[..SHOWN].join(", "), n - SHOWN),
        _ => format!("; {}", told.join(", ")),
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn code(files: &[&Path]) -> String {
        format!("{:?}", run(&Check { files: files.iter().map(|path| path.to_path_buf()).collect() }))
    }

    #[test]
    fn the_exit_code_tells_wrong_from_unreadable_from_good() {
        let folder = tempfile::tempdir().unwrap();
        let [good, wrong, absent] = ["good", "wrong", "absent"].map(|name| folder.path().join(name));
        disk::write_secret(&folder.path().join("key"), "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", false)
            .unwrap();
        fs::write(&good, "[interface]\nprivate_key_file = \"key\"\n").unwrap();
        fs::write(&wrong, "[interface]\n").unwrap();
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(&[&good]), expected(0));
        assert_eq!(code(&[&good, &absent]), expected(1));
        assert_eq!(code(&[&absent, &wrong, &good]), expected(78));
        assert_eq!(summary(&disk::read_config(&good).unwrap()), "interface vpn0, 0 peers, 0 prefixes");
    }

    #[test]
    fn a_peer_whose_time_is_over_is_named_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.toml");
        disk::write_secret(&folder.path().join("key"), "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", false)
            .unwrap();
        let peer = |name: &str, key: char, expires: &str| {
            format!(
                "[[peer]]\nname = \"{name}\"\npublic_key = \"{key}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\nexpires = {expires}\n"
            )
        };
        let peers = peer("guest", 'B', "2020-01-01") + &peer("laptop", 'C', "9999-01-01T12:30:00+01:00");
        fs::write(&path, format!("[interface]\nprivate_key_file = \"key\"\n{peers}")).unwrap();
        assert_eq!(code(&[&path]), format!("{:?}", ExitCode::SUCCESS));
        let config = disk::read_config(&path).unwrap();
        let told = summary(&config);
        assert!(told.ends_with("0 prefixes; guest expired on 2020-01-01 00:00 UTC"), "{told}");
        assert_eq!(expired(&config, Duration::ZERO), "");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(
            (count(1, "prefix", "prefixes"), count(2, "peer", "peers")),
            ("1 prefix".into(), "2 peers".into())
        );
    }
}
