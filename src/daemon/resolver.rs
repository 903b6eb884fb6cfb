//! Endpoint names: resolved beside the data path, tried over all their addresses, and resolved again when
//! handshakes go unanswered; one that does not resolve is tried again for ever, since the network may come later
//! than we do. What becomes of one name is decided in [`Name`].
//!
//! The system's resolver asks through whatever route there is. With a default route into the tunnel that route may
//! be the tunnel itself, which waits for the answer: so the name servers are asked with the tunnel's own mark, too.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{attendants::names::Names, dns, names::Name};
use crate::{
    config::{EndpointName, Followed},
    noise::PublicKey,
    tunnel::{Change, PeerChange},
};

/// Look-ups that run at once; the others wait their turn.
const AT_ONCE: usize = 8;
/// How long the system's resolver, which knows `/etc/hosts` and more, is ahead of our own question.
const HEAD_START: Duration = Duration::from_secs(1);

pub(super) struct Resolver {
    names: HashMap<PublicKey, Name>,
    /// The tunnel's own mark, 0: none.
    mark: u32,
    /// Who knows what the system's resolver knows.
    service: Names,
    queue: VecDeque<PublicKey>,
    running: JoinSet<LookedUp>,
    changes: VecDeque<PeerChange>,
}

/// Whose name was asked for, which one it was, and what came of it.
type LookedUp = (PublicKey, EndpointName, io::Result<Vec<SocketAddr>>);

impl Resolver {
    /// Asks for all these names.
    pub(super) fn new(names: Followed, mark: u32, service: Names) -> Self {
        let mut resolver = Self {
            names: HashMap::new(),
            mark,
            service,
            queue: VecDeque::new(),
            running: JoinSet::new(),
            changes: VecDeque::new(),
        };
        resolver.follow(names);
        resolver
    }

    /// These names are followed from now on, and no others. One that was followed before is not asked for again.
    pub(super) fn follow(&mut self, names: Followed) {
        self.names.retain(|key, name| names.get(key) == Some(&name.endpoint()));
        let known = &self.names;
        self.changes.retain(|change| known.contains_key(&change.public_key));
        for (key, endpoint) in names {
            let EndpointName::Name { host, port } = endpoint else { continue };
            if let Entry::Vacant(place) = self.names.entry(key) {
                place.insert(Name::new(host, port));
                self.ask(key);
            }
        }
    }

    /// The names that are followed.
    pub(super) fn followed(&self) -> Followed {
        self.names.iter().map(|(key, name)| (*key, name.endpoint())).collect()
    }

