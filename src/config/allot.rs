//! Addresses for a new peer: the next free one in each network of the interface.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Config;

/// Why there is no address to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllotError {
    /// Each address of the interface stands alone.
    #[error(
        "interface.address names no network to take an address from; write one with its length, such as \
         10.77.0.1/24, or give the peer's own address with --allowed-ips"
    )]
    NoNetwork,
    /// All are taken.
    #[error(
        "{0} is full: each address in it is ours or lies within a peer's allowed IPs; remove a peer, give the \
         interface another network, or give the peer's own address with --allowed-ips"
    )]
    Full(IpNet),
}

/// The addresses of a new peer, one for each network of the interface, as whole prefixes. Of `wanted` (what the operator
/// gives it beside), a single address inside a network is the one there; where there is none, the next free one is taken.
pub fn own_addresses(config: &Config, wanted: &[IpNet]) -> Result<Vec<IpNet>, AllotError> {
    let mut networks: Vec<IpNet> = Vec::new();
    for network in config.interface.address.iter().map(IpNet::trunc) {
        if network.prefix_len() < network.max_prefix_len() && !networks.contains(&network) {
            networks.push(network);
        }
    }
    let hosts: Vec<IpNet> =
        wanted.iter().copied().filter(|net| net.prefix_len() == net.max_prefix_len()).collect();
    if networks.is_empty() && hosts.is_empty() {
        return Err(AllotError::NoNetwork);
    }
    let mut addresses: Vec<IpNet> = Vec::new();
    for network in networks {
        match hosts.iter().find(|host| network.contains(*host)) {
            Some(host) => addresses.push(*host),
            None => {
                addresses.push(next_free(config, wanted, network).ok_or(AllotError::Full(network))?.into())
            }
        }
    }
    if addresses.is_empty() {
        return Ok(hosts); // the interface has no network: all that can be meant
    }
    Ok(addresses)
}

/// The lowest address of the network that is neither ours nor a peer's.
fn next_free(config: &Config, wanted: &[IpNet], network: IpNet) -> Option<IpAddr> {
    let (mut candidate, last) = usable(network);
    for (first_taken, last_taken) in taken(config, wanted, network) {
        if candidate < first_taken {
            break;
        }
        candidate = candidate.max(last_taken.checked_add(1)?);
    }
    (candidate <= last).then(|| address(candidate, network))
}

/// First and last number that a host may have: not the network's own (in IPv6 the routers' anycast address, RFC 4291,
/// section 2.6.1), and not the broadcast address. A network of two addresses has neither (RFC 3021, RFC 6164).
fn usable(network: IpNet) -> (u128, u128) {
    let (first, last) = ends(network);
    match network {
        _ if last - first < 2 => (first, last),
        IpNet::V4(_) => (first + 1, last - 1),
        IpNet::V6(_) => (first + 1, last),
    }
}

/// What is in use within the network, by the first number. A prefix that is larger than the network takes nothing in
/// it, since longer ones win.
fn taken(config: &Config, wanted: &[IpNet], network: IpNet) -> Vec<(u128, u128)> {
    let own = config.interface.address.iter().map(|own| IpNet::from(own.addr()));
    let peers = config.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied());
    let all = own.chain(peers).chain(wanted.iter().copied());
    let mut taken: Vec<_> = all.filter(|net| network.contains(net)).map(ends).collect();
    taken.sort_unstable();
    taken
}

fn ends(net: IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}

