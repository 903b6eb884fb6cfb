//! Metrics: read by a parser of Prometheus' own format, bounded in number, to be had over TCP.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_parse::{Scrape, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vpnd::control::events::What;
use vpnd::noise::PublicKey;

use super::fake::{self, Fake, Model, NAME};
use super::http::{busy, raw};

async fn scrape(fake: &Fake) -> String {
    let answer = raw(fake, "GET /metrics").await;
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    text.to_owned()
}

fn parse(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("it is the format")
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Counter(number) | Value::Gauge(number) | Value::Untyped(number) => *number,
        other => panic!("{other:?}"),
    }
}

/// The value of the one sample with this name and label.
fn value(scrape: &Scrape, name: &str, label: (&str, &str)) -> Option<f64> {
    let found =
        scrape.samples.iter().find(|one| one.metric == name && one.labels.get(label.0) == Some(label.1));
    found.map(|found| number(&found.value))
}

#[tokio::test]
async fn figures_have_the_names_units_and_types_of_prometheus_conventions() {
    let fake = Fake::start_with(busy()).await;
    fake.events.record(1.0, None, What::Silent);
    let text = scrape(&fake).await;
    let read = parse(&text);
    let laptop = ("peer", "laptop");
    assert_eq!(value(&read, "vpnd_peer_received_bytes_total", laptop), Some(1.0));
    assert_eq!(value(&read, "vpnd_peer_sent_bytes_total", laptop), Some(2.0));
    assert_eq!(value(&read, "vpnd_peer_connected", laptop), Some(1.0));
    assert_eq!(value(&read, "vpnd_peer_last_handshake_timestamp_seconds", laptop), Some(1_699_999_999.5));
    assert_eq!(value(&read, "vpnd_peer_last_handshake_timestamp_seconds", ("peer", "peer4")), None);
    assert_eq!(value(&read, "vpnd_peers_connected", ("interface", NAME)), Some(1.0));
    assert_eq!(value(&read, "vpnd_refused_total", ("reason", "unknown_key")), Some(3.0));
    assert_eq!(value(&read, "vpnd_refused_total", ("reason", "replayed")), Some(0.0), "there from the start");
    assert_eq!(value(&read, "vpnd_events_total", ("event", "silent")), Some(1.0));
    assert_eq!(value(&read, "vpnd_mss_clamped_total", ("interface", NAME)), Some(3.0));
    let mut kinds = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('#')) {
        let mut words = line.split(' ').skip(1);
        let (what, name) = (words.next().expect("HELP or TYPE"), words.next().expect("a name"));
        assert!(name.starts_with("vpnd_") && words.next().is_some(), "{line}");
        if what == "TYPE" {
            let kind = line.rsplit(' ').next().expect("a type");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        assert!(kinds.contains_key(name), "{line}: no type");
    }
}

#[tokio::test]
async fn a_peer_without_a_name_or_with_anothers_is_told_by_its_whole_key_and_odd_names_are_escaped() {
    let mut model = Model::default();
    for (id, name) in [(1, None), (2, Some("a\"b\\c\nd")), (3, Some("twin")), (4, Some("twin"))] {
        let mut peer = fake::peer(id, PublicKey([id as u8; 32]));
        peer.label = name.map_or(peer.public_key.short(), str::to_owned);
        peer.rx_bytes = id;
        model.peers.push(peer);
    }
    let fake = Fake::start_with(model).await;
    let text = scrape(&fake).await;
    // The parser ends a label at the '=' of a key, and knows no backslash: so these are read as they stand.
    let told = |peer: &str, value: u64| {
        let line =
            format!("vpnd_peer_received_bytes_total{{interface=\"{NAME}\",peer=\"{peer}\"}} {value}\n");
        assert!(text.contains(&line), "{line}: {text}");
    };
    told(&PublicKey([1; 32]).to_string(), 1);
    told(r#"a\"b\\c\nd"#, 2);
    told("twin", 3);
    told(&PublicKey([4; 32]).to_string(), 4);
}

#[tokio::test]
async fn more_peers_than_may_be_told_are_counted_as_left_out() {
    let mut model = Model::default();
    for id in 0..5003_u64 {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&id.to_le_bytes());
        model.peers.push(fake::peer(id, PublicKey(key)));
    }
    let fake = Fake::start_with(model).await;
    let read = parse(&scrape(&fake).await);
    let own = ("interface", NAME);
    assert_eq!(value(&read, "vpnd_peers", own), Some(5003.0));
    assert_eq!(value(&read, "vpnd_peers_left_out", own), Some(3.0));
    let told = read.samples.iter().filter(|one| one.metric == "vpnd_peer_connected").count();
    assert_eq!(told, 5000);
}

/// What an optimised build is held to, and what this one is where it is none, on a machine that does other things.
const SCRAPE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2000 } else { 50 });

#[tokio::test]
async fn two_thousand_peers_are_scraped_in_no_time() {
    let mut model = Model::default();
    for id in 0..2000_u64 {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&id.to_le_bytes());
        model.peers.push(fake::peer(id, PublicKey(key)));
    }
    let fake = Fake::start_with(model).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let begun = tokio::time::Instant::now();
        let text = scrape(&fake).await;
        took.push(begun.elapsed());
        assert!(text.len() > 500_000, "{}", text.len());
    }
    println!("{took:?}");
    assert!(took.iter().min() < Some(&SCRAPE), "{took:?}");
}

#[tokio::test]
async fn over_tcp_there_are_metrics_and_nothing_else() {
    let mut fake = Fake::start_with(busy()).await;
    // A port that is free now; nobody else in this test's process takes it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is bound");
    let at = fake.server.serve_metrics(Some(free)).expect("it is free").expect("an address");
    let get = |path: &'static str| async move {
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        stream.write_all(format!("{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer, and the end");
        answer
    };
    let answer = get("GET /metrics").await;
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(value(&parse(text), "vpnd_peers", ("interface", NAME)), Some(2.0));
    for path in ["GET /v1/status", "GET /v1/events", "GET /"] {
        assert!(get(path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    assert!(get("POST /metrics").await.starts_with("HTTP/1.1 405"));
    let taken = fake.server.serve_metrics(Some(at)).expect_err("it listens there itself").to_string();
    assert!(taken.contains("metrics_listen"), "{taken}");
    fake.server.serve_metrics(None).expect("nothing to bind");
    tokio::time::timeout(Duration::from_secs(5), async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is no longer served");
    assert!(
        tokio::time::timeout(Duration::from_millis(50), fake.server.failed()).await.is_err(),
        "nothing failed"
    );
}

#[tokio::test]
async fn idle_clients_over_tcp_are_let_go_and_keep_nobody_out() {
    let mut fake = Fake::start_with(busy()).await;
    let free = std::net::TcpListener::bind("[::1]:0").expect("a port").local_addr().expect("it is bound");
    let at = fake.server.serve_metrics(Some(free)).expect("it is free").expect("an address");
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(at).await.expect("it listens, or the kernel does"));
    }
    let scrape = async {
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer, and the end");
        answer
    };
    let answer =
        tokio::time::timeout(Duration::from_secs(20), scrape).await.expect("idle ones went after 5 s");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
