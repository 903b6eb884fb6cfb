//! The TUN device on a real kernel: made, refused, read, written, gone.
#![cfg(feature = "daemon")]

mod common;

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    net::UdpSocket,
    os::fd::AsFd,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::network::{in_own_network, ip};
use vpnd::{
    forward::segment::Segmentation,
    plane::{Offload, TunDevice},
    sys::poll::{self, Interest},
    wire::{
        ip as ip_header,
        vnet::{VNET_HEADER_LEN, VnetHeader},
    },
};

const NAME: &str = "vpndpl0";

fn exists(name: &str) -> bool {
    ip("-o link show").contains(&format!(": {name}"))
}

fn refused(name: &str) -> std::io::Error {
    TunDevice::create(name, 1420, Offload::Auto).err().expect("a refusal")
}

#[test]
fn a_new_device_is_down_has_no_address_and_vanishes_when_dropped() {
    in_own_network(|| {
        let tun = TunDevice::create(NAME, 1380, Offload::Auto).unwrap();
        assert_eq!(tun.name(), NAME);
        let link = ip(&format!("-o link show {NAME}"));
        assert!(
            link.contains("mtu 1380") && link.contains("qlen 2000") && link.contains("state DOWN"),
            "{link}"
        );
        assert_eq!(ip(&format!("-o address show {NAME}")), "");
        drop(tun);
        // A child that another test starts at this moment holds a copy until it has executed.
        assert!((0..100).any(|_| !exists(NAME)));
    });
}

#[test]
fn a_device_that_is_held_is_refused_and_its_holder_named() {
    in_own_network(|| {
        let _first = TunDevice::create("vpndplheld", 1420, Offload::Auto).unwrap();
        let error = refused("vpndplheld");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let by = format!("vpndplheld is held by process {} (", std::process::id());
        assert!(error.to_string().contains(&by), "{error}");
    });
}

#[test]
fn a_process_with_a_device_of_that_name_in_another_namespace_is_not_blamed() {
    const HOLD: &str = "VPND_TEST_HOLD";
    const SAME: &str = "vpndplsame";
    if !common::need_root() {
        return;
    }
    if std::env::var_os(HOLD).is_some() {
        return in_own_network(|| {
            let _device = TunDevice::create(SAME, 1420, Offload::Auto).unwrap();
            println!("\n{SAME}");
            // Until the parent lets go.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        });
    }
    // This very test once more, in a process of its own, whose threads are all elsewhere.
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", thread::current().name().unwrap(), "--nocapture"])
        .env(HOLD, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(other.stdout.take().unwrap()).lines();
    let ready = said.any(|line| line.unwrap() == SAME);
    in_own_network(|| {
        ip(&format!("link add {SAME} type veth peer name vpndplpeer"));
        let error = refused(SAME);
        assert!(error.to_string().contains("no process that can be seen"), "{error}");
    });
    drop(other.stdin.take());
    said.for_each(drop);
    assert!(ready && other.wait().unwrap().success(), "the other process had its device");
}

#[test]
fn a_persistent_device_of_somebody_else_is_refused_and_left_alone() {
    in_own_network(|| {
        ip("tuntap add dev vpndplkept mode tun");
        let error = refused("vpndplkept");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("exists already"), "{error}");
        assert!(exists("vpndplkept"));
    });
}

#[test]
fn a_name_of_another_kind_of_device_or_of_none_is_refused() {
    in_own_network(|| {
        assert_eq!(refused("lo").kind(), ErrorKind::AlreadyExists);
        assert_eq!(refused("a-name-of-16-byte").kind(), ErrorKind::InvalidInput);
        let error = refused("a/b");
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("no slash"), "{error}");
    });
}

#[test]
fn packets_go_out_by_read_and_come_in_by_write() {
    in_own_network(|| {
        let tun = TunDevice::create(NAME, 1420, Offload::Auto).unwrap();
        assert_eq!(tun.read(&mut [0; 2048]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let down = tun.write(&frame(&[0x45; 20])).unwrap_err();
        assert_eq!(down.raw_os_error(), Some(libc::EIO), "the device is still down");
        ip(&format!("address add 10.9.0.1/24 dev {NAME}"));
        ip(&format!("link set {NAME} up"));
        let socket = UdpSocket::bind("10.9.0.1:4000").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(b"out and back", "10.9.0.2:5000").unwrap();
        let mut packet = read_v4(&tun);
        assert_eq!((&packet[12..16], &packet[16..20]), (&[10, 9, 0, 1][..], &[10, 9, 0, 2][..]));
        assert_eq!(&packet[28..], b"out and back");
        // Send it back as its answer: both address pairs and both ports change places, so no sum changes.
        packet[12..20].rotate_left(4);
        packet[20..24].rotate_left(2);
        tun.write(&frame(&packet)).unwrap();
        let mut buffer = [0; 64];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.to_string()), (&b"out and back"[..], "10.9.0.2:5000".into()));
    });
}

/// A whole packet behind its vnet header.
fn frame(packet: &[u8]) -> Vec<u8> {
    [&VnetHeader::default().to_bytes(), packet].concat()
}

/// The next IPv4 packet, its checksum finished; the kernel's own IPv6 solicitations are passed over.
fn read_v4(tun: &TunDevice) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    for _ in 0..20 {
        poll::wait([Some((tun.as_fd(), Interest::Read))], Some(Duration::from_secs(2))).unwrap();
        let len = tun.read(&mut buffer).unwrap();
        let (vnet, packet) = buffer[..len].split_first_chunk::<VNET_HEADER_LEN>().unwrap();
        if packet[0] >> 4 == 4 {
            let vnet = VnetHeader::parse(vnet).unwrap();
            let segmentation = Segmentation::new(&vnet, packet, &ip_header::parse(packet).unwrap()).unwrap();
            assert_eq!(segmentation.count(), 1);
            let mut whole = vec![0; segmentation.segment_len(0)];
            segmentation.write(packet, 0, &mut whole);
            return whole;
        }
    }
    panic!("twenty packets, and none of them IPv4")
}

#[test]
fn a_deleted_device_fails_poll_read_and_write() {
    in_own_network(|| {
        let tun = TunDevice::create(NAME, 1420, Offload::Auto).unwrap();
        ip(&format!("link delete {NAME}"));
        let [ready] =
            poll::wait([Some((tun.as_fd(), Interest::Read))], Some(Duration::from_secs(2))).unwrap();
        assert!(ready.failed);
        assert_eq!(tun.read(&mut [0; 64]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
        assert_eq!(tun.write(&[0x45; 20]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
    });
}
