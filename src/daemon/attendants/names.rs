//! The name service: hosts, users and groups, as the C library knows them by whatever modules nsswitch.conf(5) names; and
//! the name servers of resolv.conf(5).

use std::{io, net::SocketAddr, os::unix::net::UnixStream, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{link, link::Link, runner};
use crate::sys;

/// What may be asked.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// Look up names and do nothing else from now on (see `sys::sandbox::confine_name_service`).
    Confine,
    /// The addresses of a host.
    Host(String, u16),
    /// The number of a user.
    User(String),
    /// The number of a group.
    Group(String),
    /// /etc/resolv.conf.
    Servers,
}

/// Who answers.
#[derive(Clone)]
pub(in super::super) struct Names(Link);

impl Names {
    pub(super) fn new(link: Link) -> Self {
        Self(link)
    }

    /// For tests: in this process.
    #[cfg(test)]
    pub(in super::super) fn here() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        tokio::spawn(async move { serve(theirs).await.expect("it is served") });
        Self(Link::new(ours).expect("within a runtime"))
    }

    /// It does nothing else from now on.
    pub(in super::super) async fn confine(&self) -> io::Result<()> {
        self.0.ask(&Question::Confine).await
    }

    /// The addresses of a host, with this port.
    pub(in super::super) async fn host(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found: Result<_, String> = self.0.ask(&Question::Host(name.to_owned(), port)).await?;
        found.map_err(io::Error::other)
    }

    /// The number of a user; none: there is no such user.
    pub(in super::super) async fn user(&self, name: &str) -> io::Result<Option<u32>> {
        let found: Result<_, String> = self.0.ask(&Question::User(name.to_owned())).await?;
        found.map_err(io::Error::other)
    }

    /// The number of a group; none: there is no such group.
    pub(in super::super) async fn group(&self, name: &str) -> io::Result<Option<u32>> {
        let found: Result<_, String> = self.0.ask(&Question::Group(name.to_owned())).await?;
        found.map_err(io::Error::other)
    }

    /// The text of resolv.conf(5).
    pub(in super::super) async fn servers(&self) -> io::Result<String> {
        let text: Result<_, String> = self.0.ask(&Question::Servers).await?;
        text.map_err(io::Error::other)
    }

    /// Resolves if the process ends, which it never should.
    pub(in super::super) async fn ended(&self) {
        self.0.ended().await;
    }
}

pub(super) async fn serve(stream: UnixStream) -> io::Result<()> {
    let _caught = runner::Signals::catch()?;
    // Nobody waits for an answer once nobody asks.
    link::serve(stream, answer, Duration::ZERO).await
}

async fn answer(question: Question) -> String {
    match question {
        Question::Confine => {
            sys::sandbox::confine_name_service();
            link::text(&())
        }
        Question::Host(name, port) => link::text(&host(&name, port).await),
        Question::User(name) => link::text(&beside(move || sys::users::user(&name)).await),
        Question::Group(name) => link::text(&beside(move || sys::users::group(&name)).await),
        Question::Servers => link::text(&beside(|| std::fs::read_to_string("/etc/resolv.conf")).await),
    }
}

async fn host(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((name, port)).await.map_err(|error| error.to_string())?;
    Ok(found.collect())
}

/// The C library waits for servers: in a thread of its own.
async fn beside<T: Send + 'static>(
    look_up: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let found = spawn_blocking(look_up).await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    found.map_err(|error| error.to_string())
}
