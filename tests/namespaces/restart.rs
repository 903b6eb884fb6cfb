//! Restarted, killed or upgraded: the interface stays, and nobody is lost.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Host, link},
    noise::{PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::need_root,
    manager::Manager,
    world::{DEVICE, PORT, cable, sh, start_vpnd, wait_until, wg_in},
};

/// Nothing here takes a tenth of that on an idle machine.
const LONG: Duration = Duration::from_secs(20);
/// The gap is to be shorter than a second; a busy machine and a build for debugging add to it.
const GAP: Duration = Duration::from_secs(3);

/// A far end on one host, and on the other a service whose file says nothing of where the far end is.
struct Service {
    manager: Manager,
    far: Host,
    far_key: PublicKey,
    private: PrivateKey,
    _far: crate::world::Running,
    before: String,
}

const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));
const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1));

impl Service {
    fn new(name: &str) -> Self {
        let (far, host) = cable(name, 1500);
        let [far_key, private] = [(); 2].map(|()| PrivateKey::generate(&mut os_rng()));
        let text = format!(
            "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\nlisten_port = {PORT}\n\
             address = [\"10.77.0.1/24\", \"fd77::1/64\"]\n\
             [[peer]]\npublic_key = \"{}\"\nendpoint = \"192.0.2.2:{PORT}\"\nallowed_ips = [\"10.77.0.2/32\", \"fd77::2/128\"]\n",
            *far_key.to_base64(),
            private.public_key(),
        );
        let running = start_vpnd(&far, &text, &[]);
        // Addresses of IPv6 take a moment.
        assert!(wait_until(LONG, || !everything(&host).contains("tentative")));
        let before = everything(&host);
        let service = Self {
            manager: Manager::new(host, ""),
            far,
            far_key: far_key.public_key(),
            private,
            _far: running,
            before,
        };
        service.manager.write(&service.file(&Wish::default()));
        service
    }

    fn file(&self, wish: &Wish) -> String {
        format!(
            "[interface]\nname = \"{}\"\nprivate_key = \"{}\"\n{}address = {:?}\n{}\n\
             [[peer]]\nname = \"far\"\npublic_key = \"{}\"\nallowed_ips = {:?}\n{}",
            wish.name,
            *self.private.to_base64(),
            wish.port.map_or_else(String::new, |port| format!("listen_port = {port}\n")),
            wish.address,
            wish.interface,
            self.far_key,
            wish.allowed_ips,
            wish.peer,
        )
    }

    fn host(&self) -> &Host {
        &self.manager.host
    }

    /// From the far end, since ours does not know where it is at first.
    #[track_caller]
    fn reached(&self) {
        let answered = || self.far.reaches(NEAR).is_ok_and(|answered| answered);
        assert!(wait_until(LONG, answered), "{}", self.manager.log());
    }

    /// From us, and soon: one round trip after the start, and what a busy machine adds.
    #[track_caller]
    fn reaches(&self) {
        let answered = || self.host().reaches(FAR).is_ok_and(|answered| answered);
        assert!(wait_until(GAP, answered), "{}", self.manager.log());
    }

    fn wg(&self, arguments: &[&str]) -> String {
        wg_in(self.host(), &self.manager.sockets(), arguments)
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let settled = wait_until(LONG, || everything(self.host()) == self.before);
        assert!(settled, "{}\nbefore:\n{}\n{}", everything(self.host()), self.before, self.manager.log());
    }
}

/// What the service's file says.
struct Wish {
    name: &'static str,
    port: Option<u16>,
    address: Vec<&'static str>,
    interface: &'static str,
    allowed_ips: Vec<&'static str>,
    peer: &'static str,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            name: DEVICE,
            port: Some(PORT),
            address: vec!["10.77.0.2/24", "fd77::2/64"],
            interface: "",
            // With a table, a mark and rules of its own.
            allowed_ips: vec!["0.0.0.0/0", "::/0", "10.77.0.1/32"],
            peer: "",
        }
    }
}

/// All that is known of a host's network, with the numbers of devices.
fn everything(host: &Host) -> String {
    sh(
        host,
        "ip -o link; ip -o addr; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule; ss -Hlun",
    )
    .lines()
    .map(|line| line.split(" expires ").next().unwrap_or_default().trim_end().to_owned() + "\n")
    .collect()
}

/// Numbers over one TCP connection at a steady pace, both ways, while something happens.
struct Stream {
    /// The longest silence at either end.
    silence: Duration,
}

