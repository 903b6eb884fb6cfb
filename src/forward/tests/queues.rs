//! The two queues to the upper half.

use std::{cell::Cell, sync::atomic::AtomicBool, thread};

use super::*;

/// Each from an address of its own.
fn push(forward: &Forward, n: u16) -> Result<(), Refusal> {
    let from = Endpoint { remote: ([198, 18, (n >> 8) as u8, n as u8], 7).into(), local: None };
    forward.push_handshake(&from, Kind::Initiation, &n.to_be_bytes())
}

fn pop(node: &Node) -> Option<(Vec<u8>, usize)> {
    node.forward.pop_handshake().map(|(datagram, waiting)| (datagram.bytes.to_vec(), waiting))
}

#[test]
fn handshakes_come_out_in_order_with_the_number_that_waits_behind() {
    let node = Node::new();
    for n in 0..3 {
        push(&node.forward, n).unwrap();
    }
    assert_eq!(pop(&node), Some((vec![0, 0], 2)));
    assert_eq!(pop(&node), Some((vec![0, 1], 1)));
    assert_eq!(pop(&node), Some((vec![0, 2], 0)));
    assert_eq!(pop(&node), None);
}

#[test]
fn a_full_queue_refuses_the_newest() {
    let node = Node::new();
    let refused = (0..HANDSHAKE_QUEUE as u16 + 3).filter_map(|n| push(&node.forward, n).err());
    assert_eq!(refused.collect::<Vec<_>>(), [Refusal::HandshakeQueueFull; 3]);
    assert_eq!(pop(&node), Some((vec![0, 0], HANDSHAKE_QUEUE - 1)));
}

#[test]
fn the_upper_half_is_woken_once_until_it_saw_the_queue_empty() {
    let node = Node::new();
    let wakes = || node.wakes.load(Ordering::Relaxed);
    push(&node.forward, 0).unwrap();
    push(&node.forward, 1).unwrap();
    assert_eq!(wakes(), 1);
    assert!(pop(&node).is_some());
    push(&node.forward, 2).unwrap();
    assert_eq!(wakes(), 1, "it has not come to the end yet");
    assert!(pop(&node).is_some() && pop(&node).is_some() && pop(&node).is_none());
    push(&node.forward, 3).unwrap();
    assert_eq!(wakes(), 2);
}

#[test]
fn a_raised_peer_stands_in_the_queue_once_with_all_its_bits() {
    let node = Node::new();
    let (one, two) = (peer(1), peer(2));
    node.forward.raise(&one, Raised::TIMER);
    node.forward.raise(&two, Raised::ROAMED);
    node.forward.raise(&one, Raised::WANTS_SESSION);
    node.forward.raise(&one, Raised::TIMER);
    let both = Raised(Raised::TIMER.0 | Raised::WANTS_SESSION.0);
    assert_eq!(node.raised(), [(PeerId(1), both), (PeerId(2), Raised::ROAMED)]);
    assert_eq!(node.wakes.load(Ordering::Relaxed), 1);
    node.forward.raise(&one, Raised::CONFIRMED);
    assert_eq!(node.raised(), [(PeerId(1), Raised::CONFIRMED)]);
    assert_eq!(node.wakes.load(Ordering::Relaxed), 2);
}

/// The one moment that a stress test seldom meets: the push comes after the pop saw nothing, and before the
/// bell is made ready.
#[test]
fn a_push_between_the_look_and_the_bell_is_seen_by_the_second_look() {
    let (bell, wakes, pushed) = (Bell::default(), Cell::new(0), Cell::new(false));
    let wake = || {
        wakes.set(wakes.get() + 1);
        true
    };
    bell.ring(&wake);
    let looks = Cell::new(0);
    let popped = bell.pop(|| {
        looks.set(looks.get() + 1);
        let found = pushed.get().then_some(7);
        if looks.get() == 1 {
            pushed.set(true);
            bell.ring(&wake);
        }
        found
    });
    assert_eq!((popped, wakes.get()), (Some(7), 1), "not rung for, so it must be seen");
    bell.ring(&wake);
    assert_eq!(wakes.get(), 2, "the bell is ready for the next");
}

/// What could not be told is told by whatever comes next, also of a peer that waits in the queue already.
#[test]
fn a_wake_that_failed_is_repeated() {
    let (works, wakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (worked, woken) = (works.clone(), wakes.clone());
    let forward = Forward::woken_by(Box::new(move || {
        woken.fetch_add(1, Ordering::Relaxed);
        worked.load(Ordering::Relaxed)
    }));
    let peer = peer(1);
    for tries in 1..=2 {
        forward.raise(&peer, Raised::WANTS_SESSION);
        assert_eq!(wakes.load(Ordering::Relaxed), tries);
    }
    works.store(true, Ordering::Relaxed);
    forward.raise(&peer, Raised::WANTS_SESSION);
    forward.raise(&peer, Raised::WANTS_SESSION);
    assert_eq!(wakes.load(Ordering::Relaxed), 3, "once it was heard it is enough");
    assert!(forward.pop_raised().is_some() && forward.pop_raised().is_none());
}

/// An upper half that sleeps unless it was woken must see everything that was pushed before it slept.
#[test]
fn no_push_is_slept_through() {
    const EACH: u16 = 20_000;
    let (sender, woken) = std::sync::mpsc::channel();
    let forward = Forward::new(Box::new(move || sender.send(()).unwrap_or_default()));
    let received = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..EACH {
                    // Fewer than fit, so that none is refused.
                    while forward.handshakes.len() > HANDSHAKE_QUEUE / 2 {
                        thread::yield_now();
                    }
                    push(&forward, n).unwrap();
                }
            });
        }
        let mut received = 0;
        while received < 3 * usize::from(EACH) {
            woken.recv_timeout(std::time::Duration::from_secs(20)).expect("a push was slept through");
            while forward.pop_handshake().is_some() {
                received += 1;
            }
        }
        received
    });
    assert_eq!(received, 3 * usize::from(EACH));
}
