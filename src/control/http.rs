//! One client of `/run/vpnd/NAME.sock`: one HTTP request, answered with JSON.

use std::{convert::Infallible, time::Duration};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Method, Request as HttpRequest, Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tracing::debug;

use super::schema::StatusReport;
use super::{Request, reload};

/// A request's head takes at most this long …
const HEAD: Duration = Duration::from_secs(5);
/// … and 16 KiB, …
const HEAD_BYTES: usize = 16 * 1024;
/// … and all of it, with the answer, at most this long.
const WHOLE: Duration = Duration::from_secs(30);

/// Answers one request and closes.
pub(super) async fn answer(stream: UnixStream, requests: mpsc::Sender<Request>) {
    let service = service_fn(|request| {
        let requests = requests.clone();
        async move { Ok::<_, Infallible>(route(request, &requests).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).keep_alive(false);
    match timeout(WHOLE, server.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "status client let go"),
        Err(_) => debug!("status client let go: too slow"),
    }
}

async fn route(request: HttpRequest<Incoming>, requests: &mpsc::Sender<Request>) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query());
    let wanted = match path {
        "/v1/reload" | "/v1/confirm" => Method::POST,
        _ => Method::GET,
    };
    if request.method() != wanted {
        let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {wanted} is answered here"));
        let allowed = wanted.as_str().parse().expect("a method is a header's value");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match path {
        "/v1/status" => status(requests).await,
        "/v1/reload" => json(reload::reload(query, requests).await),
        "/v1/confirm" => json(reload::confirm(requests).await),
        _ => error(StatusCode::NOT_FOUND, "nothing is here; ask for /v1/status"),
    }
}

fn json((code, value): reload::Answer) -> Response<Full<Bytes>> {
    respond(code, value.to_string().into_bytes())
}

async fn status(requests: &mpsc::Sender<Request>) -> Response<Full<Bytes>> {
    let Some(status) = super::status(requests).await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    };
    let report = StatusReport::from(&status);
    let text = serde_json::to_vec(&report).expect("a report has text keys and no other failures");
    respond(StatusCode::OK, text)
}

fn error(code: StatusCode, why: &str) -> Response<Full<Bytes>> {
    respond(code, serde_json::json!({ "error": why }).to_string().into_bytes())
}

fn respond(code: StatusCode, mut json: Vec<u8>) -> Response<Full<Bytes>> {
    json.push(b'\n');
    let response = Response::builder().status(code);
    let response = response.header(CONTENT_TYPE, "application/json").header(CACHE_CONTROL, "no-store");
    response.body(Full::new(Bytes::from(json))).expect("the headers are fixed and valid")
}