impl Stream {
    #[track_caller]
    fn during<T>(service: &mut Service, happens: impl FnOnce(&mut Service) -> T) -> (Self, T) {
        let listener = service.far.run(|| TcpListener::bind((FAR, 0))).expect("a listener");
        let to = listener.local_addr().expect("it is bound");
        let near = service.host().run(|| TcpStream::connect_timeout(&to, LONG)).expect("a connection");
        let (far, _) = listener.accept().expect("a connection");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let ends = [&near, &far];
            let writers = ends.map(|end| scope.spawn(|| write_numbers(end, &over)));
            let readers = ends.map(|end| scope.spawn(|| read_numbers(end)));
            thread::sleep(Duration::from_millis(300));
            let outcome = happens(service);
            thread::sleep(Duration::from_millis(300));
            over.store(true, Ordering::Relaxed);
            let [a, b] = writers.map(|writer| writer.join().expect("it writes"));
            let [from_b, from_a] = readers.map(|reader| reader.join().expect("it reads"));
            assert_eq!((from_a.0, from_b.0), (a, b), "every byte came");
            (Self { silence: from_a.1.max(from_b.1) }, outcome)
        })
    }
}

fn write_numbers(mut stream: &TcpStream, over: &AtomicBool) -> u64 {
    stream.set_write_timeout(Some(LONG)).expect("it can be");
    let mut count = 0_u64;
    while !over.load(Ordering::Relaxed) {
        let block: Vec<u8> = (count..count + 256).flat_map(u64::to_be_bytes).collect();
        stream.write_all(&block).expect("the connection lives");
        count += 256;
        thread::sleep(Duration::from_millis(2));
    }
    stream.shutdown(std::net::Shutdown::Write).expect("it can be");
    count
}

/// How many came, in order, and the longest silence.
fn read_numbers(mut stream: &TcpStream) -> (u64, Duration) {
    stream.set_read_timeout(Some(LONG)).expect("it can be");
    let (mut expected, mut rest, mut silence, mut last) = (0_u64, Vec::new(), Duration::ZERO, Instant::now());
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = stream.read(&mut buffer).expect("the connection lives");
        if len == 0 {
            return (expected, silence);
        }
        silence = silence.max(last.elapsed());
        last = Instant::now();
        rest.extend_from_slice(&buffer[..len]);
        let whole = rest.len() / 8 * 8;
        for number in rest.drain(..whole).collect::<Vec<_>>().chunks(8) {
            assert_eq!(u64::from_be_bytes(number.try_into().expect("eight")), expected);
            expected += 1;
        }
    }
}

#[test]
fn a_restart_and_a_kill_keep_the_interface_its_routes_its_port_and_tcp_through_it() {
    if !need_root() {
        return;
    }
    let mut service = Service::new("restart");
    service.manager.start();
    service.reached();
    assert_eq!(service.manager.stored(), ["peers", "tun", "udp4", "udp6"]);
    let running = everything(service.host());
    assert!(running.contains("table 51820") && running.contains("not from all fwmark"), "{running}");
    let record = |service: &Service| {
        let folder = service.host().folder().join("manager.state");
        let whole = || {
            let mut files = std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path());
            std::fs::read_to_string(files.find(|path| path.extension().is_none())?).ok()
        };
        assert!(wait_until(LONG, || whole().is_some()), "no record of timestamps: {}", service.manager.log());
        whole()
    };
    let mut kept = None;
    let mut silences = Vec::new();
    for signal in ["USR2", "KILL", "USR2"] {
        let (stream, ()) = Stream::during(&mut service, |service| service.manager.restart(signal));
        println!("SIG{signal}: the longest silence was {:?}", stream.silence);
        assert!(stream.silence < GAP, "SIG{signal}: {:?}\n{}", stream.silence, service.manager.log());
        silences.push(stream.silence);
        assert_eq!(everything(service.host()), running, "SIG{signal}: {}", service.manager.log());
        assert_eq!(service.manager.stored(), ["peers", "tun", "udp4", "udp6"], "nothing twice");
        let record = record(&service);
        assert_eq!(*kept.get_or_insert(record.clone()), record, "not each restart writes to the disk");
        let log = service.manager.log();
        assert!(
            log.contains("taken over from the process before us") && !log.contains("is not used"),
            "{log}"
        );
    }
    // As it is promised, where the machine lets it.
    assert!(silences.iter().min() < Some(&Duration::from_secs(1)), "{silences:?}");
    // What outlives the process holds no secret.
    let (_, memory) = service.manager.store.iter().find(|(name, _)| name == "peers").expect("it is there");
    let file = std::fs::File::from(memory.try_clone().expect("a descriptor"));
    let mut content = vec![0; 4096];
    let len = std::os::unix::fs::FileExt::read_at(&file, &mut content, 0).expect("it can be read");
    let holds = |bytes: &[u8]| content[..len].windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(&service.far_key.0) && !holds(service.private.expose()));
    service.manager.stop();
    service.nothing_is_left();
}

