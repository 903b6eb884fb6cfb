//! Shows a client's configuration, as text and as a QR code; and `qr`, which does it again.

use std::{
    io::{self, IsTerminal},
    path::Path,
    process::ExitCode,
};

use zeroize::Zeroizing;

use super::{
    RewriteError, Target,
    client::{ClientArgs, Told},
    code, fail, find, kept, tell,
};
use crate::{
    cli::{disk, keys},
    config::{Config, Peer, edit, wg_quick::Client},
    noise::{PresharedKey, PrivateKey},
    sys::random::os_rng,
};

/// When a QR code is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Into a file or a pipe, too.
    Always,
    /// The text alone.
    Never,
}

/// The client's configuration: for a person at a terminal also as a code, for a file as it is.
pub(super) fn show(command: &str, text: &str, qr: When) -> ExitCode {
    keys::warn_of_readers(command, io::stdout(), "");
    let wanted = match qr {
        When::Auto => io::stdout().is_terminal(),
        When::Always => true,
        When::Never => false,
    };
    if !wanted {
        return disk::print(command, text);
    }
    match drawn(command, text) {
        Ok(drawn) => disk::print(command, &Zeroizing::new(format!("{text}\n{}", *drawn))),
        Err(why) => {
            eprintln!("vpnd {command}: there is no QR code: {why}");
            disk::print(command, text)
        }
    }
}

fn drawn(command: &str, text: &str) -> Result<Zeroizing<String>, String> {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|no| !no.is_empty());
    let drawn = code::draw(text, io::stdout().is_terminal() && !no_colour)?;
    let columns = code::columns(&drawn);
    if let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size_of(io::stdout())
        && usize::from(width) < columns
    {
        eprintln!(
            "vpnd {command}: the QR code is {columns} columns wide, this terminal {width}: make it wider"
        );
    }
    Ok(drawn)
}

/// The configuration of the client at the other end of this peer.
pub(super) fn configuration(
    config: &Config,
    peer: &Peer,
    key: Option<&PrivateKey>,
    told: &Told,
) -> Result<Zeroizing<String>, String> {
    let address = super::add::addresses_in(config, &peer.allowed_ips);
    if address.is_empty() {
        return Err(format!(
            "{} has no address of its own: none of its allowed_ips is a single address (/32, /128)",
            peer.label()
        ));
    }
    let client = Client {
        private_key: key,
        address: &address,
        dns: &told.dns,
        mtu: told.mtu,
        public_key: config.interface.private_key.public_key(),
        preshared_key: peer.preshared_key.as_ref(),
        endpoint: &told.endpoint,
        allowed_ips: &told.allowed_ips,
        keepalive: told.keepalive,
    };
    client.check(Path::new("the client's configuration")).map_err(|problems| problems.to_string())?;
    Ok(client.wg_quick())
}

/// Show the configuration of a client again.
#[derive(Debug, clap::Args)]
pub struct Qr {
    /// Whose: a peer's name, or the start of its public key.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Give the client new keys: what it had before works no longer.
    #[arg(long)]
    pub rekey: bool,
    /// Show the wg-quick text, too, or alone.
    #[arg(long, value_name = "WHAT", default_value = "code")]
    pub show: Shown,
    /// Which interface.
    #[command(flatten)]
    pub target: Target,
    /// What the client is told.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What `qr` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shown {
    /// The QR code.
    Code,
    /// The wg-quick text.
    Text,
    /// Both.
    Both,
}

/// `vpnd qr NAME`: of a configuration that was kept, or with new keys.
pub fn qr(args: &Qr) -> ExitCode {
    let shown = if args.rekey { rekey(args) } else { kept_of(args).map(|text| (text, ExitCode::SUCCESS)) };
    let (text, done) = match shown {
        Ok(shown) => shown,
        Err(error) => return fail("qr", &error),
    };
    keys::warn_of_readers("qr", io::stdout(), "");
    let text = match args.show {
        Shown::Text => text,
        Shown::Both | Shown::Code => match drawn("qr", &text) {
            Ok(drawn) if args.show == Shown::Code => drawn,
            Ok(drawn) => Zeroizing::new(format!("{}\n{}", *text, *drawn)),
            Err(why) => return fail("qr", &why.into()),
        },
    };
    match disk::print("qr", &text) {
        ExitCode::SUCCESS => done,
        failure => failure,
    }
}

pub(super) fn kept_of(args: &Qr) -> Result<Zeroizing<String>, RewriteError> {
    let held = args.target.hold()?;
    let (_, peer) = find(&held.config, &args.name)?;
    let name = peer.label();
    let rekey = format!("`vpnd qr {name:?} --rekey` gives it new keys, and what it has now works no longer");
    let Some(path) = kept::path(&held, &name) else {
        return Err(RewriteError::Other(format!(
            "the private key of {name} was shown when it was made, and kept nowhere: {rekey}; with client_folder under \
             [interface] in {} those of later ones are kept",
            held.path.display()
        )));
    };
    kept::read(&path, &peer.public_key)?.ok_or_else(|| {
        RewriteError::Other(format!("{} does not hold the private key of {name}: {rekey}", path.display()))
    })
}

/// New keys for the peer; the file is altered, and a running daemon follows.
pub(super) fn rekey(args: &Qr) -> Result<(Zeroizing<String>, ExitCode), RewriteError> {
    let held = args.target.hold()?;
    let (index, peer) = find(&held.config, &args.name)?;
    let told = args.client.told(&held)?;
    let (private, preshared) = (PrivateKey::generate(&mut os_rng()), PresharedKey::generate(&mut os_rng()));
    let text =
        edit::with_keys(&held.text, index, &private.public_key(), &preshared).map_err(held.cannot_edit())?;
    let mut config = disk::check(&held.path, &text, held.owner().mode()).map_err(RewriteError::Read)?;
    let renewed = config.peers.remove(index);
    let client = configuration(&held.config, &renewed, Some(&private), &told)?;
    let path = kept::path(&held, &peer.label());
    if let Some(path) = &path {
        kept::forget(path, &peer.public_key)?;
        kept::keep(&held, path, &client)?;
    }
    held.save(&text)?;
    eprintln!("vpnd qr: {} has new keys; its old ones work no longer", peer.label());
    if renewed.preshared_key.is_some() && renewed.preshared_key == peer.preshared_key {
        eprintln!("vpnd qr: its preshared key stands in a file of its own, and is the one from before");
    }
    super::add::say_where_the_key_is("qr", path.as_deref());
    let done = tell::reload("qr", &args.target.run_dir, &held);
    Ok((client, done))
}
