//! The two sockets of an interface, each with its accept loop.

use std::net::SocketAddr;
use std::{future::Future, io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep};

use super::lines::Budget;
use super::sockets::{Access, SocketFile, listen};
use super::{ControlError, Request, conversation, events::Events, http::Web, scrape};

/// Clients of one socket at the same time; further ones wait in the kernel's backlog.
const CLIENTS: usize = 16;
/// A failure that goes on is said again after this.
const SILENCE: Duration = Duration::from_secs(10);

/// Serves both sockets of one interface until it is dropped; then their files are gone.
pub struct ControlServer {
    // In this order: first nobody is served any more, then the files go.
    loops: JoinSet<ControlError>,
    web: Web,
    metrics: Option<AbortHandle>,
    files: [SocketFile; 2],
    paths: [PathBuf; 2],
}

impl ControlServer {
    /// Opens `RUN_DIR/wireguard/NAME.sock` (what `wg` speaks) and `RUN_DIR/vpnd/NAME.sock` (HTTP), and serves
    /// them: what clients ask goes to `requests`. Fails if another process serves one of them, and says who.
    pub async fn serve(
        name: &str,
        run_dir: &Path,
        access: Access,
        requests: mpsc::Sender<Request>,
        events: Events,
    ) -> Result<ControlServer, ControlError> {
        let [wg, web] = super::folders(run_dir);
        let (wg, wg_file) = listen(&wg, name, access).await?;
        let (web, web_file) = listen(&web, name, access).await?;
        let paths = [wg_file.path().to_owned(), web_file.path().to_owned()];
        let mut loops = JoinSet::new();
        let (budget, asker) = (Budget::new(), requests.clone());
        loops.spawn(accept(wg, paths[0].clone(), move |stream| {
            conversation::converse(stream, asker.clone(), budget.clone())
        }));
        let web_answers = Web::new(requests, events);
        let answers = web_answers.clone();
        loops.spawn(accept(web, paths[1].clone(), move |stream| {
            answers.clone().asked_by(&stream).answer(stream)
        }));
        Ok(ControlServer { loops, web: web_answers, metrics: None, files: [wg_file, web_file], paths })
    }

    /// Answers `GET /metrics` at this address, too, and nothing else there; `None`: no longer. Says where.
    pub fn serve_metrics(&mut self, address: Option<SocketAddr>) -> Result<Option<SocketAddr>, ControlError> {
        let scrape = address.map(|address| scrape::listen(address, self.web.clone())).transpose()?;
        let bound = scrape.as_ref().map(|(bound, _)| *bound);
        if let Some(former) = self.metrics.take() {
            former.abort();
        }
        self.metrics = scrape.map(|(_, serving)| self.loops.spawn(serving));
        Ok(bound)
    }

    /// The two socket files: `wg`'s, and ours.
    pub fn paths(&self) -> &[PathBuf; 2] {
        &self.paths
    }

    /// Others may speak to both sockets from now on. After a failure `before` holds for both again, as far as may be.
    pub fn give(&self, access: Access, before: Access) -> Result<(), ControlError> {
        let given = self.files.iter().try_for_each(|file| file.give(access));
        if given.is_err() {
            for file in &self.files {
                let _ = file.give(before); // the first failure is the one to tell
            }
        }
        given
    }

    /// Resolves when a socket is no longer served: its accept loop failed, or a client's task panicked. It is
    /// safe to drop and call again.
    pub async fn failed(&mut self) -> ControlError {
        let why = loop {
            match self.loops.join_next().await {
                Some(Ok(error)) => return error,
                Some(Err(error)) if error.is_cancelled() => {} // metrics were moved elsewhere
                Some(Err(error)) => break cause(error),
                None => break "its task has ended".to_owned(),
            }
        };
        ControlError::Ended { path: self.paths[0].clone(), why }
    }
}

/// What clients come in at.
pub(super) trait Door: Send + 'static {
    type Client: Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Client>> + Send;
}

impl Door for UnixListener {
    type Client = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Serves clients, [`CLIENTS`] at a time, until the socket fails or a client's task panics.
pub(super) async fn accept<L: Door, F>(
    listener: L,
    path: PathBuf,
    serve: impl Fn(L::Client) -> F + Send + 'static,
) -> ControlError
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CLIENTS));
    let (mut clients, mut said) = (JoinSet::new(), None::<Instant>);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the places are never closed");
            listener.next().await.map(|stream| (stream, place))
        };
        tokio::select! {
            Some(ended) = clients.join_next() => {
                if let Err(error) = ended {
                    return ControlError::Ended { path, why: cause(error) };
                }
            }
            accepted = next => match accepted {
                Ok((stream, place)) => {
                    let served = serve(stream);
                    clients.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) if passes(&error) => {
                    if said.is_none_or(|said| said.elapsed() > SILENCE) {
                        tracing::warn!(%error, path = %path.display(), "cannot accept a control client yet");
                        said = Some(Instant::now());
                    }
                    sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return ControlError::Io { what: "accept clients at", path, error },
            },
        }
    }
}

/// Most errors of accept(2) are about one client, his network, or a shortage; these are about the socket.
fn passes(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT))
}

fn cause(error: JoinError) -> String {
    let panicked = match error.try_into_panic() {
        Ok(panicked) => panicked,
        Err(cancelled) => return cancelled.to_string(),
    };
    let text = panicked.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panicked.downcast_ref::<String>().cloned());
    format!("a task panicked: {}", text.unwrap_or_else(|| "without a word".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_while_a_client_is_served_ends_the_loop_and_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (listener, file) =
            listen(folder.path(), "vpn0", Access::default()).await.expect("nobody is there");
        let path = file.path().to_owned();
        let served = accept(listener, path.clone(), |_| async { panic!("served too much") });
        let served = tokio::spawn(served);
        let _client = UnixStream::connect(&path).await.expect("it listens");
        let error = served.await.expect("the loop itself does not panic").to_string();
        assert!(error.contains("served too much"), "{error}");
    }

    #[tokio::test]
    async fn further_clients_wait_until_one_leaves() {
        let folder = tempfile::tempdir().expect("a folder");
        let (listener, file) =
            listen(folder.path(), "vpn0", Access::default()).await.expect("nobody is there");
        let path = file.path().to_owned();
        let (told, mut served) = mpsc::channel(64);
        let serve = move |mut stream: UnixStream| {
            let told = told.clone();
            async move {
                told.send(()).await.expect("the test listens");
                let _ = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
            }
        };
        let _loop = tokio::spawn(accept(listener, path.clone(), serve));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS + 3 {
            clients.push(UnixStream::connect(&path).await.expect("it listens"));
        }
        for _ in 0..CLIENTS {
            served.recv().await.expect("the first ones are served");
        }
        let next = tokio::time::timeout(Duration::from_millis(100), served.recv()).await;
        assert!(next.is_err(), "one too many is served");
        clients.pop();
        clients.remove(0);
        served.recv().await.expect("the next one is served once the first has left");
    }
}
