//! Who has what we want: out of /proc, into which a process without its capabilities does not see.

use crate::{host::Host, plane::udp};

/// The words of an error about a UDP port; `None`: nobody holds it (any more).
pub(super) fn of_port(port: u16) -> Option<String> {
    udp::holder_of(port)
}

/// Who has this network device.
pub(super) async fn of_device(name: &str) -> Option<String> {
    Host::open().await.ok()?.device_exists(name).await.ok().flatten()
}
