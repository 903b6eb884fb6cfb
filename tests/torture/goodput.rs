//! What a living peer gets through while something else happens: one TCP stream, as fast as it goes.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use vpnd::lab::Namespace;

/// A stream that runs until it is dropped.
pub struct Stream {
    arrived: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// From a host to this address of another.
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let listener = to.run(|| TcpListener::bind((address, 0))).expect("the address can be bound");
        let port = listener.local_addr().expect("it is bound").port();
        let target = SocketAddr::new(address, port);
        let limit = Duration::from_secs(10);
        let mut sender =
            from.run(|| TcpStream::connect_timeout(&target, limit)).expect("the peer can be reached");
        let (mut receiver, _) = listener.accept().expect("it waits in the queue");
        sender.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out");
        receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
        let (arrived, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (until, count) = (over.clone(), arrived.clone());
        let sending = thread::spawn(move || {
            let bytes = vec![0x5a; 64 << 10];
            while !until.load(Ordering::Relaxed) {
                let _ = sender.write(&bytes); // a time-out: it is asked again
            }
        });
        let until = over.clone();
        let receiving = thread::spawn(move || {
            let mut bytes = vec![0; 256 << 10];
            while !until.load(Ordering::Relaxed) {
                if let Ok(length) = receiver.read(&mut bytes) {
                    count.fetch_add(length as u64, Ordering::Relaxed);
                }
            }
        });
        Self { arrived, over, threads: vec![sending, receiving] }
    }

    /// Bytes a second in the time to come.
    pub fn over(&self, time: Duration) -> f64 {
        let (begin, before) = (Instant::now(), self.arrived.load(Ordering::Relaxed));
        thread::sleep(time);
        (self.arrived.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The middle one.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
