//! The bench itself: what the other tests stand on, and that nothing of it remains.

mod common;

use std::{
    fs,
    net::IpAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use common::need_root;
use vpnd::lab::{Daemon, Host, LabError, Namespace, Ping, Setup, demo::Demo, link, tcp_transfer, udp_echo};

const VPND: &str = env!("CARGO_BIN_EXE_vpnd");

fn named(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new("/run/vpnd-lab").join(name)
}

/// Two hosts and a cable with both kinds of addresses.
fn pair(name: &str) -> Result<(Host, Host), LabError> {
    let (a, b) =
        (Host::create(&format!("vpnd-lab-t-{name}-a"))?, Host::create(&format!("vpnd-lab-t-{name}-b"))?);
    link::veth(&a, "eth0", &b, "eth0")?;
    for (host, v4, v6) in [(&a, "192.0.2.1/24", "2001:db8::1/64"), (&b, "192.0.2.2/24", "2001:db8::2/64")] {
        host.add_address("eth0", v4)?;
        host.add_address("eth0", v6)?;
    }
    Ok((a, b))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_namespace_is_named_while_it_lives_and_gone_after() {
    if !need_root() {
        return;
    }
    let name = "vpnd-lab-t-life";
    let namespace = Namespace::create(name).unwrap();
    assert!(named(name) && folder(name).is_dir());
    let output = Command::new("ip").args(["netns", "exec", name, "ip", "-o", "link"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("lo") && text.contains("UP"), "{text}");
    let second = namespace.clone();
    drop(namespace);
    assert!(named(name), "a clone still holds it");
    drop(second);
    assert!(!named(name) && !folder(name).exists());
}

#[test]
fn ping_tcp_and_udp_cross_a_cable() {
    if !need_root() {
        return;
    }
    let (a, b) = pair("cross").unwrap();
    for to in [ip("192.0.2.2"), ip("2001:db8::2")] {
        let pings = a.ping(to, 5).unwrap();
        assert_eq!((pings.sent, pings.received, pings.refused), (5, 5, 0), "{to}");
        assert!(pings.rtt.unwrap() < Duration::from_millis(500));
        let transfer = tcp_transfer(&a, &b, to, 3_000_001, Duration::from_secs(20)).unwrap();
        assert!(transfer.intact && transfer.bytes == 3_000_001);
        assert_eq!(udp_echo(&a, &b, to, 4, 1200).unwrap().echoed, 4);
    }
    let passed = link::passed(&a, "eth0").unwrap();
    assert!(passed.tx_bytes > 6_000_000 && passed.rx_packets > 0, "{passed:?}");
}

#[test]
fn a_ping_into_the_void_is_lost_and_one_without_a_route_is_refused() {
    if !need_root() {
        return;
    }
    let (a, _b) = pair("void").unwrap();
    let short = Ping { patience: Duration::from_millis(50), ..Ping::to(ip("192.0.2.9")) };
    let lost = a.ping_with(&short).unwrap();
    assert_eq!((lost.received, lost.refused), (0, 0));
    let refused = a.ping(ip("198.51.100.1"), 2).unwrap();
    assert_eq!((refused.received, refused.refused), (0, 2));
}

#[test]
fn routes_lead_through_a_router_that_forwards() {
    if !need_root() {
        return;
    }
    let (a, b) = pair("route").unwrap();
    let router = Host::create("vpnd-lab-t-route-r").unwrap();
    link::veth(&b, "eth1", &router, "eth0").unwrap();
    b.add_address("eth1", "198.51.100.2/24").unwrap();
    router.add_address("eth0", "198.51.100.1/24").unwrap();
    b.sysctl("ipv4.ip_forward", "1").unwrap();
    a.add_route("198.51.100.0/24", Some(ip("192.0.2.2")), "eth0").unwrap();
    router.add_route("0.0.0.0/0", Some(ip("198.51.100.2")), "eth0").unwrap();
    let decision = link::decide(&a, ip("198.51.100.1"), 0).unwrap();
    assert_eq!((decision.device.as_str(), decision.table), ("eth0", 254));
    assert_eq!((decision.source, decision.via), (Some(ip("192.0.2.1")), Some(ip("192.0.2.2"))));
    assert_eq!(a.ping(ip("198.51.100.1"), 2).unwrap().received, 2);
    b.sysctl("ipv4.ip_forward", "0").unwrap();
    let short = Ping { patience: Duration::from_millis(100), ..Ping::to(ip("198.51.100.1")) };
    assert_eq!(a.ping_with(&short).unwrap().received, 0);
}

#[test]
fn a_bridge_joins_three_hosts() {
    if !need_root() {
        return;
    }
    let hub = Host::create("vpnd-lab-t-hub").unwrap();
    link::bridge(&hub, "br0").unwrap();
    let hosts: Vec<Host> = (1..=3)
        .map(|n| {
            let host = Host::create(&format!("vpnd-lab-t-hub-{n}")).unwrap();
            link::veth(&host, "eth0", &hub, &format!("port{n}")).unwrap();
            link::attach(&hub, &format!("port{n}"), "br0").unwrap();
            host.add_address("eth0", &format!("192.0.2.{n}/24")).unwrap();
            host
        })
        .collect();
    assert_eq!(hosts[0].ping(ip("192.0.2.3"), 1).unwrap().received, 1);
    assert_eq!(hosts[2].ping(ip("192.0.2.2"), 1).unwrap().received, 1);
}

#[test]
fn addresses_routes_and_devices_can_be_taken_away() {
    if !need_root() {
        return;
    }
    let (a, b) = pair("away").unwrap();
    link::mtu(&a, "eth0", 1280).unwrap();
    a.add_route("203.0.113.0/24", Some(ip("192.0.2.2")), "eth0").unwrap();
    link::delete_route(&a, "203.0.113.0/24".parse().unwrap(), Some(ip("192.0.2.2")), "eth0").unwrap();
    assert!(link::decide(&a, ip("203.0.113.1"), 0).is_err());
    link::remove_address(&a, "eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
    assert_eq!(a.ping(ip("192.0.2.2"), 1).unwrap().refused, 1);
    link::delete(&a, "eth0").unwrap();
    assert!(link::index(&b, "eth0").is_err(), "the other end of the cable went with it");
}

#[test]
fn a_panic_leaves_nothing_behind() {
    if !need_root() {
        return;
    }
    let outcome = std::thread::spawn(|| {
        let (a, _b) = pair("panic").unwrap();
        let mut sleep = a.command("sleep").unwrap();
        sleep.arg("60");
        let sleep = a.spawn("sleep", sleep).unwrap();
        fs::write("/run/vpnd-lab-t-panic.pid", sleep.pid().to_string()).unwrap();
        panic!("on purpose");
    })
    .join();
    assert!(outcome.is_err());
    let pid = fs::read_to_string("/run/vpnd-lab-t-panic.pid").unwrap();
    fs::remove_file("/run/vpnd-lab-t-panic.pid").unwrap();
    assert!(!Path::new("/proc").join(pid).exists());
    assert!(!named("vpnd-lab-t-panic-a") && !named("vpnd-lab-t-panic-b"));
}

#[test]
fn a_second_lab_with_the_same_name_is_refused_while_the_first_lives() {
    if !need_root() {
        return;
    }
    let first = Namespace::create("vpnd-lab-t-twice").unwrap();
    assert!(matches!(Namespace::create("vpnd-lab-t-twice"), Err(LabError::Running { .. })));
    drop(first);
    Namespace::create("vpnd-lab-t-twice").unwrap();
}

#[test]
fn a_namespace_that_no_lab_made_is_left_alone() {
    if !need_root() {
        return;
    }
    let name = "vpnd-lab-t-foreign";
    let ip = |verb: &str| Command::new("ip").args(["netns", verb, name]).status().unwrap();
    assert!(ip("add").success());
    let refused = Namespace::create(name);
    let still_there = named(name);
    assert!(ip("del").success());
    assert!(matches!(refused, Err(LabError::Foreign { .. })) && still_there);
}

/// The first lab of this test runs in a child process (this test binary again), which is killed.
#[test]
fn what_a_killed_lab_left_is_swept_by_the_next() {
    if !need_root() {
        return;
    }
    let name = "vpnd-lab-t-killed";
    if std::env::var_os("VPND_LAB_VICTIM").is_some() {
        let host = Host::create(name).unwrap();
        let mut sleep = host.command("sleep").unwrap();
        sleep.arg("60");
        let sleep = host.spawn("sleep", sleep).unwrap();
        fs::write(host.folder().join("ready"), sleep.pid().to_string()).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_lab_left_is_swept_by_the_next"])
        .env("VPND_LAB_VICTIM", "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ready = folder(name).join("ready");
    let pid = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        fs::read_to_string(&ready).ok().filter(|pid| !pid.is_empty())
    });
    victim.kill().unwrap();
    victim.wait().unwrap();
    // A process that has ended has no namespaces, even before its parent has waited for it.
    let orphan = Path::new("/proc").join(pid.expect("the victim came up")).join("ns/net");
    assert!(named(name) && orphan.exists(), "a killed lab cannot clean up: that is what this test is about");
    let next = Namespace::create(name).unwrap();
    assert!(!orphan.exists(), "its program was ended");
    assert!(!next.folder().join("ready").exists(), "its folder was emptied");
    drop(next);
    assert!(!named(name));
}

#[test]
fn the_demo_counts_one_ping_exactly_and_nobody_on_the_wire_can_read_it() {
    if !need_root() {
        return;
    }
    let page = Demo::build("vpnd-lab-t-demo", Path::new(VPND)).unwrap().measure().unwrap();
    assert!(page.passed());
    assert!(page.ping.is_one_ping(), "{:?}", page.ping);
    for host in [page.ping.left, page.ping.right] {
        let walks = host.walks.expect("make installs nft for the tests");
        for (hooks, bytes) in [(walks.inner, 84), (walks.outer, 156)] {
            for count in [hooks.output, hooks.postrouting, hooks.prerouting, hooks.input] {
                assert_eq!((count.packets, count.bytes), (1, bytes));
            }
        }
        assert_eq!((host.tun.tx_bytes, host.tun.rx_bytes), (84, 84));
        assert_eq!((host.tunnel.sealed_bytes, host.tunnel.opened_bytes), (128, 128));
        assert_eq!((host.wire.tx_bytes, host.wire.rx_bytes), (170, 170));
    }
    let listener = page.listener.expect("root may listen");
    assert_eq!((listener.tun.matching, listener.wire.matching), (2, 0));
    assert_eq!((listener.tun.frames, listener.wire.frames, listener.wire.longest), (2, 2, 170));
    let handshake = page.first - page.ping.left.tunnel;
    assert_eq!((handshake.sealed_bytes, handshake.opened_bytes), (148, 92), "one initiation, one response");
    assert!(!named("vpnd-lab-t-demo-left") && !named("vpnd-lab-t-demo-right"));
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    if !need_root() {
        return;
    }
    let host = Host::create("vpnd-lab-t-broken").unwrap();
    let refused = Daemon::start(&host, &Setup::new(VPND, "[interface]\nprivate_kee = 1\n"));
    match refused {
        Err(LabError::Ended { log, .. }) => assert!(log.contains("private_kee"), "{log}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_shows_the_page_and_leaves_nothing() {
    if !need_root() {
        return;
    }
    let output = Command::new(VPND).args(["lab", "--name", "vpnd-lab-t-show"]).output().unwrap();
    let (page, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{page}\n{errors}");
    for place in ["OUTPUT", "POSTROUTING", "TUN vpn0", "the wire", "PREROUTING", "INPUT", "application"] {
        assert!(page.contains(place), "{place} is missing:\n{page}");
    }
    assert!(!page.contains('\x1b'), "no colours where nobody looks");
    assert!(!named("vpnd-lab-t-show-left") && !named("vpnd-lab-t-show-right"));
}

#[test]
fn hosts_that_are_kept_go_when_the_lab_is_told_to_end() {
    if !need_root() {
        return;
    }
    let name = "vpnd-lab-t-keep-left";
    let arguments = ["lab", "--keep", "--name", "vpnd-lab-t-keep"];
    let mut lab = Command::new(VPND).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(lab.stdout.take().unwrap()));
    while !told.contains("Ctrl-C here") {
        told += &lines.next().expect("it says how to leave").unwrap();
    }
    assert!(told.contains(&format!("ip netns exec {name} bash")), "{told}");
    let ping = Command::new("ip").args(["netns", "exec", name, "ping", "-c1", "-W2", "10.77.0.2"]).output();
    let pinged = ping.unwrap().status.success();
    vpnd::sys::signal::terminate(lab.id()).unwrap();
    assert!(lab.wait().unwrap().success() && pinged, "pinged: {pinged}\n{told}");
    assert!(!named(name) && !folder(name).exists());
}

#[test]
fn an_ordinary_user_has_a_lab_too() {
    if !need_root() {
        return;
    }
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap();
    let tun = fs::metadata("/dev/net/tun").unwrap().permissions().mode() & 0o006;
    if limit.trim() == "0" || tun != 0o006 {
        eprintln!(
            "\n*** NOT TESTED: a user's lab: user namespaces {}, /dev/net/tun {tun:o} ***\n",
            limit.trim()
        );
        return;
    }
    // The build folder may be one that other users cannot read.
    let folder = std::env::temp_dir().join("vpnd-lab-t-user");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.join("vpnd");
    fs::copy(VPND, &binary).unwrap();
    let output = Command::new(&binary).arg("lab").current_dir("/").uid(65_534).gid(65_534).output();
    fs::remove_dir_all(&folder).unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("The transfer took") && !page.contains("ALTERED"), "{page}");
    assert!(!named("vpnd-lab-left"), "nothing of it is seen outside");
}
