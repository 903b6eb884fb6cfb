//! What can go wrong in a lab.

use std::io;

/// Why a lab, or a step in it, failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call or a netlink request: what was attempted, what came back.
    #[error("{attempted}: {source}")]
    System {
        /// Such as "make network namespace vpnd-lab-left".
        attempted: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A live process holds a host of this name.
    #[error("a lab with a host {name} is running at this moment; end it first")]
    Running {
        /// Of the host.
        name: String,
    },
    /// There is a namespace of this name that no lab made.
    #[error("the namespace {name} exists and was not made by a lab; `ip netns del {name}` removes it")]
    Foreign {
        /// Of the namespace.
        name: String,
    },
    /// A daemon ended before it was ready.
    #[error("vpnd on {host} ended before it was ready ({status}); it said:\n{log}")]
    Ended {
        /// Its namespace.
        host: String,
        /// Its exit status.
        status: String,
        /// Its standard error.
        log: String,
    },
    /// A daemon was not ready, or not gone, in time.
    #[error("vpnd on {host} was not {what} within {seconds} s; it said:\n{log}")]
    Late {
        /// Its namespace.
        host: String,
        /// "ready" or "gone".
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// Its standard error.
        log: String,
    },
    /// An answer could not be understood.
    #[error("{0}")]
    Unexpected(String),
}

impl LabError {
    /// The kernel's answer, if it was one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Says what was attempted when an [`io::Result`] failed.
pub(super) trait Attempted<T> {
    fn attempted(self, what: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T> Attempted<T> for io::Result<T> {
    fn attempted(self, what: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|source| LabError::System { attempted: what(), source })
    }
}

impl<T> Attempted<T> for Result<T, rtnetlink::Error> {
    fn attempted(self, what: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|error| {
            let source = match error {
                rtnetlink::Error::NetlinkError(message) => message.to_io(),
                other => io::Error::other(other.to_string()),
            };
            LabError::System { attempted: what(), source }
        })
    }
}
