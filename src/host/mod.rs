//! What the host should look like (a [`Plan`], pure), and its application by netlink: addresses, routes,
//! policy rules of the tunnel device; the undo stands beside each do. Knows no packets.
//!
//! Whatever we place carries [`PROTOCOL`]. Addresses and routes vanish with the device; policy rules do not,
//! so they obey one order: routes come before the rules that point at them, and go after them. A rule of ours
//! whose table is empty therefore belongs to a daemon that was killed, and [`Host::sweep`] needs no memory.

pub mod fib; // where the kernel would send a packet, and why
pub mod plan;

mod adopt; // what a daemon before us placed
mod apply; // the difference between the plan and what is there, and its undo
mod error; // what the kernel's answer means to an operator
mod exchange; // the netlink socket: batches and dumps
mod holder; // who has this device name
mod mend; // what somebody else removed is put back
mod message; // our values ⇄ netlink messages
mod policy; // the pair of rules for a default route: placed, found, swept
mod present; // what is there
mod return_path; // rp_filter: a warning
mod step; // one do, and its undo beside it
mod table; // a routing table nobody uses
mod watch; // the device lost, the network changed

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Arc, Mutex as Plain, PoisonError},
};

use tokio::sync::Mutex;

use ipnet::IpNet;

pub use message::PROTOCOL;
pub use plan::{MAIN_TABLE, Plan, Route, Rule};

pub use mend::Mended;

use apply::Placed;
use exchange::Exchange;
use table::Claim;
use watch::{Changes, Subscription};

/// A netlink request that failed: what was attempted, what came back, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {source}{}", remedy.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
pub struct HostError {
    /// Such as "add route 10.0.0.0/8 dev vpn0 table main".
    pub attempted: String,
    /// The kernel's answer.
    pub source: io::Error,
    /// What would do.
    pub remedy: Option<String>,
}

/// Netlink connections in the network namespace of the thread that opened them: one for what is done, one for what
/// the watchers read, so that neither waits for the other.
pub struct Host {
    work: Mutex<Workbench>,
    exchange: Mutex<Exchange>,
    device_events: Mutex<Subscription>,
    changes: Mutex<Changes>,
    /// What the watchers know as ours. Never held while waiting.
    own: Plain<Option<Own>>,
}

/// What is needed to change the host, and what was changed.
struct Workbench {
    exchange: Exchange,
    /// By `apply`, until `undo`.
    placed: Option<Placed>,
    /// The table that `free_table` named last.
    claim: Option<Claim>,
}

/// Our device, and what belongs there.
#[derive(Clone, Debug)]
struct Own {
    index: u32,
    plan: Arc<Plan>,
}

impl Host {
    /// Opens the connections (inside a tokio runtime with I/O and time). Subscribes to changes of the network
    /// at once, so that [`Host::network_changed`] misses none from here on.
    pub async fn open() -> Result<Self, HostError> {
        let failed = |e: io::Error| HostError::new("open a netlink socket", e.into());
        let mut exchange = Exchange::open().map_err(failed)?;
        let workbench = Workbench { exchange: Exchange::open().map_err(failed)?, placed: None, claim: None };
        let device_events = Subscription::to_links().map_err(failed)?;
        let changes = Changes::since_now(&mut exchange).await?;
        Ok(Self {
            work: Mutex::new(workbench),
            exchange: Mutex::new(exchange),
            device_events: Mutex::new(device_events),
            changes: Mutex::new(changes),
            own: Plain::new(None),
        })
    }

    /// Removes what a killed daemon left: rules with our protocol number whose table has no route any more.
    /// Returns what was removed, for the log. Looks twice, a moment apart, so that a daemon that is just
    /// starting or reloading is left alone; rules that this `Host` placed are never touched.
    pub async fn sweep(&self) -> Result<Vec<String>, HostError> {
        let own = self.work.lock().await.placed.as_ref().map_or(Vec::new(), |placed| placed.rules.clone());
        policy::sweep(&self.exchange, &own).await
    }

    /// Makes the host look like the plan (device `plan.device` exists): addresses, MTU, up, routes, rules.
    /// On failure what was done is undone. Things already there as planned are left; what an earlier call
    /// placed and this plan lacks is removed, so that a reload is a second call. Addresses and routes that
    /// others put on the device stay.
    pub async fn apply(&self, plan: &Plan) -> Result<(), HostError> {
        let Workbench { exchange, placed, .. } = &mut *self.work.lock().await;
        if let Some(other) = placed.take_if(|placed| placed.device != plan.device) {
            self.know(None);
            apply::undo(exchange, other).await?;
        }
        apply::apply(exchange, placed, plan).await?;
        self.know(placed.as_ref().map(|placed| Own { index: placed.index, plan: Arc::new(plan.clone()) }));
        Ok(())
    }

