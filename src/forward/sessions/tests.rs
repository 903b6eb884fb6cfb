use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;
use crate::{
    forward::{PeerId, Time, session::SessionStart},
    noise::{PublicKey, SessionKeys},
};

fn peer(id: u64) -> Arc<Peer> {
    Peer::new(PeerId(id), PublicKey([0; 32]), String::new())
}

fn session(index: u32) -> Arc<Session> {
    let start = SessionStart {
        local: Index(index),
        remote: Index(0),
        initiator: true,
        birth: Time(1),
        rekey_after: crate::forward::session::REKEY_AFTER_TIME,
    };
    Session::new(start, &SessionKeys { send: [0; 32], receive: [1; 32] })
}

/// Spread over shards as random ones are, and some neighbours.
fn indices(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| if n % 8 == 0 { n } else { n.wrapping_mul(0x9e37_79b9) })
}

fn found(sessions: &Sessions, index: u32) -> Option<(u32, u64)> {
    sessions.find(Index(index)).map(|(session, peer)| (session.start().local.0, peer.id.0))
}

#[test]
fn a_session_is_found_by_its_own_index_alone() {
    let sessions = Sessions::new();
    for index in indices(5000) {
        sessions.insert(session(index), peer(index.into()));
    }
    for index in indices(5000) {
        assert_eq!(found(&sessions, index), Some((index, index.into())));
        assert!(sessions.contains(Index(index)));
    }
    let absent = u32::MAX;
    assert!(found(&sessions, absent).is_none() && !sessions.contains(Index(absent)));
}

#[test]
fn a_removed_session_is_gone_and_the_others_stay() {
    let sessions = Sessions::new();
    for index in 0..10 {
        sessions.insert(session(index), peer(index.into()));
    }
    sessions.remove(Index(4));
    sessions.remove(Index(4));
    sessions.remove(Index(99));
    for index in 0..10 {
        assert_eq!(found(&sessions, index).is_some(), index != 4);
    }
}

#[test]
fn a_second_session_under_one_index_replaces_the_first() {
    let sessions = Sessions::new();
    sessions.insert(session(7), peer(1));
    sessions.insert(session(7), peer(2));
    assert_eq!(found(&sessions, 7), Some((7, 2)));
    sessions.remove(Index(7));
    assert!(found(&sessions, 7).is_none());
}

#[test]
fn the_keys_go_when_the_last_reader_lets_go() {
    let sessions = Sessions::new();
    sessions.insert(session(7), peer(1));
    let (held, _) = sessions.find(Index(7)).expect("just inserted");
    let weak = Arc::downgrade(&held);
    sessions.remove(Index(7));
    assert!(weak.upgrade().is_some());
    drop(held);
    assert!(weak.upgrade().is_none());
}

#[test]
fn readers_see_every_session_that_stays_while_others_come_and_go() {
    let sessions = Sessions::new();
    let stay: Vec<u32> = indices(256).collect();
    // In the same shards, right behind those that stay.
    let come_and_go: Vec<u32> =
        stay.iter().map(|index| index.wrapping_add(1)).filter(|n| !stay.contains(n)).collect();
    for index in &stay {
        sessions.insert(session(*index), peer(1));
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for index in &stay {
                        assert_eq!(found(&sessions, *index), Some((*index, 1)));
                    }
                    for index in &come_and_go {
                        assert!(found(&sessions, *index).is_none_or(|found| found == (*index, 2)));
                    }
                }
            });
        }
        let writers = [0, 1].map(|half| {
            let (sessions, come_and_go) = (&sessions, &come_and_go);
            scope.spawn(move || {
                for _ in 0..10 {
                    for index in come_and_go.iter().skip(half).step_by(2) {
                        sessions.insert(session(*index), peer(2));
                    }
                    for index in come_and_go.iter().skip(half).step_by(2) {
                        sessions.remove(Index(*index));
                    }
                }
            })
        });
        let ended = writers.map(|writer| writer.join().is_ok());
        done.store(true, Ordering::Relaxed);
        assert_eq!(ended, [true, true]);
    });
    assert!(come_and_go.iter().all(|index| !sessions.contains(Index(*index))), "no removal was lost");
}
