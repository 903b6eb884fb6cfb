//! A UDP relay between two ends, in user space, that can lose, double, damage, cut, delay and hold up datagrams, that can
//! be slow or narrow, and whose far side can move to another port as a NAT's does. It can keep what it passes on, and
//! pass it on again. All chance is drawn from a seed.
#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]
#![allow(dead_code, reason = "each test binary takes its part")]

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use vpnd::{lab::Host, sys::socket::force_receive_buffer};

/// What happens to datagrams on their way, in percent. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mess {
    pub loss: u8,
    pub duplication: u8,
    /// One bit is flipped, 20 bytes before the end: in mac1 of a handshake message; in the ciphertext, the tag
    /// or the counter of data.
    pub corruption: u8,
    /// So many wait for up to `delay`, and later ones overtake them.
    pub reordering: u8,
    pub delay: Duration,
    /// So many end somewhere before their end.
    pub truncation: u8,
    /// Each takes up to so long, by chance: later ones overtake earlier ones.
    pub jitter: Duration,
    /// Bytes a second, each way. What would wait for more than a tenth of a second is lost.
    pub rate: Option<u64>,
    /// Larger datagrams vanish, and nobody is told.
    pub mtu: Option<usize>,
    /// Nothing passes this way.
    pub dead: Option<Way>,
    /// Only datagrams of this type (1 to 4); none: all.
    pub only: Option<u8>,
}

/// A running relay; ended when dropped.
pub struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Faces the end that knows the relay's address.
    front: UdpSocket,
    /// Faces the other end; replaced when the relay moves.
    back: Mutex<Arc<UdpSocket>>,
    target: SocketAddr,
    /// Where the first end was last seen.
    client: Mutex<Option<SocketAddr>>,
    mess: Mutex<Mess>,
    random: Mutex<u64>,
    forwarded: AtomicU64,
    lost: [AtomicU64; 2],
    record: Mutex<Option<Vec<(Way, Vec<u8>)>>>,
    over: AtomicBool,
}

/// From the end that knows the relay to the other one, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

/// Bursts of both ends fit in while its thread is not given a core: it loses nothing that it was not told to lose.
const BUFFER: u32 = 16 << 20;
/// How long a datagram waits for a slow relay at most.
const QUEUE: Duration = Duration::from_millis(100);

impl Relay {
    /// Listens on `host` at `front`, and passes on to `target` from a port of its own at the same address.
    pub fn start(host: &Host, front: SocketAddr, target: SocketAddr, seed: u64) -> Self {
        let bind = |address| {
            let socket = host.run(|| UdpSocket::bind(address)).expect("the relay's address is free");
            prepared(socket)
        };
        let shared = Arc::new(Shared {
            front: bind(front),
            back: Mutex::new(Arc::new(bind(SocketAddr::new(front.ip(), 0)))),
            target,
            client: Mutex::new(None),
            mess: Mutex::new(Mess::default()),
            random: Mutex::new(seed),
            forwarded: AtomicU64::new(0),
            lost: Default::default(),
            record: Mutex::new(None),
            over: AtomicBool::new(false),
        });
        let threads = [Way::There, Way::Back].map(|way| {
            let shared = shared.clone();
            thread::spawn(move || shared.carry(way))
        });
        Self { shared, threads: threads.into() }
    }

    /// From now on.
    pub fn make(&self, mess: Mess) {
        *locked(&self.shared.mess) = mess;
    }

    /// The far side gets another port, as when a NAT forgets; returns its address.
    pub fn rebind(&self, host: &Host) -> SocketAddr {
        let address = SocketAddr::new(self.far_address().ip(), 0);
        let socket = host.run(|| UdpSocket::bind(address)).expect("a port is free");
        *locked(&self.shared.back) = Arc::new(prepared(socket));
        self.far_address()
    }

    /// What the target sees as the first end's address.
    pub fn far_address(&self) -> SocketAddr {
        locked(&self.shared.back).local_addr().expect("it is bound")
    }

    /// Datagrams that it did not pass on, or passed on damaged.
    pub fn lost(&self, way: Way) -> u64 {
        self.shared.lost[way as usize].load(Ordering::Relaxed)
    }

