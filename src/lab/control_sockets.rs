//! `wg` and the other implementations know one folder for control sockets, /run/wireguard. In a lab each host has its own
//! there.

use std::{os::unix::net::UnixStream, path::Path, process::Command};

/// A command that sees `folder` as /run/wireguard: other tunnels of this machine are not met.
pub fn with_control_sockets(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]);
    command.arg("mkdir -p /run/wireguard; mount --bind \"$0\" /run/wireguard; exec \"$@\"");
    command.arg(folder).arg(program);
    command
}

/// Does somebody listen to this control socket? `wg` removes one that is there and not yet listened to.
pub fn is_listening(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}
