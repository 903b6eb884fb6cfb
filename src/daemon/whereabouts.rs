//! Where peers are, in memory that outlives this process: a record of 128 bytes for each, written in place by one call
//! whenever it changes, so that SIGKILL finds it whole. No secrets: keys are public ones.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    time::Duration,
};

use tracing::warn;

use super::checksum;
use crate::{
    config::{Config, EndpointName, Peer},
    forward::{Endpoint, Local, Time, session::REJECT_AFTER_TIME},
    noise::{PublicKey, Tai64n},
    sys::inherit,
    tunnel::{Event, MAX_PEERS, Remembered, Tunnel},
};

/// Bytes of a record.
const RECORD: usize = 128;
/// Those that the last eight are the checksum of.
const BODY: usize = RECORD - 8;
/// The first record: what this is, and its version.
const HEAD: &[u8; 32] = b"vpnd: where peers are, version 1\n".first_chunk().expect("it is longer");
/// Our own record, behind the head; those of peers follow.
const OWN: u32 = 1;
/// Between two peers that are called: ten thousand have their turn within ten seconds.
const TURN: Duration = Duration::from_millis(1);
/// Records of peers that are gone are only looked for when there are more than twice as many as peers, and this.
const SPARE: usize = 1024;

/// The memory, and who stands where in it.
pub(super) struct Whereabouts {
    memory: File,
    /// What our own record says: the newest timestamp that was sent with which key.
    sent: Option<(PublicKey, Tai64n)>,
    known: HashMap<PublicKey, Place>,
    free: Vec<u32>,
    /// Records from here on were never used.
    next: u32,
    /// What the file says of a peer's endpoint, as a number.
    configured: HashMap<PublicKey, u64>,
}

#[derive(Clone, Copy)]
struct Place {
    record: u32,
    /// When the last session was made.
    connected: Time,
}

/// What is remembered of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    key: PublicKey,
    known: Remembered,
    connected: Time,
    /// What the file said of its endpoint at that time.
    configured: u64,
}

impl Whereabouts {
    /// Takes over what was left, if anything was and it can be read; the second value says why not. `config` says who
    /// is known, and where the file has them.
    pub(super) fn open(left: Option<OwnedFd>, config: &Config) -> io::Result<(Self, Option<String>)> {
        let configured =
            config.peers.iter().map(|peer| (peer.public_key, configured(peer.endpoint.as_ref())));
        let (memory, refused) = match left.map(|left| readable(File::from(left))) {
            Some(Ok(memory)) => (memory, None),
            Some(Err(why)) => (empty()?, Some(why)),
            None => (empty()?, None),
        };
        let mut open = Self {
            memory,
            sent: None,
            known: HashMap::new(),
            free: Vec::new(),
            next: OWN + 1,
            configured: configured.collect(),
        };
        open.next = u32::try_from(open.memory.metadata()?.len() / RECORD as u64).unwrap_or(0).max(OWN + 1);
        open.sent = open.read(OWN).map(|own| (own.key, own.known.newest_timestamp));
        Ok((open, refused))
    }

    /// The newest timestamp that the process before us sent with this key.
    pub(super) fn sent_with(&self, key: &PublicKey) -> Option<Tai64n> {
        self.sent.filter(|(own, _)| own == key).map(|(_, newest)| newest)
    }

    /// So does the next one know it to the step, while the record on disk is ahead: it need not wait for the disk.
    pub(super) fn sent(&mut self, key: PublicKey, newest: Tai64n) {
        if newest == Tai64n::default() || self.sent == Some((key, newest)) {
            return;
        }
        let nowhere = Endpoint { remote: SocketAddr::from(([0; 4], 0)), local: None };
        let known = Remembered { endpoint: nowhere, newest_timestamp: newest };
        let own = Record { key, known, connected: Time::default(), configured: 0 };
        match self.memory.write_all_at(&own.to_bytes(), u64::from(OWN) * RECORD as u64) {
            Ok(()) => self.sent = Some((key, newest)),
            Err(error) => warn!(%error, "the newest timestamp cannot be kept for the next process"),
        }
    }

