//! Our own socket: the report is complete, stable, and holds no secret.

use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vpnd::forward::{Evidence, PeerId, Refusal, Time};
use vpnd::noise::{PresharedKey, PrivateKey, PublicKey};
use vpnd::tunnel::{AllowedIpOp, Change, PeerChange};

use super::fake::{self, Fake, Model, NAME};

/// Asks, and waits for all of the answer. (Who closes its half before has left, to the server.)
pub async fn raw(fake: &Fake, request_line: &str) -> String {
    let request = format!("{request_line} HTTP/1.1\r\nHost: vpnd\r\n\r\n");
    let mut stream = fake.connect("vpnd").await;
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and the end");
    answer
}

/// Asks, and splits the answer into its status code and its JSON.
pub async fn get(fake: &Fake, request_line: &str) -> (u16, Value) {
    let answer = raw(fake, request_line).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    (code, serde_json::from_str(body).expect("JSON"))
}

pub fn busy() -> Model {
    let private_key = Some(PrivateKey::new([b'p'; 32]));
    let mut model = Model { private_key, port: 51820, mark: 7, ..Model::default() };
    let mut peer = fake::peer(3, PublicKey([b'a'; 32]));
    peer.label = "laptop".to_owned();
    peer.endpoint = Some("192.0.2.7:1000".parse().expect("an address"));
    peer.local = Some("192.0.2.1".parse().expect("an address"));
    peer.preshared_key = Some(PresharedKey::new([b's'; 32]));
    peer.last_handshake = Some(Duration::from_millis(1_699_999_999_500));
    peer.session_age = Some(Duration::from_secs(179));
    peer.connected_since = Some(Duration::from_secs(1_699_999_000));
    (peer.rx_bytes, peer.tx_bytes, peer.rx_packets, peer.tx_packets) = (1, 2, 3, 4);
    (peer.persistent_keepalive, peer.staged, peer.attempts, peer.untaken) = (25, 5, 6, 7);
    (peer.expires, peer.expired) = (Some(Duration::from_millis(1_798_761_600_500)), true);
    model.peers.push(peer);
    let mut stale = fake::peer(4, PublicKey([b'b'; 32]));
    stale.session_age = Some(Duration::from_secs(180));
    model.peers.push(stale);
    let mut change = PeerChange::new(PublicKey([b'a'; 32]));
    change.allowed_ips.push(AllowedIpOp::Add("10.0.0.0/8".parse().expect("a prefix")));
    model.apply(Change::Peer(change)).expect("a peer takes a prefix");
    let stranger = Evidence {
        at: Time(80_000_000_000),
        from: Some("192.0.2.9:51820".parse().expect("an address")),
        key: Some(PublicKey([b'c'; 32])),
        ..Evidence::default()
    };
    let spoofed = Evidence {
        at: Time(90_000_000_000),
        peer: Some(PeerId(4)),
        inner: Some("10.0.0.9".parse().expect("an address")),
        owner: Some(PublicKey([b'a'; 32])),
        ..Evidence::default()
    };
    model.refusals = vec![
        (Refusal::UnknownKey, 3, Some(stranger)),
        (Refusal::SourceNotAllowed, 1, Some(spoofed)),
        (Refusal::Malformed, 2, None),
    ];
    model
}

#[tokio::test]
async fn the_report_has_the_documented_fields() {
    let fake = Fake::start_with(busy()).await;
    let (code, report) = get(&fake, "GET /v1/status").await;
    assert_eq!(code, 200);
    let expected = json!({
        "interface": NAME, "public_key": "pJ60kr88Oe4SPDqnx6jaP9Uaya0FimmiXuD3LqHv0XY=", "listen_port": 51820,
        "fwmark": 7, "mtu": 1420, "under_load": false, "mss_clamped": 0, "now": 1_700_000_000.0,
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&report[field], value, "{field}");
    }
    let expected = json!({
        "name": "laptop", "public_key": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=", "preshared": true,
        "endpoint": "192.0.2.7:1000", "local": "192.0.2.1", "connected": true, "connected_since": 1_699_999_000.0, "session_age_s": 179.0,
        "last_handshake": 1_699_999_999.5, "last_received_s": null, "rx_bytes": 1, "tx_bytes": 2, "rx_packets": 3,
        "tx_packets": 4, "allowed_ips": ["10.0.0.0/8"], "persistent_keepalive": 25, "expires": 1798761600.5,
        "expired": true, "staged": 5, "attempts": 6, "untaken": 7,
    });
    assert_eq!(report["peers"][0], expected);
    assert_eq!(report["peers"][1]["connected"], false, "a session of 180 s is dead");
    assert_eq!(report["peers"][1]["last_handshake"], Value::Null);
}

