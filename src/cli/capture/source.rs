//! From which of our addresses a carrier leaves, where vpnd leaves that to the kernel: the kernel is asked.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use crate::cli::ask::{self, AskError};
use crate::control::schema::StatusReport;
use crate::host::fib::{Fib, Question, UDP};
use crate::trace::{Seen, Vpnd};

/// Endpoints that are remembered.
const REMEMBERED: usize = 4096;

/// Answers that were given; a route that changes meanwhile is not seen.
pub(super) struct Sources {
    fib: Option<Fib>,
    status: StatusReport,
    user: u32,
    known: HashMap<SocketAddr, Option<IpAddr>>,
}

impl Sources {
    pub(super) async fn of(socket: &Path) -> Result<Self, AskError> {
        let status: StatusReport = ask::read(socket, &ask::get(socket, "/v1/status").await?)?;
        let user = ask::user(socket).await?;
        // What peers talk to us at stands in the status.
        let known =
            status.peers.iter().filter_map(|peer| Some((peer.endpoint?, Some(peer.local?)))).collect();
        Ok(Self { fib: Fib::open().ok(), status, user, known })
    }

    /// Our address on the carrier; none: not known.
    pub(super) async fn ours(&mut self, seen: &Seen) -> Option<IpAddr> {
        match &seen.vpnd {
            Vpnd::Sealed(sealed) => self.towards(sealed.local, sealed.endpoint).await,
            Vpnd::Opened(opened) => self.towards(None, opened.from).await,
            Vpnd::Refused(refused) => self.towards(None, refused.from?).await,
            _ => None,
        }
    }

    /// Our address towards that one: what vpnd said, else what the kernel says.
    pub(super) async fn towards(&mut self, told: Option<IpAddr>, remote: SocketAddr) -> Option<IpAddr> {
        if told.is_some() {
            return told;
        }
        if let Some(known) = self.known.get(&remote) {
            return *known;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let asked = self.ask(remote).await;
        self.known.insert(remote, asked);
        asked
    }

    async fn ask(&mut self, remote: SocketAddr) -> Option<IpAddr> {
        let question = Question {
            mark: self.status.fwmark,
            protocol: UDP,
            source_port: self.status.listen_port,
            destination_port: remote.port(),
            ..Question::local(remote.ip(), self.user)
        };
        let decision = self.fib.as_mut()?.decide(&question).await.ok()?;
        decision.told.ok()?.source
    }
}