    /// Tells the tunnel what the process before us knew, of the peers that the file still has where it had them. Those
    /// with whom that process had a session are called, one after the other, the youngest sessions first. Returns them
    /// all, with their endpoints.
    pub(super) fn resume(&mut self, tunnel: &mut Tunnel, now: Time) -> Vec<(PublicKey, SocketAddr)> {
        let mut found = Vec::new();
        for number in OWN + 1..self.next {
            match self.read(number).filter(|record| self.is_wanted(record)) {
                Some(record) => {
                    self.known.insert(record.key, Place { record: number, connected: record.connected });
                    found.push(record);
                }
                None => self.free.push(number),
            }
        }
        found.sort_by_key(|record| std::cmp::Reverse(record.connected));
        let mut turn = now;
        let mut resumed = Vec::new();
        for Record { key, known, connected, .. } in found {
            let lives = connected != Time::default() && now.since(connected) < REJECT_AFTER_TIME;
            if tunnel.resume(&key, known, lives.then_some(turn)) {
                resumed.push((key, known.endpoint.remote));
            }
            if lives {
                turn = turn + TURN;
            }
        }
        resumed
    }

    /// The file still has this peer, and what it says of its endpoint is the same: else that is newer.
    fn is_wanted(&self, record: &Record) -> bool {
        self.configured.get(&record.key) == Some(&record.configured) && !self.known.contains_key(&record.key)
    }

    /// Other peers, or with other endpoints, by a file that was read again.
    pub(super) fn follow(&mut self, peers: &[Peer]) {
        self.configured =
            peers.iter().map(|peer| (peer.public_key, configured(peer.endpoint.as_ref()))).collect();
    }

    /// A peer answered, or moved.
    pub(super) fn happened(&mut self, event: &Event, tunnel: &Tunnel, now: Time) {
        let (key, connected) = match event {
            Event::Connected { key, .. } => (key, Some(now)),
            Event::Roamed { key, .. } => (key, None),
            _ => return,
        };
        let Some(known) = tunnel.remembered(key) else { return };
        if let Err(error) = self.remember(*key, known, connected, tunnel) {
            warn!(%error, "where a peer is cannot be kept for the next process");
        }
    }

    fn remember(
        &mut self,
        key: PublicKey,
        known: Remembered,
        connected: Option<Time>,
        tunnel: &Tunnel,
    ) -> io::Result<()> {
        let before = self.known.get(&key).copied();
        let record = match before {
            Some(place) => place.record,
            None => self.room(tunnel)?,
        };
        let connected = connected.or(before.map(|place| place.connected)).unwrap_or_default();
        let configured = self.configured.get(&key).copied().unwrap_or_else(|| configured(None));
        self.known.insert(key, Place { record, connected });
        let bytes = Record { key, known, connected, configured }.to_bytes();
        self.memory.write_all_at(&bytes, u64::from(record) * RECORD as u64)
    }

