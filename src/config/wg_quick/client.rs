//! What a client is given: the other end of one `[[peer]]` as a wg-quick file, which phones read as a QR code.

use std::path::Path;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::export::{line, nets, secret};
use crate::{
    config::{EndpointName, Problems},
    noise::{PresharedKey, PrivateKey, PublicKey},
};

/// One client and the interface that it talks to.
pub struct Client<'a> {
    /// Its own key; `None`: it has made one itself.
    pub private_key: Option<&'a PrivateKey>,
    /// Its addresses in the tunnel.
    pub address: &'a [IpNet],
    /// Servers and domains.
    pub dns: &'a [String],
    /// Of its device.
    pub mtu: Option<u16>,
    /// Of the interface.
    pub public_key: PublicKey,
    /// Of the two.
    pub preshared_key: Option<&'a PresharedKey>,
    /// Where the interface is, seen from outside.
    pub endpoint: &'a EndpointName,
    /// What it sends into the tunnel.
    pub allowed_ips: &'a [IpNet],
    /// Seconds.
    pub keepalive: Option<u16>,
}

impl Client<'_> {
    /// As a wg-quick file. Without a private key of ours it says where its own belongs.
    pub fn wg_quick(&self) -> Zeroizing<String> {
        // Room for all of it: growing would leave copies of the key behind.
        let dns: usize = self.dns.iter().map(|one| one.len() + 2).sum();
        let room = 1024 + dns + 64 * (self.address.len() + self.allowed_ips.len());
        let mut text = Zeroizing::new(String::with_capacity(room));
        text.push_str("[Interface]\n");
        match self.private_key {
            Some(key) => secret(&mut text, "PrivateKey", key.expose()),
            None => text.push_str("# PrivateKey = the one that belongs to the public key that was given\n"),
        }
        nets(&mut text, "Address", self.address);
        if !self.dns.is_empty() {
            line(&mut text, "DNS", self.dns.join(", "));
        }
        if let Some(mtu) = self.mtu {
            line(&mut text, "MTU", mtu);
        }
        text.push_str("\n[Peer]\n");
        line(&mut text, "PublicKey", self.public_key);
        if let Some(key) = self.preshared_key {
            secret(&mut text, "PresharedKey", key.expose());
        }
        line(&mut text, "Endpoint", self.endpoint);
        nets(&mut text, "AllowedIPs", self.allowed_ips);
        if let Some(seconds) = self.keepalive {
            line(&mut text, "PersistentKeepalive", seconds);
        }
        text
    }

    /// What would be wrong with it at the client, by the rules for our own files: an endpoint inside the prefixes that
    /// are routed into the tunnel, an MTU too small for IPv6, …
    pub fn check(&self, name: &Path) -> Result<(), Problems> {
        let key = PrivateKey::new([1; 32]); // stands for its own, which plays no part
        let with_key = Client { private_key: Some(&key), ..*self };
        super::import(&with_key.wg_quick(), name).map(drop)
    }
}
