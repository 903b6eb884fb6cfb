//! Which packets a trace is about, and how many of them were seen: the same answer for who waits and for who tells.

use std::net::IpAddr;

use super::{Facts, Filter, Packet, Passage, Place};

/// What is meant.
#[derive(Clone, Debug)]
pub struct Meant {
    /// These packets.
    pub filter: Filter,
    /// And what may answer them, if that is asked for.
    pub answers: Option<Filter>,
    /// Of those of the filter this one alone: it was sent in order to be traced.
    pub probe: Option<Packet>,
    /// Index of the tunnel's device; `None`: this host only forwards carriers.
    pub tun: Option<u32>,
}

/// How many packets were seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// That are meant.
    pub packets: usize,
    /// That may be their answers; what is both is counted as one of the packets.
    pub answers: usize,
    /// Carriers that came to this host.
    pub carriers: usize,
}

impl Meant {
    /// Is it one of the packets, rather than an answer?
    pub(super) fn is_packet(&self, facts: &Facts) -> bool {
        let is_probe = |probe: &Packet| is_probe(facts, probe);
        self.filter.matches(facts) && self.probe.as_ref().is_none_or(is_probe)
    }

    fn may_answer(&self, facts: &Facts) -> bool {
        self.answers.as_ref().is_some_and(|answers| answers.matches(facts))
    }

    /// A packet that may be meant, on its way into the tunnel.
    pub(super) fn begins(&self, passage: &Passage) -> bool {
        let Some(facts) = passage.facts() else { return false };
        let first = passage.first();
        let meant = self.is_packet(&facts) || self.may_answer(&facts);
        if passage.carrier.is_some() || !meant || self.is_of_another_link(passage, facts.destination) {
            return false;
        }
        match first.place {
            Place::Output => true,
            // What is for this host itself, and came by another device, has nothing to do with the tunnel.
            Place::Prerouting => {
                self.tun.is_some() && first.iif != self.tun && passage.at(Place::Input).is_none()
            }
            _ => false,
        }
    }

    /// A packet that may be meant, as the tunnel brought it.
    fn arrives(&self, passage: &Passage) -> bool {
        let first = passage.first();
        let meant = |facts: Facts| self.is_packet(&facts) || self.may_answer(&facts);
        first.place == Place::Prerouting
            && self.tun.is_some()
            && first.iif == self.tun
            && passage.facts().is_some_and(meant)
    }

    /// What never leaves a link (questions for neighbours, routers, groups), and is on another one than the tunnel's.
    fn is_of_another_link(&self, passage: &Passage, to: IpAddr) -> bool {
        let is_ours = |device: Option<u32>| device.is_some() && device == self.tun;
        stays_on_its_link(to) && !passage.hooks.iter().any(|hook| is_ours(hook.iif) || is_ours(hook.oif))
    }

    /// Of what netfilter told.
    pub fn count(&self, passages: &[Passage]) -> Count {
        let mut count = Count::default();
        for passage in passages {
            if passage.carrier.is_some() {
                count.carriers += usize::from(passage.first().place == Place::Prerouting);
            } else if self.begins(passage) || self.arrives(passage) {
                let packet = passage.facts().is_some_and(|facts| self.is_packet(&facts));
                *(if packet { &mut count.packets } else { &mut count.answers }) += 1;
            }
        }
        count
    }
}

/// No router passes on what is sent to such an address (RFC 4291, RFC 5771, RFC 919).
fn stays_on_its_link(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(to) => to.octets()[..3] == [224, 0, 0] || to.is_link_local() || to.is_broadcast(),
        IpAddr::V6(to) => {
            to.is_unicast_link_local() || to.is_multicast() && matches!(to.octets()[1] & 0xf, 1 | 2)
        }
    }
}

/// Is it the packet that was sent to be traced? Its source may have been the kernel's choice.
fn is_probe(facts: &Facts, probe: &Packet) -> bool {
    let packet = Packet::from(*facts);
    packet.destination == probe.destination
        && packet.protocol == probe.protocol
        && packet.echo == probe.echo
        && packet.destination_port == probe.destination_port
        && (probe.source_port.is_none() || packet.source_port == probe.source_port)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Edge, Event, facts::tests::echo, passage::tests::event},
        *,
    };

    const TUN: u32 = 7;
    const WIRE: u32 = 3;

    fn meant(filter: &str) -> Meant {
        Meant { filter: filter.parse().unwrap(), answers: None, probe: None, tun: Some(TUN) }
    }

    /// Places with the device by which it came or is to leave.
    fn passage(packet: &[u8], places: &[(Place, u32)]) -> Passage {
        let told = |&(place, device): &(Place, u32)| {
            let leaves = matches!(place, Place::Output | Place::Postrouting);
            let (iif, oif) = if leaves { (None, Some(device)) } else { (Some(device), None) };
            let facts = Facts::of(packet);
            [Edge::First, Edge::Last].map(|edge| Event {
                facts,
                iif,
                oif,
                ..event(1, Some((place, edge)), "accept")
            })
        };
        Passage::gather(&places.iter().flat_map(told).collect::<Vec<_>>()).remove(0)
    }

    /// As a host asks who its neighbour is.
    fn solicitation() -> Vec<u8> {
        let mut packet = vec![0; 72];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, 58, 255]);
        packet[8..24].copy_from_slice(&"fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet[24..40].copy_from_slice(&"ff02::1:ff00:2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet[40] = 135;
        packet
    }

    #[test]
    fn what_never_leaves_another_link_is_not_meant() {
        let icmp = meant("icmp");
        for places in [[(Place::Prerouting, WIRE)], [(Place::Output, WIRE)]] {
            assert!(!icmp.begins(&passage(&solicitation(), &places)), "{places:?}");
        }
        assert!(
            icmp.begins(&passage(&solicitation(), &[(Place::Output, TUN)])),
            "in the tunnel it is a riddle"
        );
        assert!(icmp.begins(&passage(&echo(), &[(Place::Output, WIRE)])), "a packet that goes astray");
    }

    #[test]
    fn what_comes_for_this_host_past_the_tunnel_is_not_counted() {
        let icmp = meant("icmp");
        let own = passage(&echo(), &[(Place::Prerouting, WIRE), (Place::Input, WIRE)]);
        let tunnels = passage(&echo(), &[(Place::Prerouting, TUN), (Place::Input, TUN)]);
        let passed_on = passage(&echo(), &[(Place::Prerouting, WIRE)]);
        let count = icmp.count(&[own, tunnels, passed_on]);
        assert_eq!(count, Count { packets: 2, answers: 0, carriers: 0 });
    }

    #[test]
    fn an_answer_is_told_from_a_packet() {
        let mut both = meant("dst host 10.77.0.1");
        both.answers = Some("dst host 10.77.0.2".parse().unwrap());
        let count = both.count(&[passage(&echo(), &[(Place::Output, TUN)])]);
        assert_eq!(count, Count { packets: 0, answers: 1, carriers: 0 });
    }

    #[test]
    fn addresses_of_one_link_are_known() {
        for one in ["224.0.0.251", "169.254.1.1", "255.255.255.255", "fe80::1", "ff02::1", "ff01::1"] {
            assert!(stays_on_its_link(one.parse().unwrap()), "{one}");
        }
        for one in ["10.77.0.2", "239.1.1.1", "fd77::2", "ff05::2", "2001:db8::1"] {
            assert!(!stays_on_its_link(one.parse().unwrap()), "{one}");
        }
    }
}
