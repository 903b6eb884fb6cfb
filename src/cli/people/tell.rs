//! Has a running daemon read its file again: `POST /v1/reload`.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::Held;

/// A daemon that does not answer within this time does not work.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer is larger.
const ANSWER_BYTES: usize = 1 << 20;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Reloaded,
    NobodyRuns,
    Refused(String),
}

/// The file was altered: the running daemon is to follow it. Says what came of it on standard error.
pub(super) fn reload(command: &str, run_dir: &Path, held: &Held) -> ExitCode {
    let name = &held.config.interface.name;
    let socket = run_dir.join("vpnd").join(format!("{name}.sock"));
    match ask(&socket) {
        Told::Reloaded => {
            eprintln!("vpnd {command}: the running {name} follows it");
            ExitCode::SUCCESS
        }
        Told::NobodyRuns => {
            eprintln!(
                "vpnd {command}: no vpnd runs {name} now; it will know when it starts: {}",
                start(held)
            );
            ExitCode::SUCCESS
        }
        Told::Refused(why) => {
            let path = held.path.display();
            eprintln!("vpnd {command}: {path} is altered, and the running {name} does not follow it: {why}");
            eprintln!("vpnd {command}: restart it when you have seen to that: {}", restart(held));
            ExitCode::FAILURE
        }
    }
}

/// The instance of the unit that runs this file.
fn instance(held: &Held) -> Option<String> {
    let (folder, stem) = (held.path.parent()?, held.path.file_stem()?.to_str()?);
    (folder == Path::new("/etc/vpnd")).then(|| format!("vpnd@{stem}"))
}

fn start(held: &Held) -> String {
    instance(held).map_or_else(
        || format!("`vpnd --config {}`", held.path.display()),
        |instance| format!("`systemctl start {instance}`"),
    )
}

fn restart(held: &Held) -> String {
    instance(held).map_or_else(|| start(held), |instance| format!("`systemctl restart {instance}`"))
}

fn ask(socket: &Path) -> Told {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Told::Refused(format!("cannot start the runtime: {error}")),
    };
    runtime.block_on(async {
        match timeout(PATIENCE, exchange(socket.to_owned())).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => Told::Refused(error.to_string()),
            Err(_) => {
                Told::Refused(format!("nothing came from {} for {} s", socket.display(), PATIENCE.as_secs()))
            }
        }
    })
}

async fn exchange(socket: PathBuf) -> Result<Told, Box<dyn std::error::Error + Send + Sync>> {
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Told::NobodyRuns);
        }
        Err(error) => return Ok(Told::Refused(format!("cannot ask {}: {error}", socket.display()))),
    };
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::post("/v1/reload").header(HOST, "vpnd").body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = client.send_request(request).await?;
        let good = response.status().is_success();
        let body = Limited::new(response, ANSWER_BYTES).collect().await?.to_bytes();
        Ok(if good { Told::Reloaded } else { Told::Refused(reason(&body)) })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end before its answer has been read.
        _ = connection => answer.await,
    }
}

/// `{"error": "…"}`, or the answer as it is.
fn reason(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let told = json.as_ref().and_then(|json| json["error"].as_str()).map(str::to_owned);
    told.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        thread,
    };

    use super::*;

    /// What is told of a daemon that answers so, and what it was asked.
    fn told(answer: &'static str) -> (Told, String) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vpn0.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        (ask(&socket), daemon.join().unwrap())
    }

    #[test]
    fn a_daemon_is_asked_to_reload_and_its_answer_is_told() {
        let (answer, asked) = told("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n");
        assert_eq!(answer, Told::Reloaded);
        assert!(asked.starts_with("POST /v1/reload HTTP/1.1\r\n"), "{asked}");
        let (answer, _) = told("HTTP/1.1 409 Conflict\r\nContent-Length: 18\r\n\r\n{\"error\":\"line 3\"}");
        assert_eq!(answer, Told::Refused("line 3".to_owned()));
        let (answer, _) = told("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nwhat");
        assert_eq!(answer, Told::Refused("what".to_owned()));
    }

    #[test]
    fn a_socket_that_nobody_serves_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ask(&folder.path().join("vpn0.sock")), Told::NobodyRuns);
        drop(UnixListener::bind(folder.path().join("left.sock")).unwrap());
        assert_eq!(ask(&folder.path().join("left.sock")), Told::NobodyRuns);
    }
}
