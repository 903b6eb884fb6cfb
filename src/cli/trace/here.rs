//! This host, as a page names it.

use std::{fs, os::unix::fs::MetadataExt};

/// That of the host; of a network namespace with a name that one's.
pub(super) fn host_name() -> String {
    let own = |name: &fs::DirEntry| {
        let (named, ours) = (fs::metadata(name.path()).ok(), fs::metadata("/proc/self/ns/net").ok());
        named.zip(ours).is_some_and(|(named, ours)| (named.dev(), named.ino()) == (ours.dev(), ours.ino()))
    };
    let namespace = fs::read_dir("/run/netns").ok().and_then(|names| names.flatten().find(own));
    if let Some(namespace) = namespace {
        return namespace.file_name().to_string_lossy().into_owned();
    }
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

pub(super) fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}