    /// Puts back what somebody else removed of the last plan that was applied: addresses, routes, rules; says what.
    /// What is refused is told, and the rest done all the same. A device that is down is left as it is.
    pub async fn mend(&self) -> Result<Mended, HostError> {
        let Workbench { exchange, placed, .. } = &mut *self.work.lock().await;
        match (placed, self.own()) {
            (Some(placed), Some(own)) => mend::mend(exchange, placed, &own.plan).await,
            _ => Ok(Mended::default()),
        }
    }

    /// Removes everything that we placed, rules first; also what would vanish with the device, if the device is
    /// still there (call this after the device is gone where there are very many routes: it is quicker).
    /// Goes on after a failure and returns the first. A second call does nothing.
    pub async fn undo(&self) -> Result<(), HostError> {
        self.know(None);
        let Workbench { exchange, placed, .. } = &mut *self.work.lock().await;
        match placed.take() {
            Some(placed) => apply::undo(exchange, placed).await,
            None => Ok(()),
        }
    }

    /// Resolves when the device is deleted or leaves this namespace. After [`Host::apply`] it is the device of the
    /// plan, by its index: another one that takes over the name is not mistaken for it. May be dropped and called
    /// again.
    pub async fn device_lost(&self, device: &str) {
        let applied = self.own().filter(|own| own.plan.device == device);
        let mut events = self.device_events.lock().await;
        watch::device_lost(&mut events, &self.exchange, device, applied.map(|own| own.index)).await;
    }

    /// Waits for the next change of the host's network that can move or break the tunnel's own path, or that takes
    /// away what is ours: an address went, a route, rule or link changed. A burst is told once.
    /// May be dropped and called again without losing a change; one caller at a time.
    pub async fn network_changed(&self) -> NetworkChange {
        let own = self.own();
        self.changes.lock().await.next(&self.exchange, own.as_ref()).await
    }

    fn own(&self) -> Option<Own> {
        // One value, whole between any two statements.
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn know(&self, own: Option<Own>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }

    /// Waits for the next address that this host lost on all its devices. Drops the other changes: call this
    /// or [`Host::network_changed`], not both.
    pub async fn address_removed(&self) -> IpAddr {
        loop {
            if let NetworkChange::AddressRemoved(address) = self.network_changed().await {
                return address;
            }
        }
    }

    /// A table number (and mark) that no route, no rule and no other daemon uses: from 51820 up, as wg-quick. It
    /// is this host's, against other daemons, until the next call.
    pub async fn free_table(&self) -> Result<u32, HostError> {
        let Workbench { exchange, claim, .. } = &mut *self.work.lock().await;
        *claim = None;
        let (table, taken) = table::free(exchange).await?;
        *claim = Some(taken);
        Ok(table)
    }

    /// The table that [`Host::free_table`] named is nobody's again.
    pub async fn release_table(&self) {
        self.work.lock().await.claim = None;
    }

    /// Is `address` one of this host's?
    pub async fn has_address(&self, address: IpAddr) -> Result<bool, HostError> {
        let present = self.exchange.lock().await.addresses().await?;
        Ok(present.iter().any(|a| a.network.addr() == address))
    }

    /// Who holds this device name, for the error: "interface vpn0 exists already (a TUN held by process 4711,
    /// vpnd)". None if there is no such device.
    pub async fn device_exists(&self, device: &str) -> Result<Option<String>, HostError> {
        let link = self.exchange.lock().await.link(device).await?;
        Ok(link.map(|link| holder::describe(&link)))
    }
}

/// What bounds a packet on its way into our device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mtus {
    /// Of the device.
    pub device: u32,
    /// Those that routes to it name (`ip route add … mtu 1300`).
    pub routes: BTreeSet<u32>,
}

/// What became of the host's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// No device has this address any more: forget it as a source.
    AddressRemoved(IpAddr),
    /// A route to there came or went (or a policy rule, or more routes than are told apart: then it is `/0`): the
    /// way to endpoints inside, and its source, may have moved.
    RouteChanged(IpNet),
    /// A device with addresses changed between up and down. Its IPv4 routes go without a word.
    LinkChanged,
    /// The MTU of our own device may have changed, or one that a route to it names.
    Mtus(Mtus),
    /// Our own device was set up (true) or down.
    OwnLink(bool),
    /// Something of ours may have been removed: [`Host::mend`] looks.
    OwnLost,
}
