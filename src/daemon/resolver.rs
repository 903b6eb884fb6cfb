//! Endpoint names: resolved beside the data path, tried over all their addresses, and resolved again when
//! handshakes go unanswered. A name is looked up at most once in [`AGAIN_AFTER`]; one that does not resolve is
//! tried again with growing pauses, for ever, since the network may come later than we do.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use crate::{
    config::{Config, EndpointName},
    noise::PublicKey,
    tunnel::PeerChange,
};

/// Look-ups that run at once; the others wait their turn.
const AT_ONCE: usize = 8;
/// A name is not looked up again sooner than this.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause after a look-up that failed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

pub(super) struct Resolver {
    names: HashMap<PublicKey, Name>,
    queue: std::collections::VecDeque<PublicKey>,
    running: JoinSet<(PublicKey, std::io::Result<Vec<SocketAddr>>)>,
    changes: std::collections::VecDeque<PeerChange>,
}

struct Name {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    /// Index of the address in use.
    used: usize,
    looked_up: Option<Instant>,
    pause: Duration,
    /// When a failed look-up is tried again.
    again: Option<Instant>,
    busy: bool,
}

impl Resolver {
    /// Asks for every name in the file.
    pub(super) fn new(config: &Config) -> Self {
        let names: HashMap<_, _> = config
            .peers
            .iter()
            .filter_map(|peer| match &peer.endpoint {
                Some(EndpointName::Name { host, port }) => {
                    Some((peer.public_key, Name::new(host.clone(), *port)))
                }
                _ => None,
            })
            .collect();
        let queue = names.keys().copied().collect();
        let mut resolver = Self { names, queue, running: JoinSet::new(), changes: Default::default() };
        resolver.names.values_mut().for_each(|name| name.busy = true);
        resolver.start_queued();
        resolver
    }

    /// Resolves when [`Self::poll_change`] may have something.
    pub(super) async fn resolved(&mut self) {
        let again = self.names.values().filter_map(|name| name.again).min();
        let pause = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = self.running.join_next() => match done {
                Ok((key, result)) => self.looked_up(key, result),
                Err(error) => warn!(%error, "a look-up of an endpoint's name broke off"),
            },
            () = pause => self.retry_due(),
        }
        self.start_queued();
    }

    /// The next endpoint to use.
    pub(super) fn poll_change(&mut self) -> Option<PeerChange> {
        self.changes.pop_front()
    }

    /// A handshake with this peer went unanswered: its next address, and a new look-up after the last one.
    pub(super) fn unanswered(&mut self, key: &PublicKey) {
        let Some(name) = self.names.get_mut(key) else { return };
        if name.used + 1 < name.addresses.len() {
            name.used += 1;
            let next = name.addresses[name.used];
            self.changes.push_back(endpoint(*key, next));
            return;
        }
        if name.busy || name.looked_up.is_some_and(|at| at.elapsed() < AGAIN_AFTER) {
            return;
        }
        self.ask(*key);
    }

    fn ask(&mut self, key: PublicKey) {
        if let Some(name) = self.names.get_mut(&key) {
            name.busy = true;
            name.again = None;
        }
        self.queue.push_back(key);
        self.start_queued();
    }

    fn retry_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .names
            .iter()
            .filter(|(_, name)| name.again.is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        due.into_iter().for_each(|key| self.ask(key));
    }

    fn start_queued(&mut self) {
        while self.running.len() < AT_ONCE {
            let Some(key) = self.queue.pop_front() else { return };
            let Some(name) = self.names.get(&key) else { continue };
            let (host, port) = (name.host.clone(), name.port);
            self.running.spawn(async move {
                let found = tokio::net::lookup_host((host, port)).await;
                (key, found.map(Iterator::collect))
            });
        }
    }

    fn looked_up(&mut self, key: PublicKey, result: std::io::Result<Vec<SocketAddr>>) {
        let Some(name) = self.names.get_mut(&key) else { return };
        name.busy = false;
        match result {
            Ok(addresses) if !addresses.is_empty() => {
                debug!(host = name.host, ?addresses, "resolved");
                name.found(addresses);
                self.changes.push_back(endpoint(key, name.addresses[0]));
            }
            Ok(_) => name.not_found("no addresses"),
            Err(error) => name.not_found(&error.to_string()),
        }
    }
}

impl Name {
    fn new(host: String, port: u16) -> Self {
        Self {
            host,
            port,
            addresses: Vec::new(),
            used: 0,
            looked_up: None,
            pause: PAUSE.0,
            again: None,
            busy: false,
        }
    }

    fn found(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
        self.used = 0;
        self.looked_up = Some(Instant::now());
        self.pause = PAUSE.0;
    }

    fn not_found(&mut self, error: &str) {
        let seconds = self.pause.as_secs();
        warn!(host = self.host, error, "endpoint name does not resolve; trying again in {seconds} s");
        self.looked_up = Some(Instant::now());
        self.again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
    }
}

fn endpoint(key: PublicKey, address: SocketAddr) -> PeerChange {
    PeerChange { endpoint: Some(address), update_only: true, ..PeerChange::new(key) }
}