#[tokio::test]
async fn refusals_come_with_evidence_and_a_sentence() {
    let fake = Fake::start_with(busy()).await;
    let (_, report) = get(&fake, "GET /v1/status").await;
    let refusals = &report["refusals"];
    let stranger = "Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2M=";
    let expected = json!({
        "ago_s": 10.0, "from": "192.0.2.9:51820", "peer": null, "key": stranger, "inner": null, "owner": null,
    });
    assert_eq!(refusals[0]["reason"], "unknown_key");
    assert_eq!(refusals[0]["count"], 3);
    assert_eq!(refusals[0]["last"], expected);
    let text = refusals[0]["text"].as_str().expect("a sentence");
    let begin =
        format!("an initiation from the unknown key {stranger} came 3 times, last from 192.0.2.9:51820");
    assert!(text.to_lowercase().starts_with(&begin.to_lowercase()), "{text}");
    assert_eq!(refusals[1]["last"]["peer"], "peer4");
    assert_eq!(refusals[1]["last"]["owner"], "laptop");
    let text = refusals[1]["text"].as_str().expect("a sentence");
    assert!(text.contains("peer4") && text.contains("10.0.0.9") && text.contains("laptop"), "{text}");
    assert_eq!(refusals[2]["last"], Value::Null);
}

#[tokio::test]
async fn no_secret_stands_in_the_report() {
    let fake = Fake::start_with(busy()).await;
    let answer =
        fake.ask("vpnd", b"GET /v1/status HTTP/1.1\r\nHost: vpnd\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for secret in [[b'p'; 32], [b's'; 32]] {
        let base64 = base64::engine::general_purpose::STANDARD.encode(secret);
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!answer.contains(&base64) && !answer.to_lowercase().contains(&hex));
        assert!(!answer.contains(std::str::from_utf8(&secret).expect("ASCII")));
    }
}

#[tokio::test]
async fn other_paths_are_not_found_and_other_methods_not_allowed() {
    let fake = Fake::start().await;
    for path in ["/", "/v1", "/v1/status/", "/v2/status", "/v1/status/../x"] {
        let (code, json) = get(&fake, &format!("GET {path}")).await;
        assert_eq!((code, json["error"].is_string()), (404, true), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let (code, json) = get(&fake, &format!("{method} /v1/status")).await;
        assert_eq!((code, json["error"].is_string()), (405, true), "{method}");
    }
}

#[tokio::test]
async fn a_reload_and_a_confirmation_are_posted_and_their_answers_are_for_people() {
    let fake = Fake::start().await;
    let (code, json) = get(&fake, "POST /v1/reload?confirm=60").await;
    assert_eq!((code, json), (200, json!({ "changed": ["peer laptop: removed"], "confirm_within_s": 60 })));
    let (code, json) = get(&fake, "POST /v1/reload").await;
    assert_eq!((code, &json["confirm_within_s"]), (200, &Value::Null));
    assert_eq!(get(&fake, "POST /v1/confirm").await, (409, json!({ "error": "nothing waits" })));
    for query in ["?", "?confirm", "?confirm=0", "?confirm=86401", "?confirm=1&confirm=2", "?x=1"] {
        let (code, json) = get(&fake, &format!("POST /v1/reload{query}")).await;
        assert_eq!((code, json["error"].is_string()), (400, true), "{query}");
    }
    for path in ["/v1/reload", "/v1/confirm"] {
        assert_eq!(get(&fake, &format!("GET {path}")).await.0, 405, "a look must change nothing");
    }
}

#[tokio::test]
async fn garbage_and_endless_heads_are_refused() {
    let fake = Fake::start().await;
    for request in
        [b"\x16\x03\x01 hello\r\n\r\n".to_vec(), [&b"GET / HTTP/1.1\r\nA: "[..], &[b'a'; 100_000]].concat()]
    {
        let mut stream = fake.connect("vpnd").await;
        let _ = stream.write_all(&request).await; // it may be cut off
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(get(&fake, "GET /v1/status").await.0, 200);
}

#[tokio::test]
async fn a_head_that_never_ends_is_waited_for_a_few_seconds_only() {
    let fake = Fake::start().await;
    let mut stream = fake.connect("vpnd").await;
    stream.write_all(b"GET /v1/sta").await.expect("it is read");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the client is let go");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_daemon_that_has_gone_is_service_unavailable() {
    let run = tempfile::tempdir().expect("a run directory");
    let (requests, gone) = tokio::sync::mpsc::channel(1);
    drop(gone);
    let _server = vpnd::control::ControlServer::serve(
        NAME,
        run.path(),
        vpnd::control::Access::default(),
        requests,
        vpnd::control::events::Events::new(NAME),
    )
    .await
    .expect("nobody is there");
    let socket = run.path().join("vpnd").join(format!("{NAME}.sock"));
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("it answers");
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}
