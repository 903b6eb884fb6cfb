//! Clients that `wg` would never be: nothing they do may hurt the daemon or another client.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::fake::Fake;

const WG: &str = "wireguard";

/// The daemon still works: a `get` is answered, quickly.
async fn assert_unhurt(fake: &Fake) {
    let answer =
        timeout(Duration::from_secs(5), fake.ask(WG, b"get=1\n\n")).await.expect("an answer in time");
    assert!(answer.ends_with("errno=0\n\n"), "{answer}");
}

/// Reads up to the empty line that ends an answer.
async fn answer(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n\n") {
        text.push(stream.read_u8().await.expect("the answer goes on"));
    }
    String::from_utf8(text).expect("text")
}

#[tokio::test]
async fn many_operations_share_a_connection_and_an_error_does_not_end_it() {
    let fake = Fake::start().await;
    let mut stream = fake.connect(WG).await;
    let exchange = [
        ("set=1\nlisten_port=5\n\n", "errno=0\n\n"),
        ("get=1\n\n", "listen_port=5\nerrno=0\n\n"),
        ("set=1\nlisten_port=none\nfwmark=1\n\n", "errno=-22\n\n"),
        ("set=1\nlisten_port=9\n\n", "errno=-98\n\n"),
        ("get=1\n\n", "listen_port=5\nerrno=0\n\n"),
    ];
    for (request, expected) in exchange {
        stream.write_all(request.as_bytes()).await.expect("it is read");
        assert_eq!(answer(&mut stream).await, expected, "{request}");
    }
}

#[tokio::test]
async fn nothing_of_a_request_with_a_mistake_at_its_end_is_applied() {
    let fake = Fake::start().await;
    let answer = fake.ask(WG, b"set=1\nlisten_port=5\nfwmark=6\nreplace_peers=perhaps\n\nget=1\n\n").await;
    assert_eq!(answer, "errno=-22\n\nerrno=0\n\n");
}

#[tokio::test]
async fn nothing_of_a_request_that_breaks_off_is_applied() {
    let fake = Fake::start().await;
    assert_eq!(fake.ask(WG, b"set=1\nlisten_port=5\n").await, "");
    assert_eq!(fake.ask(WG, b"get=1\n\n").await, "errno=0\n\n");
}

#[tokio::test]
async fn a_thousand_lines_of_garbage_are_one_refused_request() {
    let fake = Fake::start().await;
    let mut garbage = b"\xff\x00 nonsense = 7\n".repeat(1000);
    garbage.extend(b"\nget=1\n\n");
    assert_eq!(fake.ask(WG, &garbage).await, "errno=-71\n\nerrno=0\n\n");
    assert_unhurt(&fake).await;
}

#[tokio::test]
async fn an_endless_line_is_refused_without_being_kept() {
    let fake = Fake::start().await;
    let mut line = b"set=1\nlisten_port=".to_vec();
    line.resize(3_000_000, b'1');
    line.extend(b"\n\nget=1\n\n");
    assert_eq!(fake.ask(WG, &line).await, "errno=-7\n\nerrno=0\n\n");
    assert_unhurt(&fake).await;
}

#[tokio::test]
async fn more_than_the_budget_is_refused_and_the_budget_comes_back() {
    let fake = Fake::start().await;
    let peer = format!("public_key={:064x}\n", 7);
    let prefixes = "allowed_ip=10.0.0.0/8\n".repeat(3_200_000); // 67 MiB
    let request = format!("set=1\n{peer}{prefixes}\n");
    assert_eq!(fake.ask(WG, request.as_bytes()).await, "errno=-7\n\n");
    let half = &prefixes[..prefixes.len() / 2];
    for _ in 0..2 {
        let answer = fake.ask(WG, format!("set=1\n{peer}{half}\n").as_bytes()).await;
        assert_eq!(answer, "errno=0\n\n");
    }
}

#[tokio::test]
async fn a_client_that_writes_byte_by_byte_is_served_and_delays_nobody() {
    let fake = Fake::start().await;
    let mut slow = fake.connect(WG).await;
    for byte in b"set=1\nlisten_port=77\n\n" {
        slow.write_u8(*byte).await.expect("it is read");
        assert_unhurt(&fake).await;
    }
    assert_eq!(answer(&mut slow).await, "errno=0\n\n");
}

#[tokio::test]
async fn a_client_that_never_reads_delays_nobody() {
    let fake = Fake::start().await;
    let prefixes: String =
        (0..60_000u32).map(|n| format!("allowed_ip=10.{}.{}.0/24\n", n / 256, n % 256)).collect();
    fake.ask(WG, format!("set=1\npublic_key={:064x}\n{prefixes}\n", 7).as_bytes()).await;
    let mut deaf = fake.connect(WG).await;
    deaf.write_all(b"get=1\n\n").await.expect("it is read");
    assert_unhurt(&fake).await;
}

#[tokio::test]
async fn silent_clients_are_let_go_and_those_who_waited_behind_them_are_served() {
    let fake = Fake::start().await;
    let mut silent = Vec::new();
    for request in ["", "set=1\n", "set=1\nlisten_port=1", "get=1\n"].iter().cycle().take(16) {
        let mut stream = fake.connect(WG).await;
        stream.write_all(request.as_bytes()).await.expect("the kernel keeps it");
        silent.push(stream);
    }
    let mut served = std::pin::pin!(fake.ask(WG, b"get=1\n\n"));
    let early = timeout(Duration::from_secs(5), &mut served).await;
    assert!(early.is_err(), "all places were taken, and silence is allowed for longer");
    let served = timeout(Duration::from_secs(15), served).await;
    assert_eq!(served.expect("served once the silent are gone"), "errno=0\n\n");
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("closed, not broken");
        assert_eq!(rest, b"", "an unfinished request has no answer");
    }
}
