//! Change while running: the file is read again, compared with what runs, and the difference applied. All or nothing:
//! what the host may refuse is done first, and undone if a later part is refused; what cannot fail comes last.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use super::{Driver, news::News};
use crate::{
    config::{Baseline, Config, Difference, EndpointName, Hook, Interface, Own, Peer, Running, followed},
    control::{Access, NotReloaded, Reloaded},
    daemon::{
        say_ready, say_reloading,
        start::{access, serve_metrics},
    },
    forward::carrier::packets_of_a_send,
    host::{Mtus, Plan},
    noise::{PrivateKey, PublicKey},
    tunnel::{Change, MAX_PEERS},
};

/// Before a take-back that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A file that is being read, and who waits for what comes of it.
pub(super) struct Reading {
    task: JoinHandle<Result<Config, String>>,
    confirm: Option<Duration>,
    answer: Option<Answer>,
    /// Asked for once more, meanwhile: the file may be another by now.
    again: bool,
}

type Answer = oneshot::Sender<Result<Reloaded, NotReloaded>>;

/// What runs on trial, until it is confirmed.
pub(super) struct Trial {
    until: Instant,
    before: Target,
}

impl Trial {
    /// When it is taken back.
    pub(super) fn ends(&self) -> Instant {
        self.until
    }
}

/// What is to run: by a file, or as it was before a reload.
#[derive(Clone)]
struct Target {
    interface: Interface,
    own: Option<PrivateKey>,
    peers: Vec<Peer>,
    /// Where peers were last, for those that have to be made again.
    seen: HashMap<PublicKey, SocketAddr>,
    /// None: the kernel chooses, or has chosen.
    port: Option<u16>,
    port_chosen: bool,
    mark: u32,
    plan: Plan,
    own_table: u32,
    baseline: Baseline,
    access: Access,
    /// Was something changed by hand since the file was read?
    by_hand: bool,
}

/// Resolves when the file has been read; never, if nobody reads.
pub(super) async fn has_read(reading: &mut Option<Reading>) -> Result<Config, String> {
    match reading {
        // A panic in any task ends the process; nobody cancels the reading.
        Some(reading) => {
            (&mut reading.task).await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
        }
        None => std::future::pending().await,
    }
}

