//! The UDP sockets on a real kernel: ports, source addresses, marks, ECN, sizes.
#![cfg(feature = "daemon")]

mod common;

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroU8,
    os::fd::AsFd,
    time::Duration,
};

use common::network::{add_address, in_own_network, ip};
use socket2::{Domain, SockRef, Socket, Type};
use vpnd::{
    forward::{Endpoint, Local},
    plane::{
        Offload, TunDevice, UdpSockets,
        udp::{Family, Payload, Received, Sent},
    },
    sys::poll::{self, Interest},
    wire::{ecn::Ecn, outer::Outer, vnet::VNET_HEADER_LEN},
};

/// A plain socket of somebody else.
fn stranger(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// An IPv6 port that is taken while IPv4 is free.
fn take_v6(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    socket.set_only_v6(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).unwrap();
    socket
}

fn receive(sockets: &UdpSockets, family: Family, buffer: &mut [u8]) -> Received {
    let descriptor = sockets.descriptor(family).unwrap();
    poll::wait([Some((descriptor, Interest::Read))], Some(Duration::from_secs(2))).unwrap();
    sockets.receive(family, buffer).unwrap()
}

fn endpoint(remote: SocketAddr, local: Option<&str>) -> Endpoint {
    let local = local.map(|address| Local { address: address.parse().unwrap(), interface: 0 });
    Endpoint { remote, local }
}

#[test]
fn both_families_share_the_port_that_the_kernel_chose() {
    let sockets = UdpSockets::bind(0, 0).unwrap();
    assert!(sockets.has_v6(), "this kernel has IPv6");
    for (family, address) in [(Family::V4, "127.0.0.1:0"), (Family::V6, "[::1]:0")] {
        let client = stranger(address);
        client.send_to(b"hello", (client.local_addr().unwrap().ip(), sockets.port())).unwrap();
        let mut buffer = [0; 64];
        let got = receive(&sockets, family, &mut buffer);
        assert_eq!((&buffer[..got.len], got.from.remote), (&b"hello"[..], client.local_addr().unwrap()));
    }
}

#[test]
fn a_taken_port_is_refused_and_its_holder_named() {
    for holder in [stranger("0.0.0.0:0").into(), take_v6(0)] as [Socket; 2] {
        let port = holder.local_addr().unwrap().as_socket().unwrap().port();
        let error = UdpSockets::bind(port, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let expected = format!("UDP port {port}");
        let by = format!("held by process {} (", std::process::id());
        assert!(error.to_string().contains(&expected) && error.to_string().contains(&by), "{error}");
    }
}

#[test]
fn two_of_us_never_share_a_port() {
    let first = UdpSockets::bind(0, 0).unwrap();
    let error = UdpSockets::bind(first.port(), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_port_that_ipv6_has_taken_is_passed_over_when_any_will_do() {
    in_own_network(|| {
        range(40_000, 40_001);
        let _taken = take_v6(40_000);
        for _ in 0..20 {
            assert_eq!(UdpSockets::bind(0, 0).unwrap().port(), 40_001);
        }
    });
}

#[test]
fn when_ipv6_has_every_port_taken_the_error_says_by_whom() {
    in_own_network(|| {
        range(40_000, 40_001);
        let _taken = [take_v6(40_000), take_v6(40_001)];
        let error = UdpSockets::bind(0, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("(IPv6) is held by process"), "{error}");
    });
}

/// The ports that the kernel chooses from, in this thread's namespace: `/proc/sys/net` follows the reader.
fn range(from: u16, to: u16) {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{from} {to}")).unwrap();
}

#[test]
fn answers_leave_from_the_address_that_was_contacted() {
    in_own_network(|| {
        for address in ["fd00::1", "fd00::2"] {
            add_address(address, "lo");
        }
        let sockets = UdpSockets::bind(0, 0).unwrap();
        let cases = [
            (Family::V4, "127.0.0.1:0", ["127.0.0.2", "127.0.0.3"]),
            (Family::V6, "[::1]:0", ["fd00::1", "fd00::2"]),
        ];
        for (family, client, contacted) in cases {
            let client = stranger(client);
            for contacted in contacted {
                let contacted: IpAddr = contacted.parse().unwrap();
                client.send_to(b"?", (contacted, sockets.port())).unwrap();
                let got = receive(&sockets, family, &mut [0; 8]);
                assert_eq!(got.from.local, Some(Local { address: contacted, interface: 0 }));
                assert_eq!(
                    sockets.send(&got.from, Outer::default(), Payload::one(b"!")).unwrap(),
                    Sent::AsAsked
                );
                let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
                assert_eq!(from, SocketAddr::from((contacted, sockets.port())));
            }
        }
    });
}

#[test]
fn a_source_address_that_is_gone_is_left_out_and_reported() {
    in_own_network(|| {
        let sockets = UdpSockets::bind(0, 0).unwrap();
        for (client, source) in [("127.0.0.1:0", "10.9.0.1"), ("[::1]:0", "fd00::9")] {
            let client = stranger(client);
            let to = endpoint(client.local_addr().unwrap(), Some(source));
            add_address(source, "lo");
            assert_eq!(sockets.send(&to, Outer::default(), Payload::one(b"with")).unwrap(), Sent::AsAsked);
            let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from.ip(), source.parse::<IpAddr>().unwrap());
            let prefix = if source.contains(':') { 128 } else { 32 };
            ip(&format!("address del {source}/{prefix} dev lo"));
            assert_eq!(
                sockets.send(&to, Outer::default(), Payload::one(b"without")).unwrap(),
                Sent::LocalGone
            );
            let (len, from) = client.recv_from(&mut [0; 8]).unwrap();
            assert_eq!((len, from.ip()), (7, client.local_addr().unwrap().ip()));
        }
    });
}

#[test]
fn a_destination_without_a_route_is_no_fault_of_the_source() {
    in_own_network(|| {
        let sockets = UdpSockets::bind(0, 0).unwrap();
        for (remote, source) in [("203.0.113.1:1", "127.0.0.1"), ("[2001:db8::1]:1", "::1")] {
            let to = endpoint(remote.parse().unwrap(), Some(source));
            let error = sockets.send(&to, Outer::default(), Payload::one(b"x")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{remote}");
        }
    });
}

#[test]
fn a_link_local_address_keeps_its_interface() {
    in_own_network(|| {
        ip("link add vpndpl0 type veth peer name vpndpl1");
        ip("address add fe80::a/64 dev vpndpl0 nodad");
        ip("link set vpndpl0 up");
        ip("link set vpndpl1 up");
        let index = ip("-o link show vpndpl0").split(':').next().unwrap().parse().unwrap();
        let sockets = UdpSockets::bind(0, 0).unwrap();
        let client = stranger("[::]:0");
        // The link comes up, and the address with it, in the kernel's own time.
        let to = format!("[fe80::a%{index}]:{}", sockets.port());
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut tries = (0..100).filter(|_| {
            let _ = client.send_to(b"?", &to);
            let descriptor = sockets.descriptor(Family::V6).unwrap();
            let wait = poll::wait([Some((descriptor, Interest::Read))], Some(Duration::from_millis(20)));
            wait.unwrap()[0].readable
        });
        assert!(tries.next().is_some(), "never reached {to}");
        let got = receive(&sockets, Family::V6, &mut [0; 8]);
        let address = "fe80::a".parse().unwrap();
        assert_eq!(got.from.local, Some(Local { address, interface: index }));
        assert_eq!(sockets.send(&got.from, Outer::default(), Payload::one(b"!")).unwrap(), Sent::AsAsked);
        let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.ip(), address);
    });
}

#[test]
fn the_outer_ecn_field_makes_the_round_trip() {
    let (a, b) = (UdpSockets::bind(0, 0).unwrap(), UdpSockets::bind(0, 0).unwrap());
    for (family, ip) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        for ecn in [Ecn::Ce, Ecn::NotEct, Ecn::Ect0, Ecn::Ect1] {
            let to = SocketAddr::new(ip.parse().unwrap(), b.port());
            for local in [None, Some(ip)] {
                assert_eq!(
                    a.send(&endpoint(to, local), ecn.into(), Payload::one(b"x")).unwrap(),
                    Sent::AsAsked
                );
                assert_eq!(receive(&b, family, &mut [0; 8]).ecn, ecn);
            }
        }
    }
}

#[test]
fn the_largest_datagram_is_received_whole_and_a_larger_than_the_buffer_is_cut() {
    let (a, b) = (UdpSockets::bind(0, 0).unwrap(), UdpSockets::bind(0, 0).unwrap());
    let to = endpoint(SocketAddr::from(([127, 0, 0, 1], b.port())), None);
    let (largest, mut buffer) = (vec![7; 65_507], vec![0; 65_536]);
    a.send(&to, Outer::default(), Payload::one(&largest)).unwrap();
    let got = receive(&b, Family::V4, &mut buffer);
    assert_eq!((got.len, got.truncated), (largest.len(), false));
    assert_eq!(buffer[..got.len], largest[..]);
    a.send(&to, Outer::default(), Payload::one(&largest)).unwrap();
    let got = receive(&b, Family::V4, &mut buffer[..2048]);
    assert_eq!((got.len, got.truncated), (2048, true));
    let error = a.send(&to, Outer::default(), Payload::one(&vec![0; 65_508])).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
fn the_mark_is_on_both_sockets_and_can_be_taken_off() {
    in_own_network(|| {
        let sockets = UdpSockets::bind(0, 0x51820).unwrap();
        let marks = || {
            [Family::V4, Family::V6]
                .map(|family| SockRef::from(&sockets.descriptor(family).unwrap().as_fd()).mark().unwrap())
        };
        assert_eq!(marks(), [0x51820; 2]);
        sockets.set_mark(0).unwrap();
        assert_eq!(marks(), [0; 2]);
    });
}

#[test]
fn a_port_that_the_kernel_itself_holds_is_said_to_be_held_by_no_process() {
    in_own_network(|| {
        ip("link add vpndplx type vxlan id 7 local 127.0.0.1 dstport 4789 dev lo");
        ip("link set vpndplx up");
        let error = UdpSockets::bind(4789, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("no process that can be seen"), "{error}");
    });
}

#[test]
fn datagrams_leave_without_df_and_with_no_more_of_the_tos_than_ecn() {
    in_own_network(|| {
        let tun = TunDevice::create("vpndpl0", 1420, Offload::Auto).unwrap();
        ip("address add 10.9.0.1/24 dev vpndpl0");
        ip("link set vpndpl0 up");
        let sockets = UdpSockets::bind(0, 0).unwrap();
        let to = endpoint("10.9.0.2:9".parse().unwrap(), None);
        let mut frame = [0; 2048];
        for (ecn, tos) in [(Ecn::Ce, 3), (Ecn::NotEct, 0)] {
            sockets.send(&to, ecn.into(), Payload::one(&[0; 100])).unwrap();
            // The kernel's own IPv6 solicitations are passed over.
            while frame[VNET_HEADER_LEN] != 0x45 {
                poll::wait([Some((tun.as_fd(), Interest::Read))], Some(Duration::from_secs(2))).unwrap();
                tun.read(&mut frame).unwrap();
            }
            let packet = &mut frame[VNET_HEADER_LEN..];
            assert_eq!((packet[1], packet[6] & 0x40), (tos, 0));
            packet[0] = 0;
        }
    });
}

#[test]
fn datagrams_leave_with_the_hop_limit_they_are_told_and_else_with_the_hosts() {
    in_own_network(|| {
        let tun = TunDevice::create("vpndpl0", 1420, Offload::Auto).unwrap();
        ip("address add 10.9.0.1/24 dev vpndpl0");
        ip("address add fd09::1/64 dev vpndpl0 nodad");
        ip("link set vpndpl0 up");
        let sockets = UdpSockets::bind(0, 0).unwrap();
        let mut frame = [0; 2048];
        for (to, version, protocol_at, hops_at) in [("10.9.0.2:9", 4, 9, 8), ("[fd09::2]:9", 6, 6, 7)] {
            for (hop_limit, seen) in
                [(None, 64), (NonZeroU8::new(48), 48), (None, 64), (NonZeroU8::new(255), 255)]
            {
                let outer = Outer { ecn: Ecn::Ce, hop_limit };
                let payload = Payload { bytes: &[0; 250], stride: 100 };
                sockets.send(&endpoint(to.parse().unwrap(), None), outer, payload).unwrap();
                frame[VNET_HEADER_LEN..].fill(0);
                let is_ours = |packet: &[u8]| packet[0] >> 4 == version && packet[protocol_at] == 17;
                while !is_ours(&frame[VNET_HEADER_LEN..]) {
                    poll::wait([Some((tun.as_fd(), Interest::Read))], Some(Duration::from_secs(2))).unwrap();
                    tun.read(&mut frame).unwrap();
                }
                assert_eq!(frame[VNET_HEADER_LEN + hops_at], seen, "{to}");
                // Where the device takes no super-packet there are two more.
                while tun.read(&mut frame).is_ok() {}
            }
        }
    });
}

#[test]
fn the_buffers_are_7_mb_and_what_exceeds_the_mtu_is_fragmented() {
    in_own_network(|| {
        let sockets = UdpSockets::bind(0, 0).unwrap();
        for family in [Family::V4, Family::V6] {
            let descriptor = sockets.descriptor(family).unwrap();
            let socket = SockRef::from(&descriptor);
            assert_eq!(socket.recv_buffer_size().unwrap(), 2 * (7 << 20));
            assert_eq!(socket.send_buffer_size().unwrap(), 2 * (7 << 20));
        }
        ip("link set lo mtu 1280");
        for receiver in [stranger("127.0.0.1:0"), stranger("[::1]:0")] {
            let to = endpoint(receiver.local_addr().unwrap(), None);
            sockets.send(&to, Outer::default(), Payload::one(&[0; 3000])).unwrap();
            assert_eq!(receiver.recv_from(&mut [0; 4000]).unwrap().0, 3000);
        }
    });
}

#[test]
fn what_the_kernel_drops_at_a_full_buffer_is_counted_once() {
    let sockets = UdpSockets::bind(0, 0).unwrap();
    for (family, client) in [(Family::V4, stranger("127.0.0.1:0")), (Family::V6, stranger("[::1]:0"))] {
        let descriptor = sockets.descriptor(family).unwrap();
        SockRef::from(&descriptor).set_recv_buffer_size(0).unwrap(); // the kernel's least
        let to = SocketAddr::new(client.local_addr().unwrap().ip(), sockets.port());
        let sent = 50;
        for _ in 0..sent {
            client.send_to(&[0; 1000], to).unwrap();
        }
        let mut buffer = [0; 2048];
        let received = std::iter::from_fn(|| sockets.receive(family, &mut buffer).ok()).count() as u64;
        assert!(received < sent, "all {sent} fit the least buffer");
        assert_eq!(sockets.newly_dropped(), sent - received);
        assert_eq!(sockets.newly_dropped(), 0);
    }
}