    /// Waits, but not long, until each name has been looked up once.
    pub(super) async fn first_round(&mut self, limit: Duration) {
        let round = async {
            while self.names.values().any(|name| name.busy) {
                self.resolved().await;
            }
        };
        if timeout(limit, round).await.is_err() {
            warn!("endpoint names take long to resolve: going on without");
        }
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
                Ok((key, asked, result)) => self.looked_up(key, &asked, result),
                // A panic in any task ends the process; nobody cancels a look-up.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = pause => self.retry_due(),
        }
        self.start_queued();
    }

    /// The next endpoint to use.
    pub(super) fn poll_change(&mut self) -> Option<PeerChange> {
        self.changes.pop_front()
    }

    /// A handshake with this peer went unanswered: its next address, or a new look-up.
    pub(super) fn unanswered(&mut self, key: &PublicKey) {
        let Some(name) = self.names.get_mut(key) else { return };
        let next = name.unanswered(Instant::now());
        self.changes.extend(next.place.map(|place| endpoint(*key, place)));
        if next.look_up {
            self.ask(*key);
        }
    }

    /// The peer is at this place, authentically.
    pub(super) fn answered_from(&mut self, key: &PublicKey, place: SocketAddr) {
        if let Some(name) = self.names.get_mut(key) {
            name.answered_from(place);
        }
    }

    /// Somebody changed the tunnel by hand: a peer that is elsewhere now, or gone, follows its name no longer.
    pub(super) fn changed_by_hand(&mut self, change: &Change) {
        match change {
            Change::ReplacePeers => self.names.clear(),
            Change::Peer(change) if change.remove => {
                self.names.remove(&change.public_key);
            }
            Change::Peer(PeerChange { public_key, endpoint: Some(place), .. }) => {
                let elsewhere = |name: &&mut Name| !name.knows(*place);
                if let Some(name) = self.names.get_mut(public_key).filter(elsewhere) {
                    info!(host = name.host, %place, "endpoint set by hand: its name is followed no longer");
                    self.names.remove(public_key);
                }
            }
            _ => {}
        }
    }

    /// A name that did not resolve may do so now.
    pub(super) fn network_changed(&mut self) {
        let now = Instant::now();
        self.names.values_mut().for_each(|name| name.network_changed(now));
    }

    /// The tunnel's packets have another mark.
    pub(super) fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    fn ask(&mut self, key: PublicKey) {
        let Some(name) = self.names.get_mut(&key) else { return };
        name.busy = true;
        name.again = None;
        self.queue.push_back(key);
        self.start_queued();
    }

    fn retry_due(&mut self) {
        let now = Instant::now();
        let is_due = |name: &Name| name.again.is_some_and(|at| at <= now);
        let due: Vec<_> = self.names.iter().filter(|(_, name)| is_due(name)).map(|(key, _)| *key).collect();
        due.into_iter().for_each(|key| self.ask(key));
    }

    fn start_queued(&mut self) {
        while self.running.len() < AT_ONCE {
            let Some(key) = self.queue.pop_front() else { return };
            let Some(name) = self.names.get(&key) else { continue };
            let (host, port, mark, asked) = (name.host.clone(), name.port, self.mark, name.endpoint());
            let service = self.service.clone();
            self.running.spawn(async move { (key, asked, look_up(&host, port, mark, &service).await) });
        }
    }

    fn looked_up(&mut self, key: PublicKey, asked: &EndpointName, result: io::Result<Vec<SocketAddr>>) {
        // The peer may have got another name meanwhile.
        let Some(name) = self.names.get_mut(&key).filter(|name| name.endpoint() == *asked) else { return };
        name.busy = false;
        let now = Instant::now();
        let error = match result {
            Ok(addresses) if !addresses.is_empty() => {
                debug!(host = name.host, ?addresses, "resolved");
                let place = name.found(addresses, now);
                self.changes.extend(place.map(|place| endpoint(key, place)));
                return;
            }
            Ok(_) => "no addresses".to_owned(),
            Err(error) => error.to_string(),
        };
        match name.not_found(now) {
            Some(pause) => warn!(
                host = name.host,
                error,
                "endpoint name does not resolve; trying again in {} s",
                pause.as_secs()
            ),
            None => {
                debug!(host = name.host, error, "endpoint name does not resolve; the peer is there anyway")
            }
        }
    }
}

/// Both ways to ask; the first that knows an address. An error is the system's.
async fn look_up(host: &str, port: u16, mark: u32, service: &Names) -> io::Result<Vec<SocketAddr>> {
    let system = service.host(host, port);
    if mark == 0 {
        return system.await;
    }
    let past_the_tunnel = async {
        sleep(HEAD_START).await;
        let found = dns::look_up(host, mark, service).await?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    };
    first_success(system, past_the_tunnel).await
}

/// What succeeds first; if neither does, the first one's error.
async fn first_success<T>(
    first: impl Future<Output = io::Result<T>>,
    second: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    tokio::select! {
        result = &mut first => match result {
            Ok(found) => Ok(found),
            Err(error) => second.await.map_err(|other| {
                debug!(%other, "asking past the tunnel failed, too");
                error
            }),
        },
        result = &mut second => match result {
            Ok(found) => Ok(found),
            Err(_) => first.await,
        },
    }
}

