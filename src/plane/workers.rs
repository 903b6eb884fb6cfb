//! The data threads, and their life: start, rebind, stop. A panic in one ends the process (the daemon sees it through
//! [`Plane::failed`]).

use std::{
    any::Any,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use super::{
    TunDevice, UdpSockets, asker, both,
    errors::Errors,
    inbound, outbound,
    pulse::{Beat, Pulse},
    relief,
    rest::insist,
    shared::Shared,
    udp::Sent,
};
use crate::{
    forward::{Evidence, Forward, Refusal},
    sys::{sandbox, schedule},
    tunnel::Transmit,
};

/// What the loops need to know of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneSettings {
    /// Its MTU.
    pub mtu: u16,
    /// The MTUs below it that routes to the device name; ascending.
    pub route_mtus: Vec<u16>,
    /// Is the MSS of TCP lowered to what the MTU carries?
    pub clamp_mss: bool,
}

impl PlaneSettings {
    /// Where no route names an MTU.
    pub fn new(mtu: u16) -> Self {
        Self { mtu, route_mtus: Vec::new(), clamp_mss: true }
    }

    /// What the MSS is lowered to.
    fn mss_bound(&self) -> Option<u16> {
        self.clamp_mss.then_some(self.mtu)
    }

    /// What bounds the padding of a packet of `len` bytes. By which route it came into the device cannot be
    /// seen; but a packet that is no larger than some route's MTU is not padded beyond that either, so that
    /// whichever route it was, its MTU holds.
    pub(super) fn padding_bound(&self, len: usize) -> usize {
        let smaller = self.route_mtus.partition_point(|mtu| usize::from(*mtu) < len);
        self.route_mtus.get(smaller).copied().unwrap_or(self.mtu).into()
    }
}

/// How many data threads there are; `workers` in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// One thread for both directions; where there is a second core, another that relieves it while there is much to
    /// do. On four cores and more, two for each direction.
    #[default]
    Auto,
    /// So many for each direction.
    EachWay(NonZeroUsize),
}

impl Workers {
    /// The threads to start: their names, and what they run.
    fn threads(self, cores: usize) -> Vec<(String, Run)> {
        let each_way = match (self, cores) {
            (Self::Auto, 0 | 1) => return vec![("vpnd-data".to_owned(), both::run)],
            (Self::Auto, 2 | 3) => {
                return vec![("vpnd-data".to_owned(), both::run), ("vpnd-relief".to_owned(), relief::run)];
            }
            (Self::Auto, _) => 2,
            (Self::EachWay(workers), _) => workers.get(),
        };
        let name = |kind: &str, n: usize| if each_way == 1 { kind.to_owned() } else { format!("{kind}-{n}") };
        let pair = |n| [(name("vpnd-out", n), outbound::run as Run), (name("vpnd-in", n), inbound::run)];
        (0..each_way).flat_map(pair).collect()
    }
}

/// How data threads are made: `workers` and `nice` in the file, and what they may do.
#[derive(Debug, Default)]
pub struct Threads {
    /// How many.
    pub workers: Workers,
    /// -20 to 19, as nice(1) counts. `None`: -10 where the kernel grants it.
    pub nice: Option<i8>,
    /// What ICMP errors leave by; `None`: it is opened at the start.
    pub errors: Option<Errors>,
    /// They give up each system call that the walk does not need.
    pub confined: bool,
}

/// Before ordinary programs, as the kernel's own packets are: on a machine whose cores are all busy that was worth a
/// sixth of a TCP stream's speed.
pub const NICE: i8 = -10;

/// What a data thread runs until it is stopped.
type Run = fn(&Shared, &Pulse) -> Result<(), Fatal>;

/// Why the loops cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fatal {
    /// The TUN device is gone (EBADFD, POLLERR).
    #[error("the TUN device is gone: {0}")]
    TunGone(String),
    /// A data thread panicked.
    #[error("a data thread panicked: {0}")]
    Panicked(String),
}

/// The running data threads. Dropping it stops them.
pub struct Plane {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    pulses: Vec<(String, Arc<Pulse>)>,
}

