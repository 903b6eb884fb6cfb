//! What outlives this process: the TUN device, the UDP sockets, and a memory of where peers are, kept by the service
//! manager (`FDSTORE=1`, sd_notify(3)) until the next process takes them over. Not a key, not a counter: sessions are
//! made anew, so no nonce can repeat.

use std::{
    collections::BTreeSet,
    env,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use sd_notify::NotifyState;
use tracing::{debug, info, warn};

use crate::{
    plane::{Plane, UdpSockets, udp::Family},
    sys::inherit,
};

/// A descriptor's name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// The TUN device.
    Tun,
    /// The IPv4 socket.
    Udp4,
    /// The IPv6 socket.
    Udp6,
    /// Where peers are ([`super::whereabouts`]).
    Peers,
}

impl Name {
    const ALL: [Self; 4] = [Self::Tun, Self::Udp4, Self::Udp6, Self::Peers];

    fn text(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Peers => "peers",
        }
    }
}

/// What the process before us left.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) tun: Option<OwnedFd>,
    pub(super) udp4: Option<OwnedFd>,
    pub(super) udp6: Option<OwnedFd>,
    pub(super) peers: Option<OwnedFd>,
}

/// The service manager's store, and what of ours is in it.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// There is a service manager.
    present: bool,
    holds: BTreeSet<Name>,
    /// The port of the sockets in it.
    port: u16,
    /// Something could not be put there.
    failed: bool,
}

impl Store {
    /// What is there from before.
    pub(super) fn open() -> (Self, Inherited) {
        let present = env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        let mut store = Self { present, ..Self::default() };
        let mut inherited = Inherited::default();
        let handed_over = inherit::handed_over().unwrap_or_else(|error| {
            warn!(%error, "what the service manager handed over cannot be used (LISTEN_FDS)");
            Vec::new()
        });
        let mut twice = BTreeSet::new();
        for (text, descriptor) in handed_over {
            let Some(name) = Name::ALL.into_iter().find(|name| name.text() == text) else {
                debug!(name = text, "the service manager handed over a descriptor that is none of ours");
                continue;
            };
            if inherited.place(name).replace(descriptor).is_some() {
                twice.insert(name);
            }
            store.holds.insert(name);
        }
        // Which of the two is the right one cannot be told.
        for name in twice {
            store.refuse(&mut inherited, name, "there are two of them");
        }
        (store, inherited)
    }

    /// What was handed over under this name is not used, and not kept either.
    pub(super) fn refuse(&mut self, inherited: &mut Inherited, name: Name, why: impl std::fmt::Display) {
        inherited.place(name).take();
        self.refused(name, why);
    }

    /// The same, where it was taken already.
    pub(super) fn refused(&mut self, name: Name, why: impl std::fmt::Display) {
        warn!(what = name.text(), %why, "what the process before us left is not used: a new one takes its place");
        self.forget(name);
    }

    /// Will the next process find what we have?
    pub(super) fn holds_the_device(&self) -> bool {
        self.holds.contains(&Name::Tun)
    }

    /// Gives the service manager what it does not hold yet. Cheap where nothing has changed, so that it may be called
    /// again and again.
    pub(super) fn keep(&mut self, plane: &Plane, peers: BorrowedFd<'_>) {
        if !self.present {
            return;
        }
        if self.port != plane.port() {
            self.keep_sockets(&plane.sockets());
        }
        self.add(Name::Tun, plane.tun().as_fd());
        self.add(Name::Peers, peers);
    }

    /// The sockets that were there when we began.
    pub(super) fn has_sockets(&mut self, port: u16) {
        self.port = port;
    }

    fn keep_sockets(&mut self, sockets: &UdpSockets) {
        for (name, family) in [(Name::Udp4, Family::V4), (Name::Udp6, Family::V6)] {
            self.forget(name);
            if let Some(socket) = sockets.descriptor(family) {
                self.add(name, socket);
            }
        }
        self.port = sockets.port();
    }

    fn add(&mut self, name: Name, descriptor: BorrowedFd<'_>) {
        // Where it cannot be kept now it will not be later.
        if self.failed || !self.holds.insert(name) {
            return;
        }
        let mut states = vec![NotifyState::FdStore, NotifyState::FdName(name.text())];
        if name != Name::Tun {
            // An error that a datagram left on a socket is no reason to let go of it.
            states.push(NotifyState::Custom("FDPOLL=0"));
        }
        if let Err(error) = sd_notify::notify_with_fds(&states, &[descriptor]) {
            info!(what = name.text(), %error, "the service manager cannot keep it for the next process");
            self.holds.remove(&name);
            self.failed = true;
        }
    }

    /// The service manager lets go of it.
    pub(super) fn forget(&mut self, name: Name) {
        if !self.holds.remove(&name) {
            return;
        }
        let states = [NotifyState::FdStoreRemove, NotifyState::FdName(name.text())];
        if let Err(error) = sd_notify::notify(&states) {
            // One that is gone holds nothing.
            debug!(what = name.text(), %error, "the service manager could not be told to let go of it");
        }
    }

    /// Nobody comes after us.
    pub(super) fn empty(&mut self) {
        Name::ALL.into_iter().for_each(|name| self.forget(name));
        self.port = 0;
    }
}

impl Inherited {
    fn place(&mut self, name: Name) -> &mut Option<OwnedFd> {
        match name {
            Name::Tun => &mut self.tun,
            Name::Udp4 => &mut self.udp4,
            Name::Udp6 => &mut self.udp6,
            Name::Peers => &mut self.peers,
        }
    }
}
