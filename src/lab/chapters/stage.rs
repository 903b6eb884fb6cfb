//! The hosts of a chapter, and what the chapters do with them again and again.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    lab::{
        daemon::{Daemon, Setup},
        error::{Attempted, LabError},
        host::Host,
        link, neighbours,
        ping::{MARK, Ping},
        stopwatch::poll_until,
    },
    noise::PrivateKey,
    sys,
};

/// How long is waited for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for what shall not come.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// All that a chapter made; it vanishes with this.
pub struct Stage {
    // Ended in this order.
    daemons: Vec<Rc<Daemon>>,
    hosts: Vec<Host>,
    prefix: String,
    binary: PathBuf,
}

impl Stage {
    /// Nothing yet. Hosts will be named `PREFIX-left` and so on; `binary` is the vpnd to start on them.
    pub fn new(prefix: &str, binary: impl Into<PathBuf>) -> Self {
        let (daemons, hosts) = (Vec::new(), Vec::new());
        Self { daemons, hosts, prefix: prefix.to_owned(), binary: binary.into() }
    }

    /// The names of all hosts.
    pub fn hosts(&self) -> Vec<&str> {
        self.hosts.iter().map(|host| host.name()).collect()
    }

    /// A host that keeps silent of itself: IPv4 alone, since IPv6 looks for neighbours and routers as soon as a
    /// device is up, and the counters shall see nothing but what the chapter sends.
    pub(super) fn host(&mut self, name: &str) -> Result<Host, LabError> {
        let host = Host::create(&format!("{}-{name}", self.prefix))?;
        for key in ["ipv6.conf.all.disable_ipv6", "ipv6.conf.default.disable_ipv6"] {
            match host.sysctl(key, "1") {
                // A kernel without IPv6 is silent, too.
                Err(LabError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// Starts a vpnd there, which ends with the stage.
    pub(super) fn vpnd(&mut self, host: &Host, config: &str) -> Result<Rc<Daemon>, LabError> {
        let daemon = Rc::new(Daemon::start(host, &Setup::new(&self.binary, config))?);
        self.daemons.push(daemon.clone());
        Ok(daemon)
    }

    /// Two hosts and a cable: left 192.0.2.1, right 192.0.2.2.
    pub(super) fn pair(&mut self) -> Result<(Host, Host), LabError> {
        self.pair_named("")
    }

    fn pair_named(&mut self, suffix: &str) -> Result<(Host, Host), LabError> {
        let (left, right) = (self.host(&format!("left{suffix}"))?, self.host(&format!("right{suffix}"))?);
        cable((&left, "eth0", 0x01), (&right, "eth0", 0x02))?;
        left.add_address("eth0", "192.0.2.1/24")?;
        right.add_address("eth0", "192.0.2.2/24")?;
        Ok((left, right))
    }

    /// Three in a row: left 10.0.1.2, a router that forwards (10.0.1.1, 10.0.2.1), right 10.0.2.2; the left and the
    /// right one know the way to each other, and everybody knows the neighbours' hardware addresses.
    pub(super) fn row(&mut self) -> Result<[Host; 3], LabError> {
        let (left, router, right) = (self.host("left")?, self.host("router")?, self.host("right")?);
        cable((&left, "eth0", 0x01), (&router, "eth0", 0x10))?;
        cable((&router, "eth1", 0x20), (&right, "eth0", 0x02))?;
        left.add_address("eth0", "10.0.1.2/24")?;
        router.add_address("eth0", "10.0.1.1/24")?;
        router.add_address("eth1", "10.0.2.1/24")?;
        right.add_address("eth0", "10.0.2.2/24")?;
        router.sysctl("ipv4.ip_forward", "1")?;
        left.add_route("10.0.2.0/24", Some(ip("10.0.1.1")), "eth0")?;
        right.add_route("10.0.1.0/24", Some(ip("10.0.2.1")), "eth0")?;
        neighbours::add(&left, "eth0", ip("10.0.1.1"), mac(0x10))?;
        neighbours::add(&router, "eth0", ip("10.0.1.2"), mac(0x01))?;
        neighbours::add(&router, "eth1", ip("10.0.2.2"), mac(0x02))?;
        neighbours::add(&right, "eth0", ip("10.0.2.1"), mac(0x20))?;
        Ok([left, router, right])
    }
}

/// How the two ends of a tunnel are set up.
pub(super) struct Ends {
    /// Behind the hosts' names: two tunnels need two pairs of hosts.
    pub(super) suffix: &'static str,
    /// The key of that name in both files.
    pub(super) offload: &'static str,
    /// What left sends to right.
    pub(super) left_allows: &'static str,
}

impl Default for Ends {
    fn default() -> Self {
        Self { suffix: "", offload: "auto", left_allows: "10.77.0.2/32" }
    }
}

/// A host with its vpnd.
pub(super) struct End {
    pub(super) host: Host,
    pub(super) daemon: Rc<Daemon>,
}

impl End {
    /// A number that its vpnd tells of its one peer.
    pub(super) fn peer(&self, field: &str) -> Result<u64, LabError> {
        let status = self.daemon.status("vpn0")?;
        let missing = || LabError::Unexpected(format!("vpnd on {} told no {field}", self.host.name()));
        status["peers"][0][field].as_u64().ok_or_else(missing)
    }
}

impl Stage {
    /// [`Self::pair`] with a tunnel: left is 10.77.0.1 on vpn0, right 10.77.0.2, both on UDP port 51820.
    pub(super) fn tunnel(&mut self, ends: &Ends) -> Result<[End; 2], LabError> {
        let (left, right) = self.pair_named(ends.suffix)?;
        neighbours::add(&left, "eth0", ip("192.0.2.2"), mac(0x02))?;
        neighbours::add(&right, "eth0", ip("192.0.2.1"), mac(0x01))?;
        if ends.left_allows == "0.0.0.0/0" {
            left.add_route("0.0.0.0/0", Some(ip("192.0.2.2")), "eth0")?;
        }
        let mut rng = sys::random::os_rng();
        let keys = [PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng)];
        let mut start = |host: Host, own: usize, name: &str, allowed: &str| {
            let config = format!(
                "[interface]\nname = \"vpn0\"\nprivate_key = \"{}\"\nlisten_port = 51820\n\
                 address = [\"10.77.0.{}/24\"]\noffload = \"{}\"\n\n[[peer]]\nname = \"{name}\"\n\
                 public_key = \"{}\"\nendpoint = \"192.0.2.{}:51820\"\nallowed_ips = [\"{allowed}\"]\n",
                BASE64_STANDARD.encode(keys[own].expose()),
                own + 1,
                ends.offload,
                keys[1 - own].public_key(),
                2 - own,
            );
            let daemon = self.vpnd(&host, &config)?;
            Ok::<_, LabError>(End { host, daemon })
        };
        Ok([start(left, 0, "right", ends.left_allows)?, start(right, 1, "left", "10.77.0.1/32")?])
    }
}

/// One ping with patience for a handshake; was it answered?
pub(super) fn ping(from: &Host, to: &str) -> Result<bool, LabError> {
    let ping = Ping { patience: PATIENCE, ..Ping::to(ip(to)) };
    Ok(from.ping_with(&ping)?.received == 1)
}

/// The picture of [`Stage::tunnel`].
pub(super) const TUNNEL: &str = "left                                     right\n\
     10.77.0.1 vpn0 ─ ─ ─ ─ ─ the tunnel ─ ─ ─ ─ ─ vpn0 10.77.0.2\n\
     192.0.2.1 eth0 ──────────────────────────── eth0 192.0.2.2";

/// The picture of [`Stage::row`].
pub(super) const ROW: &str = "left                  router                   right\n\
     10.0.1.2 ─────────── 10.0.1.1 │ 10.0.2.1 ─────────── 10.0.2.2";

/// The picture of [`Stage::pair`].
pub(super) const PAIR: &str = "left                          right\n192.0.2.1 eth0 ────────── eth0 192.0.2.2";

/// A hardware address of the lab: locally administered (IEEE 802), and its last byte is all that differs.
pub(super) fn mac(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, number]
}

/// A cable whose ends have known hardware addresses.
pub(super) fn cable(a: (&Host, &str, u8), b: (&Host, &str, u8)) -> Result<(), LabError> {
    link::veth(a.0, a.1, b.0, b.1)?;
    for (host, device, number) in [a, b] {
        link::hardware_address(host, device, mac(number))?;
    }
    Ok(())
}

/// An address that the code has.
///
/// # Panics
/// When it is none.
pub(super) fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// An address and port that the code has.
///
/// # Panics
/// When it is none.
pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A UDP socket on a host, bound to `address`.
pub(super) fn udp(host: &Host, address: &str) -> Result<UdpSocket, LabError> {
    let bind = || {
        let socket = UdpSocket::bind(at(address))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok::<_, io::Error>(socket)
    };
    host.run(bind).attempted(|| format!("open UDP port {address} on {}", host.name()))
}

/// Sends `size` bytes that repeat the lab's mark.
pub(super) fn send(socket: &UdpSocket, size: usize, to: &str) -> Result<(), LabError> {
    let payload: Vec<u8> = MARK.iter().chain(b" ").copied().cycle().take(size).collect();
    socket.send_to(&payload, at(to)).map(drop).attempted(|| format!("send {size} bytes to {to}"))
}

/// Waits for one datagram: its length and where it came from. `None`: none came in time.
pub(super) fn heard(socket: &UdpSocket) -> Result<Option<(usize, SocketAddr)>, LabError> {
    heard_within(socket, PATIENCE)
}

/// The same with another limit.
pub(super) fn heard_within(
    socket: &UdpSocket,
    limit: Duration,
) -> Result<Option<(usize, SocketAddr)>, LabError> {
    let mut buffer = vec![0; 65_535];
    let mut receive = || {
        socket.set_read_timeout(Some(limit))?;
        match socket.recv_from(&mut buffer) {
            Ok(got) => Ok(Some(got)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e),
        }
    };
    receive().attempted(|| "receive a datagram".to_owned())
}

/// Asks until the answer is the one that is wished for, or the patience is over; what was answered last.
pub(super) fn until<T>(
    mut ask: impl FnMut() -> Result<T, LabError>,
    enough: impl Fn(&T) -> bool,
) -> Result<T, LabError> {
    let waited = poll_until(PATIENCE, || match ask() {
        Ok(answer) if enough(&answer) => Some(Ok(answer)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    waited.unwrap_or_else(&mut ask)
}

/// "yes" or "no".
pub(super) fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
