//! Questions to the daemons that run, over their sockets.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

/// A daemon that does not answer within this time does not work.
const PATIENCE: Duration = Duration::from_secs(10);

/// No answer is larger.
const ANSWER_BYTES: usize = 1 << 30;

/// No line of a stream is longer.
const LINE_BYTES: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no vpnd is running: nothing listens in {0}")]
    NoneRuns(PathBuf),
    #[error("no vpnd runs interface {name}: nothing listens at {socket}")]
    NotRunning { name: String, socket: PathBuf },
    #[error("several vpnd run: say which interface: {0}")]
    Several(String),
    #[error("cannot ask {socket}: permission denied; run as root")]
    Denied { socket: PathBuf },
    #[error("cannot read {path}: {error}")]
    Folder { path: PathBuf, error: io::Error },
    #[error("{0}")]
    Refused(String),
    #[error("{socket} gave no answer: {why}")]
    NoAnswer { socket: PathBuf, why: String },
}

/// The socket of one interface.
pub(super) fn socket(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join("vpnd").join(format!("{name}.sock"))
}

/// The sockets of all instances, in the order of their names.
pub(super) fn sockets(run_dir: &Path) -> Result<Vec<PathBuf>, AskError> {
    let folder = run_dir.join("vpnd");
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| AskError::Folder { path: folder.clone(), error })?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    found.sort();
    Ok(found)
}

/// The one instance that is meant: by name, or as there is only one.
pub(super) async fn the_one(run_dir: &Path, name: Option<&str>) -> Result<PathBuf, AskError> {
    if let Some(name) = name {
        return Ok(socket(run_dir, name));
    }
    let mut alive = Vec::new();
    for socket in sockets(run_dir)? {
        match connect(&socket).await {
            Err(AskError::NotRunning { .. }) => {} // left by a killed daemon
            _ => alive.push(socket),
        }
    }
    match alive.len() {
        0 => Err(AskError::NoneRuns(run_dir.join("vpnd"))),
        1 => Ok(alive.remove(0)),
        _ => Err(AskError::Several(alive.iter().map(|path| name_of(path)).collect::<Vec<_>>().join(", "))),
    }
}

/// The interface behind a socket.
pub(super) fn name_of(socket: &Path) -> String {
    socket.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A text as the value of a parameter.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// As whom the daemon runs.
pub(super) async fn user(socket: &Path) -> Result<u32, AskError> {
    let told = connect(socket).await?.peer_cred();
    told.map(|peer| peer.uid())
        .map_err(|error| AskError::NoAnswer { socket: socket.to_owned(), why: error.to_string() })
}

/// `GET path`, whole.
pub(super) async fn get(socket: &Path, path: &str) -> Result<Bytes, AskError> {
    match exchange(socket, hyper::Method::GET, path, PATIENCE).await? {
        (200, bytes) => Ok(bytes),
        (_, bytes) => Err(no_answer(socket, complaint(&bytes))),
    }
}

/// `POST path`, and its answer; a refusal is [`AskError::Refused`]. It may take so long.
pub(super) async fn post(socket: &Path, path: &str, patience: Duration) -> Result<Bytes, AskError> {
    match exchange(socket, hyper::Method::POST, path, patience).await? {
        (200, bytes) => Ok(bytes),
        (409, bytes) => Err(AskError::Refused(complaint(&bytes))),
        (_, bytes) => Err(no_answer(socket, complaint(&bytes))),
    }
}

/// A question, and its answer as a whole, with the code that it has.
async fn exchange(
    socket: &Path,
    method: hyper::Method,
    path: &str,
    patience: Duration,
) -> Result<(u16, Bytes), AskError> {
    let stream = connect(socket).await?;
    let whole = async {
        let (response, connection) = request(stream, method, path).await?;
        let code = response.status().as_u16();
        let bytes = Limited::new(response, ANSWER_BYTES).collect().await?.to_bytes();
        connection.abort();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((code, bytes))
    };
    match timeout(patience, whole).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(no_answer(socket, error.to_string())),
        Err(_) => Err(no_answer(socket, format!("nothing came for {} seconds", patience.as_secs()))),
    }
}

