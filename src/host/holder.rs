//! Who has this device name: its kind, and for a TUN the process that holds it open.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::message::Link;

/// "interface vpn0 exists already (a TUN held by process 4711, vpnd)".
pub(super) fn describe(link: &Link) -> String {
    let name = &link.name;
    let what = match link.kind.as_deref() {
        Some("tun") => match holder(name) {
            Some((pid, command)) => format!("a TUN held by process {pid}, {command}"),
            None => format!(
                "a TUN that no process seen from here holds; `ip link delete {name}` removes a forgotten one"
            ),
        },
        Some(kind) => format!("a device of kind {kind}"),
        None => "a hardware device, or one that tells no kind".into(),
    };
    format!("interface {name} exists already ({what})")
}

/// A process of our network namespace with a descriptor of this TUN. The name alone would not do: in each
/// namespace there may be a device of that name.
fn holder(device: &str) -> Option<(u32, String)> {
    let own_namespace = fs::read_link("/proc/thread-self/ns/net").ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|pid: u32| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        (holds(&process, device) && has_thread_in(&process, &own_namespace)).then(|| (pid, command(&process)))
    })
}

fn holds(process: &Path, device: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let is_tun =
            fs::read_link(descriptor.path()).is_ok_and(|t| t.as_os_str().as_bytes().ends_with(b"/net/tun"));
        let info = || fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()));
        is_tun && info().is_ok_and(|info| names(&info, device))
    })
}

/// The driver writes a line "iff:\tNAME" (drivers/net/tun.c, tun_chr_show_fdinfo).
fn names(fdinfo: &str, device: &str) -> bool {
    fdinfo.lines().any(|line| line.strip_prefix("iff:").is_some_and(|name| name.trim() == device))
}

fn has_thread_in(process: &Path, namespace: &Path) -> bool {
    let Ok(threads) = fs::read_dir(process.join("task")) else { return false };
    threads
        .flatten()
        .any(|thread| fs::read_link(thread.path().join("ns/net")).is_ok_and(|ns| ns == namespace))
}

fn command(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkFlags;

    use super::*;

    #[test]
    fn a_tun_is_known_by_the_line_of_its_driver() {
        let info = "pos:\t0\nflags:\t0104002\nmnt_id:\t29\niff:\tvpn0\n";
        assert!(names(info, "vpn0"));
        assert!(!names(info, "vpn"));
        assert!(!names("pos:\t0\n", "vpn0"));
    }

    #[test]
    fn another_kind_of_device_is_named_by_its_kind() {
        let link = Link {
            index: 3,
            name: "vpn0".into(),
            mtu: 1420,
            flags: LinkFlags::empty(),
            kind: Some("wireguard".into()),
        };
        assert_eq!(describe(&link), "interface vpn0 exists already (a device of kind wireguard)");
    }
}
