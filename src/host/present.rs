//! What is there: links, addresses, routes and rules, as the kernel lists them.

use std::collections::BTreeSet;

use netlink_packet_route::RouteNetlinkMessage;

use super::{
    HostError, Mtus,
    exchange::{Exchange, Refused},
    message::{Address, Link, PresentRoute, PresentRule},
};

impl Exchange {
    /// The device of this name.
    pub(super) async fn link(&mut self, name: &str) -> Result<Option<Link>, HostError> {
        let answer = self.ask(Link::by_name(name)).await;
        read_link(answer).map_err(|e| HostError::new(format!("show link {name}"), e))
    }

    /// The device with this index.
    pub(super) async fn link_at(&mut self, index: u32) -> Result<Option<Link>, HostError> {
        let answer = self.ask(Link::by_index(index)).await;
        read_link(answer).map_err(|e| HostError::new(format!("show link number {index}"), e))
    }

    /// All devices.
    pub(super) async fn links(&mut self) -> Result<Vec<Link>, HostError> {
        let read = |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Link::read(&link)),
            _ => None,
        };
        self.dump(&Link::all(), read).await.map_err(|e| HostError::new("show links", e))
    }

    /// The addresses of all devices.
    pub(super) async fn addresses(&mut self) -> Result<Vec<Address>, HostError> {
        let read = |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Address::read(&address),
            _ => None,
        };
        self.dump(&Address::all(), read).await.map_err(|e| HostError::new("show addresses", e))
    }

    /// The routes of one family, in all tables but that of local addresses or in one, to all devices or to one,
    /// as far as `pick` wants them.
    pub(super) async fn routes<T>(
        &mut self,
        v6: bool,
        table: Option<u32>,
        index: Option<u32>,
        mut pick: impl FnMut(PresentRoute) -> Option<T>,
    ) -> Result<Vec<T>, HostError> {
        // Asked again here: kernels before 4.20 do not filter.
        let wanted = |r: &PresentRoute| {
            !r.cloned
                && table.map_or(r.route.table != super::message::LOCAL_TABLE, |t| r.route.table == t)
                && (index.is_none() || r.index == index)
        };
        let read = |message| match message {
            RouteNetlinkMessage::NewRoute(route) => {
                PresentRoute::read(&route, v6).filter(wanted).and_then(&mut pick)
            }
            _ => None,
        };
        let question = PresentRoute::all(v6, table, index);
        self.dump(&question, read).await.map_err(|e| HostError::new("show routes", e))
    }

    /// The MTUs that bound a packet to the device with this index; none if it is gone.
    pub(super) async fn mtus(&mut self, index: u32) -> Result<Option<Mtus>, HostError> {
        let Some(link) = self.link_at(index).await? else { return Ok(None) };
        let mut routes = BTreeSet::new();
        for v6 in [false, true] {
            routes.extend(self.routes(v6, None, Some(index), |r| r.mtu).await?);
        }
        Ok(Some(Mtus { device: link.mtu, routes }))
    }

    /// The policy rules of one family, in order.
    pub(super) async fn rules(&mut self, v6: bool) -> Result<Vec<PresentRule>, HostError> {
        let read = |message| match message {
            RouteNetlinkMessage::NewRule(rule) => PresentRule::read(&rule, v6),
            _ => None,
        };
        self.dump(&PresentRule::all(v6), read).await.map_err(|e| HostError::new("show rules", e))
    }
}

fn read_link(answer: Result<RouteNetlinkMessage, Refused>) -> Result<Option<Link>, Refused> {
    match answer {
        Ok(RouteNetlinkMessage::NewLink(link)) => Ok(Some(Link::read(&link))),
        Ok(_) => Ok(None),
        Err(refused) if refused.errno() == libc::ENODEV => Ok(None),
        Err(refused) => Err(refused),
    }
}
