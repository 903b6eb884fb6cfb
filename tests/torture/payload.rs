//! What floods are made of.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Host, link},
    noise::{
        Identity, PrivateKey, PublicKey, Tai64n,
        handshake::{Remote, initiate, open_initiation},
        macs::MacKeys,
    },
    sys::{packet::PacketSocket, random::os_rng},
    wire::{
        ip,
        message::{Index, Initiation},
    },
};

use crate::dice::Dice;

/// Bytes of an initiation; the last 32 are its macs.
pub const INITIATION: usize = 148;

/// An initiation of this key, with a mac1 that is right.
pub fn initiation(from: &PrivateKey, to: &PublicKey, index: u32) -> [u8; INITIATION] {
    let remote = Remote::new(Identity::new(from.clone()), *to);
    let time = Tai64n::from_unix(Duration::from_secs(1_700_000_000));
    let (_, initiation) = initiate(&remote, Index(index), time, &mut os_rng()).expect("an honest key");
    let mut bytes = initiation.to_bytes();
    MacKeys::new(to).fill(&mut bytes, None);
    bytes
}

/// A stock of initiations of keys that nobody knows. Made beforehand: each costs two Diffie-Hellman.
pub struct Strangers(Vec<[u8; INITIATION]>);

impl Strangers {
    pub fn calling(to: &PublicKey, count: u32) -> Self {
        let key = PrivateKey::generate(&mut os_rng());
        Self((0..count).map(|n| initiation(&key, to, n)).collect())
    }

    pub fn write(&self, dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
        datagram.extend_from_slice(&self.0[dice.below(self.0.len())]);
    }
}

/// Looks like an initiation, and was not made for anybody here.
pub fn wrong_mac1(dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
    datagram.extend([1, 0, 0, 0]);
    datagram.extend(dice.noise(INITIATION - 4));
}

/// Noise under a mac1 that is right: what anybody can make who knows the public key.
pub fn noise_under_mac1(keys: &MacKeys, dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
    let start = datagram.len();
    wrong_mac1(dice, datagram);
    keys.fill(&mut datagram[start..], None);
}

/// A cookie reply to nothing.
pub fn cookie_reply(dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
    datagram.extend([3, 0, 0, 0]);
    datagram.extend(dice.noise(60));
}

/// Any bytes of any short length.
pub fn garbage(dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
    let length = dice.below(1400);
    datagram.extend(dice.noise(length));
}

/// Data of a session that is alive, with a counter of its own and a tag that is wrong.
pub fn bad_tag(index: u32, dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
    datagram.extend([4, 0, 0, 0]);
    datagram.extend(index.to_le_bytes());
    datagram.extend((dice.below(1 << 40) as u64).to_le_bytes());
    let length = 16 * dice.within(1..=80);
    datagram.extend(dice.noise(length));
}

/// Malformed datagrams without end: every length in turn, every type, and real ones that were tampered with.
pub struct Malformed<'a> {
    real: &'a [Recorded],
    /// The next large one's length.
    length: usize,
    count: u64,
}

/// The largest payload of UDP over IPv4.
const LARGEST: usize = 65_507;
/// One of so many has the next length; the others fit into a packet.
const LARGE_ONE_IN: u64 = 150;

impl<'a> Malformed<'a> {
    pub fn of(real: &'a [Recorded]) -> Self {
        Self { real, length: 0, count: 0 }
    }

    pub fn write(&mut self, dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
        self.count += 1;
        if self.count.is_multiple_of(LARGE_ONE_IN) {
            self.length = (self.length + 1) % (LARGEST + 1);
            datagram.extend(dice.noise(self.length));
            return;
        }
        match dice.below(4) {
            0 => garbage(dice, datagram),
            1 => {
                garbage(dice, datagram);
                let kind = [dice.below(6) as u8, 0, 0, 0];
                let named = datagram.len().min(4);
                datagram[..named].copy_from_slice(&kind[..named]);
            }
            _ => self.tampered(dice, datagram),
        }
    }

    /// Where a flipped bit is seen: not in mac2, which nobody looks at but under load, nor behind the padding.
    fn tampered(&self, dice: &mut Dice<'_>, datagram: &mut Vec<u8>) {
        let real = &self.real[dice.below(self.real.len())].bytes;
        datagram.extend_from_slice(real);
        let covered = match real.len() {
            INITIATION => 132,
            92 => 76,
            length => length,
        };
        match dice.below(3) {
            0 => datagram[dice.below(covered)] ^= 1 << dice.below(8),
            1 => datagram.truncate(dice.below(covered)),
            _ => {
                let more = dice.within(1..=64);
                datagram.extend(dice.noise(more));
            }
        }
    }
}

/// A datagram of the tunnel, as it was seen on the cable.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// Listens on a device. The kernel keeps some 200 KB: for a handshake and a few packets, not for bulk.
pub struct Recorder(PacketSocket);

impl Recorder {
    pub fn start(host: &Host, device: &str) -> Self {
        let index = link::index(host, device).expect("the device is there");
        Self(host.run(|| PacketSocket::open(index)).expect("root may listen"))
    }

    /// Every UDP datagram over IPv4 so far, in whole.
    pub fn finish(self) -> Vec<Recorded> {
        let mut buffer = vec![0; 65_550];
        let mut recorded = Vec::new();
        loop {
            match self.0.receive(&mut buffer) {
                Ok(length) => recorded.extend(datagram(&buffer[..length.min(buffer.len())])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return recorded,
                Err(error) => panic!("listening: {error}"),
            }
        }
    }
}

/// The UDP datagram in an Ethernet frame.
fn datagram(frame: &[u8]) -> Option<Recorded> {
    let packet = frame.strip_prefix(frame.first_chunk::<12>()?)?.strip_prefix(&[8, 0])?;
    let header = ip::parse(packet).ok()?;
    let (protocol, udp) = ip::upper_layer(packet)?;
    let ports = udp.first_chunk::<8>().filter(|_| protocol == ip::UDP)?;
    let port = u16::from_be_bytes([ports[2], ports[3]]);
    Some(Recorded { to: SocketAddr::new(header.destination, port), bytes: udp[8..].to_vec() })
}

/// The index by which a host knows the session that its peer sends to it.
pub fn live_index(recorded: &[Recorded], host: IpAddr) -> u32 {
    let data = |one: &&Recorded| one.to.ip() == host && one.bytes.first() == Some(&4);
    let last = recorded.iter().rfind(data).expect("data were seen");
    u32::from_le_bytes(last.bytes[4..8].try_into().expect("four bytes"))
}

/// Handshakes a second that one core answers: what a responder calculates, without its sockets.
pub fn handshake_capacity() -> f64 {
    let (ours, theirs) = (PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng()));
    let local = Identity::new(ours);
    let remote = Remote::new(local.clone(), theirs.public_key());
    let bytes = initiation(&theirs, local.public_key(), 1);
    let initiation = Initiation::parse(&bytes).expect("our own");
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_millis(300) {
        let opened = open_initiation(&local, &initiation).expect("it is for us");
        let authentic = opened.authenticate(&remote).expect("it is theirs");
        authentic.respond(&remote, &Default::default(), Index(count), &mut os_rng()).expect("it is answered");
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}
