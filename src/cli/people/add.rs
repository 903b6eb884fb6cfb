//! `vpnd add-peer`: keys, the next free addresses, a `[[peer]]` in the file, and what its client needs.

use std::{path::Path, process::ExitCode, time::Duration};

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::{
    Held, RewriteError, Target,
    client::ClientArgs,
    fail, kept,
    show::{When, configuration, show},
    tell,
};
use crate::{
    cli::{disk, rewrite},
    config::{
        Clients, Config, EndpointName, date,
        edit::{self, NewPeer, Preshared},
        own_addresses,
    },
    noise::{PresharedKey, PrivateKey, PublicKey},
    sys::{clock, random::os_rng},
};

/// Let somebody in: makes keys, takes the next free addresses, writes the peer into the tunnel's file, and shows what
/// the client needs.
///
/// The client's configuration goes to standard output as a wg-quick file, and on a terminal also as a QR code that the
/// WireGuard application of a phone reads. Its private key is shown this once, and kept only if client_folder is set.
#[derive(Debug, clap::Args)]
pub struct AddPeer {
    /// Its name, for people.
    #[arg(value_name = "NAME", value_parser = Clients::peer_name)]
    pub name: String,
    /// Which interface.
    #[command(flatten)]
    pub target: Target,
    /// Networks that lie behind the peer. A single address inside a network of the interface is the peer's own there,
    /// instead of the next free one.
    #[arg(long, value_name = "PREFIX,…", value_delimiter = ',', value_parser = Clients::prefix)]
    pub allowed_ips: Vec<IpNet>,
    /// Where the peer is, if it stays at one place.
    #[arg(long, value_name = "HOST:PORT", value_parser = Clients::endpoint)]
    pub endpoint: Option<EndpointName>,
    /// Until when it is let in: a date or time (UTC, if it does not say), or a number of days or hours from now: 30d, 12h.
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    pub expires: Option<Duration>,
    /// Its public key, if it made its keys itself: its private key then stays where it is.
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub public_key: Option<PublicKey>,
    /// Make no preshared key.
    #[arg(long)]
    pub no_preshared_key: bool,
    /// Show a QR code.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub qr: When,
    /// What the client is told.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `vpnd add-peer NAME`.
pub fn add_peer(args: &AddPeer) -> ExitCode {
    match add(args) {
        Ok((client, done)) => {
            let qr = if args.public_key.is_some() { When::Never } else { args.qr };
            match show("add-peer", &client, qr) {
                ExitCode::SUCCESS => done,
                failure => failure,
            }
        }
        Err(error) => fail("add-peer", &error),
    }
}

pub(super) fn add(args: &AddPeer) -> Result<(Zeroizing<String>, ExitCode), RewriteError> {
    let held = args.target.hold()?;
    let file = held.path.display();
    refuse_a_taken_name(&args.name, &held)?;
    let told = args.client.told(&held)?;
    let own = own_addresses(&held.config, &args.allowed_ips)
        .map_err(|error| format!("{file} has no address for {}: {error}", args.name))?;
    let private = PrivateKey::generate(&mut os_rng());
    let preshared = (!args.no_preshared_key).then(|| PresharedKey::generate(&mut os_rng()));
    // Beside a file that others can read.
    let secret = preshared.as_ref().filter(|_| held.owner().is_open());
    let secret = secret.map(|preshared| (format!("{}.psk", kept::stem(&args.name)), preshared));
    let secret_file = secret.as_ref().map(|(path, _)| path.as_str());
    let peer = new_peer(args, &own, &private, preshared.as_ref(), secret_file);
    let text = edit::with_peer(&held.text, &peer).map_err(held.cannot_edit())?;
    let key = args.public_key.is_none().then_some(&private);

    let mut made = Made::default();
    if let Some((path, preshared)) = &secret {
        let path = held.folder().join(path);
        let line = Zeroizing::new(format!("{}\n", *preshared.to_base64()));
        rewrite::create(&path, &line, held.owner().alone())?;
        made.0.push(path);
    }
    let config = disk::check(&held.path, &text, held.owner().mode()).map_err(RewriteError::Read)?;
    let added = config.peers.last().ok_or_else(|| format!("{file} lost its peers"))?;
    let client = configuration(&held.config, added, key, &told)?;
    let kept_at = kept::path(&held, &args.name).filter(|_| key.is_some());
    if let Some(path) = &kept_at {
        kept::keep(&held, path, &client)?;
        made.0.push(path.clone());
    }
    held.save(&text)?;
    made.0.clear();

    say_added(args, &held, &own, secret_file);
    if key.is_some() {
        say_where_the_key_is("add-peer", kept_at.as_deref());
    }
    let done = tell::reload("add-peer", &args.target.run_dir, &held);
    Ok((client, done))
}

fn refuse_a_taken_name(name: &str, held: &Held) -> Result<(), RewriteError> {
    if held.config.peers.iter().all(|peer| peer.name.as_deref() != Some(name)) {
        return Ok(());
    }
    let (file, quoted) = (held.path.display(), format!("{name:?}"));
    Err(RewriteError::Other(format!(
        "{file} has a peer {name} already; choose another name, or give that one new keys: `vpnd qr {quoted} --rekey`"
    )))
}

/// As it is to stand in the file; the preshared key in a file of its own, if one is named.
fn new_peer(
    args: &AddPeer,
    own: &[IpNet],
    private: &PrivateKey,
    preshared: Option<&PresharedKey>,
    secret_file: Option<&str>,
) -> NewPeer {
    let behind = args.allowed_ips.iter().filter(|net| !own.contains(net));
    NewPeer {
        name: args.name.clone(),
        public_key: args.public_key.unwrap_or_else(|| private.public_key()),
        preshared: preshared.map(|key| match secret_file {
            Some(path) => Preshared::File(path.to_owned()),
            None => Preshared::Inline(key.clone()),
        }),
        endpoint: args.endpoint.as_ref().map(EndpointName::to_string),
        allowed_ips: own.iter().chain(behind).copied().collect(),
        expires: args.expires,
    }
}

fn say_added(args: &AddPeer, held: &Held, own: &[IpNet], secret_file: Option<&str>) {
    let file = held.path.display();
    let addresses: Vec<String> = own.iter().map(|net| net.addr().to_string()).collect();
    eprintln!("vpnd add-peer: {} is in {file} now, with {}", args.name, addresses.join(" and "));
    if let Some(path) = secret_file {
        eprintln!("vpnd add-peer: others can read {file}, so the preshared key is in {path} beside it");
    }
    if let Some(moment) = args.expires {
        eprintln!("vpnd add-peer: it is let in until {}", date::shown(moment));
    }
    if held.config.interface.listen_port.is_none() {
        eprintln!(
            "vpnd add-peer: warning: {file} sets no listen_port, so the kernel chooses another one at each start"
        );
    }
}

/// Files that were made for a peer that did not come to be: they go with this.
#[derive(Default)]
struct Made(Vec<std::path::PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path); // the error that led here is the one to tell
        }
    }
}

