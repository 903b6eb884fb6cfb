//! WireGuard: vpnd from its file; the others by `wg setconf` over their control socket.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use vpnd::{
    lab::{Daemon, Host, Setup, is_listening, link, with_control_sockets},
    noise::{PrivateKey, PublicKey},
    sys::random::os_rng,
};

use super::tool;
use crate::{
    contender::{Contender, Kind},
    failure::{Attempted, Failure, Result},
    pair::{Carrier, DEVICE, MTU, Other, inner, outer},
    stop,
};

const PORT: u16 = 51820;

/// Both ends know each other's key and address.
pub fn start(contender: &Contender, hosts: &[Host; 2], strangers: usize) -> Result<[Carrier; 2]> {
    let keys = [PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng())];
    let end = |number: usize| {
        let host = &hosts[number - 1];
        let side = Side {
            number: number as u8,
            private: &keys[number - 1],
            other: keys[2 - number].public_key(),
            strangers,
        };
        match contender.kind {
            Kind::Vpnd => vpnd(contender, host, &side),
            _ => by_wg(contender, host, &side),
        }
    };
    let right = end(2)?;
    Ok([end(1)?, right])
}

/// What one end knows.
struct Side<'a> {
    number: u8,
    private: &'a PrivateKey,
    other: PublicKey,
    strangers: usize,
}

impl Side<'_> {
    fn address(&self) -> String {
        format!("{}/24", inner(self.number))
    }

    fn peers(&self) -> impl Iterator<Item = (PublicKey, Option<String>, String)> {
        let other = 3 - self.number;
        let endpoint = format!("{}:{PORT}", outer(other));
        let first = (self.other, Some(endpoint), format!("{}/32", inner(other)));
        let strangers = (0..self.strangers).map(|number| {
            let key = PrivateKey::generate(&mut os_rng()).public_key();
            (key, None, format!("10.{}.{}.{}/32", 128 + (number >> 16), number >> 8 & 255, number & 255))
        });
        std::iter::once(first).chain(strangers)
    }

    /// As a `peer.toml`.
    fn toml(&self, lines: &[String]) -> String {
        let mut text = format!(
            "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\nlisten_port = {PORT}\naddress = [\"{}\"]\nmtu = {MTU}\n{}\n",
            *self.private.to_base64(),
            self.address(),
            lines.join("\n")
        );
        for (key, endpoint, prefix) in self.peers() {
            let _ = writeln!(text, "[[peer]]\npublic_key = \"{key}\"\nallowed_ips = [\"{prefix}\"]");
            if let Some(endpoint) = endpoint {
                let _ = writeln!(text, "endpoint = \"{endpoint}\"");
            }
        }
        text
    }

    /// For `wg setconf`.
    fn conf(&self) -> String {
        let mut text =
            format!("[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n", *self.private.to_base64());
        for (key, endpoint, prefix) in self.peers() {
            let _ = writeln!(text, "[Peer]\nPublicKey = {key}\nAllowedIPs = {prefix}");
            if let Some(endpoint) = endpoint {
                let _ = writeln!(text, "Endpoint = {endpoint}");
            }
        }
        text
    }
}

fn vpnd(contender: &Contender, host: &Host, side: &Side<'_>) -> Result<Carrier> {
    let program = contender.program.clone().unwrap_or_default();
    let mut setup = Setup::new(program, side.toml(&contender.lines));
    setup.log = "warn".to_owned();
    Ok(Carrier::Vpnd(Daemon::start(host, &setup)?))
}

fn by_wg(contender: &Contender, host: &Host, side: &Side<'_>) -> Result<Carrier> {
    let program = contender.program.clone().unwrap_or_default();
    let sockets = host.folder().join("sockets");
    fs::create_dir_all(&sockets).attempted(|| format!("make {}", sockets.display()))?;
    let mut command = with_control_sockets(&sockets, &program);
    command.args(["--foreground", DEVICE]).env("WG_PROCESS_FOREGROUND", "1");
    if contender.kind != Kind::WireguardGo {
        command.args(["--disable-drop-privileges", "--verbosity", "error"]);
        command.arg("--log").arg(host.folder().join("other.err"));
    }
    let other = Other::spawn(host, command)?;
    let socket = sockets.join(format!("{DEVICE}.sock"));
    if !stop::wait_until(Duration::from_secs(10), || is_listening(&socket))? {
        return Err(Failure::Said(format!("{} makes no socket: {}", contender.label, other.log())));
    }
    set_up(host, &sockets, side)?;
    Ok(Carrier::Other(other))
}

fn set_up(host: &Host, sockets: &Path, side: &Side<'_>) -> Result<()> {
    let file: PathBuf = host.folder().join("other.conf");
    fs::write(&file, side.conf()).attempted(|| format!("write {}", file.display()))?;
    let mut wg = with_control_sockets(sockets, Path::new("wg"));
    wg.args(["setconf", DEVICE]).arg(&file);
    tool(host, "wg", wg, Duration::from_secs(60))?;
    link::mtu(host, DEVICE, MTU.into())?;
    link::up(host, DEVICE)?;
    host.add_address(DEVICE, &side.address())?;
    Ok(())
}
