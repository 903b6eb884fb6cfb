//! Whatever a client writes to the control socket: each request is taken whole or not at all, and what `get` says is
//! what `set` makes again.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use vpnd::{
    control::{
        InterfaceStatus, Operation,
        uapi::{Command, EndOfGet, EndOfSet, Errno, MAX_LINE, Parser, Refused, render},
    },
    forward::{Forward, Time},
    tunnel::{Change, Now, Timing, Tunnel},
};

use crate::conversation;

/// Interfaces that there are, for link-local endpoints.
fn scope(name: &str) -> Option<u32> {
    ["eth0", "wlan0"].iter().position(|known| *known == name).map(|at| at as u32 + 1)
}

/// The first byte says whether it goes over a socket, too, which takes a hundred times as long.
pub fn check_bytes(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let answers = check_requests(text);
    if kind % 8 == 0 {
        conversation::check(text, &answers);
    }
}

/// What a daemon is asked to show and to alter.
struct Asked {
    tunnel: Tunnel,
    port: u16,
    mark: u32,
}

const NOW: Now = Now { boot: Time(90_000_000_000), wall: Duration::from_secs(1_700_000_000) };

impl Asked {
    fn new() -> Self {
        let rng = Box::new(ChaCha8Rng::seed_from_u64(1));
        let tunnel = Tunnel::new(Forward::new(Box::new(|| {})), Timing::default(), rng);
        Self { tunnel, port: 0, mark: 0 }
    }

    /// As the daemon does it: in order, up to the first that cannot be.
    fn set(&mut self, changes: Vec<Change>) -> bool {
        changes.into_iter().all(|change| {
            match &change {
                Change::ListenPort(port) => self.port = *port,
                Change::Fwmark(mark) => self.mark = *mark,
                _ => {}
            }
            self.tunnel.apply(change, NOW).is_ok()
        })
    }

    fn get(&self) -> String {
        let status = InterfaceStatus {
            name: "vpn0".to_owned(),
            listen_port: self.port,
            fwmark: self.mark,
            mtu: 1420,
            tunnel: self.tunnel.status(NOW),
            now: NOW.wall,
            operation: Operation::default(),
            sandbox: Default::default(),
            boot: NOW.boot,
        };
        let mut text = String::new();
        render(&status, &mut text).expect("a string takes every text");
        text
    }
}

/// Feeds the lines of the text; the answer to each request that it ends. What `get` shows is left out.
fn check_requests(text: &[u8]) -> Vec<String> {
    let mut parser = Parser::new(scope);
    let mut asked = Asked::new();
    let mut answers = Vec::new();
    let mut request = 0;
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { return answers };
    for line in text[..end].split(|byte| *byte == b'\n') {
        request += 1;
        let answer = parser.line(line);
        assert_eq!(answer.is_some(), line.is_empty(), "an empty line ends a request, and nothing else does");
        match answer {
            None => continue,
            Some(Err(refused)) => {
                check_refusal(&refused, request);
                answers.push(EndOfSet(refused.errno).to_string());
            }
            Some(Ok(Command::Get)) => {
                check_get(&asked);
                answers.push(EndOfGet(Errno(0)).to_string());
            }
            Some(Ok(Command::Set(changes))) => {
                assert!(changes.len() < request, "no more changes than lines");
                // The conversation's own daemon says what became of it.
                answers.push(String::new());
                asked.set(changes);
            }
        }
        request = 0;
    }
    check_get(&asked);
    answers
}

/// It names a line of its request, and shows nothing of it.
fn check_refusal(refused: &Refused, lines: usize) {
    assert!((1..=lines as u64).contains(&refused.line), "{refused}");
    assert!(refused.errno.0 > 0 && !refused.why.is_empty());
}

/// Said back to an empty tunnel, it makes the same one.
fn check_get(asked: &Asked) {
    let shown = asked.get();
    assert!(shown.ends_with("errno=0\n\n"), "{shown}");
    let mut parser = Parser::new(scope);
    assert!(parser.line(b"set=1").is_none());
    let of_get_alone = ["last_handshake_time_", "tx_bytes=", "rx_bytes=", "errno="];
    for line in shown.lines().filter(|line| !line.is_empty()) {
        assert!(line.len() <= MAX_LINE);
        if !of_get_alone.iter().any(|key| line.starts_with(key)) {
            assert!(parser.line(line.as_bytes()).is_none());
        }
    }
    let again = match parser.line(b"") {
        Some(Ok(Command::Set(changes))) => changes,
        other => panic!("it does not take its own words: {other:?}\n{shown}"),
    };
    let mut copy = Asked::new();
    assert!(copy.set(again), "{shown}");
    assert_eq!(copy.get(), shown);
}
