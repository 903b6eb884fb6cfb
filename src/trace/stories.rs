//! A sentence where somebody who sees it for the first time would stumble.

use super::{Direction, Place, Station, Walk};

/// About this station; not each needs one. `tunnel`: the tunnel's device there.
pub(super) fn of(station: &Station, tunnel: Option<&str>) -> Option<&'static str> {
    if station.place == Place::Device && station.walk == Walk::Inner && station.device.as_deref() != tunnel {
        return None;
    }
    Some(match (station.walk, station.direction, station.place) {
        (Walk::Inner, _, Place::Output) => {
            "netfilter's hook for what programs here send: the firewall sees what you meant."
        }
        (Walk::Inner, Direction::Out, Place::Route) => {
            "Routing chooses the tunnel's device; the carrier is routed anew."
        }
        (Walk::Inner, Direction::Out, Place::Device) => "No hardware: what leaves by it is handed to vpnd.",
        (Walk::Inner, Direction::In, Place::Device) => {
            "To the kernel it looks like a card that received a packet."
        }
        (Walk::Program, Direction::Out, Place::Vpnd) => {
            "A program like any other: it encrypts the packet and sends the result in a UDP packet of its own."
        }
        (Walk::Program, Direction::In, Place::Vpnd) => {
            "Decrypted, known to come from that peer, and from an address that it may use."
        }
        (Walk::Outer, Direction::Out, Place::Output) => {
            "From the top once more: to the kernel vpnd is one more program."
        }
        (Walk::Outer, Direction::Out, Place::Route) => "This decision must not lead back into the tunnel.",
        (Walk::Outer, Direction::In, Place::Prerouting) => "The firewall sees UDP, and not what is in it.",
        (Walk::Outer, Direction::In, Place::Input) => {
            "It must let the carrier in, and further up the packet, too."
        }
        (Walk::Inner, _, Place::Forward) => "It is for another host: this one passes it on.",
        _ => return None,
    })
}
