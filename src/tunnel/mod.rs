//! The upper half: a state machine without I/O, the one owner of the truth. One owner drives it: mutate,
//! drain, mutate. Every method is a getter, a `handle_*`, a command (`apply`, `expire`) or a `poll_*`.
//!
//! ```text
//! handle_handshake / handle_raised / apply / expire
//!         └── then, until each is None: poll_transmit, poll_event; then sleep until deadline()
//! ```
//!
//! The files, by the walk: [`change`] and `apply` (what is asked), `receive` (handshake messages that came),
//! `send` (those that go), `hooks` (what the data threads raised), `expire` (what time brings), `expiry` (what the
//! wall clock brings), `resume` (what a process before us knew), `watched` (handshakes that a capture sees),
//! [`status`], [`sample`] and [`event`] (what is seen).
//! What they work on: `peer` (one peer's truth) with `keypairs` (its sessions),
//! `routes`, `indices`, `timers`, `load` with `limiter` and `work`, and `outbox` (both queues that leave the room).

mod apply;
pub mod change;
pub mod event;
mod expire;
mod expiry;
mod hooks;
mod indices;
mod keypairs;
mod limiter;
mod load;
mod outbox;
mod peer;
mod receive;
mod resume;
mod routes;
pub mod sample;
mod send;
pub mod status;
mod timers;
mod watched;
mod work;

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use ipnet::IpNet;
use rand_core::CryptoRng;

pub use change::{AllowedIpOp, Change, ChangeError, Expires, MAX_PEERS, PeerChange};
pub use event::Event;
pub use expire::EXPIRE_BATCH;
pub use outbox::{EVENT_QUEUE, TRANSMIT_QUEUE};
pub use resume::Remembered;
pub use sample::{PeerSample, Sample};
pub use status::{PeerStatus, Status};

use crate::forward::{
    Endpoint, Evidence, Forward, HandshakeDatagram, Peer, PeerId, Raised, Refusal, Time, session,
};
use crate::noise::{Identity, PublicKey, Tai64n, Vault, macs::MacKeys};
use crate::wire::outer::Outer;

/// An unanswered initiation is sent again after this, and no two leave within it (paper, section 6.1).
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Up to this is added to REKEY_TIMEOUT, by chance, so that two ends do not stay in step.
pub const REKEY_JITTER: Duration = Duration::from_millis(333);
/// Initiations in a row before the handshake is given up: REKEY_ATTEMPT_TIME (90 s) by REKEY_TIMEOUT.
pub const MAX_ATTEMPTS: u32 = 18;
/// Data that came is answered with an empty packet after this, if with nothing else (section 6.5).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer's initiations are read at most this often (the kernel's INITIATIONS_PER_SECOND, 50).
pub const INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// A cookie serves for this long, and so does the secret that it comes from (section 5.4.7).
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);
/// So long after a handshake the session before it is forgotten, if the peer seals with the new one: what was on its way
/// has arrived by then. (The paper lets it stay until the next handshake.)
pub const RETIRE_AFTER_TIME: Duration = Duration::from_secs(5);
/// After this long without a new handshake all that is secret about the last one is erased (section 6.3).
pub const ERASE_AFTER_TIME: Duration = Duration::from_secs(3 * session::REJECT_AFTER_TIME.as_secs());

/// The two clocks at one moment: boot time for everything, wall time for TAI64N and for people.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub boot: Time,
    /// Since the Unix epoch.
    pub wall: Duration,
}

/// What can be tuned; the default is the protocol's.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// REKEY_AFTER_TIME; a test may shorten it, nothing may lengthen it.
    pub rekey_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { rekey_after: session::REKEY_AFTER_TIME }
    }
}

/// A datagram to send.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Whose it is, if it is a peer's (for `forget_local` when the send fails).
    pub peer: Option<PeerId>,
    /// Where to, and from which of our addresses.
    pub to: Endpoint,
    /// What its header says: the default but for staged data.
    pub outer: Outer,
    /// The datagram.
    pub datagram: Bytes,
}

