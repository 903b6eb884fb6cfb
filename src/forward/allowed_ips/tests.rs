use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;

fn table(prefixes: &[&str]) -> AllowedIps<String> {
    AllowedIps::build(prefixes.iter().map(|text| (text.parse().expect("a prefix"), (*text).to_owned())))
}

fn find<'a>(table: &'a AllowedIps<String>, address: &str) -> Option<&'a str> {
    table.find(address.parse().expect("an address")).map(|(value, _)| value.as_str())
}

#[test]
fn an_empty_table_holds_nothing() {
    let table = AllowedIps::<u8>::default();
    assert!(table.find(Ipv4Addr::LOCALHOST.into()).is_none());
    assert!(table.find(Ipv6Addr::LOCALHOST.into()).is_none());
}

#[test]
fn the_longest_prefix_wins_whatever_the_order() {
    let mut prefixes =
        ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.128.0.0/9"];
    for _ in 0..prefixes.len() {
        prefixes.rotate_left(1);
        let table = table(&prefixes);
        for (address, prefix) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.2", "10.1.2.0/24"),
            ("10.1.3.3", "10.1.0.0/16"),
            ("10.127.0.1", "10.0.0.0/8"),
            ("10.128.0.1", "10.128.0.0/9"),
            ("11.0.0.0", "0.0.0.0/0"),
            ("255.255.255.255", "0.0.0.0/0"),
        ] {
            assert_eq!(find(&table, address), Some(prefix), "{address}");
        }
        assert_eq!(find(&table, "::"), None);
    }
}

#[test]
fn the_length_of_the_prefix_comes_with_the_value() {
    let table = table(&["10.0.0.0/8", "fd00::/8", "fd00::1/128"]);
    let length = |address: &str| table.find(address.parse().expect("an address")).map(|(_, length)| length);
    assert_eq!(length("10.9.9.9"), Some(8));
    assert_eq!(length("fd12::"), Some(8));
    assert_eq!(length("fd00::1"), Some(128));
    assert_eq!(length("fe00::1"), None);
}

#[test]
fn host_bits_are_ignored_and_the_last_of_two_equal_prefixes_stands() {
    let table = table(&["10.1.2.3/8", "10.0.0.0/8", "10.255.0.9/8", "fd00::1/64", "fd00::2/64"]);
    assert_eq!(find(&table, "10.77.0.1"), Some("10.255.0.9/8"));
    assert_eq!(find(&table, "fd00::9"), Some("fd00::2/64"));
}

/// nebula 1.11: allow list not applied to 4-in-6 addresses.
#[test]
fn an_ipv4_mapped_address_matches_ipv6_prefixes_alone() {
    let v4_only = table(&["0.0.0.0/0", "10.0.0.1/32"]);
    assert_eq!(find(&v4_only, "::ffff:10.0.0.1"), None);
    let both = table(&["10.0.0.1/32", "::ffff:10.0.0.0/120"]);
    assert_eq!(find(&both, "::ffff:10.0.0.1"), Some("::ffff:10.0.0.0/120"));
    assert_eq!(find(&both, "10.0.0.1"), Some("10.0.0.1/32"));
    assert_eq!(find(&both, "10.0.0.2"), None);
}

/// netns.sh, scenario 29.
#[test]
fn one_hundred_and_thirty_thousand_prefixes_are_all_found() {
    let count = 130_560_u32;
    let prefixes = (0..count).map(|n| {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + n * 2);
        (IpNet::from(Ipv4Net::new(address, 32).expect("a length up to 32")), n)
    });
    let table = AllowedIps::build(prefixes);
    assert!(table.v4.nodes.len() < 2 * count as usize);
    for n in 0..count {
        let address = 0x0a00_0000 + n * 2;
        assert_eq!(table.find(Ipv4Addr::from_bits(address).into()), Some((&n, 32)));
        assert_eq!(table.find(Ipv4Addr::from_bits(address + 1).into()), None);
    }
}

#[test]
fn the_addresses_of_ten_thousand_peers_take_few_nodes() {
    let prefixes = (0..10_000_u32).map(|n| (Ipv4Net::from(Ipv4Addr::from_bits(0x0a00_0000 + n)).into(), n));
    let table = AllowedIps::build(prefixes);
    // 64 addresses each, and three nodes above them.
    assert_eq!((table.v4.nodes.len(), table.v4.values.len()), (157 + 4, 10_000 + 1 + 4));
}

/// Prefixes that nest and collide: few distinct bits, all lengths.
fn v4_prefix() -> impl Strategy<Value = IpNet> {
    (
        prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), Just(0x0a00_0001)],
        prop_oneof![0..=32_u8, Just(0), Just(32)],
    )
        .prop_map(|(bits, length)| {
            let bits = bits & 0xf000_0f0f;
            Ipv4Net::new(Ipv4Addr::from_bits(bits), length).expect("a length up to 32").into()
        })
}

fn v6_prefix() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), prop_oneof![0..=128_u8, Just(0), Just(128)]).prop_map(|(bits, length)| {
        let bits = bits & 0xf000_0000_0000_0000_0f00_0000_0000_000f;
        Ipv6Net::new(Ipv6Addr::from_bits(bits), length).expect("a length up to 128").into()
    })
}

/// The last of the longest ones.
fn naive(prefixes: &[IpNet], address: IpAddr) -> Option<(usize, u8)> {
    let holding = prefixes.iter().enumerate().filter(|(_, prefix)| prefix.contains(&address));
    holding.map(|(n, prefix)| (n, prefix.prefix_len())).max_by_key(|(n, length)| (*length, *n))
}

proptest! {
    #[test]
    fn it_agrees_with_a_search_through_all_prefixes(
        prefixes in prop::collection::vec(prop_oneof![v4_prefix(), v6_prefix()], 0..60),
        v4 in prop::collection::vec(any::<u32>(), 20),
        v6 in prop::collection::vec(any::<u128>(), 20),
    ) {
        let table = AllowedIps::build(prefixes.iter().enumerate().map(|(n, prefix)| (*prefix, n)));
        let random = v4.iter().map(|bits| Ipv4Addr::from_bits(bits & 0xf000_0f0f).into())
            .chain(v6.iter().map(|bits| Ipv6Addr::from_bits(bits & 0xf000_0000_0000_0000_0f00_0000_0000_000f).into()));
        let edges = prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast(), prefix.addr()]);
        let beside = prefixes.iter().flat_map(|prefix| match (prefix.network(), prefix.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                [first.to_bits().wrapping_sub(1), last.to_bits().wrapping_add(1)].map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                [first.to_bits().wrapping_sub(1), last.to_bits().wrapping_add(1)].map(|bits| Ipv6Addr::from_bits(bits).into())
            }
            _ => unreachable!("one family"),
        });
        for address in random.chain(edges).chain(beside) {
            let found = table.find(address).map(|(n, length)| (*n, length));
            prop_assert_eq!(found, naive(&prefixes, address), "{}", address);
        }
    }
}
