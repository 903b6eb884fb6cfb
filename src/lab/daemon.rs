//! A vpnd on a host of the lab: started from a generated file, ready when this returns, gone with its owner.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    ops::Deref,
    os::unix::{
        fs::OpenOptionsExt,
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use super::{
    error::{Attempted, LabError},
    namespace::Namespace,
    process::Process,
    stopwatch::poll_until,
};

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The vpnd to run: `/proc/self/exe`, or `env!("CARGO_BIN_EXE_vpnd")` in a test.
    pub binary: PathBuf,
    /// Names its files on this host; two daemons on one host need two labels.
    pub label: String,
    /// The text of its `peer.toml`.
    pub config: String,
    /// More arguments, such as `--rekey-after 2`.
    pub arguments: Vec<String>,
    /// What it logs: error, warn, info, debug, trace.
    pub log: String,
    /// How long it may take to be ready.
    pub patience: Duration,
}

impl Setup {
    /// With the label `vpnd`, no more arguments, level info, and ten seconds to be ready.
    pub fn new(binary: impl Into<PathBuf>, config: impl Into<String>) -> Self {
        Self {
            binary: binary.into(),
            label: "vpnd".to_owned(),
            config: config.into(),
            arguments: Vec::new(),
            log: "info".to_owned(),
            patience: Duration::from_secs(10),
        }
    }
}

/// A running vpnd. Dereferences to its [`Process`]: `pid`, `log`, `kill9`, … Ended when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    config: PathBuf,
    run_dir: PathBuf,
}

impl Daemon {
    /// Starts it on `host` and waits until it says that it is ready (sd_notify(3)).
    pub fn start(host: &Namespace, setup: &Setup) -> Result<Self, LabError> {
        let file = |ending: &str| host.folder().join(format!("{}{ending}", setup.label));
        let (config, run_dir, notify) = (file(".toml"), file(".run"), file(".notify"));
        write_private(&config, &setup.config).attempted(|| format!("write {}", config.display()))?;
        fs::create_dir_all(&run_dir).attempted(|| format!("make folder {}", run_dir.display()))?;
        let readiness = listen(&notify).attempted(|| format!("listen on {}", notify.display()))?;
        let mut command = Command::new(&setup.binary);
        command.arg("--config").arg(&config).arg("--run-dir").arg(&run_dir).args(["--log", &setup.log]);
        command.arg("--state-dir").arg(file(".state"));
        command.args(&setup.arguments).env("NOTIFY_SOCKET", &notify);
        let process = host.spawn(&setup.label, command)?;
        let mut daemon = Self { process, config, run_dir };
        daemon.await_ready(&readiness, setup.patience)?;
        Ok(daemon)
    }

    /// Its `peer.toml`.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Where its control sockets are: `wireguard/NAME.sock` and `vpnd/NAME.sock`.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// `GET /v1/status` from its control socket for the device `name`.
    pub fn status(&self, name: &str) -> Result<serde_json::Value, LabError> {
        let socket = self.run_dir.join("vpnd").join(format!("{name}.sock"));
        let answer =
            ask(&socket, "/v1/status").attempted(|| format!("ask {} for its status", socket.display()))?;
        serde_json::from_slice(&answer)
            .map_err(|e| LabError::Unexpected(format!("status of vpnd on {}: {e}", self.namespace().name())))
    }

    /// Asks it to end (SIGTERM) and waits five seconds.
    pub fn stop(&mut self) -> Result<ExitStatus, LabError> {
        let limit = Duration::from_secs(5);
        self.process.terminate(limit).ok_or_else(|| self.late("gone", limit))
    }

    /// Ends it without a chance to clean up (SIGKILL).
    pub fn kill9(&mut self) -> ExitStatus {
        self.process.kill9()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits for it to end of itself, at most so long.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit)
    }

    fn await_ready(&mut self, readiness: &UnixDatagram, patience: Duration) -> Result<(), LabError> {
        let mut buffer = [0; 512];
        let ended = poll_until(patience, || {
            if readiness.recv(&mut buffer).is_ok_and(|length| says_ready(&buffer[..length])) {
                return Some(None);
            }
            self.process.ended().map(Some)
        });
        match ended {
            Some(None) => Ok(()),
            Some(Some(status)) => Err(LabError::Ended {
                host: self.namespace().name().to_owned(),
                status: status.to_string(),
                log: self.log(),
            }),
            None => Err(self.late("ready", patience)),
        }
    }

    fn late(&self, what: &'static str, limit: Duration) -> LabError {
        let host = self.namespace().name().to_owned();
        LabError::Late { host, what, seconds: limit.as_secs(), log: self.log() }
    }
}

impl Deref for Daemon {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
}

/// Keys stand in it: nobody else may ever have had it open.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn listen(path: &Path) -> io::Result<UnixDatagram> {
    let _ = fs::remove_file(path); // of the daemon before this one
    let socket = UnixDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One HTTP request over a unix socket; the body of the answer.
fn ask(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    // HTTP/1.0: the answer is not chunked and ends with the connection.
    let question = format!("GET {path} HTTP/1.0\r\nHost: vpnd\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(64 << 20).read_to_end(&mut answer)?;
    body(&answer).map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("not an HTTP answer of status 200"))
}

fn body(answer: &[u8]) -> Option<&[u8]> {
    let ok = answer.starts_with(b"HTTP/1.") && answer.get(9..12)? == b"200";
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    ok.then(|| &answer[end + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_a_line_of_its_own() {
        assert!(says_ready(b"STATUS=up\nREADY=1\nMAINPID=4"));
        assert!(!says_ready(b"STATUS=not yet READY=1"));
    }

    #[test]
    fn only_a_good_answer_has_a_body() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some(&b"{}"[..]));
        assert_eq!(body(b"HTTP/1.0 404 Not Found\r\n\r\n{}"), None);
        assert_eq!(body(b"HTTP/1.0 200 OK\r\n"), None);
    }
}