impl Driver<'_> {
    /// Reads the file, beside the loop: it may lie on a slow disk.
    pub(super) fn begin_reload(&mut self, confirm: Option<Duration>, answer: Option<Answer>) {
        if let Some(reading) = &mut self.reading {
            match answer {
                Some(answer) => {
                    drop(answer.send(Err(NotReloaded("another reload is at work; try again".into()))))
                }
                None => reading.again = true,
            }
            return;
        }
        say_reloading();
        let read = Arc::clone(&self.read_config);
        let task = tokio::task::spawn_blocking(move || read());
        self.reading = Some(Reading { task, confirm, answer, again: false });
    }

    /// The file was read, or refused.
    pub(super) async fn finish_reload(&mut self, read: Result<Config, String>) {
        let Some(Reading { confirm, answer, again, .. }) = self.reading.take() else { return };
        let outcome = match read {
            Ok(config) => self.reload(config, confirm).await,
            Err(why) => Err(why),
        };
        match &outcome {
            Ok(Reloaded { changed, confirm_within_s }) => {
                self.tell(News::Reloaded { changed, confirm_within_s: *confirm_within_s });
            }
            Err(why) => self.tell(News::ReloadRefused { why }),
        }
        say_ready(&match &outcome {
            Ok(_) => format!("UDP port {}", self.plane.port()),
            Err(why) => format!("not reloaded, nothing changed: {}", why.lines().next().unwrap_or_default()),
        });
        if let Some(answer) = answer {
            // A client that has gone is no fault of ours.
            let _ = answer.send(outcome.map_err(NotReloaded));
        }
        if again {
            self.begin_reload(None, None);
        }
    }

    async fn reload(&mut self, config: Config, confirm: Option<Duration>) -> Result<Reloaded, String> {
        if let (Some(left), None) = (self.confirm_within(), confirm) {
            return Err(format!(
                "what was reloaded before waits for `vpnd confirm`: confirm it, or wait {left} s until it is taken back; \
                 with --confirm another trial can follow, from which the way back is the same"
            ));
        }
        let cannot = self.baseline.interface.cannot_become(&config.interface);
        if !cannot.is_empty() {
            return Err(cannot.join("\n"));
        }
        let before = self.as_it_runs();
        let target = self.target(config).await?;
        let changed = self.go_to(target).await?;
        if let Some(time) = confirm {
            let before = self.trial.take().map_or(before, |trial| trial.before);
            self.trial = Some(Trial { until: Instant::now() + time, before });
        }
        Ok(Reloaded { changed, confirm_within_s: confirm.map(|time| time.as_secs()) })
    }

    /// What runs on trial stays.
    pub(super) fn confirm(&mut self) -> Result<(), NotReloaded> {
        match self.trial.take() {
            Some(_) => {
                self.tell(News::Confirmed);
                Ok(())
            }
            None => Err(NotReloaded(
                "nothing waits for a confirmation: it was confirmed, or taken back, or reloaded without --confirm".into(),
            )),
        }
    }

    /// Seconds until what runs on trial is taken back.
    pub(super) fn confirm_within(&self) -> Option<u64> {
        let left = self.trial.as_ref()?.ends().saturating_duration_since(Instant::now());
        Some(left.as_millis().div_ceil(1000) as u64)
    }

    /// Nobody confirmed: all is as it was before, also what was changed by hand.
    pub(super) async fn take_back(&mut self) {
        let Some(Trial { before, .. }) = self.trial.take() else { return };
        let kept = before.clone();
        match self.go_to(before).await {
            Ok(changed) => self.tell(News::TakenBack { changed: &changed }),
            Err(why) => {
                self.tell(News::NotTakenBack { why: &why });
                self.trial = Some(Trial { until: Instant::now() + AGAIN, before: kept });
            }
        }
        say_ready(&format!("UDP port {}", self.plane.port()));
    }

    /// What a file asks for. A table of our own is claimed if there is none yet, and given up when it is not used.
    async fn target(&mut self, config: Config) -> Result<Target, String> {
        let own_table = match (Plan::wants_own_table(&config), self.own_table) {
            (false, _) => 0,
            (true, 0) => self.host.free_table().await.map_err(|error| error.to_string())?,
            (true, claimed) => claimed,
        };
        let mut plan = Plan::new(&config, own_table);
        plan.gso_max_segs = u32::try_from(packets_of_a_send(plan.mtu)).ok();
        let port = config.interface.listen_port;
        let sockets = &config.interface.sockets;
        let access = access(sockets, &self.around.names).await.map_err(|error| error.to_string())?;
        if let Some(why) = self.around.sandbox.cannot_give(sockets) {
            return Err(why);
        }
        Ok(Target {
            access,
            interface: config.interface.clone(),
            own: Some(config.interface.private_key.clone()),
            peers: config.peers.clone(),
            seen: HashMap::new(),
            port: port.or_else(|| self.port_chosen.then(|| self.plane.port())),
            port_chosen: port.is_none(),
            mark: plan.fwmark.unwrap_or(0),
            plan,
            own_table,
            baseline: Baseline::from(config),
            by_hand: false,
        })
    }

    /// For the way back.
    fn as_it_runs(&self) -> Target {
        let status = self.tunnel.status(self.clock.now());
        let names = self.resolver.followed();
        let seen = status.peers.iter().filter_map(|peer| Some((peer.public_key, peer.endpoint?)));
        let seen = seen.collect();
        let peers = status.peers.into_iter().map(|peer| Peer {
            name: Some(peer.label).filter(|label| *label != peer.public_key.short()),
            endpoint: names.get(&peer.public_key).cloned().or(peer.set_endpoint.map(EndpointName::Address)),
            public_key: peer.public_key,
            preshared_key: peer.preshared_key,
            allowed_ips: peer.allowed_ips,
            persistent_keepalive: peer.persistent_keepalive,
            expires: peer.expires,
        });
        Target {
            interface: self.interface_as_it_runs(),
            own: status.private_key,
            peers: peers.collect(),
            seen,
            port: Some(self.plane.port()),
            port_chosen: self.port_chosen,
            mark: self.fwmark,
            plan: self.plan.clone(),
            own_table: self.own_table,
            baseline: self.baseline.clone(),
            access: self.access,
            by_hand: self.by_hand,
        }
    }

    fn interface_as_it_runs(&self) -> Interface {
        Interface { mtu: self.settings.mtu, ..self.baseline.interface.clone() }
    }

    /// All of it, or nothing and why. Says what is another now.
    async fn go_to(&mut self, target: Target) -> Result<Vec<String>, String> {
        let status = self.tunnel.status(self.clock.now());
        let names = self.resolver.followed();
        let running = Running { status: &status, followed: &names };
        let difference = Difference::towards(running, Own::Key(target.own.as_ref()), &target.peers);
        if target.peers.len() > MAX_PEERS {
            return Err(format!("more than {MAX_PEERS} peers"));
        }
        let mut changed = self.interface_as_it_runs().becomes(&target.interface);
        changed.extend(self.port_words(&target));
        if self.fwmark != target.mark {
            changed.push(format!("fwmark {} → {}", mark_words(self.fwmark), mark_words(target.mark)));
        }
        if self.baseline.hooks != target.baseline.hooks {
            changed.push(format!("hooks {} → {}", self.baseline.hooks.len(), target.baseline.hooks.len()));
        }
        changed.extend(difference.applied());
        let changes = difference.changes();
        self.change_host(&target).await?;
        self.change_tunnel(changes, &target.seen);
        self.resolver.set_mark(target.mark);
        self.resolver.follow(followed(&target.peers));
        self.whereabouts.follow(&target.peers);
        self.tunnel.publish();
        if target.own_table == 0 && self.own_table != 0 {
            self.host.release_table().await;
        }
        self.clamp_mss(target.baseline.interface.clamp_mss);
        if !target.baseline.interface.capture_secrets {
            self.tunnel.forward().tap.withhold_secrets();
        }
        let Target { port_chosen, mark, plan, own_table, baseline, access, by_hand, .. } = target;
        let routes = self.settings.route_mtus.iter().map(|mtu| u32::from(*mtu)).collect();
        self.follow_mtus(&Mtus { device: plan.mtu.into(), routes });
        (self.port_chosen, self.fwmark, self.plan, self.own_table) = (port_chosen, mark, plan, own_table);
        (self.baseline, self.access, self.by_hand) = (baseline, access, by_hand);
        self.apply_resolved();
        Ok(changed)
    }

    /// What may be refused: metrics and hooks, who may speak to the control sockets, port, mark, then addresses, routes and rules.
    async fn change_host(&mut self, target: &Target) -> Result<(), String> {
        self.change_watchers(target).await?;
        let outcome = self.change_access_and_host(target).await;
        if outcome.is_err() {
            let (hooks, metrics) = (self.baseline.hooks.clone(), self.baseline.interface.metrics_listen);
            if let Err(why) = self.watch_by(hooks, metrics).await {
                tracing::error!(why, "hooks or metrics are not as they were before the reload");
            }
        }
        outcome
    }

    /// Who is told what happens, and who reads the metrics.
    async fn change_watchers(&mut self, target: &Target) -> Result<(), String> {
        let (hooks, metrics) = (target.baseline.hooks.clone(), target.interface.metrics_listen);
        self.watch_by(hooks, metrics).await
    }

    /// Hooks cannot be refused but where the file is gone again, so they come last.
    async fn watch_by(&mut self, hooks: Vec<Hook>, metrics: Option<SocketAddr>) -> Result<(), String> {
        if metrics != self.watched.1 {
            serve_metrics(&mut self.control, metrics).map_err(|error| error.to_string())?;
            self.watched.1 = metrics;
        }
        if hooks != self.watched.0 {
            self.events.set_hooks(&hooks).await?;
            self.watched.0 = hooks;
        }
        Ok(())
    }

    async fn change_access_and_host(&mut self, target: &Target) -> Result<(), String> {
        let before = self.access;
        if target.access != before {
            self.control.give(target.access, before).map_err(|error| error.to_string())?;
        }
        let outcome = self.change_carrier_and_host(target).await;
        if outcome.is_err() && target.access != before {
            let _ = self.control.give(before, before); // what matters is why it is wanted back
        }
        outcome
    }

    async fn change_carrier_and_host(&mut self, target: &Target) -> Result<(), String> {
        let port = target.port.unwrap_or(0);
        let moves = port != self.plane.port();
        if !moves && self.fwmark == target.mark {
            return self.apply_plan(target).await;
        }
        let new = match moves {
            true => Some(match self.plane.bind(port, target.mark) {
                Ok(bound) => bound,
                Err(error) => return Err(self.around.outside.explain_port(port, error).await.to_string()),
            }),
            false => None,
        };
        let former = self.plane.sockets();
        // Rules that let a mark pass come after the mark, and go before it: no packet of the tunnel enters it.
        let mark_first = self.plan.rules.is_empty();
        if !mark_first {
            self.apply_plan(target).await?;
        }
        let carried = match new {
            Some(new) => {
                self.plane.adopt(Arc::new(new));
                Ok(())
            }
            None => self.plane.set_mark(target.mark).map_err(|error| error.to_string()),
        };
        let outcome = match carried {
            Ok(()) if mark_first => self.apply_plan(target).await,
            Ok(()) => Ok(()),
            Err(why) => {
                self.restore_plan().await;
                Err(why)
            }
        };
        if outcome.is_err() {
            match moves {
                true => self.plane.adopt(former),
                false => drop(self.plane.set_mark(self.fwmark)),
            }
        }
        self.tunnel.forget_locals(None);
        outcome
    }

    async fn apply_plan(&mut self, target: &Target) -> Result<(), String> {
        let Err(error) = self.host.apply(&target.plan).await else { return Ok(()) };
        self.restore_plan().await;
        Err(error.to_string())
    }

    /// What the kernel dropped by itself on the way (the routes of a last address) does not come back by undoing.
    async fn restore_plan(&mut self) {
        if let Err(error) = self.host.apply(&self.plan).await {
            tracing::error!(%error, "the host is not as it was before the reload");
        }
    }

    /// Cannot fail: no file, and nothing that ran, has our own key as a peer, or more peers than there may be.
    fn change_tunnel(&mut self, changes: Vec<Change>, seen: &HashMap<PublicKey, SocketAddr>) {
        for mut change in changes {
            if let Change::Peer(peer) = &mut change
                && !peer.update_only
            {
                peer.endpoint = seen.get(&peer.public_key).copied().or(peer.endpoint);
            }
            if let Err(error) = self.tunnel.apply(change, self.clock.now()) {
                tracing::error!(%error, "a change was refused that never should be");
            }
        }
    }

    fn port_words(&self, target: &Target) -> Option<String> {
        let now = self.plane.port();
        match target.port {
            Some(port) if port == now => None,
            Some(port) => Some(format!("listen_port {now} → {port}")),
            None => Some(format!("listen_port {now} → chosen by the kernel")),
        }
    }

    /// What was changed by hand since the file was read: from the file to what runs.
    pub(super) fn differs(&self) -> Vec<String> {
        /// A page, not a book.
        const LINES: usize = 200;
        let mut lines = Vec::new();
        let interface = &self.baseline.interface;
        if self.settings.mtu != interface.mtu {
            lines.push(format!("mtu {} → {}", interface.mtu, self.settings.mtu));
        }
        match (interface.listen_port, self.plane.port()) {
            (Some(wanted), port) if wanted != port => lines.push(format!("listen_port {wanted} → {port}")),
            (None, port) if !self.port_chosen => {
                lines.push(format!("listen_port chosen by the kernel → {port}"))
            }
            _ => {}
        }
        let wanted = self.plan.fwmark.unwrap_or(0);
        if wanted != self.fwmark {
            lines.push(format!("fwmark {} → {}", mark_words(wanted), mark_words(self.fwmark)));
        }
        if self.by_hand {
            let (status, names) = (self.tunnel.status(self.clock.now()), self.resolver.followed());
            let running = Running { status: &status, followed: &names };
            lines.extend(self.baseline.difference(running).differs());
        }
        if lines.len() > LINES {
            let more = lines.len() - LINES;
            lines.truncate(LINES);
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

fn mark_words(mark: u32) -> String {
    if mark == 0 { "off".to_owned() } else { format!("{mark:#x}") }
}