#[test]
fn where_both_ends_began_the_session_it_is_back_at_once() {
    if !need_root() {
        return;
    }
    let mut service = Service::new("roles");
    service.manager.start();
    service.reached();
    // The far end began this session; the next one is ours, as it is we who call; the one after that, too.
    for _ in 0..2 {
        // A responder takes one initiation in 20 ms from a peer: the calls of two processes are further apart.
        std::thread::sleep(Duration::from_millis(100));
        service.manager.restart("KILL");
        service.reaches();
    }
    // A socket that was chosen by hand while it ran is the one that the next process gets.
    service.wg(&["set", DEVICE, "listen-port", "40404"]);
    assert!(service.manager.until(|manager| manager.stored() == ["peers", "tun", "udp4", "udp6"]
        && manager.told.iter().filter(|line| *line == "FDNAME=udp4").count() == 2));
    service.manager.write(&service.file(&Wish { port: None, ..Wish::default() }));
    service.manager.restart("USR2");
    service.reaches();
    assert_eq!(service.wg(&["show", DEVICE, "listen-port"]).trim(), "40404");
    service.manager.stop();
    service.nothing_is_left();
}

#[test]
fn a_file_that_was_changed_keeps_what_it_still_wants() {
    if !need_root() {
        return;
    }
    let mut service = Service::new("changed");
    service.manager.start();
    service.reached();
    let index = link::index(service.host(), DEVICE).expect("a device");

    // Other addresses, no default route any more, another port: the same device.
    let wish = Wish {
        port: Some(PORT + 1),
        address: vec!["10.77.0.2/24", "10.88.0.1/32"],
        interface: "mtu = 1380",
        allowed_ips: vec!["10.77.0.0/24", "10.99.0.0/16"],
        ..Wish::default()
    };
    service.manager.write(&service.file(&wish));
    service.manager.restart("USR2");
    assert_eq!(link::index(service.host(), DEVICE).expect("a device"), index);
    let seen = everything(service.host());
    assert!(
        seen.contains("mtu 1380") && seen.contains("10.88.0.1/32") && seen.contains("10.99.0.0/16"),
        "{seen}"
    );
    assert!(!seen.contains("fd77::2") && !seen.contains("51820"), "{seen}");
    let log = service.manager.log();
    assert!(log.contains("it is bound to 0.0.0.0:51820, and port 51821 of all addresses is wanted"), "{log}");
    // Nobody expects it at the other port; but it knows where its peer is, and calls.
    service.reaches();

    // Another name: the old device goes with all that led there.
    service.manager.write(&service.file(&Wish { name: "vpn7", ..Wish::default() }));
    service.manager.restart("KILL");
    assert!(link::index(service.host(), DEVICE).is_err(), "the old one is gone");
    let log = service.manager.log();
    assert!(log.contains("it is the device vpn0, and vpn7 is wanted"), "{log}");
    service.reaches();
    assert_eq!(service.manager.stored(), ["peers", "tun", "udp4", "udp6"]);

    // Offloads off, and a far end that the file places elsewhere: what the file says anew counts more.
    let elsewhere = "endpoint = \"192.0.2.77:1\"\n";
    let wish = Wish { name: "vpn7", interface: "offload = \"off\"", peer: elsewhere, ..Wish::default() };
    service.manager.write(&service.file(&wish));
    service.manager.restart("USR2");
    assert!(service.wg(&["show", "vpn7", "endpoints"]).contains("192.0.2.77:1"));
    service.reached();
    service.manager.stop();
    service.nothing_is_left();
}

#[test]
fn a_file_that_is_wrong_at_a_restart_leaves_nothing_behind() {
    if !need_root() {
        return;
    }
    let mut service = Service::new("wrong");
    service.manager.start();
    service.reached();
    service.manager.end("KILL");
    assert!(everything(service.host()).contains(DEVICE), "it waits for the next process");
    service.manager.write("[interface]\nprivate_key = 7\n");
    service.manager.begin();
    assert_eq!(service.manager.ended().code(), Some(78));
    assert_eq!(service.manager.stored(), [""; 0]);
    service.nothing_is_left();
}

