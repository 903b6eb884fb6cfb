//! The control sockets. `/run/wireguard/NAME.sock` speaks the WireGuard cross-platform UAPI, so that `wg`
//! works; `/run/vpnd/NAME.sock` speaks HTTP with JSON. Both turn bytes into a [`Request`] for the daemon.
//!
//! ```text
//! wg ─── sockets ─── server ─┬─ conversation ─ lines ─ uapi ─┬─ Request ─── the daemon
//! vpnd status ───────────────┴─ http ─ schema ─ explain ─────┤
//! vpnd reload ───────────────── http ─ reload ───────────────┘
//! ```

mod conversation;
mod explain;
mod http;
mod lines;
mod reload;
pub mod request;
pub mod schema;
mod server;
mod sockets;
pub mod uapi;

pub use request::{InterfaceStatus, NotReloaded, Operation, Reloaded, Request, SetError};
pub use server::ControlServer;
pub use sockets::{Access, ControlError, Holder};

/// Asks the daemon for everything; `None` if it is gone.
async fn status(requests: &tokio::sync::mpsc::Sender<Request>) -> Option<InterfaceStatus> {
    let (answer, status) = tokio::sync::oneshot::channel();
    requests.send(Request::Get(answer)).await.ok()?;
    status.await.ok()
}
