//! Sysctls of the network namespace that let a packet through or stop it: forwarding, and reverse-path filtering.

use std::{fs, path::Path};

const IPV4: &str = "/proc/sys/net/ipv4/conf";
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// How strictly a device asks whether the way back to a sender leads through it (rp_filter, RFC 3704).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// It does not.
    Off,
    /// The way back must lead through the device that the packet came by.
    Strict,
    /// There must be a way back, by whatever device.
    Loose,
}

/// Does this host pass packets on that come by this device? With the sysctl that says so.
pub fn forwards(v6: bool, device: &str) -> (bool, String) {
    match v6 {
        false => (number(IPV4, device, "forwarding") != 0, format!("net.ipv4.conf.{device}.forwarding")),
        true => {
            let forced = number(IPV6, device, "force_forwarding") != 0;
            (forced || number(IPV6, "all", "forwarding") != 0, "net.ipv6.conf.all.forwarding".to_owned())
        }
    }
}

/// The greater of "all" and the device's own; IPv6 has none.
pub fn reverse_path(device: &str) -> ReversePath {
    match number(IPV4, "all", "rp_filter").max(number(IPV4, device, "rp_filter")) {
        0 => ReversePath::Off,
        1 => ReversePath::Strict,
        _ => ReversePath::Loose,
    }
}

/// Does the mark of a packet count when its way back is looked for?
pub fn source_mark_counts(device: &str) -> bool {
    number(IPV4, "all", "src_valid_mark").max(number(IPV4, device, "src_valid_mark")) != 0
}

/// An absent one is 0. A name with a slash is no device, and nothing else is to be read.
fn number(folder: &str, device: &str, key: &str) -> u8 {
    if device.contains('/') || device.starts_with('.') {
        return 0;
    }
    let text = fs::read_to_string(Path::new(folder).join(device).join(key)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
