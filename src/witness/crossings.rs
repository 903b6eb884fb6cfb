//! Packet sockets: what really crossed which device, with the kernel's time.

use std::io;

use tokio::io::unix::AsyncFd;

use super::{Carried, program};
use crate::{
    sys::{self, packet::PacketSocket},
    trace::{Crossing, Filter},
};

/// Bytes that may wait; the kernel counts a small packet as some hundred.
const WAITING: usize = 4 << 20;
/// Packets that one look takes at most.
const AT_ONCE: usize = 256;

/// What crosses the devices of this network namespace, as it does.
pub struct Crossings(AsyncFd<PacketSocket>);

impl Crossings {
    /// Looks from now on, for these carriers and for what `inner` means. Needs CAP_NET_RAW.
    pub fn open(inner: Option<&Filter>, carried: &Carried) -> io::Result<Self> {
        let socket = PacketSocket::choose(&program::program(inner, carried), WAITING)?;
        socket.watched().map(Self)
    }

    /// Waits for the next ones. It is safe to drop and call again.
    pub async fn next(&mut self) -> io::Result<Vec<Crossing>> {
        let mut ready = self.0.readable().await?;
        let found = read(self.0.get_ref())?;
        if found.len() < AT_ONCE {
            ready.clear_ready();
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// What is there at the end, and how many found no room.
    pub fn rest(self) -> io::Result<(Vec<Crossing>, u32)> {
        let socket = self.0.into_inner();
        let lost = socket.lost()?;
        let mut all = Vec::new();
        // No more than can have waited: others go on sending.
        for _ in 0..WAITING / AT_ONCE / 256 {
            let found = read(&socket)?;
            let over = found.len() < AT_ONCE;
            all.extend(found.into_iter().flatten());
            if over {
                break;
            }
        }
        Ok((all, lost))
    }
}

/// The same moment by both clocks: where the core had something else to do in between, they are asked again.
fn both_clocks() -> (u128, u64) {
    let asked = (0..8).map(|_| {
        let before = sys::clock::boottime();
        let wall_ns = sys::clock::wall().as_nanos();
        (sys::clock::boottime() - before, wall_ns, before)
    });
    let (_, wall_ns, boot_ns) = asked.min_by_key(|(took, ..)| *took).expect("eight");
    (wall_ns, boot_ns)
}

/// What is there, up to a bound; `None` where it was no packet of IP.
fn read(socket: &PacketSocket) -> io::Result<Vec<Option<Crossing>>> {
    let mut buffer = [0; program::KEPT as usize];
    let mut found = Vec::new();
    // The packet has the wall time, the page counts by the other clock.
    let (wall_ns, boot_ns) = both_clocks();
    while found.len() < AT_ONCE {
        let chosen = match socket.next_chosen(&mut buffer) {
            Ok(chosen) => chosen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // A device that went away says so once (ENETDOWN); the others go on.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => continue,
            Err(error) => return Err(error),
        };
        let ago = |at: std::time::Duration| wall_ns.saturating_sub(at.as_nanos());
        let ago_ns = chosen.at.map_or(0, |at| u64::try_from(ago(at)).unwrap_or(0));
        let at_ns = boot_ns.saturating_sub(ago_ns);
        found.push(Crossing::of(chosen.device, chosen.leaves, at_ns, &buffer[..chosen.len]));
    }
    Ok(found)
}
