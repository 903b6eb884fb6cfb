//! What the kernel's answer means to an operator.

use super::{HostError, exchange::Refused};

impl HostError {
    /// With the remedy for what the errno alone says, and the kernel's own reason.
    pub(super) fn new(attempted: impl Into<String>, refused: Refused) -> Self {
        let remedy = general_remedy(refused.errno()).map(str::to_owned);
        Self::with_remedy(attempted, refused, remedy)
    }

    /// With a remedy that knows what was attempted.
    pub(super) fn with_remedy(
        attempted: impl Into<String>,
        refused: Refused,
        remedy: Option<String>,
    ) -> Self {
        let reason = refused.reason.map(|reason| format!("the kernel says: {reason}"));
        let remedy = match (reason, remedy) {
            (Some(reason), Some(remedy)) => Some(format!("{reason}; {remedy}")),
            (reason, remedy) => reason.or(remedy),
        };
        Self { attempted: attempted.into(), source: refused.error, remedy }
    }
}

pub(super) const IPV6_IS_OFF: &str = "IPv6 is disabled on this host or device: set the sysctls \
    net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 to 0 (and boot without \
    ipv6.disable=1), or take the IPv6 addresses and prefixes out of the file";

pub(super) fn general_remedy(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM => "needs CAP_NET_ADMIN: run as root, or give the service that capability",
        libc::ENODEV => "there is no such device in this network namespace: it was deleted, renamed or moved",
        libc::EEXIST => "it is there already, and not ours: remove it, or choose another in the file",
        libc::ENETDOWN => "the device is down: something else sets it down",
        libc::ENOBUFS | libc::ENOMEM => "the kernel is out of memory for this: raise net.core.rmem_max",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused(errno: i32, reason: Option<&str>) -> Refused {
        Refused { error: io::Error::from_raw_os_error(errno), reason: reason.map(str::to_owned) }
    }

    #[test]
    fn an_error_says_what_was_attempted_what_came_back_and_what_to_do() {
        let text = HostError::new("set link vpn0 up", refused(libc::EPERM, Some("no way"))).to_string();
        assert!(text.starts_with("set link vpn0 up: Operation not permitted"), "{text}");
        assert!(text.contains("(the kernel says: no way; needs CAP_NET_ADMIN"), "{text}");
    }

    #[test]
    fn an_errno_without_a_remedy_stands_alone() {
        let text = HostError::new("x", refused(libc::EINVAL, None)).to_string();
        assert_eq!(text, "x: Invalid argument (os error 22)");
    }
}
