use super::*;
use crate::config::{Interface, Peer};

/// Keys play no part here.
const ANY_KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

const OWN: u32 = 51_820;

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|text| text.parse().expect("a prefix in a test")).collect()
}

fn config(address: &[&str], table: Table, peers: &[&[&str]]) -> Config {
    let peer = |allowed: &&[&str]| Peer {
        name: None,
        public_key: ANY_KEY.parse().expect("a key"),
        preshared_key: None,
        endpoint: None,
        allowed_ips: nets(allowed),
        persistent_keepalive: 0,
        expires: None,
    };
    Config {
        interface: Interface {
            name: "vpn0".into(),
            private_key: ANY_KEY.parse().expect("a key"),
            listen_port: None,
            address: nets(address),
            mtu: 1420,
            fwmark: None,
            table,
            offload: true,
            clamp_mss: true,
            capture_secrets: false,
            workers: None,
            nice: None,
            clients: crate::config::Clients::default(),
            sockets: crate::config::SocketAccess::default(),
            sandbox: true,
            metrics_listen: None,
        },
        peers: peers.iter().map(peer).collect(),
        hooks: Vec::new(),
    }
}

fn routes(plan: &Plan) -> Vec<(String, u32)> {
    plan.routes.iter().map(|r| (r.destination.to_string(), r.table)).collect()
}

fn main_routes(list: &[&str]) -> Vec<(String, u32)> {
    list.iter().map(|d| (d.to_string(), MAIN_TABLE)).collect()
}

#[test]
fn every_allowed_prefix_of_every_peer_becomes_one_route() {
    let file = config(&["10.0.0.1/24"], Table::Auto, &[&["10.1.0.0/16", "fd00::/64"], &["10.2.0.9/32"]]);
    let plan = Plan::new(&file, OWN);
    assert_eq!(routes(&plan), main_routes(&["10.1.0.0/16", "10.2.0.9/32", "fd00::/64"]));
    assert_eq!((plan.device.as_str(), plan.mtu), ("vpn0", 1420));
    assert_eq!(plan.addresses, nets(&["10.0.0.1/24"]));
    assert_eq!(plan.fwmark, None);
    assert!(plan.rules.is_empty());
}

#[test]
fn a_prefix_named_twice_or_with_host_bits_is_routed_once() {
    let file = config(&["10.0.0.1/24"], Table::Auto, &[&["10.1.2.3/16", "10.1.0.0/16"], &["10.1.0.0/16"]]);
    assert_eq!(routes(&Plan::new(&file, OWN)), main_routes(&["10.1.0.0/16"]));
}

#[test]
fn a_prefix_that_the_address_connects_already_is_not_routed_again() {
    let file = config(
        &["10.77.0.1/24", "fd77::1/64", "fd99::1/128"],
        Table::Auto,
        &[&["10.77.0.0/24", "10.77.0.2/32", "fd77::/64", "fd99::1/128"]],
    );
    assert_eq!(routes(&Plan::new(&file, OWN)), main_routes(&["10.77.0.2/32"]));
}

#[test]
fn a_lone_ipv4_address_connects_nothing() {
    let file = config(&["10.77.0.1/32"], Table::Auto, &[&["10.77.0.1/32"]]);
    assert_eq!(routes(&Plan::new(&file, OWN)), main_routes(&["10.77.0.1/32"]));
}

#[test]
fn table_off_routes_nothing() {
    let file = config(&["10.77.0.1/24"], Table::Off, &[&["0.0.0.0/0", "10.1.0.0/16"]]);
    let plan = Plan::new(&file, OWN);
    assert!(plan.routes.is_empty() && plan.rules.is_empty());
    assert!(!Plan::wants_own_table(&file));
    assert_eq!(plan.fwmark, None);
}

#[test]
fn a_numbered_table_takes_every_route_and_no_rule() {
    let file = config(&["10.77.0.1/24"], Table::Number(1000), &[&["0.0.0.0/0", "10.77.0.0/24"]]);
    let plan = Plan::new(&file, OWN);
    assert_eq!(routes(&plan), [("0.0.0.0/0".into(), 1000), ("10.77.0.0/24".into(), 1000)]);
    assert!(plan.rules.is_empty());
    assert!(!Plan::wants_own_table(&file));
}

#[test]
fn a_default_route_goes_into_the_own_table_behind_rules_of_its_family_only() {
    let file = config(&["10.77.0.1/24"], Table::Auto, &[&["0.0.0.0/0", "10.1.0.0/16"]]);
    let plan = Plan::new(&file, OWN);
    assert!(Plan::wants_own_table(&file));
    assert_eq!(routes(&plan), [("0.0.0.0/0".into(), OWN), ("10.1.0.0/16".into(), MAIN_TABLE)]);
    let pair = [Rule::SuppressDefault { v6: false }, Rule::NotMarked { v6: false, mark: OWN, table: OWN }];
    assert_eq!(plan.rules, pair);
    assert_eq!(plan.fwmark, Some(OWN));
}

#[test]
fn default_routes_of_both_families_get_a_pair_each_that_suppresses_first() {
    let file = config(&[], Table::Auto, &[&["::/0"], &["0.0.0.0/0"]]);
    let plan = Plan::new(&file, OWN);
    assert_eq!(
        plan.rules,
        [
            Rule::SuppressDefault { v6: false },
            Rule::NotMarked { v6: false, mark: OWN, table: OWN },
            Rule::SuppressDefault { v6: true },
            Rule::NotMarked { v6: true, mark: OWN, table: OWN },
        ]
    );
}

#[test]
fn a_mark_in_the_file_is_used_in_the_rules_and_zero_is_none() {
    let mut file = config(&[], Table::Auto, &[&["::/0"]]);
    file.interface.fwmark = Some(0x77);
    let plan = Plan::new(&file, OWN);
    assert_eq!(plan.fwmark, Some(0x77));
    assert_eq!(plan.rules[1], Rule::NotMarked { v6: true, mark: 0x77, table: OWN });
    file.interface.fwmark = Some(0);
    assert_eq!(Plan::new(&file, OWN).fwmark, Some(OWN));
}

#[test]
fn a_mark_without_a_default_route_stays() {
    let mut file = config(&[], Table::Auto, &[&["10.0.0.0/8"]]);
    file.interface.fwmark = Some(0x77);
    let plan = Plan::new(&file, OWN);
    assert_eq!(plan.fwmark, Some(0x77));
    assert!(plan.rules.is_empty());
}
