//! `vpnd remove-peer` and `vpnd rename-peer`.

use std::process::ExitCode;

use super::{Held, RewriteError, Target, fail, find, kept, tell};
use crate::config::{Clients, edit};

/// Let somebody out: takes the peer from the tunnel's file; a running daemon ends its session.
#[derive(Debug, clap::Args)]
pub struct RemovePeer {
    /// Its name, or the start of its public key.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Which interface.
    #[command(flatten)]
    pub target: Target,
}

/// Give a peer another name. Its session goes on.
#[derive(Debug, clap::Args)]
pub struct RenamePeer {
    /// Its name, or the start of its public key.
    #[arg(value_name = "OLD")]
    pub old: String,
    /// Its new name.
    #[arg(value_name = "NEW", value_parser = Clients::peer_name)]
    pub new: String,
    /// Which interface.
    #[command(flatten)]
    pub target: Target,
}

/// `vpnd remove-peer NAME`.
pub fn remove_peer(args: &RemovePeer) -> ExitCode {
    remove(args).unwrap_or_else(|error| fail("remove-peer", &error))
}

/// `vpnd rename-peer OLD NEW`.
pub fn rename_peer(args: &RenamePeer) -> ExitCode {
    rename(args).unwrap_or_else(|error| fail("rename-peer", &error))
}

pub(super) fn remove(args: &RemovePeer) -> Result<ExitCode, RewriteError> {
    let held = args.target.hold()?;
    let (index, peer) = find(&held.config, &args.name)?;
    let text = edit::without_peer(&held.text, index).map_err(held.cannot_edit())?;
    held.save(&text)?;
    eprintln!("vpnd remove-peer: {} ({}) is out of {}", peer.label(), peer.public_key, held.path.display());
    // First what matters: afterwards nobody with its key is let in.
    let done = tell::reload("remove-peer", &args.target.run_dir, &held);
    if let Some(path) = kept::path(&held, &peer.label())
        && kept::forget(&path, &peer.public_key)?
    {
        eprintln!("vpnd remove-peer: removed {}, too", path.display());
    }
    Ok(done)
}

pub(super) fn rename(args: &RenamePeer) -> Result<ExitCode, RewriteError> {
    let held = args.target.hold()?;
    let (index, peer) = find(&held.config, &args.old)?;
    let other = held.config.peers.iter().position(|peer| peer.name.as_ref() == Some(&args.new));
    if other.is_some_and(|other| other != index) {
        let why = format!("{} has a peer {} already; choose another name", held.path.display(), args.new);
        return Err(RewriteError::Other(why));
    }
    let text = edit::with_name(&held.text, index, &args.new).map_err(held.cannot_edit())?;
    held.save(&text)?;
    eprintln!("vpnd rename-peer: {} is {} now in {}", peer.label(), args.new, held.path.display());
    let done = tell::reload("rename-peer", &args.target.run_dir, &held);
    rename_kept(&held, &peer.label(), args)?;
    Ok(done)
}

fn rename_kept(held: &Held, old: &str, args: &RenamePeer) -> Result<(), RewriteError> {
    let (Some(from), Some(to)) = (kept::path(held, old), kept::path(held, &args.new)) else { return Ok(()) };
    let (_, peer) = find(&held.config, &args.old)?;
    if kept::rename(&from, &to, &peer.public_key)? {
        eprintln!("vpnd rename-peer: its configuration is kept in {} now", to.display());
    }
    Ok(())
}
