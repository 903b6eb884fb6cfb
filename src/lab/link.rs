//! Links, addresses and routes of a lab's hosts, by netlink inside the right namespace.

use std::{fs::File, io, net::IpAddr, ops::Sub, time::Duration};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
    },
};

use super::{
    error::{Attempted, LabError},
    namespace::Namespace,
    netlink::{converse, link as find},
    stopwatch::poll_until,
};

/// Joins two namespaces by a cable: `device_a` in `a` and `device_b` in `b`, both up. Deleting one end deletes
/// both. The ends may lie in the same namespace.
pub fn veth(a: &Namespace, device_a: &str, b: &Namespace, device_b: &str) -> Result<(), LabError> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(device_b).setns_by_fd(b.raw_fd()).build();
    let message =
        LinkVeth::new(device_a, device_b).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    converse(a.file(), async |handle| handle.link().add(message).execute().await)
        .attempted(|| format!("join {} {device_a} and {} {device_b}", a.name(), b.name()))?;
    up(a, device_a)?;
    up(b, device_b)
}

/// Makes a bridge, up.
pub fn bridge(namespace: &Namespace, name: &str) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        handle.link().add(LinkBridge::new(name).build()).execute().await
    })
    .attempted(|| format!("make bridge {name} in {}", namespace.name()))
}

/// Plugs `port` into `bridge`, both in `namespace`.
pub fn attach(namespace: &Namespace, port: &str, bridge: &str) -> Result<(), LabError> {
    let what = || format!("attach {port} to {bridge} in {}", namespace.name());
    let index = index(namespace, bridge)?;
    change(namespace, port, |link| link.controller(index)).attempted(what)
}

/// Sets a device up.
pub fn up(namespace: &Namespace, device: &str) -> Result<(), LabError> {
    change(namespace, device, LinkMessageBuilder::up)
        .attempted(|| format!("set {device} up in {}", namespace.name()))
}

/// Sets a device down.
pub fn down(namespace: &Namespace, device: &str) -> Result<(), LabError> {
    change(namespace, device, LinkMessageBuilder::down)
        .attempted(|| format!("set {device} down in {}", namespace.name()))
}

/// Sets the MTU of a device, in bytes.
pub fn mtu(namespace: &Namespace, device: &str, mtu: u32) -> Result<(), LabError> {
    change(namespace, device, |link| link.mtu(mtu))
        .attempted(|| format!("set the MTU of {device} in {} to {mtu}", namespace.name()))
}

/// Gives a device this hardware address, in place of the kernel's random one.
pub fn hardware_address(namespace: &Namespace, device: &str, address: [u8; 6]) -> Result<(), LabError> {
    change(namespace, device, |link| link.address(address.to_vec()))
        .attempted(|| format!("set the hardware address of {device} in {}", namespace.name()))
}

/// Deletes a device.
pub fn delete(namespace: &Namespace, device: &str) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        let index = find(&handle, device).await?.header.index;
        handle.link().del(index).execute().await
    })
    .attempted(|| format!("delete {device} in {}", namespace.name()))
}

/// Gives a device an address that can be used when this returns: without duplicate address detection, and where
/// the device is up, not before the address is local.
pub fn add_address(namespace: &Namespace, device: &str, address: IpNet) -> Result<(), LabError> {
    let what = || format!("add {address} to {device} in {}", namespace.name());
    let up = converse(namespace.file(), async |handle| {
        let link = find(&handle, device).await?;
        let mut request = handle.address().add(link.header.index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await?;
        Ok(link.header.flags.contains(LinkFlags::Up))
    })
    .attempted(what)?;
    // The kernel makes an IPv6 address local in its own time, after it has said yes: where many hosts are made at once,
    // that takes seconds.
    let local = || decide(namespace, address.addr(), 0).is_ok_and(|decision| decision.local).then_some(());
    if up && poll_until(Duration::from_secs(20), local).is_none() {
        return Err(io::Error::from(io::ErrorKind::TimedOut)).attempted(what);
    }
    Ok(())
}

/// Takes an address away from a device.
pub fn remove_address(namespace: &Namespace, device: &str, address: IpNet) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        let index = find(&handle, device).await?.header.index;
        let request = handle.address().get().set_link_index_filter(index).set_address_filter(address.addr());
        let found = request.execute().try_next().await?.ok_or(Error::RequestFailed)?;
        handle.address().del(found).execute().await
    })
    .attempted(|| format!("remove {address} from {device} in {}", namespace.name()))
}

/// Adds a route through a device, and a gateway if there is one.
pub fn add_route(
    namespace: &Namespace,
    destination: IpNet,
    via: Option<IpAddr>,
    device: &str,
) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        let route = route_message(&handle, destination, via, device).await?;
        handle.route().add(route).execute().await
    })
    .attempted(|| format!("add route {destination} dev {device} in {}", namespace.name()))
}

/// Deletes a route that [`add_route`] made.
pub fn delete_route(
    namespace: &Namespace,
    destination: IpNet,
    via: Option<IpAddr>,
    device: &str,
) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        let route = route_message(&handle, destination, via, device).await?;
        handle.route().del(route).execute().await
    })
    .attempted(|| format!("delete route {destination} dev {device} in {}", namespace.name()))
}