    /// A record that nobody uses.
    fn room(&mut self, tunnel: &Tunnel) -> io::Result<u32> {
        if self.free.is_empty() && self.known.len() > 2 * tunnel.peer_count() + SPARE {
            let gone: Vec<_> = self
                .known
                .extract_if(|key, _| tunnel.peer_id(key).is_none())
                .map(|(_, place)| place.record)
                .collect();
            for record in gone {
                self.memory.write_all_at(&[0; RECORD], u64::from(record) * RECORD as u64)?;
                self.free.push(record);
            }
        }
        if let Some(record) = self.free.pop() {
            return Ok(record);
        }
        if self.next as usize > 2 * MAX_PEERS + SPARE {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    fn read(&self, number: u32) -> Option<Record> {
        let mut bytes = [0; RECORD];
        self.memory.read_exact_at(&mut bytes, u64::from(number) * RECORD as u64).ok()?;
        Record::from_bytes(&bytes)
    }
}

impl AsFd for Whereabouts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn empty() -> io::Result<File> {
    let memory = inherit::memory("vpnd-peers")?;
    let mut head = [0; RECORD];
    head[..HEAD.len()].copy_from_slice(HEAD);
    memory.write_all_at(&head, 0)?;
    Ok(memory)
}

/// Is it ours, of this version, and of a size that we make? Else why not.
fn readable(memory: File) -> Result<File, String> {
    let mut head = [0; HEAD.len()];
    memory.read_exact_at(&mut head, 0).map_err(|error| error.to_string())?;
    if head != *HEAD {
        return Err("it is of another version".to_owned());
    }
    let len = memory.metadata().map_err(|error| error.to_string())?.len();
    let records = len / RECORD as u64;
    if len % RECORD as u64 != 0 || records > (2 * MAX_PEERS + SPARE) as u64 + 1 {
        return Err(format!("it has {len} bytes"));
    }
    Ok(memory)
}

/// What a file says of an endpoint, as a number.
fn configured(endpoint: Option<&EndpointName>) -> u64 {
    let text = match endpoint {
        Some(EndpointName::Address(address)) => address.to_string(),
        Some(EndpointName::Name { host, port }) => format!("{host} {port}"),
        None => String::new(),
    };
    checksum(text.as_bytes())
}

impl Record {
    /// Key, remote, local, newest timestamp, when connected, what the file said, zeros, checksum; numbers in the
    /// machine's own order, which does not change under a process.
    fn to_bytes(self) -> [u8; RECORD] {
        let Endpoint { remote, local } = self.known.endpoint;
        let scope = match remote {
            SocketAddr::V6(remote) => remote.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let (local, interface) =
            local.map_or((Ipv6Addr::UNSPECIFIED, 0), |local| (wide(local.address), local.interface));
        let mut bytes = [0; RECORD];
        let mut rest = &mut bytes[..];
        for part in [
            &self.key.0[..],
            &wide(remote.ip()).octets(),
            &scope.to_ne_bytes(),
            &remote.port().to_ne_bytes(),
            &local.octets(),
            &interface.to_ne_bytes(),
            &self.known.newest_timestamp.0,
            &self.connected.0.to_ne_bytes(),
            &self.configured.to_ne_bytes(),
        ] {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        let sum = checksum(&bytes[..BODY]).to_ne_bytes();
        bytes[BODY..].copy_from_slice(&sum);
        bytes
    }

    /// None: it is empty, or damaged.
    fn from_bytes(bytes: &[u8; RECORD]) -> Option<Self> {
        let sum = checksum(&bytes[..BODY]).to_ne_bytes();
        if bytes[BODY..] != sum {
            return None;
        }
        let mut rest = &bytes[..];
        let key = PublicKey(take(&mut rest)?);
        let remote = narrow(Ipv6Addr::from(take::<16>(&mut rest)?));
        let scope = u32::from_ne_bytes(take(&mut rest)?);
        let port = u16::from_ne_bytes(take(&mut rest)?);
        let local = Ipv6Addr::from(take::<16>(&mut rest)?);
        let interface = u32::from_ne_bytes(take(&mut rest)?);
        let newest_timestamp = Tai64n(take(&mut rest)?);
        let connected = Time(u64::from_ne_bytes(take(&mut rest)?));
        let configured = u64::from_ne_bytes(take(&mut rest)?);
        let remote = match remote {
            IpAddr::V4(v4) => SocketAddr::from((v4, port)),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
        };
        let local = (!local.is_unspecified()).then(|| Local { address: narrow(local), interface });
        let known = Remembered { endpoint: Endpoint { remote, local }, newest_timestamp };
        Some(Self { key, known, connected, configured })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (part, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*part)
}

/// IPv4 as IPv4-mapped IPv6, which stands for nothing else here.
fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn narrow(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        forward::Forward,
        noise::PrivateKey,
        sys::random::os_rng,
        tunnel::{Change, Now, PeerChange, Timing},
    };

    const NOW: Now = Now { boot: Time(1_000_000_000_000), wall: Duration::from_secs(1_800_000_000) };

    fn key() -> PublicKey {
        PrivateKey::generate(&mut os_rng()).public_key()
    }

    fn config(peers: &[(PublicKey, &str)]) -> Config {
        let mut text =
            format!("[interface]\nprivate_key = \"{}\"\n", *PrivateKey::generate(&mut os_rng()).to_base64());
        for (key, endpoint) in peers {
            text += &format!("[[peer]]\npublic_key = \"{key}\"\n");
            if !endpoint.is_empty() {
                text += &format!("endpoint = \"{endpoint}\"\n");
            }
        }
        crate::config::parse(&text, "x.toml".as_ref(), &|_| unreachable!("no key files"))
            .expect("a good file")
    }

    fn tunnel(config: &Config) -> Tunnel {
        let mut tunnel = Tunnel::new(Forward::new(Box::new(|| {})), Timing::default(), Box::new(os_rng()));
        config.changes().into_iter().for_each(|change| tunnel.apply(change, NOW).expect("a good change"));
        tunnel
    }

    fn at(text: &str, local: Option<&str>) -> Remembered {
        let local = local.map(|text| Local { address: text.parse().unwrap(), interface: 3 });
        let endpoint = Endpoint { remote: text.parse().unwrap(), local };
        Remembered { endpoint, newest_timestamp: Tai64n::from_unix(NOW.wall) }
    }

    /// The next process's, after this one died.
    fn after(left: &Whereabouts, config: &Config) -> (Whereabouts, Tunnel, Vec<(PublicKey, SocketAddr)>) {
        let descriptor = left.as_fd().try_clone_to_owned().unwrap();
        let (mut next, refused) = Whereabouts::open(Some(descriptor), config).unwrap();
        assert_eq!(refused, None);
        let mut tunnel = tunnel(config);
        let resumed = next.resume(&mut tunnel, NOW.boot);
        (next, tunnel, resumed)
    }

    #[test]
    fn a_record_says_what_was_written_and_any_damage_is_seen() {
        let places = [
            at("192.0.2.1:51820", Some("198.51.100.7")),
            at("192.0.2.1:1", None),
            at("[2001:db8::1]:65535", Some("2001:db8::2")),
            at("[fe80::1%7]:51820", Some("fe80::2")),
        ];
        for known in places {
            let record = Record { key: key(), known, connected: Time(7), configured: 9 };
            let bytes = record.to_bytes();
            assert_eq!(Record::from_bytes(&bytes), Some(record));
            for bit in 0..8 * RECORD {
                let mut bad = bytes;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::from_bytes(&bad), None, "bit {bit}");
            }
        }
        assert_eq!(Record::from_bytes(&[0; RECORD]), None, "an empty one");
    }

    #[test]
    fn the_next_process_knows_where_peers_are_and_calls_those_that_had_a_session_in_turn() {
        let keys: Vec<_> = (0..3).map(|_| key()).collect();
        let file = config(&[(keys[0], ""), (keys[1], "192.0.2.2:51820"), (keys[2], "vpn.example.org:1")]);
        let (mut first, _) = Whereabouts::open(None, &file).unwrap();
        let mut tunnel = tunnel(&file);
        let seconds_ago = |n: u64| Time(NOW.boot.0 - n * 1_000_000_000);
        for (key, connected) in keys.iter().zip([179, 180, 3]) {
            first.remember(*key, at("192.0.2.9:7", None), Some(seconds_ago(connected)), &tunnel).unwrap();
        }
        // It moves once more: the time of its session stays.
        first.remember(keys[2], at("[2001:db8::9]:7", None), None, &tunnel).unwrap();
        let (_, mut next, mut resumed) = after(&first, &file);
        assert_eq!(resumed[0], (keys[2], "[2001:db8::9]:7".parse().unwrap()), "the youngest session first");
        resumed.sort();
        assert_eq!(resumed.len(), 3);
        next.expire(NOW);
        let called = |tunnel: &mut Tunnel| {
            std::iter::from_fn(|| tunnel.poll_transmit()).map(|t| t.to.remote).collect::<Vec<_>>()
        };
        assert_eq!(called(&mut next), ["[2001:db8::9]:7".parse().unwrap()]);
        next.expire(Now { boot: NOW.boot + TURN, ..NOW });
        assert_eq!(called(&mut next), ["192.0.2.9:7".parse().unwrap()], "the one of 180 s ago is not called");
        assert_eq!(next.deadline().map(|at| at.since(NOW.boot) > Duration::from_secs(4)), Some(true));
        let none = PeerChange { remove: true, ..PeerChange::new(keys[0]) };
        tunnel.apply(Change::Peer(none), NOW).unwrap();
    }

    #[test]
    fn what_the_file_says_anew_counts_more_and_who_is_gone_from_it_is_forgotten() {
        let keys: Vec<_> = (0..3).map(|_| key()).collect();
        let file = config(&[(keys[0], "192.0.2.1:1"), (keys[1], ""), (keys[2], "")]);
        let (mut first, _) = Whereabouts::open(None, &file).unwrap();
        let tunnel = tunnel(&file);
        for key in &keys {
            first.remember(*key, at("192.0.2.9:7", None), None, &tunnel).unwrap();
        }
        let changed = config(&[(keys[0], "192.0.2.1:2"), (keys[1], "")]);
        let (mut next, tunnel, resumed) = after(&first, &changed);
        assert_eq!(resumed, [(keys[1], "192.0.2.9:7".parse().unwrap())]);
        // Their room is used again.
        let size = next.memory.metadata().unwrap().len();
        for key in [key(), key()] {
            next.remember(key, at("192.0.2.9:7", None), None, &tunnel).unwrap();
        }
        assert_eq!(next.memory.metadata().unwrap().len(), size);
    }

    #[test]
    fn peers_that_come_and_go_do_not_fill_the_memory() {
        let file = config(&[]);
        let (mut memory, _) = Whereabouts::open(None, &file).unwrap();
        let tunnel = tunnel(&file);
        for number in 0..5 * SPARE as u64 {
            let mut key = PublicKey([0; 32]);
            key.0[..8].copy_from_slice(&number.to_le_bytes());
            memory.remember(key, at("192.0.2.9:7", None), None, &tunnel).unwrap();
        }
        let records = memory.memory.metadata().unwrap().len() as usize / RECORD;
        assert!(records <= SPARE + 4, "{records}");
    }

    #[test]
    fn the_next_process_knows_the_newest_timestamp_of_its_own_key() {
        let file = config(&[]);
        let (mut first, _) = Whereabouts::open(None, &file).unwrap();
        let own = file.interface.private_key.public_key();
        assert_eq!(first.sent_with(&own), None);
        let newest = Tai64n::from_unix(NOW.wall);
        first.sent(own, newest);
        first.sent(own, Tai64n::default());
        let (next, ..) = after(&first, &file);
        assert_eq!((next.sent_with(&own), next.sent_with(&key())), (Some(newest), None));
    }

    #[test]
    fn memory_of_another_kind_is_refused_in_words() {
        let refused = |content: &[u8]| {
            let memory = inherit::memory("test").unwrap();
            memory.write_all_at(content, 0).unwrap();
            Whereabouts::open(Some(memory.into()), &config(&[])).unwrap().1.expect("refused")
        };
        let mut head = HEAD.to_vec();
        head[31] = b'2';
        assert_eq!(refused(&[0; RECORD]), "it is of another version");
        assert_eq!(refused(&head), "it is of another version");
        assert_eq!(refused(HEAD), "it has 32 bytes");
        assert!(refused(b"short").contains("fill"));
        let pipe = std::io::pipe().unwrap().0;
        assert!(Whereabouts::open(Some(pipe.into()), &config(&[])).unwrap().1.is_some());
    }
}
