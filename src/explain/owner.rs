//! Whose an address is inside a tunnel: the peer with the longest prefix that holds it, and who would be next.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::control::schema::PeerReport;

/// Who has an address, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned<'a> {
    /// The owner.
    pub peer: &'a PeerReport,
    /// Its longest prefix that holds the address.
    pub prefix: IpNet,
    /// The next shorter one that holds it, and whose that is.
    pub second: Option<(IpNet, &'a PeerReport)>,
}

/// Who owns `address`; none: nobody.
pub fn owner(peers: &[PeerReport], address: IpAddr) -> Option<Owned<'_>> {
    let prefixes = peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(move |text| (text, peer)));
    let parsed = prefixes.filter_map(|(text, peer)| Some((text.parse::<IpNet>().ok()?, peer)));
    let mut holding: Vec<_> = parsed.filter(|(prefix, _)| prefix.contains(&address)).collect();
    holding.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
    let mut holding = holding.into_iter();
    let (prefix, peer) = holding.next()?;
    Some(Owned { peer, prefix, second: holding.next() })
}
