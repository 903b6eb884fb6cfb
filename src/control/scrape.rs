//! Metrics over TCP, for a Prometheus that is not root on this host: `GET /metrics`, and nothing else. A stranger may
//! connect, so clients are few at a time and let go soon, as those of the local sockets are.

use std::{future::Future, io, net::SocketAddr, path::PathBuf};

use tokio::net::{TcpListener, TcpStream};

use super::ControlError;
use super::http::Web;
use super::server::{Door, accept};

/// Waiting connections that the kernel keeps for us.
const BACKLOG: i32 = 32;

impl Door for TcpListener {
    type Client = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Listens there; what is returned beside the address serves until it fails.
pub(super) fn listen(
    address: SocketAddr,
    web: Web,
) -> Result<(SocketAddr, impl Future<Output = ControlError> + Send + 'static), ControlError> {
    let failed = |error| ControlError::Metrics { address, error };
    let listener = open(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let web = web.metrics_alone();
    let serving =
        accept(listener, PathBuf::from(bound.to_string()), move |client| web.clone().answer(client));
    Ok((bound, serving))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // connections of before a restart may still be there
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
