//! A UDP relay between two ends, in user space, that can lose, double, damage and delay datagrams, and whose
//! far side can move to another port as a NAT's does. All chance is drawn from a seed.
#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use vpnd::lab::Host;

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
    over: AtomicBool,
}

#[derive(Clone, Copy)]
enum Way {
    There,
    Back,
}

impl Relay {
    /// Listens on `host` at `front`, and passes on to `target` from a port of its own at the same address.
    pub fn start(host: &Host, front: SocketAddr, target: SocketAddr, seed: u64) -> Self {
        let bind = |address| {
            let socket = host.run(|| UdpSocket::bind(address)).expect("the relay's address is free");
            socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a time-out can be set");
            socket
        };
        let shared = Arc::new(Shared {
            front: bind(front),
            back: Mutex::new(Arc::new(bind(SocketAddr::new(front.ip(), 0)))),
            target,
            client: Mutex::new(None),
            mess: Mutex::new(Mess::default()),
            random: Mutex::new(seed),
            forwarded: AtomicU64::new(0),
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
        socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a time-out can be set");
        *locked(&self.shared.back) = Arc::new(socket);
        self.far_address()
    }

    /// What the target sees as the first end's address.
    pub fn far_address(&self) -> SocketAddr {
        locked(&self.shared.back).local_addr().expect("it is bound")
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
                self.treat(&mut buffer[..length], way, &mut waiting);
            }
            while waiting.first_key_value().is_some_and(|((due, _), _)| *due <= Instant::now()) {
                if let Some((_, datagram)) = waiting.pop_first() {
                    self.pass(&datagram, way);
                }
            }
        }
    }

    fn treat(&self, datagram: &mut [u8], way: Way, waiting: &mut BTreeMap<(Instant, u64), Vec<u8>>) {
        let mess = *locked(&self.mess);
        if mess.only.is_some_and(|only| datagram.first() != Some(&only)) {
            return self.pass(datagram, way);
        }
        if self.happens(mess.loss) {
            return;
        }
        if self.happens(mess.corruption)
            && let Some(place) = datagram.len().checked_sub(20)
        {
            datagram[place] ^= 1;
        }
        for _ in 0..1 + u8::from(self.happens(mess.duplication)) {
            if self.happens(mess.reordering) {
                let delay = mess.delay.mul_f64(self.draw(1000) as f64 / 1000.0);
                waiting.insert((Instant::now() + delay, self.draw(u64::MAX)), datagram.to_vec());
            } else {
                self.pass(datagram, way);
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