fn no_answer(socket: &Path, why: String) -> AskError {
    AskError::NoAnswer { socket: socket.to_owned(), why }
}

/// `GET path`, line by line as they come.
pub(super) async fn stream(socket: &Path, path: &str) -> Result<Lines, AskError> {
    let no_answer = |why: String| AskError::NoAnswer { socket: socket.to_owned(), why };
    let stream = connect(socket).await?;
    let (response, connection) = match timeout(PATIENCE, request(stream, hyper::Method::GET, path)).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => return Err(no_answer(error.to_string())),
        Err(_) => return Err(no_answer(format!("nothing came for {} seconds", PATIENCE.as_secs()))),
    };
    let connection = Connection(connection);
    let code = response.status().as_u16();
    if code != 200 {
        let said = Limited::new(response, LINE_BYTES).collect().await.map(|body| body.to_bytes());
        let said = said.map_or_else(|error| error.to_string(), |said| complaint(&said));
        return Err(match code {
            403 => AskError::Refused(said),
            _ => no_answer(said),
        });
    }
    Ok(Lines {
        body: response.into_body(),
        waiting: Vec::new(),
        socket: socket.to_owned(),
        _connection: connection,
    })
}

/// The `error` of an answer, or all of it.
fn complaint(answer: &[u8]) -> String {
    let told = serde_json::from_slice::<serde_json::Value>(answer).ok();
    let told = told.as_ref().and_then(|told| told.get("error")?.as_str());
    told.map_or_else(|| String::from_utf8_lossy(answer).trim_end().to_owned(), str::to_owned)
}

async fn connect(socket: &Path) -> Result<UnixStream, AskError> {
    let no_answer = |why: String| AskError::NoAnswer { socket: socket.to_owned(), why };
    match timeout(PATIENCE, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreachable_because(socket, &error)),
        Err(_) => Err(no_answer("it takes no more clients".to_owned())),
    }
}

fn unreachable_because(socket: &Path, error: &io::Error) -> AskError {
    let name = name_of(socket);
    let socket = socket.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning { name, socket },
        io::ErrorKind::PermissionDenied => AskError::Denied { socket },
        _ => AskError::NoAnswer { socket, why: error.to_string() },
    }
}

type Begun = (Response<Incoming>, JoinHandle<()>);

async fn request(stream: UnixStream, method: hyper::Method, path: &str) -> Result<Begun, hyper::Error> {
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async move {
        let _ = connection.await; // what went wrong is seen by who reads
    });
    let request =
        hyper::Request::builder().method(method).uri(path).header(HOST, "vpnd").body(Empty::<Bytes>::new());
    let request = request.expect("paths are ours, and their parameters encoded");
    Ok((client.send_request(request).await?, connection))
}

/// Ends with who reads from it.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lines as they come.
pub(super) struct Lines {
    body: Incoming,
    waiting: Vec<u8>,
    socket: PathBuf,
    _connection: Connection,
}

impl Lines {
    /// The next line, without its end; `None`: the daemon has closed in good order. It is safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<Option<String>, AskError> {
        let broken = |why: String| AskError::NoAnswer { socket: self.socket.clone(), why };
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let rest = self.waiting.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.waiting, rest);
                line.truncate(end);
                return String::from_utf8(line).map(Some).map_err(|error| broken(error.to_string()));
            }
            if self.waiting.len() > LINE_BYTES {
                return Err(broken("a line without an end".to_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(_)) => return Err(broken("the daemon has gone".to_owned())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.waiting.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// An answer, read as what it should be.
pub(super) fn read<T: serde::de::DeserializeOwned>(socket: &Path, json: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(json).map_err(|error| AskError::NoAnswer {
        socket: socket.to_owned(),
        why: format!("not a report: {error}; is it another version of vpnd?"),
    })
}
