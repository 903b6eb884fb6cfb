//! `add-peer`, `remove-peer`, `rename-peer`, `qr`: people come and go by one command each. They alter the configuration
//! (`rewrite`), have a running daemon read it (`tell`), and show what a client needs (`client`, `code`).

mod add;
mod client;
mod code;
mod kept;
mod remove;
mod show;
mod tell;

use std::{fs, path::PathBuf, process::ExitCode};

use super::rewrite::{Held, RewriteError};
use crate::config::{self, Config, Peer};

pub use add::{AddPeer, add_peer};
pub use remove::{RemovePeer, RenamePeer, remove_peer, rename_peer};
pub use show::{Qr, qr};

/// So much of a public key's start names a peer: what `vpnd status` shows of one without name.
const KEY_START: usize = 8;

/// Which interface.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The file that describes the tunnel. Without it and --interface: the only one in /etc/vpnd.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The interface that is described by /etc/vpnd/NAME.toml.
    #[arg(short, long, value_name = "NAME", conflicts_with = "config")]
    pub interface: Option<String>,
    /// Where the daemon's control sockets are.
    #[arg(long, value_name = "DIR", default_value = "/run", hide = true)]
    pub run_dir: PathBuf,
    /// Where the files of interfaces are.
    #[arg(long, value_name = "DIR", default_value = "/etc/vpnd", hide = true)]
    pub etc_dir: PathBuf,
}

impl Target {
    fn hold(&self) -> Result<Held, RewriteError> {
        Held::open(&self.path()?)
    }

    fn path(&self) -> Result<PathBuf, String> {
        match (&self.config, &self.interface) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(name)) if name.contains('/') => {
                Err(format!("found --interface {name:?}, which is a path; name a file with --config"))
            }
            (None, Some(name)) => Ok(self.etc_dir.join(format!("{name}.toml"))),
            (None, None) => self.only(),
        }
    }

    fn only(&self) -> Result<PathBuf, String> {
        let folder = self.etc_dir.display();
        let entries = fs::read_dir(&self.etc_dir).map_err(|error| {
            format!("cannot read {folder}: {error}; name the tunnel's file with --config")
        })?;
        let paths = entries.flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        found.sort();
        match &found[..] {
            [only] => Ok(only.clone()),
            [] => Err(format!("there is no tunnel's file in {folder}; name one with --config")),
            several => {
                let names = several.iter().filter_map(|path| path.file_stem()?.to_str());
                let names = names.collect::<Vec<_>>().join(", ");
                Err(format!("there are several tunnels in {folder} ({names}); name one with --interface"))
            }
        }
    }
}

/// The peer that is meant: by its name, its public key, or the start of that. Its number, from 0.
fn find<'c>(config: &'c Config, wanted: &str) -> Result<(usize, &'c Peer), String> {
    let peers = || config.peers.iter().enumerate();
    if let Some(found) = peers().find(|(_, peer)| peer.name.as_deref() == Some(wanted)) {
        return Ok(found);
    }
    let starts = |peer: &Peer| wanted.len() >= KEY_START && peer.public_key.to_string().starts_with(wanted);
    let by_key: Vec<_> = peers().filter(|(_, peer)| starts(peer)).collect();
    match by_key[..] {
        [found] => return Ok(found),
        [] => {}
        [..] => {
            let keys: Vec<_> = by_key.iter().take(4).map(|(_, peer)| peer.public_key.to_string()).collect();
            return Err(format!(
                "{wanted:?} is the start of several public keys ({}); write more of it",
                keys.join(", ")
            ));
        }
    }
    let names: Vec<&str> = config.peers.iter().filter_map(|peer| peer.name.as_deref()).collect();
    let nearest = config::nearest_name(wanted, &names);
    let remedy = match (nearest, names.len()) {
        (Some(nearest), _) => format!("the nearest name is {nearest:?}"),
        (None, 0) => "its peers have no names: give a public key, or the start of one".to_owned(),
        (None, 1..=20) => format!("its peers are {}", names.join(", ")),
        (None, _) => "`vpnd status` lists those that run".to_owned(),
    };
    Err(format!("there is no peer {wanted:?} in {}; {remedy}", config.interface.name))
}

fn fail(command: &str, error: &RewriteError) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("vpnd {command}: {line}");
    }
    error.exit_code()
}

#[cfg(test)]
mod tests;
