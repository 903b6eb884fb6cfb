//! Who is measured: a program and its version, or how to get it where it is missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// A program that we know how to start; `Veth` is the cable without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Veth,
    Vpnd,
    WireguardGo,
    Boringtun,
    Gotatun,
    Nebula,
    Openvpn,
}

impl Kind {
    /// In the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::Veth,
        Self::Vpnd,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Gotatun,
        Self::Nebula,
        Self::Openvpn,
    ];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Vpnd => "vpnd",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::Nebula => "nebula",
            Self::Openvpn => "openvpn",
        }
    }

    /// How to get it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Veth => "it needs no program",
            Self::Vpnd => "cargo build --release",
            Self::WireguardGo => "apt-get install wireguard-go wireguard-tools",
            Self::Boringtun | Self::Gotatun => "make bench-peers",
            Self::Nebula => "apt-get install nebula",
            Self::Openvpn => "apt-get install openvpn openssl",
        }
    }

    /// What a reader should know when comparing.
    pub fn remark(self) -> &'static str {
        match self {
            Self::Veth => "no VPN: the cable alone",
            Self::Nebula => "AES-256-GCM, its default",
            Self::Openvpn => "TLS, CHACHA20-POLY1305, user space, no DCO",
            _ => "WireGuard",
        }
    }

    fn candidates(self) -> Vec<PathBuf> {
        let crates = |name| vec![peers().join("fast/bin").join(name)];
        match self {
            Self::Veth => vec![],
            Self::Vpnd => vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/vpnd")],
            Self::WireguardGo => in_path("wireguard-go"),
            Self::Boringtun => crates("boringtun-cli"),
            Self::Gotatun => crates("gotatun"),
            Self::Nebula => in_path("nebula"),
            Self::Openvpn => in_path("openvpn"),
        }
    }
}

/// Where `make bench-peers` installs, into `fast`: those beside it were built for tests, quickly and without much
/// optimisation, and would flatter us.
fn peers() -> PathBuf {
    let home = || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cache/vpnd/peers");
    env::var_os("VPND_PEERS").map_or_else(home, PathBuf::from)
}

/// Debian keeps some daemons where only root looks.
fn in_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    folders.map(|folder| folder.join(name)).collect()
}

/// One of those that are measured in turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contender {
    /// Its name in the tables: `vpnd`, or `vpnd2` for a second binary.
    pub label: String,
    /// How it is started.
    pub kind: Kind,
    /// What is started; absent for the cable.
    pub program: Option<PathBuf>,
    /// The first line of what it says of its version.
    pub version: String,
    /// More lines for `[interface]` of vpnd.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

impl Contender {
    /// `LABEL` or `LABEL=PATH`. The label begins with the name of a kind.
    pub fn parse(text: &str) -> Result<Self> {
        let (label, program) = match text.split_once('=') {
            Some((label, path)) => (label, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let Some(kind) = Kind::ALL.into_iter().find(|kind| label.starts_with(kind.name())) else {
            let known = Kind::ALL.map(Kind::name).join(", ");
            return Err(Failure::Said(format!("{label:?} begins with none of {known}")));
        };
        match program {
            Some(program) if !program.exists() => {
                Err(Failure::Said(format!("{} does not exist", program.display())))
            }
            Some(program) => Ok(Self::of(label, kind, Some(program))),
            None => Self::found(label, kind).ok_or_else(|| missing(kind)),
        }
    }

    /// The program of this kind on this machine, if there is one.
    pub fn found(label: &str, kind: Kind) -> Option<Self> {
        if kind == Kind::Veth {
            return Some(Self::of(label, kind, None));
        }
        let program = kind.candidates().into_iter().find(|path| path.exists())?;
        Some(Self::of(label, kind, Some(program)))
    }

    fn of(label: &str, kind: Kind, program: Option<PathBuf>) -> Self {
        let program = program.map(|path| path.canonicalize().unwrap_or(path));
        let version = program.as_deref().map(version).unwrap_or_default();
        Self { label: label.to_owned(), kind, program, version, lines: Vec::new() }
    }
}

fn missing(kind: Kind) -> Failure {
    let last = kind.candidates().pop().unwrap_or_default();
    Failure::Said(format!(
        "{} is missing, looked last for {}: {}",
        kind.name(),
        last.display(),
        kind.remedy()
    ))
}

/// The number in the first line of what it prints; nebula knows `-version` only.
fn version(program: &Path) -> String {
    let ask = |argument| {
        let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
        number(&String::from_utf8_lossy(&output.stdout))
            .or_else(|| number(&String::from_utf8_lossy(&output.stderr)))
    };
    ask("--version").or_else(|| ask("-version")).unwrap_or_else(|| "unknown".to_owned())
}

fn number(text: &str) -> Option<String> {
    let words = text.lines().next()?.split_whitespace();
    let is_number = |word: &&str| {
        let bare = word.trim_start_matches('v');
        bare.starts_with(|c: char| c.is_ascii_digit()) && bare.contains('.')
    };
    words.filter(is_number).map(|word| word.trim_start_matches('v').to_owned()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_tells_the_kind_and_may_carry_a_path() {
        let two = Contender::parse("vpnd-old=/bin/sh").unwrap();
        assert_eq!((two.label.as_str(), two.kind), ("vpnd-old", Kind::Vpnd));
        assert!(two.program.is_some());
        assert!(Contender::parse("vpnd=/nowhere/at/all").is_err());
        assert!(Contender::parse("ipsec").unwrap_err().to_string().contains("gotatun"));
    }

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(number("wireguard-go v0.0.20220316\n\nUserspace").as_deref(), Some("0.0.20220316"));
        assert_eq!(number("Version: 1.6.1+dfsg").as_deref(), Some("1.6.1+dfsg"));
        assert_eq!(number("usage: x"), None);
    }
}
