//! A host of the lab: a namespace, and what a person would do on it.

use std::{net::IpAddr, ops::Deref};

use ipnet::IpNet;

use super::{
    error::LabError,
    link,
    namespace::Namespace,
    ping::{Ping, Pings},
};

/// A [`Namespace`] with the calls that most labs need.
#[derive(Clone, Debug)]
pub struct Host(Namespace);

impl Host {
    /// Makes the namespace; see [`Namespace::create`].
    pub fn create(name: &str) -> Result<Self, LabError> {
        Namespace::create(name).map(Self)
    }

    /// Gives a device an address such as `192.0.2.1/24`.
    pub fn add_address(&self, device: &str, address: &str) -> Result<(), LabError> {
        link::add_address(self, device, prefix(address)?)
    }

    /// Adds a route such as `10.0.0.0/8`.
    pub fn add_route(&self, destination: &str, via: Option<IpAddr>, device: &str) -> Result<(), LabError> {
        link::add_route(self, prefix(destination)?, via, device)
    }

    /// Sends `count` echo requests, each after the answer to the one before, [patiently](Ping::patiently).
    pub fn ping(&self, destination: IpAddr, count: u16) -> Result<Pings, LabError> {
        self.ping_with(&Ping { count, ..Ping::patiently(destination) })
    }

    /// Is one echo request answered within a second?
    pub fn reaches(&self, destination: IpAddr) -> Result<bool, LabError> {
        Ok(self.ping_with(&Ping::to(destination))?.received == 1)
    }

    /// The same with everything said.
    pub fn ping_with(&self, ping: &Ping) -> Result<Pings, LabError> {
        self.run(|| ping.run()).map_err(|source| LabError::System {
            attempted: format!("ping {} from {}", ping.destination, self.name()),
            source,
        })
    }
}

impl Deref for Host {
    type Target = Namespace;
    fn deref(&self) -> &Namespace {
        &self.0
    }
}

fn prefix(text: &str) -> Result<IpNet, LabError> {
    text.parse().map_err(|_| LabError::Unexpected(format!("{text:?} is not ADDRESS/LENGTH")))
}
