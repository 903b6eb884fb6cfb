//! Events over HTTP: as they come, what was before, one peer's alone, and readers that are slow or gone.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use vpnd::control::events::{What, Who};
use vpnd::noise::PublicKey;

use super::fake::Fake;
use super::http::{get, raw};

const LONG: Duration = Duration::from_secs(20);

/// A reader of events.
struct Reader(BufReader<UnixStream>);

impl Reader {
    async fn new(fake: &Fake, query: &str) -> Self {
        let mut stream = fake.connect("vpnd").await;
        let request = format!("GET /v1/events{query} HTTP/1.1\r\nHost: vpnd\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it is read");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = timeout(LONG, reader.read_line(&mut head)).await.expect("a head").expect("a head");
            assert_ne!(read, 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: application/x-ndjson"), "{head}");
        Self(reader)
    }

    /// The next line of JSON: sizes of chunks stand between them.
    async fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = timeout(LONG, self.0.read_line(&mut line)).await.expect("a line").expect("a line");
            assert_ne!(read, 0, "the stream has ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).expect("JSON");
            }
        }
    }
}

fn who(name: &str, n: u8) -> Who {
    Who { name: name.to_owned(), key: PublicKey([n; 32]) }
}

fn place() -> SocketAddr {
    ([192, 0, 2, 7], 51820).into()
}

#[tokio::test]
async fn events_come_as_they_happen_and_the_past_if_it_is_asked_for() {
    let fake = Fake::start().await;
    fake.events.record(100.0, Some(&who("laptop", 1)), What::Silent);
    let mut new = Reader::new(&fake, "").await;
    let mut all = Reader::new(&fake, "?since=99").await;
    fake.events.record(
        101.5,
        Some(&who("laptop", 1)),
        What::Connected { endpoint: place(), initiator: false },
    );
    let event = new.next().await;
    assert_eq!(
        (&event["event"], &event["peer"], &event["time"]),
        (&"connected".into(), &"laptop".into(), &101.5.into())
    );
    assert_eq!(event["endpoint"], "192.0.2.7:51820");
    assert_eq!(all.next().await["event"], "silent");
    assert_eq!(all.next().await, event);
}

#[tokio::test]
async fn without_following_the_stream_ends_and_one_peer_may_be_meant_by_name_or_key() {
    let fake = Fake::start().await;
    for (name, n) in [("a b", 1), ("c", 2), ("a b", 1)] {
        fake.events.record(1.0, Some(&who(name, n)), What::GivenUp);
    }
    let lines = async |query: &str| {
        let request = format!("GET /v1/events{query}");
        let answer = timeout(LONG, raw(&fake, &request)).await.expect("it ends");
        answer.lines().filter(|line| line.starts_with('{')).count()
    };
    assert_eq!(lines("?since=0&follow=0").await, 3);
    assert_eq!(lines("?since=0&follow=0&peer=a%20b").await, 2);
    let key = PublicKey([2; 32]).to_string().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    assert_eq!(lines(&format!("?since=0&follow=0&peer={key}")).await, 1);
    for wrong in ["?since=x", "?follow=maybe", "?colour=red"] {
        let (code, json) = get(&fake, &format!("GET /v1/events{wrong}")).await;
        assert_eq!((code, json["error"].is_string()), (400, true), "{wrong}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_the_oldest_and_is_told_how_many() {
    let fake = Fake::start().await;
    let mut slow = Reader::new(&fake, "").await;
    // Far more than the sockets' buffers and the ring hold.
    let text = "x".repeat(2000);
    for _ in 0..5000 {
        fake.events.record(1.0, None, What::Stopping { why: text.clone() });
        tokio::task::yield_now().await;
    }
    let (mut seen, mut lost, mut last) = (0, 0, 0);
    while seen + lost < 5000 {
        let event = slow.next().await;
        let seq = event["seq"].as_u64().expect("a number");
        match event["event"].as_str() {
            Some("lost") => lost += event["count"].as_u64().expect("a number"),
            _ => {
                seen += 1;
                assert!(seq > last, "{seq} after {last}");
            }
        }
        last = seq;
    }
    assert!(lost > 0 && seen >= 1024, "{seen} seen, {lost} lost");
    assert_eq!((seen + lost, last), (5000, 5000));
}

#[tokio::test]
async fn streams_leave_room_for_a_status_and_one_that_is_closed_makes_room_for_the_next() {
    let fake = Fake::start().await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(Reader::new(&fake, "").await);
    }
    assert_eq!(get(&fake, "GET /v1/events").await.0, 503);
    assert_eq!(get(&fake, "GET /v1/status").await.0, 200);
    drop(readers.pop());
    let again = async {
        loop {
            let mut stream = fake.connect("vpnd").await;
            stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is read");
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.expect("a head");
            if &head == b"HTTP/1.1 200" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, again).await.expect("the place of one that left is free, though nothing happened");
}
