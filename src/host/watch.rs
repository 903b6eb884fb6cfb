//! What happens to the host while we run: the device lost, the network changed. Told by netlink multicast; where
//! the kernel says that it dropped some of it (the receive buffer overran), the state is read again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkFlags};
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    sys::{AsyncSocket, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::sync::Mutex;

use super::{
    HostError, NetworkChange, Own,
    exchange::{Exchange, messages, receive, receive_already_here},
    message::{Address, LOCAL_TABLE, Link, PresentRoute, PresentRule},
};

/// After a failure, before the next attempt: nothing here may spin.
const PAUSE: Duration = Duration::from_millis(500);

/// Datagrams taken together, so that a burst is told once and yet comes to an end.
const BURST: usize = 256;

/// Changed routes of a burst that are told one by one, of each family.
const ROUTES_TOLD_APART: usize = 64;

/// For a subscription, whose messages come unasked.
const SOCKET_BUFFER: libc::c_int = 1 << 20;

/// A socket that the kernel tells changes to.
pub(super) struct Subscription {
    socket: TokioSocket,
    received: Vec<u8>,
}

/// What a subscription heard.
#[derive(Debug)]
enum Heard {
    Messages(Vec<RouteNetlinkMessage>),
    /// Something was missed, or not understood.
    NotAll,
}

impl Subscription {
    /// To devices alone.
    pub(super) fn to_links() -> io::Result<Self> {
        Self::to(&[MulticastGroup::Link])
    }

    fn to(groups: &[MulticastGroup]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.set_rx_buf_sz(SOCKET_BUFFER)?;
        inner.bind_auto()?;
        for group in groups {
            inner.add_membership(*group as u32)?;
        }
        Ok(Self { socket, received: Vec::new() })
    }

    async fn next(&mut self) -> io::Result<Heard> {
        let outcome = receive(&self.socket, &mut self.received).await;
        self.heard(outcome)
    }

    /// Without waiting. (Polling `next` would not do: it asks the runtime, which looks at its descriptors only
    /// between tasks.)
    fn next_already_here(&mut self) -> io::Result<Option<Heard>> {
        match receive_already_here(&self.socket, &mut self.received) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            outcome => self.heard(outcome).map(Some),
        }
    }

    fn heard(&self, outcome: io::Result<()>) -> io::Result<Heard> {
        match outcome {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Heard::NotAll),
            Err(error) => return Err(error),
        }
        let inner = messages(&self.received).filter_map(|message| match message.payload {
            NetlinkPayload::InnerMessage(inner) => Some(inner),
            _ => None,
        });
        let heard: Vec<_> = inner.collect();
        // A notification is a datagram of one message: if none is left, it was not understood.
        Ok(if heard.is_empty() { Heard::NotAll } else { Heard::Messages(heard) })
    }
}

