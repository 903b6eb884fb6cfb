//! One client of `/run/vpnd/NAME.sock`: one HTTP request, answered with JSON, lines of JSON, or metrics.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Method, Request as HttpRequest, Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::events::{Events, Listener};
use super::query::Query;
use super::samples::SampleReport;
use super::schema::{PeerReport, StatusReport};
use super::{AskedTrace, NoTrace, Request, metrics, reload, trace};
use crate::forward::Time;

/// A request's head takes at most this long …
const HEAD: Duration = Duration::from_secs(5);
/// … and 16 KiB, …
const HEAD_BYTES: usize = 16 * 1024;
/// … and all of it, with the answer, at most this long; but for a stream of events, which ends when its reader does.
const WHOLE: Duration = Duration::from_secs(30);
/// Streams of events at the same time: half of the clients, so that a status is to be had all the same.
const STREAMS: usize = 8;
/// Events that wait go out together, up to about this much.
const PIECE: usize = 16 * 1024;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What an answer is made of.
#[derive(Clone)]
pub(super) struct Web {
    requests: mpsc::Sender<Request>,
    events: Events,
    streams: Arc<Semaphore>,
    /// Over TCP there is nothing but metrics.
    metrics_alone: bool,
    /// Is it root who asks?
    by_root: bool,
}

impl Web {
    pub(super) fn new(requests: mpsc::Sender<Request>, events: Events) -> Self {
        Self {
            requests,
            events,
            streams: Arc::new(Semaphore::new(STREAMS)),
            metrics_alone: false,
            by_root: false,
        }
    }

    /// The same, for strangers.
    pub(super) fn metrics_alone(self) -> Self {
        Self { metrics_alone: true, ..self }
    }

    /// The same, for this client of the control socket.
    pub(super) fn asked_by(self, client: &UnixStream) -> Self {
        let by_root = client.peer_cred().is_ok_and(|who| who.uid() == 0);
        Self { by_root, ..self }
    }

    /// Answers one request and closes.
    pub(super) async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let streaming = Notify::new();
        let service = service_fn(|request| {
            let (web, streaming) = (self.clone(), &streaming);
            async move { Ok::<_, Infallible>(web.route(request, streaming).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).keep_alive(false);
        let exchange = server.serve_connection(TokioIo::new(stream), service);
        let too_slow = async {
            if timeout(WHOLE, streaming.notified()).await.is_ok() {
                std::future::pending().await // it may take as long as it likes
            }
        };
        tokio::select! {
            done = exchange => if let Err(error) = done {
                debug!(%error, "HTTP client let go");
            },
            () = too_slow => debug!("HTTP client let go: too slow"),
        }
    }

    async fn route(&self, request: HttpRequest<Incoming>, streaming: &Notify) -> Response<Body> {
        let path = request.uri().path();
        let wanted = match path {
            "/v1/reload" | "/v1/confirm" if !self.metrics_alone => Method::POST,
            _ => Method::GET,
        };
        if request.method() != wanted {
            let mut refused =
                error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {wanted} is answered here"));
            let allowed = wanted.as_str().parse().expect("a method is a header's value");
            refused.headers_mut().insert(ALLOW, allowed);
            return refused;
        }
        if self.metrics_alone && path != "/metrics" {
            return error(StatusCode::NOT_FOUND, "nothing is here but /metrics");
        }
        match path {
            "/v1/reload" => return outcome(reload::reload(request.uri().query(), &self.requests).await),
            "/v1/confirm" => return outcome(reload::confirm(&self.requests).await),
            _ => {}
        }
        let query = match Query::read(request.uri().query()) {
            Ok(query) => query,
            Err(why) => return error(StatusCode::BAD_REQUEST, &why),
        };
        match path {
            "/v1/status" => self.status().await,
            "/v1/peer" => self.peer(query).await,
            "/v1/samples" => self.samples(&query).await,
            "/v1/events" => self.stream_events(query, streaming),
            "/v1/trace" => self.trace(&query, streaming).await,
            "/metrics" => self.metrics().await,
            _ => error(
                StatusCode::NOT_FOUND,
                "nothing is here; ask for /v1/status, /v1/peer, /v1/samples, /v1/events, /v1/trace or /metrics",
            ),
        }
    }

    async fn status(&self) -> Response<Body> {
        match super::status(&self.requests).await {
            Some(status) => json(&StatusReport::from(&status)),
            None => stopping(),
        }
    }

    async fn peer(&self, query: Query) -> Response<Body> {
        let Some(about) = query.peer else {
            return error(StatusCode::BAD_REQUEST, "which peer? ask for /v1/peer?peer=NAME-OR-KEY");
        };
        let (answer, peer) = oneshot::channel();
        if self.requests.send(Request::Peer(about, answer)).await.is_err() {
            return stopping();
        }
        match peer.await {
            Ok(Some(peer)) => json(&PeerReport::from(&peer)),
            Ok(None) => error(StatusCode::NOT_FOUND, "there is no such peer"),
            Err(_gone) => stopping(),
        }
    }

    async fn samples(&self, query: &Query) -> Response<Body> {
        let since = match query.since::<u64>() {
            Ok(since) => since,
            Err(why) => return error(StatusCode::BAD_REQUEST, &why),
        };
        match super::sample(&self.requests, since.map(Time).zip(query.generation)).await {
            Some(sample) => json(&SampleReport::from(&sample)),
            None => stopping(),
        }
    }

    async fn metrics(&self) -> Response<Body> {
        let Some(sample) = super::sample(&self.requests, None).await else { return stopping() };
        let text = metrics::render(&sample, &self.events).await;
        respond(StatusCode::OK, metrics::CONTENT_TYPE, text.into_bytes())
    }

    async fn trace(&self, query: &Query, streaming: &Notify) -> Response<Body> {
        let wanted = match trace::wanted(query) {
            Ok(wanted) => wanted,
            Err(why) => return error(StatusCode::BAD_REQUEST, &why),
        };
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            return error(StatusCode::SERVICE_UNAVAILABLE, "as many listen as may");
        };
        let (answer, tracing) = oneshot::channel();
        let asked = AskedTrace { wanted, renew: query.renew, by_root: self.by_root };
        if self.requests.send(Request::Trace(asked, answer)).await.is_err() {
            return stopping();
        }
        let tracing = match tracing.await {
            Ok(Ok(tracing)) => tracing,
            Ok(Err(why @ (NoTrace::TooMany | NoTrace::NoDescriptor(_)))) => {
                return error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string());
            }
            Ok(Err(why)) => return error(StatusCode::FORBIDDEN, &why.to_string()),
            Err(_gone) => return stopping(),
        };
        streaming.notify_one();
        let frames = futures_util::stream::unfold((tracing, place), |(mut tracing, place)| async {
            let text = tracing.lines().await?;
            Some((Ok::<_, Infallible>(Frame::data(text)), (tracing, place)))
        });
        headed(StatusCode::OK, "application/x-ndjson", BodyExt::boxed_unsync(StreamBody::new(frames)))
    }

