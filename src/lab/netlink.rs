//! A netlink conversation inside a network namespace.

use std::{fs::File, io, os::fd::AsFd, panic::resume_unwind, thread};

use futures_util::TryStreamExt;
use rtnetlink::{Error, Handle, packet_route::link::LinkMessage};

use crate::sys;

/// Runs `work` in a thread inside the namespace that `namespace` refers to.
///
/// # Panics
/// When the thread cannot enter, which for an open namespace only a missing capability can cause.
pub(super) fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        sys::namespace::enter_network(namespace.as_fd()).unwrap_or_else(|e| panic!("enter a namespace: {e}"));
        work()
    };
    thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `work` with a netlink connection inside the namespace. A failure before the first request is told as
/// [`Error::NamespaceError`].
pub(super) fn converse<T: Send>(
    namespace: &File,
    work: impl AsyncFnOnce(Handle) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let broken = |e: io::Error| Error::NamespaceError(e.to_string());
    inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(broken)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(broken)?;
            tokio::spawn(connection);
            work(handle).await
        })
    })
}

/// The device `name`, with its counters.
pub(super) async fn link(handle: &Handle, name: &str) -> Result<LinkMessage, Error> {
    handle.link().get().match_name(name).execute().try_next().await?.ok_or(Error::RequestFailed)
}
