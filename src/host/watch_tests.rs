use ipnet::IpNet;
use netlink_packet_route::link::LinkMessage;

use super::*;
use crate::host::plan::{MAIN_TABLE, Plan, Route};

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

fn destination() -> IpNet {
    "10.1.0.0/16".parse().expect("a prefix in a test")
}

fn route(index: u32, table: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRoute(PresentRoute::message(index, Route { destination: destination(), table }))
}

/// Our device, with a plan of these routes.
fn own(routes: Vec<Route>) -> Option<Own> {
    let plan = Plan {
        device: "vpn0".into(),
        mtu: 1420,
        gso_max_segs: None,
        addresses: Vec::new(),
        routes,
        rules: Vec::new(),
        fwmark: None,
    };
    Some(Own { index: OURS, plan: std::sync::Arc::new(plan) })
}

#[test]
fn only_the_end_of_the_device_with_our_index_is_a_loss() {
    let down = RouteNetlinkMessage::NewLink(link(OURS, LinkFlags::empty()));
    let gone = RouteNetlinkMessage::DelLink(link(OURS, LinkFlags::empty()));
    assert!(tells_loss(&gone, OURS));
    assert!(!tells_loss(&down, OURS) && !tells_loss(&gone, OTHER));
}

#[test]
fn leaving_a_bridge_is_not_the_end_of_a_device() {
    let mut port = link(OURS, LinkFlags::empty());
    port.header.interface_family = AddressFamily::Bridge;
    assert!(!tells_loss(&RouteNetlinkMessage::DelLink(port), OURS));
}

#[test]
fn an_address_is_gone_when_no_device_has_it_any_more() {
    let mut known = Known::default();
    let new = |index| RouteNetlinkMessage::NewAddress(address(index, "192.0.2.1/24"));
    let del = |index| RouteNetlinkMessage::DelAddress(address(index, "192.0.2.1/24"));
    assert_eq!(known.told(&new(2), own(vec![]).as_ref()), None);
    assert_eq!(known.told(&new(3), own(vec![]).as_ref()), None);
    assert_eq!(known.told(&del(2), own(vec![]).as_ref()), None);
    let gone = "192.0.2.1".parse().expect("an address");
    assert_eq!(known.told(&del(3), own(vec![]).as_ref()), Some(NetworkChange::AddressRemoved(gone)));
}

#[test]
fn what_we_place_ourselves_is_not_told() {
    let mut known = Known::default();
    let messages = [
        RouteNetlinkMessage::NewAddress(address(OURS, "10.0.0.1/24")),
        RouteNetlinkMessage::DelLink(link(OURS, LinkFlags::Up)),
        route(OURS, MAIN_TABLE),
        RouteNetlinkMessage::NewRule(PresentRule::suppress(false, 31_820).message()),
    ];
    for message in messages {
        assert_eq!(known.told(&message, own(vec![]).as_ref()), None, "{message:?}");
    }
}

#[test]
fn what_is_removed_of_ours_is_told_and_so_is_what_stands_in_its_place() {
    let ours = Route { destination: destination(), table: MAIN_TABLE };
    let messages = [
        RouteNetlinkMessage::DelAddress(address(OURS, "10.0.0.1/24")),
        RouteNetlinkMessage::DelRoute(PresentRoute::message(OURS, ours)),
        RouteNetlinkMessage::DelRule(PresentRule::suppress(false, 31_820).message()),
        route(OTHER, MAIN_TABLE),
    ];
    for message in messages {
        let told = Known::default().told(&message, own(vec![ours]).as_ref());
        assert_eq!(told, Some(NetworkChange::OwnLost), "{message:?}");
    }
}

#[test]
fn our_own_device_is_told_when_it_goes_down_and_when_it_comes_up_again() {
    let mut known = Known::default();
    let mut told = |flags| known.told(&RouteNetlinkMessage::NewLink(link(OURS, flags)), own(vec![]).as_ref());
    assert_eq!(told(LinkFlags::Up), Some(NetworkChange::OwnLink(true)));
    assert_eq!(told(LinkFlags::Up | LinkFlags::Promisc), None);
    assert_eq!(told(LinkFlags::empty()), Some(NetworkChange::OwnLink(false)));
    assert_eq!(told(LinkFlags::Up), Some(NetworkChange::OwnLink(true)));
}

#[test]
fn a_foreign_route_counts_unless_it_is_a_local_address() {
    let mut known = Known::default();
    let told = known.told(&route(OTHER, MAIN_TABLE), own(vec![]).as_ref());
    assert!(matches!(told, Some(NetworkChange::RouteChanged(_))), "{told:?}");
    assert_eq!(known.told(&route(OTHER, LOCAL_TABLE), own(vec![]).as_ref()), None);
}

#[test]
fn a_link_that_says_the_same_again_has_not_changed() {
    let mut known = Known::default();
    known.told(&RouteNetlinkMessage::NewAddress(address(OTHER, "192.0.2.1/24")), own(vec![]).as_ref());
    let up = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::Up));
    let louder = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::Up | LinkFlags::Promisc));
    let down = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::empty()));
    assert_eq!(known.told(&up, own(vec![]).as_ref()), Some(NetworkChange::LinkChanged));
    assert_eq!(known.told(&louder, own(vec![]).as_ref()), None);
    assert_eq!(known.told(&down, own(vec![]).as_ref()), Some(NetworkChange::LinkChanged));
}

#[test]
fn a_link_without_an_address_that_others_know_is_passed_over() {
    let mut known = Known::default();
    known.told(&RouteNetlinkMessage::NewAddress(address(OTHER, "fe80::1/64")), own(vec![]).as_ref());
    let up = RouteNetlinkMessage::NewLink(link(OTHER, LinkFlags::Up));
    assert_eq!(known.told(&up, own(vec![]).as_ref()), None, "as when a container comes or goes");
}
