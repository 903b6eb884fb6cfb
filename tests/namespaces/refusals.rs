//! What the daemon refuses from the network, how it counts it, and what evidence it shows.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use serde_json::Value;
use vpnd::{
    lab::tcp_transfer,
    noise::{
        Identity, PrivateKey, PublicKey, Tai64n,
        handshake::{Remote, initiate},
        macs::MacKeys,
    },
    sys::random::os_rng,
    wire::message::{Index, Initiation, Response},
};

use crate::{
    common::need_root,
    relay::{Mess, Relay},
    world::{Node, PORT, Pair, Spec, sh, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until something was refused for this reason so often; the report.
#[track_caller]
fn await_refusal(node: &Node, reason: &str, count: u64) -> Value {
    let refused = wait_until(PATIENCE, || node.refused(reason) >= count);
    assert!(refused, "{reason} {count} times: {}\n{}", node.status(), node.log());
    node.refusal(reason).expect("it was counted")
}

/// A socket on the left host, and where the right end listens.
fn stranger(pair: &Pair) -> (UdpSocket, SocketAddr, SocketAddr) {
    let socket = pair.left.host.run(|| UdpSocket::bind("192.0.2.1:0")).expect("a port is free");
    let from = socket.local_addr().expect("it is bound");
    (socket, from, SocketAddr::new(pair.right.outer, PORT))
}

fn initiation(from: &PrivateKey, to: &PublicKey) -> [u8; 148] {
    let remote = Remote::new(Identity::new(from.clone()), *to);
    let time = Tai64n::from_unix(Duration::from_secs(1_700_000_000));
    let (_, initiation) = initiate(&remote, Index(7), time, &mut os_rng()).expect("an honest key");
    let mut bytes = initiation.to_bytes();
    MacKeys::new(to).fill(&mut bytes, None);
    bytes
}

#[test]
fn what_strangers_send_is_counted_by_reason_and_answered_by_nothing() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("strangers", &Spec::default());
    let right = &pair.right;
    let (socket, from, to) = stranger(&pair);
    let send = |bytes: &[u8]| socket.send_to(bytes, to).expect("it can be sent");

    let unknown = PrivateKey::generate(&mut os_rng());
    let valid = initiation(&unknown, &right.key());
    send(&valid);
    let refusal = await_refusal(right, "unknown_key", 1);
    assert_eq!(refusal["last"]["key"], unknown.public_key().to_string());
    assert_eq!(refusal["last"]["from"], from.to_string());
    let text = refusal["text"].as_str().expect("a sentence");
    assert!(text.contains(&unknown.public_key().to_string()) && text.contains("add it as a peer"), "{text}");

    let mut other_mac = valid;
    other_mac[120] ^= 1;
    send(&other_mac);
    let refusal = await_refusal(right, "mac1", 1);
    assert_eq!(refusal["last"]["from"], from.to_string());

    // The mac1 that anyone can make, but nothing behind it is sealed.
    let parsed = Initiation::parse(&valid).expect("our own");
    let mut forged = Initiation { encrypted_static: [7; 48], ..parsed }.to_bytes();
    MacKeys::new(&right.key()).fill(&mut forged, None);
    send(&forged);
    await_refusal(right, "handshake_forged", 1);

    let answer =
        Response { sender: Index(1), receiver: Index(2), ephemeral: [9; 32], encrypted_nothing: [0; 16] };
    let mut answer = answer.to_bytes();
    MacKeys::new(&right.key()).fill(&mut answer, None);
    send(&answer);
    await_refusal(right, "not_asked", 1);

    let mut garbage: Vec<Vec<u8>> = vec![vec![], vec![0], vec![1; 148], vec![0xff; 1200]];
    garbage.push(valid[..147].to_vec());
    garbage.push([&[1, 0, 0, 1], &valid[4..]].concat()); // a reserved byte is not zero
    garbage.push([&[4, 0, 0, 0][..], &[0; 27]].concat()); // shorter than a keepalive
    garbage.push([&[1, 0, 0, 0][..], &[0; 65_503]].concat()); // the largest datagram there is
    garbage.iter().for_each(|datagram| _ = send(datagram));
    let refusal = await_refusal(right, "malformed", garbage.len() as u64);
    assert_eq!(refusal["count"], garbage.len());
    assert_eq!(refusal["last"]["from"], from.to_string());

    send(&[&[4, 0, 0, 0][..], &[0; 28]].concat());
    send(&[&[4, 0, 0, 0][..], &[7; 65_503]].concat());
    await_refusal(right, "no_such_session", 2);

    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out can be set");
    assert!(socket.recv(&mut [0; 2048]).is_err(), "a stranger got an answer");
    pair.left.ping(right.inner4, 3);
    let counted: Vec<_> = right.status()["refusals"].as_array().expect("a list").clone();
    let reasons: Vec<_> = counted.iter().filter_map(|one| one["reason"].as_str()).collect();
    let expected = ["malformed", "mac1", "handshake_forged", "unknown_key", "not_asked", "no_such_session"];
    let others: Vec<_> = reasons.iter().filter(|reason| !expected.contains(*reason)).collect();
    assert!(others.iter().all(|reason| **reason == "link_scope"), "{others:?}");
    assert_eq!(reasons.len() - others.len(), expected.len());
}

/// Left talks to right through a relay on right's host.
fn relayed(name: &str, seed: u64) -> (Pair, Relay) {
    let pair = Pair::start(name, &Spec { right_knows_left: false, ..Spec::default() });
    let front = SocketAddr::new(pair.right.outer, 4000);
    let relay = Relay::start(&pair.right.host, front, SocketAddr::new(pair.right.outer, PORT), seed);
    pair.left.set(&format!("peer {} endpoint {front}", pair.right.key()));
    (pair, relay)
}

#[test]
fn a_datagram_that_comes_twice_is_delivered_once_and_the_second_is_a_replay() {
    if !need_root() {
        return;
    }
    let (pair, relay) = relayed("twice", 1);
    relay.make(Mess { duplication: 100, ..Mess::default() });
    let said = sh(&pair.left.host, "ping -c 5 -i 0.1 -W 5 10.77.0.2");
    assert!(said.contains(" 5 received") && !said.contains("DUP"), "{said}");
    // Five pings, and the keepalive or ping that confirmed the session.
    let refusal = await_refusal(&pair.right, "replayed", 5);
    assert_eq!(refusal["last"]["key"], pair.left.key().to_string());
    assert_eq!(refusal["last"]["from"], relay.far_address().to_string());
    await_refusal(&pair.left, "replayed", 5);
    // The second initiation was no newer than the first, the second response was to nothing.
    let refusal = await_refusal(&pair.right, "timestamp_not_newer", 1);
    assert_eq!(refusal["last"]["key"], pair.left.key().to_string());
    await_refusal(&pair.left, "not_asked", 1);
    // Exactly what went through once is counted (scenario 1).
    assert_eq!(pair.right.transfer(&pair.left.key()), (148 + 5 * 128, 92 + 5 * 128));
}

#[test]
fn a_datagram_that_was_damaged_changes_nothing_and_is_told_with_its_peer() {
    if !need_root() {
        return;
    }
    let (pair, relay) = relayed("damage", 2);
    // While mac1 is damaged there is no handshake.
    relay.make(Mess { corruption: 100, only: Some(1), ..Mess::default() });
    assert!(!pair.left.reaches(pair.right.inner4));
    let refusal = await_refusal(&pair.right, "mac1", 1);
    assert_eq!(refusal["last"]["from"], relay.far_address().to_string());
    relay.make(Mess::default());
    assert!(wait_until(PATIENCE, || pair.left.reaches(pair.right.inner4)), "{}", pair.left.log());

    let before = pair.right.transfer(&pair.left.key());
    relay.make(Mess { corruption: 100, only: Some(4), ..Mess::default() });
    let moved = relay.rebind(&pair.right.host);
    assert!(!pair.left.reaches(pair.right.inner4));
    let refusal = await_refusal(&pair.right, "forged", 1);
    assert_eq!(refusal["last"]["key"], pair.left.key().to_string());
    assert_eq!(refusal["last"]["from"], moved.to_string());
    assert_eq!(pair.right.transfer(&pair.left.key()).0, before.0, "what is forged is not received");
    // Nor does it move the endpoint; the next one that is whole does.
    assert_ne!(pair.right.shown("endpoints", &pair.left.key()), moved.to_string());
    relay.make(Mess::default());
    pair.left.ping(pair.right.inner4, 1);
    assert_eq!(pair.right.shown("endpoints", &pair.left.key()), moved.to_string());
}

#[test]
fn a_transfer_comes_through_loss_doubles_damage_and_reordering_whole() {
    if !need_root() {
        return;
    }
    let (pair, relay) = relayed("mess", 3);
    pair.left.ping(pair.right.inner4, 1);
    let delay = Duration::from_millis(15);
    let mess = Mess { loss: 1, duplication: 5, corruption: 1, reordering: 5, delay, ..Mess::default() };
    relay.make(mess);
    let [left, right] = [&pair.left, &pair.right];
    for (from, to, address) in [(left, right, right.inner4), (right, left, left.inner6)] {
        let limit = Duration::from_secs(60);
        let transfer = tcp_transfer(&from.host, &to.host, address, 400_000, limit);
        assert!(transfer.expect("it comes through").intact);
        // A NAT that forgets in the middle.
        relay.rebind(&right.host);
    }
    assert!(relay.forwarded() > 600);
    for node in [left, right] {
        assert!(node.refused("forged") > 0 && node.refused("replayed") > 0, "{}", node.status());
    }
    relay.make(Mess::default());
    pair.left.ping(right.inner4, 5);
}

#[test]
fn a_source_that_another_peer_owns_is_told_with_its_owner() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("owner", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let owner = PrivateKey::generate(&mut os_rng()).public_key();
    pair.right.set(&format!("peer {owner} allowed-ips {}/32", pair.left.inner4));
    assert!(!pair.left.reaches(pair.right.inner4));
    let refusal = await_refusal(&pair.right, "source_not_allowed", 1);
    assert_eq!(refusal["last"]["inner"], pair.left.inner4.to_string());
    assert_eq!(refusal["last"]["key"], pair.left.key().to_string());
    let told = refusal["last"]["owner"].as_str().expect("the owner's name");
    assert!(owner.to_string().starts_with(told.trim_end_matches('…')), "{told} is not {owner}");
    pair.left.ping(pair.right.inner6, 1);
}

#[test]
fn what_the_kernel_says_to_the_link_hides_no_packet_that_found_no_peer() {
    if !need_root() {
        return;
    }
    let node = Node::alone("nopeer", "", "");
    let lost = "10.77.0.99".parse().expect("an address");
    let pings = node.host.ping(lost, 1).expect("it can be sent");
    assert_eq!((pings.received, pings.refused), (0, 1), "the sender is told at once");
    let groups = "ping -c 1 -W 1 -I vpn0 224.0.0.251 || true; ping -c 1 -W 1 -I vpn0 ff02::1 || true";
    sh(&node.host, groups);
    let refusal = await_refusal(&node, "link_scope", 2);
    let text = refusal["text"].as_str().expect("a sentence");
    assert!(text.contains("nothing is wrong"), "{text}");
    let refusal = node.refusal("no_peer").expect("it was counted");
    assert_eq!((&refusal["count"], &refusal["last"]["inner"]), (&1.into(), &lost.to_string().into()));
}