    fn stream_events(&self, query: Query, streaming: &Notify) -> Response<Body> {
        let since = match query.since::<f64>() {
            Ok(since) => since,
            Err(why) => return error(StatusCode::BAD_REQUEST, &why),
        };
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            return error(StatusCode::SERVICE_UNAVAILABLE, "as many listen to events as may");
        };
        streaming.notify_one();
        let listener = self.events.listen(since, query.peer);
        let state = Some((listener, place, query.follow));
        let frames = futures_util::stream::unfold(state, |state| async {
            let (mut listener, place, follow) = state?;
            let text = lines(&mut listener, follow).await?;
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
            Some((frame, Some::<(Listener, OwnedSemaphorePermit, bool)>((listener, place, follow))))
        });
        headed(StatusCode::OK, "application/x-ndjson", BodyExt::boxed_unsync(StreamBody::new(frames)))
    }
}

/// What waits, or what comes next; `None`: that was all.
async fn lines(listener: &mut Listener, follow: bool) -> Option<Vec<u8>> {
    let mut next = match listener.poll() {
        Some(event) => event,
        None if follow => listener.next().await?,
        None => return None,
    };
    let mut text = Vec::new();
    loop {
        serde_json::to_writer(&mut text, next.as_ref())
            .expect("an event has text keys and no other failures");
        text.push(b'\n');
        if text.len() >= PIECE {
            return Some(text);
        }
        next = match listener.poll() {
            Some(event) => event,
            None => return Some(text),
        };
    }
}

fn stopping() -> Response<Body> {
    error(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
}

fn error(code: StatusCode, why: &str) -> Response<Body> {
    let text = serde_json::json!({ "error": why }).to_string();
    respond(code, "application/json", (text + "\n").into_bytes())
}

fn outcome((code, answer): reload::Answer) -> Response<Body> {
    respond(code, "application/json", format!("{answer}\n").into_bytes())
}

fn json(report: &impl serde::Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec(report).expect("a report has text keys and no other failures");
    text.push(b'\n');
    respond(StatusCode::OK, "application/json", text)
}

fn respond(code: StatusCode, kind: &'static str, text: Vec<u8>) -> Response<Body> {
    headed(code, kind, BodyExt::boxed_unsync(Full::new(Bytes::from(text))))
}

fn headed(code: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let response = Response::builder().status(code);
    let response = response.header(CONTENT_TYPE, kind).header(CACHE_CONTROL, "no-store");
    response.body(body).expect("the headers are fixed and valid")
}
