//! Hosts in network namespaces, for the demo and for the tests: namespaces, links, addresses and routes by
//! netlink; everything vanishes on drop.