#[test]
fn what_is_not_ours_in_the_store_is_refused_in_words_and_replaced() {
    if !need_root() {
        return;
    }
    let mut service = Service::new("foreign");
    // A TUN of that name without vnet headers, a socket that listens elsewhere, memory of no kind, a name of nobody.
    let tun =
        service.host().run(|| tun::create(tun::Configuration::default().tun_name(DEVICE)).expect("a device"));
    let tun =
        std::os::fd::AsFd::as_fd(&vpnd::sys::tun::descriptor_of(&tun)).try_clone_to_owned().expect("a copy");
    let socket = service.host().run(|| std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let null = || std::fs::File::open("/dev/null").expect("it is there").into();
    let named = |name: &str, descriptor| (name.to_owned(), descriptor);
    service.manager.store = vec![
        named("tun", tun),
        named("udp4", socket.into()),
        named("peers", null()),
        named("connection", null()),
    ];
    service.manager.start();
    let log = service.manager.log();
    for why in ["its flags are 0x1001, and 0x5001 are wanted", "it is bound to 127.0.0.1:", "what=\"peers\""]
    {
        assert!(log.contains(why), "{why}: {log}");
    }
    service.reached();
    let stored = service.manager.stored();
    assert_eq!(stored, ["connection", "peers", "tun", "udp4", "udp6"], "and the new ones are kept");

    // Devices and sockets of another namespace are those of another service.
    service.manager.end("KILL");
    let elsewhere = Host::create("vpnd-foreign-x").expect("a namespace");
    let before = everything(&elsewhere);
    let mut other = Manager::new(elsewhere, &service.file(&Wish::default()));
    other.store = std::mem::take(&mut service.manager.store);
    other.start();
    let log = other.log();
    assert_eq!(log.matches("another network namespace").count(), 2, "{log}");
    other.store.retain(|(name, _)| name != "connection");
    other.stop();
    assert!(wait_until(LONG, || everything(&other.host) == before), "{}", everything(&other.host));

    // Two of a kind: nobody can tell which is the right one.
    let null = || std::fs::File::open("/dev/null").expect("it is there").into();
    other.store = vec![named("tun", null()), named("tun", null())];
    other.start();
    assert!(other.log().contains("there are two of them"), "{}", other.log());
    other.stop();
}

#[test]
fn without_a_service_manager_the_signal_for_a_restart_stops_and_leaves_nothing() {
    if !need_root() {
        return;
    }
    let mut service = Service::new("bare");
    service.manager.begin();
    assert!(service.manager.until(|manager| manager.told.iter().any(|line| line == "READY=1")));
    // Such a one that keeps nothing: it closes what it is given.
    service.manager.store.clear();
    service.manager.end("USR2");
    service.manager.store.clear();
    // Nobody comes after it but a new one, which finds nothing but rules to sweep.
    service.manager.start();
    service.reached();
    service.manager.stop();
    service.nothing_is_left();
}

#[test]
fn a_stalled_data_thread_ends_the_signs_of_life_and_a_thread_without_work_does_not() {
    if !need_root() {
        return;
    }
    let mut service = Service::new("watchdog");
    service.manager.watchdog = Some(Duration::from_secs(2));
    service.manager.start();
    service.reached();
    let pings = |manager: &Manager| manager.told.iter().filter(|line| *line == "WATCHDOG=1").count();
    let alive = |manager: &mut Manager, more: usize| {
        let seen = pings(manager);
        manager.until(|manager| pings(manager) >= seen + more)
    };
    assert!(alive(&mut service.manager, 8), "idle: the threads wait, which is no stall");

    // One system call of one thread takes for ever: what it had begun is never done.
    let pid = service.manager.pid();
    let threads = "cd /proc/$0/task && grep -lE '^vpnd-(data|in)' */comm | head -n 1 | cut -d/ -f1";
    let thread = sh(service.host(), &threads.replace("$0", &pid.to_string())).trim().to_owned();
    let mut strace = std::process::Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-p", &thread, "-e", "inject=recvmsg:delay_enter=60s"])
        .spawn()
        .expect("strace is installed");
    assert!(wait_until(LONG, || {
        let _ = service.far.ping(NEAR, 1);
        service.manager.listen();
        service.manager.log().contains("a data thread is stuck")
    }));
    let seen = pings(&service.manager);
    thread::sleep(Duration::from_secs(3));
    service.manager.listen();
    assert_eq!(pings(&service.manager), seen, "no more signs of life");

    strace.kill().expect("it runs");
    strace.wait().expect("it ends");
    assert!(alive(&mut service.manager, 2), "it moves again: {}", service.manager.log());
    assert!(service.manager.log().contains("all data threads move again"));
    service.reached();
    service.manager.stop();
}
