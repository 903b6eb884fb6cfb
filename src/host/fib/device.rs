//! A network device, as far as it lets packets through.

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The largest packet.
    pub mtu: u32,
    /// Set up.
    pub up: bool,
    /// Set up, and there is a carrier.
    pub running: bool,
    /// Such as "tun" or "wireguard"; none for hardware.
    pub kind: Option<String>,
    /// Its group.
    pub group: u32,
    /// Bytes of the header that it puts before each packet, of the kinds where that is always the same.
    pub header: Option<u64>,
}

impl Device {
    pub(super) fn read(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut device = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            kind: None,
            group: 0,
            header: match message.header.link_layer_type {
                LinkLayerType::Ether | LinkLayerType::Loopback => Some(14),
                LinkLayerType::None => Some(0),
                _ => None,
            },
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Group(group) => device.group = *group,
                LinkAttribute::LinkInfo(infos) => {
                    device.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        device
    }
}