/// Does something stand at the other end of the cable (IFF_LOWER_UP)?
pub fn carrier(namespace: &Namespace, device: &str) -> Result<bool, LabError> {
    let flags = converse(namespace.file(), async |handle| Ok(find(&handle, device).await?.header.flags))
        .attempted(|| format!("ask {device} in {} for its carrier", namespace.name()))?;
    Ok(flags.contains(LinkFlags::LowerUp))
}

/// The index of a device.
pub fn index(namespace: &Namespace, device: &str) -> Result<u32, LabError> {
    converse(namespace.file(), async |handle| Ok(find(&handle, device).await?.header.index))
        .attempted(|| format!("find {device} in {}", namespace.name()))
}

/// What passed a device since it was made. A packet that the kernel puts on a device is its `tx`, also on a
/// TUN, where it then goes to the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Packets from the device into the kernel.
    pub rx_packets: u64,
    /// Their bytes, as the device counts them (a veth with the 14 bytes of Ethernet, a TUN without).
    pub rx_bytes: u64,
    /// Packets from the kernel to the device.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

impl Sub for Passed {
    type Output = Self;
    /// What passed between two readings.
    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets.saturating_sub(earlier.rx_packets),
            rx_bytes: self.rx_bytes.saturating_sub(earlier.rx_bytes),
            tx_packets: self.tx_packets.saturating_sub(earlier.tx_packets),
            tx_bytes: self.tx_bytes.saturating_sub(earlier.tx_bytes),
        }
    }
}

/// Reads the counters of a device.
pub fn passed(namespace: &Namespace, device: &str) -> Result<Passed, LabError> {
    let message = converse(namespace.file(), async |handle| find(&handle, device).await)
        .attempted(|| format!("read the counters of {device} in {}", namespace.name()))?;
    let stats = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(stats),
        _ => None,
    });
    let stats =
        stats.ok_or_else(|| LabError::Unexpected(format!("the kernel told no counters of {device}")))?;
    Ok(Passed {
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
    })
}

/// The kernel's routing decision for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Device that the packet will leave by.
    pub device: String,
    /// The routing table that said so (254: main).
    pub table: u32,
    /// Is the destination an address of this host itself?
    pub local: bool,
    /// The source address that the packet gets if its sender chose none.
    pub source: Option<IpAddr>,
    /// Next hop; `None`: the destination itself is on that link.
    pub via: Option<IpAddr>,
}

/// Asks the kernel where a packet to `destination` with this mark (0: none) would go.
pub fn decide(namespace: &Namespace, destination: IpAddr, mark: u32) -> Result<Decision, LabError> {
    let prefix = if destination.is_ipv4() { 32 } else { 128 };
    converse(namespace.file(), async |handle| {
        let mut question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, prefix)
            .map_err(invalid)?
            .build();
        question.header.flags = RouteFlags::LookupTable;
        if mark != 0 {
            question.attributes.push(RouteAttribute::Mark(mark));
        }
        let answer = handle.route().get(question).execute().try_next().await?.ok_or(Error::RequestFailed)?;
        decision(&handle, answer).await
    })
    .attempted(|| format!("ask {} for the route to {destination}", namespace.name()))
}

/// Deletes all devices but `lo` that can be deleted.
pub(super) fn delete_all(namespace: &File) -> Result<(), Error> {
    converse(namespace, async |handle| {
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        for link in links.iter().filter(|link| !link.header.flags.contains(LinkFlags::Loopback)) {
            // Some belong to the kernel (sit0, tunl0) and cannot go: they go with the namespace.
            let _ = handle.link().del(link.header.index).execute().await;
        }
        Ok(())
    })
}

fn change(
    namespace: &Namespace,
    device: &str,
    alter: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
) -> Result<(), Error> {
    converse(namespace.file(), async |handle| {
        let index = find(&handle, device).await?.header.index;
        handle.link().change(alter(LinkUnspec::new_with_index(index)).build()).execute().await
    })
}

async fn route_message(
    handle: &Handle,
    destination: IpNet,
    via: Option<IpAddr>,
    device: &str,
) -> Result<RouteMessage, Error> {
    let index = find(handle, device).await?.header.index;
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .map_err(invalid)?
        .output_interface(index);
    if let Some(via) = via {
        route = route.gateway(via).map_err(invalid)?;
    }
    Ok(route.build())
}

async fn decision(handle: &Handle, answer: RouteMessage) -> Result<Decision, Error> {
    let mut table = u32::from(answer.header.table);
    let local = answer.header.kind == RouteType::Local;
    let (mut index, mut source, mut via) = (None, None, None);
    for attribute in answer.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(oif),
            RouteAttribute::Table(number) => table = number,
            RouteAttribute::PrefSource(address) => source = ip(&address),
            RouteAttribute::Gateway(address) => via = ip(&address),
            _ => {}
        }
    }
    let index = index.ok_or(Error::RequestFailed)?;
    let link =
        handle.link().get().match_index(index).execute().try_next().await?.ok_or(Error::RequestFailed)?;
    let name = link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    Ok(Decision { device: name.unwrap_or_else(|| index.to_string()), table, local, source, via })
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::NamespaceError(error.to_string())
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
