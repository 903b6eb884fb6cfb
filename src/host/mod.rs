//! What the host should look like (a [`Plan`], pure), and its application by netlink: addresses, routes,
//! policy rules of the tunnel device; the undo stands beside each do. Knows no packets.
//!
//! Whatever we place carries [`PROTOCOL`]. Addresses and routes vanish with the device; policy rules do not,
//! so they obey one order: routes come before the rules that point at them, and go after them. A rule of ours
//! whose table is empty therefore belongs to a daemon that was killed, and [`Host::sweep`] needs no memory.

pub mod plan;

mod adopt; // what a daemon before us placed
mod apply; // the difference between the plan and what is there, and its undo
mod error; // what the kernel's answer means to an operator
mod exchange; // the netlink socket: batches and dumps
mod holder; // who has this device name
mod message; // our values ⇄ netlink messages
mod policy; // the pair of rules for a default route: placed, found, swept
mod present; // what is there
mod return_path; // rp_filter: a warning
mod step; // one do, and its undo beside it
mod table; // a routing table nobody uses
mod watch; // the device lost, the network changed

use std::{collections::BTreeSet, io, net::IpAddr};

use tokio::sync::Mutex;

use ipnet::IpNet;

pub use message::PROTOCOL;
pub use plan::{MAIN_TABLE, Plan, Route, Rule};

use apply::{Device, Placed};
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

/// A netlink connection in the network namespace of the thread that opened it.
pub struct Host {
    exchange: Mutex<Exchange>,
    device_events: Mutex<Subscription>,
    changes: Mutex<Changes>,
    /// By `apply`, until `undo`.
    placed: Option<Placed>,
    /// The table that `free_table` named last.
    claim: Mutex<Option<Claim>>,
}

impl Host {
    /// Opens the connection (inside a tokio runtime with I/O and time). Subscribes to changes of the network
    /// at once, so that [`Host::network_changed`] misses none from here on.
    pub async fn open() -> Result<Self, HostError> {
        let failed = |e: io::Error| HostError::new("open a netlink socket", e.into());
        let mut exchange = Exchange::open().map_err(failed)?;
        let device_events = Subscription::to_links().map_err(failed)?;
        let changes = Changes::since_now(&mut exchange).await?;
        Ok(Self {
            exchange: Mutex::new(exchange),
            device_events: Mutex::new(device_events),
            changes: Mutex::new(changes),
            placed: None,
            claim: Mutex::new(None),
        })
    }

    /// Removes what a killed daemon left: rules with our protocol number whose table has no route any more.
    /// Returns what was removed, for the log. Looks twice, a moment apart, so that a daemon that is just
    /// starting or reloading is left alone; rules that this `Host` placed are never touched.
    pub async fn sweep(&self) -> Result<Vec<String>, HostError> {
        let own = self.placed.as_ref().map_or(&[][..], |placed| &placed.rules);
        policy::sweep(&self.exchange, own).await
    }

    /// Makes the host look like the plan (device `plan.device` exists): addresses, MTU, up, routes, rules.
    /// On failure what was done is undone. Things already there as planned are left; what an earlier call
    /// placed and this plan lacks is removed, so that a reload is a second call. Addresses and routes that
    /// others put on the device stay.
    pub async fn apply(&mut self, plan: &Plan) -> Result<(), HostError> {
        if self.placed.as_ref().is_some_and(|placed| placed.device != plan.device) {
            self.undo().await?;
        }
        let device = apply::apply(self.exchange.get_mut(), &mut self.placed, plan).await?;
        if device == Device::SetUp {
            // That it was down before is no loss.
            self.device_events.get_mut().skip();
        }
        Ok(())
    }

    /// Removes everything that we placed, rules first; also what would vanish with the device, if the device is
    /// still there (call this after the device is gone where there are very many routes: it is quicker).
    /// Goes on after a failure and returns the first. A second call does nothing.
    pub async fn undo(&mut self) -> Result<(), HostError> {
        match self.placed.take() {
            Some(placed) => apply::undo(self.exchange.get_mut(), placed).await,
            None => Ok(()),
        }
    }

    /// Resolves when the device is deleted, set down, or leaves this namespace; says which. A device that is
    /// not up yet is waited for. After [`Host::apply`] it is the device of the plan, by its index: another one
    /// that takes over the name is not mistaken for it. May be dropped and called again.
    pub async fn device_lost(&self, device: &str) -> Lost {
        let applied = self.placed.as_ref().filter(|placed| placed.device == device);
        let mut events = self.device_events.lock().await;
        watch::device_lost(&mut events, &self.exchange, device, applied.map(|placed| placed.index)).await
    }

    /// Waits for the next change of the host's network that can move or break the tunnel's own path: an address
    /// went, a route, rule or link changed. Of our own device only its MTUs are told; a burst is told once.
    /// May be dropped and called again without losing a change; one caller at a time.
    pub async fn network_changed(&self) -> NetworkChange {
        let own = self.placed.as_ref().map(|placed| placed.index);
        self.changes.lock().await.next(&self.exchange, own).await
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
        let mut claim = self.claim.lock().await;
        *claim = None;
        let (table, taken) = table::free(&mut *self.exchange.lock().await).await?;
        *claim = Some(taken);
        Ok(table)
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

/// What became of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Deleted, or moved to another namespace.
    Deleted,
    /// Set down.
    Down,
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
}
