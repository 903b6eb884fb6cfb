//! What happens at each place, for a reader who never heard of it, in the order of the walk. In braces: what
//! [`super::stations`] fills in for the host where the packet is (`own`) and the one at the other end (`other`).

pub(super) const WRITTEN: &str = "A program writes. It knows the address {other} and nothing of any tunnel.";

pub(super) const INNER_OUTPUT: &str = "The kernel has put an IP header in front, from {own} to {other}. The firewall's rules for what programs of \
     this host send are asked here, for the first time.";

pub(super) const INNER_ROUTE: &str = "Which device leads to {other}? vpnd has made a route for each address of its peer, and all of them lead \
     to {inner_device}.";

pub(super) const INNER_POSTROUTING: &str = "The last rules before a device; addresses would be translated here (source NAT). The kernel believes that \
     the packet is about to leave the host.";

pub(super) const INTO_TUN: &str = "A network device without hardware: where a network card has a cable, a TUN has an open file, and vpnd \
     reads that file. The packet has left the kernel, but not the host.";

pub(super) const SEALED: &str = "vpnd looks up which peer owns {other}, encrypts the whole packet with the key of their session, and sends \
     the result as every program sends, through a UDP socket, to {other_outer}. Of a transfer the kernel hands over pieces of up to 64 KB and counts \
     each as one packet; vpnd cuts them into what fits the wire, and the kernel takes what is sealed together, too.";

pub(super) const OUTER_OUTPUT: &str = "The second walk begins. To the kernel this is a new packet, sent by a program named vpnd: UDP, from \
     {own_outer} to {other_outer}. A rule that looks for {other} does not find it any more.";

pub(super) const OUTER_ROUTE: &str = "The same question for another address, and so another answer: {outer_device}. If it were {inner_device} \
     again, the packet would go round in a circle.";

pub(super) const OUTER_POSTROUTING: &str = "The last rules, for the second time.";

pub(super) const ONTO_WIRE: &str = "This device has a cable, and whoever holds the cable can read what is on it. Its counter includes the 14 \
     bytes of the Ethernet header.";

pub(super) const OFF_WIRE: &str =
    "The cable brings a UDP packet for {own_outer}. What is inside the kernel cannot know.";

pub(super) const OUTER_PREROUTING: &str = "The first rules for what a device brings; addresses would be translated here (destination NAT). Behind it \
     the routing decision: {own_outer} is this host itself, so the packet goes up.";

pub(super) const OUTER_INPUT: &str = "The rules for what programs of this host receive. This is what a firewall must let in for a tunnel: UDP to \
     vpnd's port, and nothing else.";

pub(super) const OPENED: &str = "vpnd checks that the packet is authentic and was not seen before, decrypts it, checks that {other} is an \
     address which this peer may send from, and writes the inner packet into its file.";

pub(super) const OUT_OF_TUN: &str = "To the kernel it is as if a network card had just received a packet.";

pub(super) const INNER_PREROUTING: &str = "The second walk up. The packet is again what it was on the other side, from {other} to {own}; rules by \
     address find it again.";

pub(super) const INNER_INPUT: &str = "It is for this host itself once more. (For another address, with forwarding switched on, it would pass \
     FORWARD instead and leave by another device: this is what makes a gateway.)";

pub(super) const READ: &str = "It has arrived, byte for byte as it was sent. A program reads the transfer; to a ping the kernel itself \
     answers.";