impl Plane {
    /// Starts them, in the network namespace of the calling thread.
    pub fn start(
        forward: Arc<Forward>,
        tun: TunDevice,
        sockets: UdpSockets,
        settings: PlaneSettings,
        Threads { workers, nice, errors, confined }: Threads,
    ) -> io::Result<Self> {
        let sockets = sockets.with(tun.offload());
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = workers.threads(cores);
        forward.mss.set(settings.mss_bound());
        let errors = errors.unwrap_or_else(Errors::open);
        let shared = Arc::new(Shared::new(forward, tun, sockets, settings, errors, threads.len())?);
        // If a later thread cannot be started, dropping this stops the earlier ones.
        let mut plane = Self { shared, threads: Vec::with_capacity(threads.len()), pulses: Vec::new() };
        for (name, run) in threads {
            let first = plane.threads.is_empty();
            plane.spawn(name, first, (nice, confined), run)?;
        }
        plane.spawn_asker(confined)?;
        plane.tell();
        Ok(plane)
    }

    /// What is in force, after all that the kernel left out.
    fn tell(&self) {
        let (merge, sockets) = (self.shared.tun.merge(), self.shared.sockets.load());
        tracing::info!(
            tso = merge.tcp,
            uso = merge.udp,
            udp_segment = sockets.segments(),
            udp_gro = sockets.gathers(),
            workers = self.shared.workers(),
            threads = self.pulses.len(),
            "offloads"
        );
    }

    fn spawn(
        &mut self,
        name: String,
        first: bool,
        (nice, confined): (Option<i8>, bool),
        run: Run,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let builder = thread::Builder::new().name(name.clone());
        let (own_name, pulse) = (name.clone(), Arc::new(Pulse::default()));
        self.pulses.push((name.clone(), Arc::clone(&pulse)));
        let thread = builder.spawn(move || {
            if let Err(denied) = take_place(nice)
                && first
            {
                denied.tell(nice.is_some());
            }
            if confined && let Err(absent) = sandbox::confine_data_thread() {
                tracing::warn!(%absent, "a data thread is not confined");
            }
            if let Some(fatal) = guarded(&own_name, || run(&shared, &pulse)) {
                shared.fail(fatal);
            }
        });
        self.started(thread, &name)
    }

    /// Who asks for cookies. Nobody counts how long it takes: it may well be put aside.
    fn spawn_asker(&mut self, confined: bool) -> io::Result<()> {
        let (shared, name) = (Arc::clone(&self.shared), "vpnd-cookies");
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Where it cannot be later than others, it is as they are.
            let _ = schedule::batch(schedule::nice().max(asker::NICE));
            if confined && let Err(absent) = sandbox::confine_data_thread() {
                tracing::warn!(%absent, "the thread that asks for cookies is not confined");
            }
            let run = || {
                asker::run(&shared);
                Ok(())
            };
            if let Some(fatal) = guarded(name, run) {
                shared.fail(fatal);
            }
        });
        self.started(thread, name)?;
        let wake = Arc::clone(&self.shared.asking);
        self.shared.forward.handshakes.asking.serve(Box::new(move || wake.signal()));
        Ok(())
    }

    fn started(&mut self, thread: io::Result<JoinHandle<()>>, name: &str) -> io::Result<()> {
        let explained = |error: io::Error| {
            io::Error::new(error.kind(), format!("starting the data thread {name}: {error}"))
        };
        self.threads.push(thread.map_err(explained)?);
        Ok(())
    }

    /// Sends what the upper half wants to send (handshakes, keepalives, staged data). A failure is already
    /// counted ([`crate::forward::Refusal::SendFailed`]); on [`Sent::LocalGone`] the caller has the peer forget
    /// its local address. May wait 10 ms for room in the socket's buffer.
    pub fn send(&self, transmit: &Transmit) -> io::Result<Sent> {
        let about = || Evidence { peer: transmit.peer, ..Evidence::default() };
        let Transmit { to, outer, datagram, .. } = transmit;
        self.shared.send(to, *outer, datagram, about, self.shared.clock.boot())
    }

    /// Binds another port (0: any) with this mark, and swaps the sockets under the running loops. On an error
    /// the old sockets stay. The port in use stays bound and only gets the mark.
    pub fn rebind(&self, port: u16, fwmark: u32) -> io::Result<()> {
        if port == self.port() {
            return self.set_mark(fwmark);
        }
        self.adopt(Arc::new(self.bind(port, fwmark)?));
        Ok(())
    }

    /// Sockets on another port, that nobody uses yet.
    pub fn bind(&self, port: u16, fwmark: u32) -> io::Result<UdpSockets> {
        Ok(UdpSockets::bind(port, fwmark)?.with(self.shared.tun.offload()))
    }

    /// Swaps the sockets under the running loops.
    pub fn adopt(&self, sockets: Arc<UdpSockets>) {
        self.count_drops();
        self.shared.sockets.store(sockets);
        insist(&self.shared.inbound.wake);
    }

    /// Counts what the kernel dropped before we saw it ([`Refusal::ReceiveBufferFull`]); to be called before the
    /// refusals are read.
    pub fn count_drops(&self) {
        let dropped = self.shared.sockets.load().newly_dropped();
        self.shared.forward.refusals.add(Refusal::ReceiveBufferFull, dropped);
    }

    /// A look at each data thread, with its name; for a watchdog. It costs them nothing.
    pub fn beats(&self) -> impl Iterator<Item = (&str, Beat)> {
        self.pulses.iter().map(|(name, pulse)| (name.as_str(), pulse.look()))
    }

    /// The device.
    pub fn tun(&self) -> &TunDevice {
        &self.shared.tun
    }

    /// The sockets in use.
    pub fn sockets(&self) -> Arc<UdpSockets> {
        self.shared.sockets.load_full()
    }

    /// The port in use.
    pub fn port(&self) -> u16 {
        self.shared.sockets.load().port()
    }

    /// SO_MARK.
    pub fn set_mark(&self, fwmark: u32) -> io::Result<()> {
        self.shared.sockets.load().set_mark(fwmark)
    }

    /// Other MTUs bound padding and segments from now on.
    pub fn set(&self, settings: PlaneSettings) {
        self.shared.forward.mss.set(settings.mss_bound());
        self.shared.settings.store(Arc::new(settings));
    }

    /// Resolves when a loop cannot go on; both have ended then, or are about to.
    pub async fn failed(&self) -> Fatal {
        self.shared.failed().await
    }

    /// Stops and joins the threads; the device vanishes with them.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // It never panics: a panic inside was caught and reported.
            let _ = thread.join();
        }
    }
}