/// Waits until the device is gone. `index`: of the device that `apply` set up; else it is looked up.
pub(super) async fn device_lost(
    events: &mut Subscription,
    exchange: &Mutex<Exchange>,
    device: &str,
    index: Option<u32>,
) {
    let index = match index {
        Some(index) => index,
        None => match index_of(exchange, device).await {
            Some(index) => index,
            None => return,
        },
    };
    loop {
        // Read after subscribing, so that nothing falls between; and again whenever something was missed.
        let link = exchange.lock().await.link_at(index).await;
        match link {
            Ok(None) => return,
            Ok(Some(_)) => {}
            Err(error) => {
                tracing::debug!(%error, "the device's state could not be read");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        listen(events, index).await;
    }
}

async fn index_of(exchange: &Mutex<Exchange>, device: &str) -> Option<u32> {
    loop {
        let link = exchange.lock().await.link(device).await;
        match link {
            Ok(link) => return link.map(|link| link.index),
            Err(error) => tracing::debug!(%error, "the device could not be looked up"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Listens until a loss is told or something was missed: then the state must be read.
async fn listen(events: &mut Subscription, index: u32) {
    loop {
        match events.next().await {
            Ok(Heard::Messages(messages)) if messages.iter().any(|message| tells_loss(message, index)) => {
                return;
            }
            Ok(Heard::Messages(_)) => {}
            Ok(Heard::NotAll) => return,
            Err(error) => {
                tracing::debug!(%error, "the subscription to links failed");
                return tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Is it the end of the device with this index? Those of a bridge's ports (another family) say nothing about the
/// device itself.
fn tells_loss(message: &RouteNetlinkMessage, index: u32) -> bool {
    let RouteNetlinkMessage::DelLink(link) = message else { return false };
    link.header.index == index && link.header.interface_family == AddressFamily::Unspec
}

/// The changes of the host's network since the subscription was made, and what it takes to tell them.
pub(super) struct Changes {
    events: Subscription,
    known: Known,
    /// Told next. At most one of a kind (one an address), of one burst.
    pending: VecDeque<NetworkChange>,
    /// Something was missed: what is known must be read again.
    stale: bool,
}

/// The state that changes are told against.
#[derive(Debug, Default)]
struct Known {
    /// With the index of the device that has it.
    addresses: BTreeSet<(IpAddr, u32)>,
    links: BTreeMap<u32, LinkFlags>,
    own_mtu: u32,
    /// Some route to our device names an MTU, or did.
    routes_name_mtu: bool,
    /// What bounds a packet to our device must be read again.
    mtus_changed: bool,
}

impl Changes {
    pub(super) async fn since_now(exchange: &mut Exchange) -> Result<Self, HostError> {
        use MulticastGroup as Group;
        let groups = [
            Group::Link,
            Group::Ipv4Ifaddr,
            Group::Ipv6Ifaddr,
            Group::Ipv4Route,
            Group::Ipv6Route,
            Group::Ipv4Rule,
            Group::Ipv6Rule,
        ];
        let failed = |e: io::Error| HostError::new("subscribe to changes of the network", e.into());
        // Subscribed before reading, so that nothing falls between.
        let events = Subscription::to(&groups).map_err(failed)?;
        let known = Known::read(exchange).await?;
        Ok(Self { events, known, pending: VecDeque::new(), stale: false })
    }

    /// The next change; `own` is our device, of which only what concerns it is told.
    pub(super) async fn next(&mut self, exchange: &Mutex<Exchange>, own: Option<&Own>) -> NetworkChange {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return change;
            }
            let outcome = match own {
                _ if self.stale => self.read_again(exchange, own).await,
                Some(own) if self.known.mtus_changed => self.read_mtus(exchange, own.index).await,
                _ => self.hear(own).await,
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "changes of the network could not be read");
                self.stale = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Waits for a change, then takes what else is there already.
    async fn hear(&mut self, own: Option<&Own>) -> Result<(), HostError> {
        let failed = |e: io::Error| HostError::new("hear of changes of the network", e.into());
        let mut heard = self.events.next().await.map_err(failed)?;
        for _ in 0..BURST {
            match &heard {
                Heard::Messages(messages) => {
                    for message in messages {
                        let change = self.known.told(message, own);
                        self.tell(change);
                    }
                }
                Heard::NotAll => self.stale = true,
            }
            match self.events.next_already_here().map_err(failed)? {
                Some(more) => heard = more,
                None => break,
            }
        }
        Ok(())
    }

    /// What was missed counts as a change of everything; which addresses went is seen by comparison.
    async fn read_again(&mut self, exchange: &Mutex<Exchange>, own: Option<&Own>) -> Result<(), HostError> {
        let now = Known::read(&mut *exchange.lock().await).await?;
        let before = std::mem::replace(&mut self.known, now);
        self.known.mtus_changed = true;
        self.stale = false;
        for (address, index) in before.addresses {
            if own.is_none_or(|own| own.index != index) && !self.known.has(address) {
                self.tell(Some(NetworkChange::AddressRemoved(address)));
            }
        }
        self.tell(Some(NetworkChange::RouteChanged(everywhere(false))));
        self.tell(Some(NetworkChange::RouteChanged(everywhere(true))));
        self.tell(Some(NetworkChange::LinkChanged));
        let own_flags = own.and_then(|own| self.known.links.get(&own.index));
        let own_link = own_flags.map(|flags| NetworkChange::OwnLink(flags.contains(LinkFlags::Up)));
        self.tell(own_link);
        self.tell(own.map(|_| NetworkChange::OwnLost));
        Ok(())
    }

    async fn read_mtus(&mut self, exchange: &Mutex<Exchange>, own: u32) -> Result<(), HostError> {
        let mtus = exchange.lock().await.mtus(own).await?;
        self.known.mtus_changed = false;
        // If the device is gone, that is told by `device_lost`.
        self.tell(mtus.map(NetworkChange::Mtus));
        Ok(())
    }

    fn tell(&mut self, change: Option<NetworkChange>) {
        let Some(mut change) = change else { return };
        match change {
            NetworkChange::RouteChanged(destination) => {
                change = NetworkChange::RouteChanged(self.told_apart(destination));
            }
            // The last one counts.
            NetworkChange::OwnLink(_) => {
                self.pending.retain(|other| !matches!(other, NetworkChange::OwnLink(_)));
            }
            _ => {}
        }
        if !self.pending.contains(&change) {
            self.pending.push_back(change);
        }
    }

    /// The destination itself; of a burst of very many, all of its family.
    fn told_apart(&mut self, destination: IpNet) -> IpNet {
        let v6 = matches!(destination, IpNet::V6(_));
        let is_route = |change: &NetworkChange| matches!(change, NetworkChange::RouteChanged(other) if matches!(other, IpNet::V6(_)) == v6);
        if self.pending.iter().filter(|change| is_route(change)).count() < ROUTES_TOLD_APART {
            return destination;
        }
        self.pending.retain(|change| !is_route(change));
        everywhere(v6)
    }
}

impl Known {
    async fn read(exchange: &mut Exchange) -> Result<Self, HostError> {
        let addresses =
            exchange.addresses().await?.into_iter().map(|a| (a.network.addr(), a.index)).collect();
        let links =
            exchange.links().await?.into_iter().map(|link| (link.index, matters(link.flags))).collect();
        Ok(Self { addresses, links, ..Self::default() })
    }

    /// Takes a message in; says what it changes for us.
    fn told(&mut self, message: &RouteNetlinkMessage, own: Option<&Own>) -> Option<NetworkChange> {
        use RouteNetlinkMessage as M;
        let is_foreign = |index: u32| own.is_none_or(|own| own.index != index);
        match message {
            M::NewAddress(address) => {
                let address = Address::read(address)?;
                self.addresses.insert((address.network.addr(), address.index));
                None
            }
            M::DelAddress(address) => {
                let Address { index, network, .. } = Address::read(address)?;
                self.addresses.remove(&(network.addr(), index));
                if !is_foreign(index) {
                    return Some(NetworkChange::OwnLost);
                }
                (!self.has(network.addr())).then_some(NetworkChange::AddressRemoved(network.addr()))
            }
            M::NewLink(link) if link.header.interface_family == AddressFamily::Unspec => {
                let Link { index, flags, mtu, .. } = Link::read(link);
                let before = self.links.insert(index, matters(flags));
                if is_foreign(index) {
                    let counts = before != Some(matters(flags)) && self.is_source(index);
                    return counts.then_some(NetworkChange::LinkChanged);
                }
                if self.own_mtu != mtu {
                    (self.own_mtu, self.mtus_changed) = (mtu, true);
                }
                let is_up = flags.contains(LinkFlags::Up);
                let was_up = before.is_some_and(|flags| flags.contains(LinkFlags::Up));
                (is_up != was_up).then_some(NetworkChange::OwnLink(is_up))
            }
            M::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
                self.links.remove(&link.header.index);
                None // its addresses and routes are told by themselves
            }
            M::NewRoute(route) | M::DelRoute(route) => {
                let v6 = route.header.address_family == AddressFamily::Inet6;
                let route = PresentRoute::read(route, v6)?;
                if route.cloned {
                    return None;
                }
                if let (Some(own), Some(index)) = (own, route.index)
                    && own.index == index
                {
                    self.routes_name_mtu |= route.mtu.is_some();
                    self.mtus_changed |= self.routes_name_mtu;
                    let is_gone = matches!(message, M::DelRoute(_)) && route.ours;
                    return is_gone.then_some(NetworkChange::OwnLost);
                }
                // `ip route replace`: what went is not told.
                if own.is_some_and(|own| own.plan.routes.binary_search(&route.route).is_ok()) {
                    return Some(NetworkChange::OwnLost);
                }
                let counts = route.route.table != LOCAL_TABLE;
                counts.then_some(NetworkChange::RouteChanged(route.route.destination))
            }
            M::NewRule(rule) | M::DelRule(rule) => {
                let v6 = rule.header.family == AddressFamily::Inet6;
                match PresentRule::read(rule, v6)?.ours {
                    false => Some(NetworkChange::RouteChanged(everywhere(v6))),
                    // Maybe another daemon's: whoever looks will see.
                    true => matches!(message, M::DelRule(_)).then_some(NetworkChange::OwnLost),
                }
            }
            _ => None,
        }
    }

    /// Has the device an address that others may know us by?
    fn is_source(&self, index: u32) -> bool {
        self.addresses.iter().any(|(address, device)| *device == index && !is_link_local(*address))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.range((address, 0)..=(address, u32::MAX)).next().is_some()
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// All destinations of a family.
fn everywhere(v6: bool) -> IpNet {
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    IpNet::new_assert(any, 0)
}

/// The flags of a link on which a route depends.
fn matters(flags: LinkFlags) -> LinkFlags {
    flags & (LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
