//! Configurations by chance, for property tests: each is one that the file can say.

use proptest::{collection::btree_map, option, prelude::*};

use super::*;

/// Our own keys are these two, and each may be a peer of the other.
const OWN: [[u8; 32]; 2] = [[0x11; 32], [0x22; 32]];
const PREFIXES: [&str; 8] =
    ["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/8", "fd77::/64", "fd77::1/128"];
const NAMES: [&str; 4] = ["laptop", "a = \"b\" # c\\", "# 2", "END_PEER über"];

/// A valid configuration of up to six peers.
pub(super) fn config() -> impl Strategy<Value = Config> {
    // By key: the peer; by prefix and by name: whose it is.
    let peers = btree_map(0..6usize, peer(), 0..6);
    let owners = prop::array::uniform8(0..8usize);
    let named = prop::array::uniform4(0..8usize);
    (interface(), peers, owners, named).prop_map(|((own, mut interface), peers, owners, named)| {
        interface.private_key = PrivateKey::new(OWN[own]);
        let own_key = interface.private_key.public_key();
        let peers = peers.into_iter().map(|(number, mut peer)| {
            peer.public_key = public_key(number);
            let prefixes = PREFIXES.iter().zip(owners).filter(|(_, owner)| *owner == number);
            peer.allowed_ips = prefixes.map(|(prefix, _)| prefix.parse().unwrap()).collect();
            peer.name =
                NAMES.iter().zip(named).find(|(_, owner)| *owner == number).map(|(name, _)| (*name).into());
            peer
        });
        Config {
            interface,
            peers: peers.filter(|peer| peer.public_key != own_key).collect(),
            hooks: Vec::new(),
        }
    })
}

fn public_key(number: usize) -> PublicKey {
    match OWN.get(number) {
        Some(own) => PrivateKey::new(*own).public_key(),
        None => PublicKey([number as u8; 32]),
    }
}

fn interface() -> impl Strategy<Value = (usize, Interface)> {
    let address =
        prop_oneof![Just(vec![]), Just(vec!["10.9.0.1/24"]), Just(vec!["10.9.0.1/24", "fd99::1/64"])];
    let table = prop_oneof![Just(Table::Auto), Just(Table::Off), (256u32..).prop_map(Table::Number)];
    let numbers = (option::of(1u16..), 1280u16..=65_455, option::of(1u32..));
    (0..2usize, "[a-z0-9_-]{1,15}", numbers, address, table).prop_map(
        |(own, name, (listen_port, mtu, fwmark), address, table)| {
            let address = address.into_iter().map(|net| net.parse().unwrap()).collect();
            let private_key = PrivateKey::new([1; 32]);
            let (offload, workers, nice, metrics_listen) = (true, None, None, None);
            let (clients, sockets, sandbox) = (Clients::default(), SocketAccess::default(), true);
            let interface = Interface {
                name,
                private_key,
                listen_port,
                address,
                mtu,
                fwmark,
                table,
                offload,
                clamp_mss: true,
                capture_secrets: false,
                workers,
                nice,
                clients,
                sockets,
                sandbox,
                metrics_listen,
            };
            (own, interface)
        },
    )
}

fn peer() -> impl Strategy<Value = Peer> {
    let endpoint = prop_oneof![
        (any::<u8>(), 1u16..).prop_map(|(i, port)| EndpointName::Address(([192, 0, 2, i], port).into())),
        (1u16..).prop_map(|port| EndpointName::Address(format!("[2001:db8::1]:{port}").parse().unwrap())),
        ("[a-z]{1,9}(\\.[a-z]{2,4}){0,2}", 1u16..).prop_map(|(host, port)| EndpointName::Name { host, port }),
    ];
    let expires = option::of((0u64..4_000_000_000).prop_map(Duration::from_secs));
    let numbers = (any::<u16>(), expires);
    (option::of(1u8..4), option::of(endpoint), numbers).prop_map(
        |(preshared, endpoint, (keepalive, expires))| Peer {
            name: None,
            public_key: PublicKey([0; 32]),
            preshared_key: preshared.map(|byte| PresharedKey::new([byte; 32])),
            endpoint,
            allowed_ips: Vec::new(),
            persistent_keepalive: keepalive,
            expires,
        },
    )
}