/// The kernel did not grant the nice value.
struct Denied {
    wanted: i8,
    error: io::Error,
}

impl Denied {
    /// A wish of the file is worth a warning.
    fn tell(&self, asked: bool) {
        let (Self { wanted, error }, nice) = (self, schedule::nice());
        if asked {
            tracing::warn!(wanted, nice, %error, "interface.nice: needs CAP_SYS_NICE, or an RLIMIT_NICE that allows it");
        } else {
            tracing::info!(wanted, nice, %error, "the data threads keep their nice value");
        }
    }
}

/// Of the calling thread. What it was given from outside is kept where that is as good, or cannot be changed.
fn take_place(nice: Option<i8>) -> Result<(), Denied> {
    let given = schedule::nice();
    let wanted = nice.unwrap_or(given.min(NICE));
    schedule::batch(wanted).or_else(|error| {
        // A service manager may have set it before it forbade it.
        let _ = schedule::batch(given);
        if given == wanted { Ok(()) } else { Err(Denied { wanted, error }) }
    })
}

/// The top of a data thread: nothing that happens below is lost. `None`: it was stopped.
fn guarded(name: &str, run: impl FnOnce() -> Result<(), Fatal>) -> Option<Fatal> {
    // After a panic nothing looks at what the loop may have left half done.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.err(),
        Err(panic) => Some(Fatal::Panicked(format!("{name}: {}", message(&*panic)))),
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_carries_no_packet_over_the_mtu_of_any_route() {
        let settings = PlaneSettings { route_mtus: vec![1280, 1299], ..PlaneSettings::new(1420) };
        let bounds = [0, 1280, 1281, 1299, 1300, 1420, 9000].map(|len| settings.padding_bound(len));
        assert_eq!(bounds, [1280, 1280, 1299, 1299, 1420, 1420, 1420]);
        assert_eq!(PlaneSettings::new(1420).padding_bound(7), 1420);
    }

    #[test]
    fn a_panic_in_a_data_thread_is_reported_with_its_words_and_its_thread() {
        let said = |run: fn() -> Result<(), Fatal>| guarded("vpnd-out", run).map(|fatal| fatal.to_string());
        let number = || panic!("index {} is out of range", std::hint::black_box(7));
        assert_eq!(said(|| panic!("oh")).as_deref(), Some("a data thread panicked: vpnd-out: oh"));
        assert_eq!(said(number).unwrap(), "a data thread panicked: vpnd-out: index 7 is out of range");
        assert_eq!(
            said(|| std::panic::panic_any(7)).unwrap(),
            "a data thread panicked: vpnd-out: no message"
        );
    }

    #[test]
    fn a_loop_that_was_stopped_is_no_failure_and_one_that_gave_up_is() {
        assert!(guarded("vpnd-in", || Ok(())).is_none());
        let gone = guarded("vpnd-in", || Err(Fatal::TunGone("vpn0".into())));
        assert!(matches!(gone, Some(Fatal::TunGone(device)) if device == "vpn0"));
    }
}