/// Makes memory for one private key; none: there is no better than the heap.
pub type Vaults = Box<dyn Fn() -> Option<Box<dyn Vault>> + Send>;

/// Our key pair and the mac keys of what is sent to us.
struct Ours {
    identity: Identity,
    macs: MacKeys,
}

/// The upper half of one tunnel.
pub struct Tunnel {
    forward: Arc<Forward>,
    timing: Timing,
    rng: Box<dyn CryptoRng + Send>,
    vaults: Option<Vaults>,
    ours: Option<Ours>,
    peers: peer::Peers,
    routes: routes::Routes,
    indices: indices::Indices,
    timers: timers::Timers,
    expiries: expiry::Expiries,
    load: load::Load,
    outbox: outbox::Outbox,
    /// Sessions that data threads get when what was staged has been sent. Empty once the outbox was drained.
    handovers: VecDeque<send::Handover>,
    /// No peer is ever sent a timestamp at or before this: the newest that a peer now gone was sent. Were it
    /// made again after the wall clock went back, our initiations would else be replays to it.
    timestamp_floor: Tai64n,
    /// How many changes were asked for.
    generation: u64,
    /// The newest that any peer was sent.
    newest_timestamp: Tai64n,
    /// The message that is looked at, while a capture wants to know.
    watched: Option<HandshakeDatagram>,
}

impl Tunnel {
    /// A tunnel without key and peers, that publishes into `forward`.
    pub fn new(forward: Arc<Forward>, timing: Timing, mut rng: Box<dyn CryptoRng + Send>) -> Self {
        forward.handshakes.scatter([rng.next_u64(), rng.next_u64()]);
        let rekey_after = timing.rekey_after.min(session::REKEY_AFTER_TIME);
        Self {
            forward,
            timing: Timing { rekey_after },
            rng,
            vaults: None,
            ours: None,
            peers: peer::Peers::default(),
            routes: routes::Routes::default(),
            indices: indices::Indices::default(),
            timers: timers::Timers::default(),
            expiries: expiry::Expiries::default(),
            load: load::Load::default(),
            outbox: outbox::Outbox::default(),
            handovers: VecDeque::new(),
            timestamp_floor: Tai64n::default(),
            generation: 0,
            newest_timestamp: Tai64n::default(),
            watched: None,
        }
    }

    /// From now on a private key lives in memory that this makes, where it can.
    pub fn keep_key_in(&mut self, vaults: Vaults) {
        self.vaults = Some(vaults);
    }

    /// The half that the data threads have.
    pub fn forward(&self) -> &Arc<Forward> {
        &self.forward
    }

    /// Alters the tunnel: all of the change, or none of it and why.
    pub fn apply(&mut self, change: Change, now: Now) -> Result<(), ChangeError> {
        self.generation += 1;
        self.make(change, now)
    }

    /// After a batch of [`Self::apply`]: publishes allowed IPs once. (Also done by any `handle_*` and `expire`.)
    pub fn publish(&mut self) {
        if let Some(table) = self.routes.take_changed(&self.peers) {
            self.forward.routes.store(Arc::new(table));
        }
    }

    /// An initiation, response or cookie reply. `waiting`: how many handshake datagrams wait behind it (under
    /// load from an eighth of [`crate::forward::HANDSHAKE_QUEUE`] on, or where no time is left between them; and for one
    /// second after).
    pub fn handle_handshake(&mut self, datagram: HandshakeDatagram, waiting: usize, now: Now) {
        self.publish();
        let asked = self.forward.handshakes.asking.count();
        if self.load.note(waiting, asked, datagram.from.remote.ip(), now.boot) {
            self.load_changed(now);
        }
        self.receive(&datagram, now);
    }

    /// What a data thread raised at a peer.
    pub fn handle_raised(&mut self, peer: &Arc<Peer>, raised: Raised, now: Now) {
        self.publish();
        if self.peers.of(peer.id).is_none() {
            return; // taken away since
        }
        if raised.has(Raised::CONFIRMED) {
            self.session_confirmed(peer.id, now);
        }
        if raised.has(Raised::ROAMED) {
            self.endpoint_moved(peer.id);
        }
        if raised.has(Raised::TIMER) {
            self.arm_activity_timers(peer.id, now.boot);
        }
        if raised.has(Raised::WANTS_SESSION) {
            self.session_wanted(peer.id, now);
        }
    }

