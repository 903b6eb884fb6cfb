//! peer.toml → wg-quick.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::Converted;
use crate::config::{Config, Interface, Peer, Table, date};

/// A wg-quick file that makes the same tunnel. It holds the private key in clear: write it with mode 0600.
pub fn export(config: &Config) -> Converted {
    // Room for all of it: growing would leave copies of the key behind.
    let prefixes: usize = config.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let room = 1024 + 512 * config.peers.len() + 64 * (prefixes + config.interface.address.len());
    let mut text = Zeroizing::new(String::with_capacity(room));
    interface(&mut text, &config.interface);
    for one in &config.peers {
        peer(&mut text, one);
    }
    let name = &config.interface.name;
    let mut notes = vec![format!("the device's name is not in the file: save it as {name}.conf")];
    let expiring = config.peers.iter().filter_map(|peer| Some((peer, peer.expires?)));
    notes.extend(expiring.map(|(peer, at)| {
        format!(
            "{} expires on {}, which wg-quick cannot say: it is let in for good there",
            peer.label(),
            date::shown(at)
        )
    }));
    Converted { text, notes }
}

fn interface(text: &mut String, interface: &Interface) {
    text.push_str("[Interface]\n");
    secret(text, "PrivateKey", interface.private_key.expose());
    if let Some(port) = interface.listen_port {
        line(text, "ListenPort", port);
    }
    nets(text, "Address", &interface.address);
    line(text, "MTU", interface.mtu);
    if let Some(mark) = interface.fwmark {
        line(text, "FwMark", format_args!("{mark:#x}"));
    }
    match interface.table {
        Table::Auto => {}
        Table::Off => line(text, "Table", "off"),
        Table::Number(number) => line(text, "Table", number),
    }
}

fn peer(text: &mut String, peer: &Peer) {
    text.push_str("\n[Peer]\n");
    if let Some(name) = &peer.name {
        line(text, "# Name", name);
    }
    line(text, "PublicKey", peer.public_key);
    if let Some(key) = &peer.preshared_key {
        secret(text, "PresharedKey", key.expose());
    }
    if let Some(endpoint) = &peer.endpoint {
        line(text, "Endpoint", endpoint);
    }
    nets(text, "AllowedIPs", &peer.allowed_ips);
    if peer.persistent_keepalive != 0 {
        line(text, "PersistentKeepalive", peer.persistent_keepalive);
    }
}

pub(super) fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(text, "{key} = {value}").expect("a String takes any text");
}

pub(super) fn secret(text: &mut String, key: &str, bytes: &[u8; 32]) {
    let mut encoded = Zeroizing::new([0; 44]); // base64 of 32 bytes
    STANDARD.encode_slice(bytes, &mut encoded[..]).expect("44 bytes hold the base64 of 32");
    line(text, key, std::str::from_utf8(&encoded[..]).expect("base64 is ASCII"));
}

pub(super) fn nets(text: &mut String, key: &str, nets: &[IpNet]) {
    if nets.is_empty() {
        return;
    }
    let nets: Vec<_> = nets.iter().map(IpNet::to_string).collect();
    line(text, key, nets.join(", "));
}