fn address(number: u128, like: IpNet) -> IpAddr {
    match like {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).expect("within a network of IPv4").into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::{key, key_files};

    fn config(address: &str, peers: &[&str]) -> Config {
        let mut text = format!("[interface]\nprivate_key_file = \"k\"\naddress = [{address}]\n");
        for (number, prefixes) in peers.iter().enumerate() {
            text +=
                &format!("[[peer]]\npublic_key = \"{}\"\nallowed_ips = [{prefixes}]\n", key(number as u32));
        }
        crate::config::parse(&text, Path::new("x"), &key_files)
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn given(config: &Config, wanted: &[&str]) -> Result<String, String> {
        let wanted: Vec<IpNet> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        let addresses = own_addresses(config, &wanted).map_err(|error| error.to_string())?;
        Ok(addresses.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" "))
    }

    #[track_caller]
    fn gives(address: &str, peers: &[&str], expected: &str) {
        assert_eq!(given(&config(address, peers), &[]).as_deref(), Ok(expected));
    }

    #[test]
    fn the_next_free_address_of_each_network_is_taken() {
        gives(r#""10.77.0.1/24", "fd77::1/64""#, &[], "10.77.0.2/32 fd77::2/128");
        gives(r#""10.77.0.9/24", "fd77::/64""#, &[], "10.77.0.1/32 fd77::1/128");
        gives(r#""10.77.0.1/24""#, &[r#""10.77.0.2/32""#, r#""10.77.0.4/32""#], "10.77.0.3/32");
        gives(r#""10.77.0.1/24", "10.77.0.2/24""#, &[], "10.77.0.3/32");
        gives(r#""10.77.0.1/24", "192.168.9.1/24", "10.0.0.1/32""#, &[], "10.77.0.2/32 192.168.9.2/32");
    }

    #[test]
    fn prefixes_of_peers_are_left_out_whole_and_larger_ones_do_not_count() {
        gives(r#""10.77.0.1/24""#, &[r#""10.77.0.0/28", "10.77.0.16/32""#], "10.77.0.17/32");
        gives(r#""10.77.0.1/24", "fd77::1/64""#, &[r#""0.0.0.0/0", "::/0""#], "10.77.0.2/32 fd77::2/128");
        gives(r#""fd77::1/64""#, &[r#""fd77::/65""#], "fd77::8000:0:0:0/128");
        gives(r#""fd77::1/64""#, &[r#""fd77::2/128", "fd77::/96""#], "fd77::1:0:0/128");
    }

    #[test]
    fn network_and_broadcast_are_left_out_but_of_a_link_of_two() {
        gives(r#""10.77.0.1/30""#, &[], "10.77.0.2/32");
        gives(r#""10.77.0.0/31""#, &[], "10.77.0.1/32");
        gives(r#""fd77::/127""#, &[], "fd77::1/128");
        let full = |address, peers: &[&str]| given(&config(address, peers), &[]).unwrap_err();
        assert!(full(r#""10.77.0.1/30""#, &[r#""10.77.0.2/32""#]).starts_with("10.77.0.0/30 is full"));
        assert!(full(r#""10.77.0.1/24""#, &[r#""10.77.0.0/24""#]).starts_with("10.77.0.0/24 is full"));
        assert!(full(r#""fd77::1/64""#, &[r#""fd77::/64""#]).starts_with("fd77::/64 is full"));
        assert!(full(r#""255.255.255.253/30""#, &[r#""255.255.255.254/32""#]).contains("is full"));
        assert!(full(r#""10.77.0.1/32""#, &[]).contains("names no network"));
    }

    #[test]
    fn an_address_that_the_operator_gives_is_the_peers_own_there() {
        let config = config(r#""10.77.0.1/24", "fd77::1/64""#, &[]);
        let given = |wanted: &[&str]| given(&config, wanted).unwrap();
        assert_eq!(given(&["10.77.0.9/32"]), "10.77.0.9/32 fd77::2/128");
        assert_eq!(given(&["192.168.1.0/24", "192.168.2.1/32"]), "10.77.0.2/32 fd77::2/128");
        assert_eq!(
            given(&["10.77.0.0/29"]),
            "10.77.0.8/32 fd77::2/128",
            "what lies behind it is not its own"
        );
        let alone = super::tests::config(r#""10.77.0.1/32""#, &[]);
        assert_eq!(super::tests::given(&alone, &["10.77.0.9/32"]).as_deref(), Ok("10.77.0.9/32"));
    }

    proptest! {
        #[test]
        fn what_is_given_was_free_and_the_lowest(
            len in 20u8..=31, own in 0u32..4096, prefixes in prop::collection::btree_set((0u32..4096, 24u8..=32), 0..60),
        ) {
            let net = |number: u32, len| IpNet::new(IpAddr::V4((0x0a00_0000 + number).into()), len).unwrap();
            let (own, network) = (net(own, len), net(own, len).trunc());
            let mut nets: Vec<_> = prefixes.into_iter().map(|(number, len)| net(number, len).trunc()).collect();
            nets.sort_unstable();
            nets.dedup();
            let quoted: Vec<_> = nets.iter().map(|net| format!("\"{net}\"")).collect();
            let config = config(&format!("\"{own}\""), &[&quoted.join(", ")]);
            let takes = |host: &IpAddr| own.addr() == *host
                || nets.iter().any(|net| net.contains(host) && net.prefix_len() >= network.prefix_len());
            let lowest = network.hosts().find(|host| !takes(host));
            let given = own_addresses(&config, &[]).ok().map(|addresses| addresses[0].addr());
            prop_assert_eq!(given, lowest);
        }
    }
}
