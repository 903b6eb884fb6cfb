//! OpenVPN 2.6 from host to host: TLS with two certificates that know each other by fingerprint.

use std::{path::PathBuf, process::Command, time::Duration};

use vpnd::lab::Host;

use super::tool;
use crate::{
    contender::Contender,
    failure::{Failure, Result},
    pair::{Carrier, DEVICE, MTU, Other, inner, outer},
};

const PORT: &str = "1194";
const CIPHER: &str = "CHACHA20-POLY1305";

/// On both hosts.
pub fn start(contender: &Contender, hosts: &[Host; 2]) -> Result<[Carrier; 2]> {
    let identities = [Identity::make(&hosts[0])?, Identity::make(&hosts[1])?];
    let end = |at: usize| -> Result<Carrier> {
        let (own, other) = (&identities[at], &identities[1 - at]);
        let mut command = hosts[at].command(contender.program.clone().unwrap_or_default())?;
        arguments(&mut command, at as u8 + 1, own, &other.fingerprint);
        let other = Other::spawn(&hosts[at], command)?;
        super::device_appears(&hosts[at], &other)?;
        Ok(Carrier::Other(other))
    };
    Ok([end(0)?, end(1)?])
}

struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    fingerprint: String,
}

impl Identity {
    fn make(host: &Host) -> Result<Self> {
        let (certificate, key) = (host.folder().join("host.crt"), host.folder().join("host.key"));
        let limit = Duration::from_secs(10);
        let mut make = host.command("openssl")?;
        make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        make.args(["-days", "2", "-subj", "/CN=bench", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
        tool(host, "openssl", make, limit)?;
        let mut show = host.command("openssl")?;
        show.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&certificate);
        let shown = tool(host, "openssl", show, limit)?;
        let unread = || Failure::Said(format!("openssl shows no fingerprint: {shown}"));
        let fingerprint = shown.trim().split_once('=').ok_or_else(unread)?.1.to_owned();
        Ok(Self { certificate, key, fingerprint })
    }
}

fn arguments(command: &mut Command, number: u8, own: &Identity, fingerprint: &str) {
    let other = 3 - number;
    command.args(["--dev", DEVICE, "--dev-type", "tun", "--proto", "udp", "--disable-dco", "--verb", "1"]);
    command.args(["--ifconfig", &inner(number).to_string(), &inner(other).to_string()]);
    command.args(["--local", &outer(number).to_string(), "--lport", PORT]);
    command.args(["--remote", &outer(other).to_string(), PORT]);
    command.args(["--tun-mtu", &MTU.to_string(), "--data-ciphers", CIPHER, "--cipher", CIPHER]);
    command.args(["--peer-fingerprint", fingerprint]);
    command.arg("--cert").arg(&own.certificate).arg("--key").arg(&own.key);
    match number {
        1 => command.args(["--tls-server", "--dh", "none"]),
        _ => command.arg("--tls-client"),
    };
}
