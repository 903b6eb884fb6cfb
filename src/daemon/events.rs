//! What happened, once, for everybody: the log, the ring that `vpnd events` reads, and the hooks.
//! Whoever has something to tell calls [`Events::record`].

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;
use tracing::field::display;

use super::{DaemonError, hooks::Hooks, refused::Watch};
use crate::{
    config::Hook,
    control::events::{self, EventReport, What, Who},
    plane::Clock,
    tunnel::{Event, Tunnel},
};

/// At the end, for listeners.
const FAREWELL: Duration = Duration::from_millis(100);

/// The one place that events go to.
pub(super) struct Events {
    told: events::Events,
    /// The log goes to the journal, which wants every field; lines for people have the sentence and the peer.
    fields: bool,
    hooks: Hooks,
    refused: Watch,
    clock: Clock,
}

impl Events {
    /// `told`: what the control socket reads from.
    pub(super) fn new(told: events::Events, hooks: Hooks, fields: bool) -> Self {
        Self { told, fields, hooks, refused: Watch::new(), clock: Clock }
    }

    /// Something happened, now; `who`: the peer that it is about.
    pub(super) fn record(&mut self, who: Option<Who>, what: What) {
        let time = self.clock.now().wall.as_secs_f64();
        let event = self.told.record(time, who.as_ref(), what);
        self.log(&event);
        self.hooks.happened(&event);
    }

    /// Other commands from now on; those that run have a moment to end.
    pub(super) async fn set_hooks(&mut self, hooks: &[Hook]) -> Result<(), String> {
        self.hooks.set(hooks).await
    }

    /// Nothing more happens: hooks that run have a moment to end.
    pub(super) async fn end(&self) {
        self.hooks.farewell().await;
    }

    /// The name of an event as a field of a line that tells of it, if the log wants fields.
    pub(super) fn field(&self, name: &'static str) -> Option<&'static str> {
        self.fields.then_some(name)
    }

    /// The same for what the tunnel tells.
    pub(super) fn tunnel(&mut self, event: &Event) {
        let (who, what) = told_by_tunnel(event);
        self.record(who, what);
    }

    /// The last thing was told: whoever listens gets a moment to hear it.
    pub(super) async fn farewell(&self) {
        if self.told.has_listeners() {
            tokio::time::sleep(FAREWELL).await;
        }
    }

    /// Resolves when it is time for [`Self::look_at_refusals`]; with an error if the hooks' process has ended.
    pub(super) async fn due(&mut self) -> Result<(), DaemonError> {
        tokio::select! {
            () = self.refused.due(self.told.attended(), self.told.has_listeners()) => Ok(()),
            () = self.hooks.ended() => Err(DaemonError::TaskEnded("hooks")),
        }
    }

    /// What data threads refuse is counted, not told: so the counts are looked at now and then.
    pub(super) fn look_at_refusals(&mut self, tunnel: &Tunnel) {
        if !self.refused.is_due(Instant::now(), self.told.has_listeners()) {
            return;
        }
        for (who, what) in self.refused.look(tunnel, self.clock.now().boot) {
            self.record(who, what);
        }
    }

    fn log(&self, event: &EventReport) {
        let peer = event.peer.as_deref();
        let name = self.fields.then(|| event.what.name());
        let key = event.public_key.as_deref().filter(|_| self.fields);
        macro_rules! say {
            ($level:ident, $($rest:tt)*) => {
                tracing::$level!(peer, event = name, public_key = key, $($rest)*)
            };
        }
        let place = |place: &SocketAddr| display(*place);
        match &event.what {
            What::Started { .. } => say!(debug, "started"), // "up" has been said
            What::Stopping { why } => say!(info, why, "stopping"),
            What::Connected { endpoint, initiator } => {
                let initiator = self.fields.then_some(*initiator);
                say!(info, endpoint = place(endpoint), initiator, "connected");
            }
            What::Handshake { endpoint, initiator } => {
                say!(debug, endpoint = place(endpoint), initiator, "session renewed");
            }
            What::Roamed { from: Some(from), to } => say!(info, from = place(from), to = place(to), "roamed"),
            What::Roamed { from: None, to } => {
                say!(debug, to = place(to), "heard from for the first time");
            }
            What::Unanswered { attempts: 3 } => {
                let attempts = self.fields.then_some(3);
                say!(
                    warn,
                    attempts,
                    "handshakes go unanswered: nobody listens at the endpoint, a firewall drops UDP, or the keys do \
                     not match"
                );
            }
            What::Unanswered { attempts } => say!(debug, attempts, "an initiation went unanswered"),
            What::GivenUp => say!(warn, "handshake given up after 90 s without an answer"),
            What::Silent => say!(info, "silent: its last session has expired"),
            What::Expired => {
                say!(warn, "expired: its time (`expires`) is over, and it is not let in any more")
            }
            What::PrefixMoved { prefix, from, to } => {
                say!(warn, prefix, from, to, "allowed IP moved to another peer");
            }
            What::UnderLoad { on: true } => {
                say!(warn, on = true, "under load: handshakes must show a cookie")
            }
            What::UnderLoad { on: false } => say!(info, on = false, "no longer under load"),
            What::Refused { reason, count, from, key: about, inner, owner, text } => {
                let from = from.as_ref().map(place).filter(|_| self.fields);
                let about = about.as_deref().filter(|_| self.fields);
                let inner = inner.map(display).filter(|_| self.fields);
                let owner = owner.as_deref().filter(|_| self.fields);
                say!(info, reason, count, from, key = about, inner, owner, "refused: {text}");
            }
            What::SecretsGiven { on: true } => say!(
                warn,
                on = true,
                "a capture is given the private key and the keys of each handshake that begins from now on: whoever has its \
                 file reads what these sessions carry, and can be this end of the tunnel"
            ),
            What::SecretsGiven { on: false } => {
                say!(info, on = false, "keys are given to no capture any more")
            }
            // `Driver::tell` says these, in more words.
            What::Reloaded { .. }
            | What::ReloadRefused { .. }
            | What::Confirmed
            | What::TakenBack { .. }
            | What::NotTakenBack { .. }
            | What::Drift { .. }
            | What::Displaced { .. }
            | What::Link { .. } => {}
            What::Lost { .. } => {}
        }
    }
}

fn told_by_tunnel(event: &Event) -> (Option<Who>, What) {
    let (who, what) = match event {
        Event::Connected { key, label, from, initiator, first: true, .. } => {
            ((key, label), What::Connected { endpoint: *from, initiator: *initiator })
        }
        Event::Connected { key, label, from, initiator, first: false, .. } => {
            ((key, label), What::Handshake { endpoint: *from, initiator: *initiator })
        }
        Event::Roamed { key, label, from, to, .. } => ((key, label), What::Roamed { from: *from, to: *to }),
        Event::Unanswered { key, label, attempts, .. } => {
            ((key, label), What::Unanswered { attempts: *attempts })
        }
        Event::GivenUp { key, label, .. } => ((key, label), What::GivenUp),
        Event::Silent { key, label, .. } => ((key, label), What::Silent),
        Event::Expired { key, label, .. } => ((key, label), What::Expired),
        Event::PrefixMoved { prefix, from, to } => {
            let (prefix, from, to) = (prefix.to_string(), from.to_string(), to.to_string());
            return (None, What::PrefixMoved { prefix, from, to });
        }
        Event::UnderLoad(on) => return (None, What::UnderLoad { on: *on }),
    };
    (Some(Who { name: who.1.clone(), key: *who.0 }), what)
}