    /// Does what is due: at most [`EXPIRE_BATCH`] timers and expired peers, so that the outbox is drained between; if more are
    /// due, the deadlines say so.
    pub fn expire(&mut self, now: Now) {
        self.publish();
        if self.load.expire(self.forward.handshakes.asking.count(), now.boot) {
            self.load_changed(now);
        }
        self.expire_peers(now);
        self.expire_timers(now);
    }

    /// When `expire` is wanted next; the wall clock may want it too: [`Self::wall_deadline`].
    pub fn deadline(&self) -> Option<Time> {
        [self.timers.next(), self.load.deadline()].into_iter().flatten().min()
    }

    /// The next datagram to send. When this is called, the one before has been sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let transmit = self.outbox.poll_transmit();
            if transmit.is_some() || !self.next_handover() {
                return transmit;
            }
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.outbox.poll_event()
    }

    /// The device came up: what was staged asks for its sessions, and peers with a persistent keepalive send
    /// one now (netns.sh, "keepalive on link up"): the next `expire` does it.
    pub fn link_up(&mut self, now: Now) {
        self.publish();
        self.wake_peers(now);
    }

    /// The address of ours that this peer talked to cannot be sent from any more.
    pub fn forget_local(&mut self, peer: PeerId) {
        if let Some(peer) = self.peers.of(peer) {
            peer.shared.forget_local();
        }
    }

    /// That address is gone from the host (`None`: any source may be the wrong one now): the kernel chooses a source
    /// for these peers until they are heard from again.
    pub fn forget_locals(&mut self, address: Option<IpAddr>) {
        self.forget_locals_of(|endpoint| {
            endpoint.local.is_some_and(|local| address.is_none_or(|gone| gone == local.address))
        });
    }

    /// The way to these destinations changed, and maybe the source with it.
    pub fn forget_locals_towards(&mut self, destinations: IpNet) {
        self.forget_locals_of(|endpoint| destinations.contains(&endpoint.remote.ip()));
    }

    fn forget_locals_of(&mut self, concerned: impl Fn(&Endpoint) -> bool) {
        for peer in self.peers.iter() {
            if peer.shared.endpoint().is_some_and(|endpoint| endpoint.local.is_some() && concerned(&endpoint))
            {
                peer.shared.forget_local();
            }
        }
    }

    /// Everything that can be seen.
    pub fn status(&self, now: Now) -> Status {
        self.look(now)
    }

    /// One peer whole, by key.
    pub fn peer_status(&self, key: &PublicKey, now: Now) -> Option<PeerStatus> {
        Some(self.peers.of(self.peers.id(key)?)?.look(now))
    }

    /// One peer by key, without building the whole status.
    pub fn peer_id(&self, key: &PublicKey) -> Option<PeerId> {
        self.peers.id(key)
    }

    /// The key of the first peer with this name.
    pub fn key_of(&self, name: &str) -> Option<PublicKey> {
        let named = self.peers.iter().find(|peer| peer.shared.label.load().as_str() == name);
        named.map(|peer| peer.shared.public_key)
    }

    /// A peer's key and name.
    pub fn peer_name(&self, id: PeerId) -> Option<(PublicKey, String)> {
        self.peers.of(id).map(|peer| (peer.shared.public_key, peer.label()))
    }

    /// Our own key, if we have one.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.ours.as_ref().map(|ours| *ours.identity.public_key())
    }

    /// How many peers there are.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Counts what is refused, with its evidence.
    fn refuse(&mut self, what: Refusal, evidence: Evidence) {
        self.tell_received(evidence.peer, Some(what), None, evidence.at);
        tracing::trace!(reason = what.name(), from = ?evidence.from, peer = ?evidence.peer, "refused");
        self.forward.refusals.count(what, evidence);
    }
}
