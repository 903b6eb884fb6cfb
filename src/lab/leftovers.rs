//! Who owns a name, and the removal of what a killed lab left under it.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::MetadataExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    error::{Attempted, LabError},
    link, namespace,
    stopwatch::poll_until,
};
use crate::sys;

/// Beside the names of `ip netns`: that a name has a folder here says that it is a lab's. It stays, as `/run/netns` does:
/// with it what another mount namespace has mounted there would be gone.
const FOLDERS: &str = "/run/vpnd-lab";

/// The private folder of a lab's host.
pub(super) fn folder(name: &str) -> PathBuf {
    Path::new(FOLDERS).join(name)
}

/// How long a name may still be held by a process that another thread is just starting: until its exec it has all
/// descriptors of this one, those that were closed here meanwhile, too.
const LET_GO: Duration = Duration::from_millis(500);

/// Holds `name` for the life of the returned socket. An abstract socket vanishes with its process, however
/// that ends: no stale lock can remain.
pub(super) fn claim(name: &str) -> Result<UnixListener, LabError> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') || name.len() > 64 {
        return Err(LabError::Unexpected(format!(
            "{name:?} cannot be the name of a host: 1 to 64 bytes, no /"
        )));
    }
    let bind = || match bind_abstract(&format!("vpnd-lab/{name}")) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => None,
        other => Some(other),
    };
    match poll_until(LET_GO, bind) {
        Some(claimed) => claimed.attempted(|| format!("claim the name {name}")),
        None => Err(LabError::Running { name: name.to_owned() }),
    }
}

/// Waits for the right to change `/run/netns` itself, for a second at most: it is held for microseconds.
pub(super) fn lock_names() -> Option<UnixListener> {
    poll_until(Duration::from_secs(1), || bind_abstract("vpnd-lab").ok())
}

/// Removes processes, links, name and folder that a killed lab left.
pub(super) fn sweep(name: &str) -> Result<(), LabError> {
    if !folder(name).exists() {
        return match namespace::path(name).exists() {
            true => Err(LabError::Foreign { name: name.to_owned() }),
            false => Ok(()),
        };
    }
    kill_registered(name);
    remove_links(name);
    remove(name);
    match namespace::path(name).exists() {
        true => Err(LabError::Unexpected(format!("cannot remove the leftover namespace {name}"))),
        false => Ok(()),
    }
}

/// A shell that a person opened inside keeps the namespace alive; it shall not keep the cable plugged in.
fn remove_links(name: &str) {
    if let Ok(file) = fs::File::open(namespace::path(name)) {
        let _ = link::delete_all(&file);
    }
}

/// Removes name and folder; what is not there is not missed.
pub(super) fn remove(name: &str) {
    let path = namespace::path(name);
    // Once for each time that it was mounted.
    for _ in 0..8 {
        if sys::namespace::unmount(&path).is_err() {
            break;
        }
    }
    let _ = fs::remove_file(&path);
    let _ = fs::remove_dir_all(folder(name));
}

/// Where a process of the lab is registered, so that the next lab finds it if this one is killed.
pub(super) fn register(folder: &Path, pid: u32) -> io::Result<PathBuf> {
    let pids = folder.join("pids");
    fs::create_dir_all(&pids)?;
    let entry = pids.join(pid.to_string());
    fs::write(&entry, "")?;
    Ok(entry)
}

/// Ends the registered processes that are still in the namespace: a number alone may be another's by now.
fn kill_registered(name: &str) {
    let Ok(ours) = fs::metadata(namespace::path(name)) else { return };
    let Ok(entries) = fs::read_dir(folder(name).join("pids")) else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else { continue };
        if !is_inside(pid, &ours) {
            continue;
        }
        let _ = sys::signal::kill(pid);
        poll_until(Duration::from_secs(2), || (!is_inside(pid, &ours)).then_some(()));
    }
}

fn is_inside(pid: u32, namespace: &fs::Metadata) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|of| (of.dev(), of.ino()) == (namespace.dev(), namespace.ino()))
}

fn bind_abstract(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}
