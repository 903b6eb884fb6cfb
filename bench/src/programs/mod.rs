//! How each program is started on two hosts, as its users start it.

mod wireguard; // vpnd, and those that `wg` sets up

use vpnd::lab::Host;

use crate::{
    contender::{Contender, Kind},
    failure::{Failure, Result},
    pair::Carrier,
};

/// On both hosts; the devices are up and have their addresses when this returns.
pub fn start(contender: &Contender, hosts: &[Host; 2], strangers: usize) -> Result<[Carrier; 2]> {
    match contender.kind {
        Kind::Veth => Ok([Carrier::Cable, Carrier::Cable]),
        Kind::Vpnd | Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun => {
            wireguard::start(contender, hosts, strangers)
        }
        Kind::Nebula | Kind::Openvpn => Err(Failure::Said("not yet".to_owned())),
    }
}