fn endpoint(key: PublicKey, address: SocketAddr) -> PeerChange {
    PeerChange { endpoint: Some(address), update_only: true, ..PeerChange::new(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{noise::PrivateKey, sys::random::os_rng};

    /// A resolver with one name, which is looked up for real.
    async fn with_name(host: &str) -> (Resolver, PublicKey) {
        let key = PrivateKey::generate(&mut os_rng()).public_key();
        let mut resolver = Resolver {
            names: HashMap::from([(key, Name::new(host.to_owned(), 4711))]),
            mark: 0,
            service: Names::here(),
            queue: VecDeque::new(),
            running: JoinSet::new(),
            changes: VecDeque::new(),
        };
        resolver.ask(key);
        resolver.first_round(Duration::from_secs(30)).await;
        (resolver, key)
    }

    #[tokio::test]
    async fn a_name_that_resolves_becomes_a_change_of_its_peer_alone() {
        let (mut resolver, key) = with_name("localhost").await;
        let change = resolver.poll_change().expect("localhost resolves");
        assert_eq!((change.public_key, change.update_only), (key, true));
        let place = change.endpoint.expect("an endpoint");
        assert!(place.ip().is_loopback() && place.port() == 4711, "{place}");
        assert!(resolver.poll_change().is_none());
    }

    #[tokio::test]
    async fn a_name_that_fails_is_tried_again_after_a_pause() {
        let (mut resolver, key) = with_name("does-not-exist.invalid").await;
        assert!(resolver.poll_change().is_none());
        let name = &resolver.names[&key];
        assert!(!name.busy && name.again.is_some());
    }

    #[tokio::test]
    async fn an_endpoint_set_by_hand_ends_the_following_of_a_name_unless_it_is_the_names_own() {
        let (mut resolver, key) = with_name("localhost").await;
        let own = resolver.poll_change().expect("localhost resolves").endpoint.expect("an endpoint");
        resolver.changed_by_hand(&Change::Peer(endpoint(key, own)));
        assert!(resolver.names.contains_key(&key), "`wg syncconf` says what the name says");
        let another = SocketAddr::from(([192, 0, 2, 1], 4711));
        resolver.changed_by_hand(&Change::Peer(endpoint(key, another)));
        assert!(!resolver.names.contains_key(&key));
        resolver.unanswered(&key);
        assert!(resolver.poll_change().is_none());
    }

    #[tokio::test]
    async fn another_name_is_asked_for_and_one_that_stays_is_left_alone() {
        let (mut resolver, key) = with_name("localhost").await;
        assert!(resolver.poll_change().is_some());
        let other = PrivateKey::generate(&mut os_rng()).public_key();
        let name = |host: &str| EndpointName::Name { host: host.to_owned(), port: 4711 };
        let names = Followed::from([(key, name("localhost")), (other, name("localhost"))]);
        resolver.follow(names.clone());
        assert_eq!(resolver.followed(), names);
        assert!(!resolver.names[&key].busy && resolver.names[&other].busy);
        resolver.first_round(Duration::from_secs(30)).await;
        assert_eq!(resolver.poll_change().expect("it resolves").public_key, other);
        assert!(resolver.poll_change().is_none());

        resolver.follow(Followed::from([(key, name("does-not-exist.invalid"))]));
        let place = SocketAddr::from(([127, 0, 0, 1], 4711));
        resolver.looked_up(key, &name("localhost"), Ok(vec![place]));
        assert!(resolver.poll_change().is_none(), "an answer for the name that it had before");
        resolver.follow(Followed::new());
        assert!(resolver.followed().is_empty());
    }

    #[tokio::test]
    async fn a_panic_in_a_look_up_ends_the_task_that_waits_for_it() {
        let (mut resolver, _) = with_name("localhost").await;
        resolver.running.spawn(async { panic!("looked up too much") });
        let waiting = tokio::spawn(async move { resolver.resolved().await });
        let panic = waiting.await.expect_err("it panicked").into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"looked up too much"));
    }

    #[tokio::test]
    async fn the_second_way_counts_where_the_first_fails_and_the_first_error_where_both_do() {
        let fails = |what: &'static str| async move { Err::<u8, _>(io::Error::other(what)) };
        let late = async {
            sleep(Duration::from_millis(10)).await;
            Ok(2)
        };
        assert_eq!(first_success(fails("system"), late).await.expect("the second"), 2);
        assert_eq!(first_success(async { Ok(1) }, std::future::pending()).await.expect("the first"), 1);
        assert_eq!(first_success(std::future::pending(), async { Ok(2) }).await.expect("the second"), 2);
        let error = first_success(fails("system"), fails("ours")).await.expect_err("both failed");
        assert_eq!(error.to_string(), "system");
    }
}
