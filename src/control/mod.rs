//! The control sockets. `/run/wireguard/NAME.sock` speaks the WireGuard cross-platform UAPI, so that `wg`
//! works; `/run/vpnd/NAME.sock` speaks HTTP with JSON. Both turn bytes into a [`Request`] for the daemon.
//!
//! ```text
//! wg ─── sockets ─── server ─┬─ conversation ─ lines ─ uapi ────────┬─ Request ─── the daemon
//! vpnd status ───────────────┼─ http ─┬─ schema ─ explain, samples ─┤
//! vpnd trace ────────────────── http ─── trace ◄───────────────────── the data threads
//! vpnd reload ───────────────┤        ├─ reload ────────────────────┤
//! Prometheus ─────── scrape ─┘        ├─ metrics ───────────────────┘
//! vpnd events ───────────────── http ─┴─ events ◄──────────────────── the daemon
//! ```

mod conversation;
pub mod events;
mod explain;
mod http;
mod lines;
mod metrics;
mod query;
mod reload;
pub mod request;
pub mod samples;
pub mod schema;
mod scrape;
mod server;
mod sockets;
mod trace;
pub mod uapi;

pub use request::{
    AskedTrace, InterfaceSample, InterfaceStatus, NoTrace, NotReloaded, Operation, Reloaded, Request,
    Sandbox, SetError,
};
pub use server::ControlServer;
pub use sockets::{Access, ControlError, Holder, make_folder};
pub use trace::{News as NewsOfTrace, Tracing};

/// Where the sockets of all interfaces are: those that `wg` knows, and our own.
pub fn folders(run_dir: &std::path::Path) -> [std::path::PathBuf; 2] {
    ["wireguard", "vpnd"].map(|name| run_dir.join(name))
}

/// Asks the daemon for everything; `None` if it is gone.
async fn status(requests: &tokio::sync::mpsc::Sender<Request>) -> Option<InterfaceStatus> {
    let (answer, status) = tokio::sync::oneshot::channel();
    requests.send(Request::Get(answer)).await.ok()?;
    status.await.ok()
}

/// Asks the daemon for the figures; `None` if it is gone.
async fn sample(
    requests: &tokio::sync::mpsc::Sender<Request>,
    known: Option<(crate::forward::Time, u64)>,
) -> Option<InterfaceSample> {
    let (answer, sample) = tokio::sync::oneshot::channel();
    requests.send(Request::Sample(known, answer)).await.ok()?;
    sample.await.ok()
}
