use ipnet::IpNet;
use netlink_packet_route::link::LinkMessage;

use super::*;
use crate::host::plan::{MAIN_TABLE, Route};

const OURS: u32 = 7;
const OTHER: u32 = 2;

fn link(index: u32, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message
}

fn address(index: u32, text: &str) -> netlink_packet_route::address::AddressMessage {
    Address::message(index, text.parse().expect("an address in a test"))
}

fn route(index: u32, table: u32) -> RouteNetlinkMessage {
    let destination: IpNet = "10.1.0.0/16".parse().expect("a prefix in a test");
    RouteNetlinkMessage::NewRoute(PresentRoute::message(index, Route { destination, table }))
}

#[test]
fn only_the_device_with_our_index_is_ours() {
    let up = RouteNetlinkMessage::NewLink(link(OURS, LinkFlags::Up));
    let down = RouteNetlinkMessage::NewLink(link(OURS, LinkFlags::empty()));
    let gone = RouteNetlinkMessage::DelLink(link(OURS, LinkFlags::empty()));
    assert_eq!(link_told(&up, OURS), Some(LinkTold::Up));
    assert_eq!(link_told(&down, OURS), Some(LinkTold::Down));
    assert_eq!(link_told(&gone, OURS), Some(LinkTold::Gone));
    for message in [up, down, gone] {
        assert_eq!(link_told(&message, OTHER), None);
    }
}

#[test]
fn leaving_a_bridge_is_not_the_end_of_a_device() {
    let mut port = link(OURS, LinkFlags::empty());
    port.header.interface_family = AddressFamily::Bridge;
    assert_eq!(link_told(&RouteNetlinkMessage::DelLink(port), OURS), None);
}

#[test]
fn an_address_is_gone_when_no_device_has_it_any_more() {
    let mut known = Known::default();
    let new = |index| RouteNetlinkMessage::NewAddress(address(index, "192.0.2.1/24"));
    let del = |index| RouteNetlinkMessage::DelAddress(address(index, "192.0.2.1/24"));
    assert_eq!(known.told(&new(2), Some(OURS)), None);
    assert_eq!(known.told(&new(3), Some(OURS)), None);
    assert_eq!(known.told(&del(2), Some(OURS)), None);
    let gone = "192.0.2.1".parse().expect("an address");
    assert_eq!(known.told(&del(3), Some(OURS)), Some(NetworkChange::AddressRemoved(gone)));
}

#[test]
fn what_happens_to_our_own_device_is_not_told() {
    let mut known = Known::default();
    known.told(&RouteNetlinkMessage::NewAddress(address(OURS, "10.0.0.1/24")), Some(OURS));
    let messages = [
        RouteNetlinkMessage::DelAddress(address(OURS, "10.0.0.1/24")),
        RouteNetlinkMessage::NewLink(link(OURS, LinkFlags::Up)),
        RouteNetlinkMessage::DelLink(link(OURS, LinkFlags::Up)),
        route(OURS, MAIN_TABLE),
        RouteNetlinkMessage::NewRule(PresentRule::suppress(false, 31_820).message()),
    ];
    for message in messages {
        assert_eq!(known.told(&message, Some(OURS)), None, "{message:?}");
    }
}

#[test]
fn a_foreign_route_counts_unless_it_is_a_local_address() {
    let mut known = Known::default();
    let told = known.told(&route(OTHER, MAIN_TABLE), Some(OURS));
    assert!(matches!(told, Some(NetworkChange::RouteChanged(_))), "{told:?}");
    assert_eq!(known.told(&route(OTHER, LOCAL_TABLE), Some(OURS)), None);
}

#[test]
fn a_link_that_says_the_same_again_has_not_changed() {
    let mut known = Known::default();
    known.told(&RouteNetlinkMessage::NewAddress(address(OTHER, "192.0.2.1/24")), Some(OURS));
    let up = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::Up));
    let louder = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::Up | LinkFlags::Promisc));
    let down = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::empty()));
    assert_eq!(known.told(&up, Some(OURS)), Some(NetworkChange::LinkChanged));
    assert_eq!(known.told(&louder, Some(OURS)), None);
    assert_eq!(known.told(&down, Some(OURS)), Some(NetworkChange::LinkChanged));
}

#[test]
fn a_link_without_an_address_that_others_know_is_passed_over() {
    let mut known = Known::default();
    known.told(&RouteNetlinkMessage::NewAddress(address(OTHER, "fe80::1/64")), Some(OURS));
    let up = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::Up));
    assert_eq!(known.told(&up, Some(OURS)), None, "as when a container comes or goes");
}
