//! Start with what the process before us left: as much of it as the file still wants. What does not fit is refused in
//! words, removed, and made anew.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use tracing::info;

use super::{
    DaemonError,
    attendants::Outside,
    failed,
    store::{Inherited, Name, Store},
};
use crate::{
    config::Config,
    host::{Host, HostError},
    plane::{Offload, TunDevice, UdpSockets},
    sys,
};

/// How long a port that we let go of may take until the service manager has closed its copy.
const LET_GO: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A device that was taken over.
pub(super) struct Kept {
    pub(super) tun: TunDevice,
    /// The table of its default route, if it has one.
    pub(super) own_table: Option<u32>,
}

/// The device that was left, with its addresses, routes and rules, if it is what the file wants.
pub(super) async fn device(
    config: &Config,
    offload: Offload,
    host: &Host,
    store: &mut Store,
    inherited: &mut Inherited,
) -> Result<Option<Kept>, HostError> {
    let Some(descriptor) = inherited.tun.take() else { return Ok(None) };
    let (name, mtu) = (&config.interface.name, config.interface.mtu);
    let left = name_of(&descriptor);
    match TunDevice::adopt(descriptor, name, mtu, offload) {
        Ok(tun) => {
            let own_table = host.adopt(name).await?;
            info!(interface = name, "taken over from the process before us, with all that leads there");
            Ok(Some(Kept { tun, own_table }))
        }
        Err(why) => {
            store.refused(Name::Tun, why);
            // The service manager closes its copy in its own time.
            if let Some(left) = left {
                host.remove_device(&left).await?;
            }
            Ok(None)
        }
    }
}

/// The name of the device behind this descriptor, if it is in our network namespace.
fn name_of(descriptor: &OwnedFd) -> Option<String> {
    let here = sys::inherit::tun_is_here(descriptor.as_fd()).unwrap_or(false);
    let name = sys::tun::attached(descriptor.as_fd()).ok()?.name;
    here.then_some(name)
}

/// The sockets that were left, if they are what the file wants; else new ones.
pub(super) async fn sockets(
    config: &Config,
    fwmark: u32,
    store: &mut Store,
    inherited: &mut Inherited,
    outside: &Outside,
) -> Result<UdpSockets, DaemonError> {
    let port = config.interface.listen_port.unwrap_or(0);
    let attempted = || match port {
        0 => "open a UDP socket".to_owned(),
        port => format!("listen on UDP port {port} (interface.listen_port)"),
    };
    let (v4, v6) = (inherited.udp4.take(), inherited.udp6.take());
    let Some(v4) = v4 else {
        if v6.is_some() {
            store.refused(Name::Udp6, "there is none for IPv4 beside it");
        }
        return match UdpSockets::bind(port, fwmark) {
            Ok(sockets) => Ok(sockets),
            Err(error) => Err(failed(attempted())(outside.explain_port(port, error).await)),
        };
    };
    match UdpSockets::adopt(v4, v6, port, fwmark) {
        Ok(sockets) => {
            store.has_sockets(sockets.port());
            return Ok(sockets);
        }
        Err(why) => {
            store.refused(Name::Udp4, why);
            store.forget(Name::Udp6);
        }
    }
    // It may be the very port that is being let go of.
    let mut waited = Duration::ZERO;
    loop {
        match UdpSockets::bind(port, fwmark) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && waited < LET_GO => {
                tokio::time::sleep(PAUSE).await;
                waited += PAUSE;
            }
            Ok(sockets) => return Ok(sockets),
            Err(error) => return Err(failed(attempted())(outside.explain_port(port, error).await)),
        }
    }
}

/// Nobody goes on with what was left: the device goes, and all that leads there.
pub(super) async fn give_up(store: &mut Store, inherited: Inherited) -> Result<(), HostError> {
    let removed = match inherited.tun.as_ref().and_then(name_of) {
        Some(left) => remove(&left).await,
        None => Ok(()),
    };
    // Not before: which rules lead to the device can only be told while it is there.
    store.empty();
    removed
}

async fn remove(device: &str) -> Result<(), HostError> {
    let host = Host::open().await?;
    host.adopt(device).await?;
    let removed = host.remove_own_device().await;
    host.undo().await.and(removed)
}