/// Said at the time: afterwards it is too late.
pub(super) fn say_where_the_key_is(command: &str, kept: Option<&Path>) {
    match kept {
        Some(path) => eprintln!("vpnd {command}: the client's private key is kept in {}", path.display()),
        None => eprintln!("vpnd {command}: the client's private key is shown this once, and kept nowhere"),
    }
}

/// The addresses of a peer's own among its prefixes: single ones inside the interface's networks, else all single ones.
pub(super) fn addresses_in(config: &Config, prefixes: &[IpNet]) -> Vec<IpNet> {
    let hosts = || prefixes.iter().copied().filter(|net| net.prefix_len() == net.max_prefix_len());
    let inside = |host: &IpNet| config.interface.address.iter().any(|network| network.trunc().contains(host));
    let own: Vec<IpNet> = hosts().filter(inside).collect();
    if own.is_empty() { hosts().collect() } else { own }
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    text.parse().map_err(|error| {
        format!("found {} characters that are {error}; give what `vpnd pubkey` prints", text.chars().count())
    })
}

/// A moment that is to come.
fn expiry(text: &str) -> Result<Duration, String> {
    let now = clock::wall();
    let moment = from_now(text, now).or_else(|| date::parse(text));
    match moment {
        Some(moment) if moment > now => Ok(moment),
        Some(moment) => {
            Err(format!("found {}, which has passed; give a moment to come", date::shown(moment)))
        }
        None => Err("found no moment; write 2030-01-01, 2030-01-01T18:00:00+01:00, 30d or 12h".to_owned()),
    }
}

fn from_now(text: &str, now: Duration) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3600,
        _ => return None,
    };
    let number: u32 = number.parse().ok().filter(|number| (1..=1_000_000).contains(number))?;
    Some(Duration::from_secs(now.as_secs()) + Duration::from_secs(seconds) * number)
}
