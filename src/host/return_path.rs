//! A default route into the tunnel makes strict reverse-path filtering drop the answers to the tunnel's own
//! packets: they come in by the uplink, unmarked, and the way back to their sender leads into the tunnel.

use std::{fs, path::Path};

use super::plan::{Plan, Rule};

const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// More would not help anybody.
const NAMED: usize = 4;

/// Warns if the plan has a default route for IPv4 (IPv6 has no such filter) and this host filters strictly.
/// Nothing is changed: the setting is the operator's.
pub(super) fn warn(plan: &Plan) {
    if !plan.rules.iter().any(|rule| matches!(rule, Rule::NotMarked { v6: false, .. })) {
        return;
    }
    let strict = strict_devices(Path::new(SETTINGS), &plan.device);
    let Some(first) = strict.first() else { return };
    tracing::warn!(
        devices = %strict[..strict.len().min(NAMED)].join(", "),
        "strict reverse-path filtering may drop the answers of peers, since the default route leads into {}; \
         `sysctl net.ipv4.conf.{first}.rp_filter=2` (loose) on the uplink lets them in",
        plan.device,
    );
}

/// The devices on which the greater of "all" and their own value is 1.
fn strict_devices(settings: &Path, own: &str) -> Vec<String> {
    let all = filter_of(settings, "all");
    let Ok(entries) = fs::read_dir(settings) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let others = names.filter(|name| !["all", "default", "lo", own].contains(&name.as_str()));
    let mut strict: Vec<_> = others.filter(|name| filter_of(settings, name).max(all) == 1).collect();
    strict.sort_unstable();
    strict
}

fn filter_of(settings: &Path, device: &str) -> u8 {
    let text = fs::read_to_string(settings.join(device).join("rp_filter")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(filters: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (device, filter) in filters {
            let device = folder.path().join(device);
            fs::create_dir(&device).expect("a folder in it");
            fs::write(device.join("rp_filter"), filter).expect("a file in it");
        }
        folder
    }

    #[test]
    fn the_greater_of_all_and_the_device_decides() {
        let host =
            host(&[("all", "0\n"), ("default", "1\n"), ("lo", "1\n"), ("eth0", "1\n"), ("eth1", "0\n")]);
        assert_eq!(strict_devices(host.path(), "vpn0"), ["eth0"]);
    }

    #[test]
    fn loose_filtering_on_the_device_outweighs_strict_filtering_for_all() {
        let host = host(&[("all", "1\n"), ("eth0", "2\n"), ("eth1", "0\n"), ("vpn0", "0\n")]);
        assert_eq!(strict_devices(host.path(), "vpn0"), ["eth1"], "and our own device does not count");
    }

    #[test]
    fn a_host_without_these_settings_filters_nothing() {
        assert!(strict_devices(Path::new("/nonexistent"), "vpn0").is_empty());
    }
}
