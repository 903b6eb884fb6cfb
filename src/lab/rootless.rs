//! A lab for an ordinary user: a user namespace in which the process is root over namespaces of its own.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::sys::namespace as sys;

/// What is missing, and what would do.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {source}\n  {remedy}")]
pub struct Missing {
    /// What was tried.
    pub attempted: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
    /// What would do.
    pub remedy: String,
}

/// Does this process have to [`enter`] a user namespace?
pub fn needed() -> bool {
    sys::effective_ids().0 != 0
}

/// Can a TUN device be opened? Every lab with a vpnd needs one.
pub fn check_tun() -> Result<(), Missing> {
    let opened = File::options().read(true).write(true).open("/dev/net/tun");
    opened.map(drop).map_err(|source| {
        let remedy = match source.kind() {
            io::ErrorKind::NotFound => {
                "The kernel module tun is not loaded (`modprobe tun`), or this container was not given the \
                 device (`--device /dev/net/tun`)."
            }
            io::ErrorKind::PermissionDenied => {
                "This user may not open it; usually everybody may (`chmod 666 /dev/net/tun`). As root it works \
                 in any case."
            }
            _ => "The kernel module tun may be missing (`modprobe tun`).",
        };
        Missing { attempted: "open /dev/net/tun", source, remedy: remedy.to_owned() }
    })
}

/// Makes the process root in a new user namespace, with a `/run` and a network of its own; nothing of it is
/// seen outside, and all of it goes with the process. Must be called before the first thread is started.
pub fn enter() -> Result<(), Missing> {
    let (user, group) = sys::effective_ids();
    sys::unshare_user().map_err(|source| Missing {
        attempted: "make a user namespace",
        remedy: disabled(&source),
        source,
    })?;
    // Without the group map's permission setgroups could give groups up, and with them denials.
    let map = || {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))
    };
    map().map_err(|source| Missing {
        attempted: "become root in a user namespace",
        source,
        remedy: RESTRICTED.to_owned(),
    })?;
    let mount = || {
        sys::hide_mounts(Path::new("/"))?;
        sys::mount_tmpfs(Path::new("/run"))
    };
    mount().map_err(|source| Missing {
        attempted: "mount a /run of our own in a user namespace",
        source,
        remedy: RESTRICTED.to_owned(),
    })
}

const RESTRICTED: &str = "The system restricts what user namespaces may do (on Ubuntu: `sysctl \
    kernel.apparmor_restrict_unprivileged_userns=0`). As root it works in any case.";

fn disabled(error: &io::Error) -> String {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let clone = fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or_default();
    let cause = match (limit.trim(), clone.trim()) {
        ("0", _) => "user.max_user_namespaces is 0: no user namespaces on this system.",
        (_, "0") => "kernel.unprivileged_userns_clone is 0: only root may make user namespaces.",
        _ if error.kind() == io::ErrorKind::PermissionDenied => {
            "A security policy (or a container) forbids it."
        }
        _ => "The kernel may lack user namespaces.",
    };
    format!("{cause} As root it works without one.")
}
