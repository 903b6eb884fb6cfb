//! Who is behind which hardware address: the neighbours of a host (ARP), and what a bridge has learned.

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::TryStreamExt;
use rtnetlink::{
    Error,
    packet_route::{
        AddressFamily,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
};

use super::{
    error::{Attempted, LabError},
    link,
    namespace::Namespace,
    netlink::{converse, link as find},
};

/// A neighbour that ARP found or that was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, if known.
    pub hardware: Option<Vec<u8>>,
    /// Written down for ever, rather than asked for.
    pub permanent: bool,
}

/// Writes a neighbour down, so that nobody has to ask for it.
pub fn add(namespace: &Namespace, device: &str, address: IpAddr, hardware: [u8; 6]) -> Result<(), LabError> {
    converse(namespace.file(), async |handle| {
        let index = find(&handle, device).await?.header.index;
        handle.neighbours().add(index, address).link_layer_address(&hardware).execute().await
    })
    .attempted(|| format!("write down the neighbour {address} in {}", namespace.name()))
}

/// The IPv4 neighbours that a host knows on `device`.
pub fn known(namespace: &Namespace, device: &str) -> Result<Vec<Neighbour>, LabError> {
    let index = link::index(namespace, device)?;
    let all = list(namespace, AddressFamily::Inet)?;
    let neighbour = |message: NeighbourMessage| {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            _ => None,
        })?;
        let permanent = message.header.state == NeighbourState::Permanent;
        Some(Neighbour { address, hardware: hardware(&message), permanent })
    };
    Ok(all.into_iter().filter(|message| message.header.ifindex == index).filter_map(neighbour).collect())
}

/// What the bridges of a host have learned: hardware address and the port behind which it was seen. The ports' own
/// addresses, which nobody had to learn, are left out.
pub fn learned(namespace: &Namespace, ports: &[&str]) -> Result<Vec<(Vec<u8>, String)>, LabError> {
    let mut names = BTreeMap::new();
    for port in ports {
        names.insert(link::index(namespace, port)?, (*port).to_owned());
    }
    let mut found: Vec<_> = list(namespace, AddressFamily::Bridge)?
        .into_iter()
        .filter(|message| message.header.state != NeighbourState::Permanent)
        .filter_map(|message| Some((hardware(&message)?, names.get(&message.header.ifindex)?.clone())))
        .collect();
    found.sort();
    Ok(found)
}

fn list(namespace: &Namespace, family: AddressFamily) -> Result<Vec<NeighbourMessage>, LabError> {
    converse(namespace.file(), async |handle| {
        let request = handle.neighbours().get().set_address_family(family);
        request.execute().try_collect::<Vec<_>>().await.map_err(Error::from)
    })
    .attempted(|| format!("list the neighbours of {}", namespace.name()))
}

fn hardware(message: &NeighbourMessage) -> Option<Vec<u8>> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Some(bytes.clone()),
        _ => None,
    })
}