    /// Keeps what comes from now on.
    pub fn record(&self) {
        *locked(&self.shared.record) = Some(Vec::new());
    }

    /// Passes on again what was kept, each as often as that; how many there were.
    pub fn replay(&self, times: usize) -> usize {
        let kept = locked(&self.shared.record).take().unwrap_or_default();
        for (way, datagram) in (0..times).flat_map(|_| &kept) {
            self.shared.pass(datagram, *way);
        }
        kept.len()
    }

    /// Datagrams passed on so far, doubles included.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || thread::panicking(), "the relay panicked");
        }
    }
}

impl Shared {
    fn carry(&self, way: Way) {
        let mut buffer = vec![0; 65_536];
        let mut waiting = BTreeMap::new();
        // When a slow relay will have sent what it has.
        let mut busy = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            let socket = match way {
                Way::There => &self.front,
                Way::Back => &*locked(&self.back).clone(),
            };
            // A time-out, or the echo of an ICMP error: neither is a datagram.
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if matches!(way, Way::There) {
                    *locked(&self.client) = Some(from);
                }
                self.treat(&mut buffer[..length], way, &mut waiting, &mut busy);
            }
            while waiting.first_key_value().is_some_and(|((due, _), _)| *due <= Instant::now()) {
                if let Some((_, datagram)) = waiting.pop_first() {
                    self.pass(&datagram, way);
                }
            }
        }
    }

    fn treat(
        &self,
        datagram: &mut [u8],
        way: Way,
        waiting: &mut BTreeMap<(Instant, u64), Vec<u8>>,
        busy: &mut Instant,
    ) {
        if let Some(kept) = locked(&self.record).as_mut() {
            kept.push((way, datagram.to_vec()));
        }
        let mess = *locked(&self.mess);
        if mess.only.is_some_and(|only| datagram.first() != Some(&only)) {
            return self.pass(datagram, way);
        }
        let now = Instant::now();
        let too_large = mess.mtu.is_some_and(|mtu| datagram.len() > mtu);
        let queued = mess.rate.is_some() && *busy > now + QUEUE;
        let lost = || self.lost[way as usize].fetch_add(1, Ordering::Relaxed);
        if self.happens(mess.loss) || mess.dead == Some(way) || too_large || queued {
            lost();
            return;
        }
        if self.happens(mess.corruption)
            && let Some(place) = datagram.len().checked_sub(20)
        {
            datagram[place] ^= 1;
            lost();
        }
        let mut length = datagram.len();
        if length > 0 && self.happens(mess.truncation) {
            length = self.draw(length as u64) as usize;
            lost();
        }
        let mut due = now;
        if let Some(rate) = mess.rate {
            *busy = (*busy).max(now) + Duration::from_secs_f64(length as f64 / rate as f64);
            due = *busy;
        }
        for _ in 0..1 + u8::from(self.happens(mess.duplication)) {
            let mut due = due;
            if self.happens(mess.reordering) {
                due += mess.delay.mul_f64(self.draw(1000) as f64 / 1000.0);
            }
            if !mess.jitter.is_zero() {
                due += mess.jitter.mul_f64(self.draw(1000) as f64 / 1000.0);
            }
            if due > now {
                waiting.insert((due, self.draw(u64::MAX)), datagram[..length].to_vec());
            } else {
                self.pass(&datagram[..length], way);
            }
        }
    }

    fn pass(&self, datagram: &[u8], way: Way) {
        let sent = match way {
            Way::There => locked(&self.back).clone().send_to(datagram, self.target),
            Way::Back => match *locked(&self.client) {
                Some(client) => self.front.send_to(datagram, client),
                None => return,
            },
        };
        // A full buffer or a port unreachable is one more loss.
        if sent.is_ok() {
            self.forwarded.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn happens(&self, percent: u8) -> bool {
        self.draw(100) < u64::from(percent)
    }

    /// splitmix64
    fn draw(&self, below: u64) -> u64 {
        let mut state = locked(&self.random);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn prepared(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a time-out can be set");
    force_receive_buffer(socket.as_fd(), BUFFER).expect("root may have a large buffer");
    socket
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
