//! `POST /v1/reload` and `POST /v1/confirm`.

use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::{NotReloaded, Reloaded, Request};

/// The longest time that a reload may wait for its confirmation.
const LONGEST: u64 = 86_400;

/// An answer in JSON.
pub(super) type Answer = (StatusCode, serde_json::Value);

/// `query`: `confirm=60`, or nothing.
pub(super) async fn reload(query: Option<&str>, requests: &mpsc::Sender<Request>) -> Answer {
    let confirm = match query.map(confirm_within) {
        None => None,
        Some(Some(seconds)) => Some(Duration::from_secs(seconds)),
        Some(None) => return refused(StatusCode::BAD_REQUEST, "say nothing, or confirm=SECONDS, 1 to 86400"),
    };
    let (answer, done) = oneshot::channel();
    let asked = requests.send(Request::Reload(confirm, answer)).await.is_ok();
    match (asked, done.await) {
        (true, Ok(outcome)) => told(outcome),
        _ => gone(),
    }
}

pub(super) async fn confirm(requests: &mpsc::Sender<Request>) -> Answer {
    let (answer, done) = oneshot::channel();
    let asked = requests.send(Request::Confirm(answer)).await.is_ok();
    match (asked, done.await) {
        (true, Ok(outcome)) => told(outcome.map(|()| Reloaded::default())),
        _ => gone(),
    }
}

fn confirm_within(query: &str) -> Option<u64> {
    let seconds = query.strip_prefix("confirm=")?.parse().ok()?;
    (1..=LONGEST).contains(&seconds).then_some(seconds)
}

fn told(outcome: Result<Reloaded, NotReloaded>) -> Answer {
    match outcome {
        Ok(done) => (StatusCode::OK, serde_json::json!(done)),
        Err(NotReloaded(why)) => refused(StatusCode::CONFLICT, &why),
    }
}

fn gone() -> Answer {
    refused(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
}

fn refused(code: StatusCode, why: &str) -> Answer {
    (code, serde_json::json!({ "error": why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_confirm_is_from_a_second_to_a_day() {
        assert_eq!(confirm_within("confirm=60"), Some(60));
        for wrong in ["confirm=0", "confirm=86401", "confirm=-1", "confirm=", "60", "confirm=1&confirm=2"] {
            assert_eq!(confirm_within(wrong), None, "{wrong}");
        }
    }
}
