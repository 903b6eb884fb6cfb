//! How each program is started on two hosts, as its users start it.

mod nebula;
mod openvpn;
mod wireguard; // vpnd, and those that `wg` sets up

use std::{fs, process::Command, time::Duration};

use vpnd::lab::{Host, link};

use crate::{
    contender::{Contender, Kind},
    failure::{Failure, Result},
    pair::{Carrier, DEVICE, Other, output},
    stop,
};

/// On both hosts; the devices are up and have their addresses when this returns.
pub fn start(contender: &Contender, hosts: &[Host; 2], strangers: usize) -> Result<[Carrier; 2]> {
    match contender.kind {
        Kind::Veth => Ok([Carrier::Cable, Carrier::Cable]),
        Kind::Vpnd | Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun => {
            wireguard::start(contender, hosts, strangers)
        }
        Kind::Nebula => nebula::start(contender, hosts),
        Kind::Openvpn => openvpn::start(contender, hosts),
    }
}

/// Runs a program that ends, on this host; what it printed.
fn tool(host: &Host, label: &str, mut command: Command, limit: Duration) -> Result<String> {
    command.stdout(output(host.folder(), label)?);
    let mut process = host.spawn(label, command)?;
    let status = stop::finish(&mut process, label, limit)?;
    let said = fs::read_to_string(host.folder().join(format!("{label}.out"))).unwrap_or_default();
    if !status.success() {
        return Err(Failure::Said(format!("{label} failed ({status}): {}{said}", process.log())));
    }
    Ok(said)
}

/// Waits until the program has made its device.
fn device_appears(host: &Host, other: &Other) -> Result<()> {
    if stop::wait_until(Duration::from_secs(15), || link::index(host, DEVICE).is_ok())? {
        return Ok(());
    }
    Err(Failure::Said(format!("no device {DEVICE} on {}: {}", host.name(), other.log())))
}
