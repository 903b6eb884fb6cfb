//! Packets that vpnd carries as a pcapng file: the packet inside the tunnel on one interface, the carrier on another,
//! and comments that join them. Pure: what a trace tells goes in, bytes come out.

mod carrier;
pub mod pcapng;
mod recent; // handshakes that a new file of a ring has to begin with
mod words; // comments

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use crate::trace::{Direction, Handshake, Seen, Vpnd};
use pcapng::{Interface, Packet, Statistics, Way};
use recent::Recent;

const INNER: u32 = 0;
const OUTER: u32 = 1;
/// Before what was cut off of a carrier.
const HEADERS: u32 = 48;
/// Super-packets that threads seal at the same time.
const UNDER_WAY: usize = 64;

/// What the packets of the outer interface are.
const OUTER_IS: &str = "the datagrams that carry the packets of the other interface; their payload is what vpnd handed to the kernel or got \
     from it, their IP and UDP headers are made again from what vpnd knows (an address that it does not know is 0); with \
     the messages of handshakes, without keepalives";
const INNER_IS: &str = "packets in the tunnel, in the clear: as the TUN gave them, or as they were opened";

/// Where and when a capture began.
#[derive(Clone, Debug)]
pub struct Began {
    /// Device.
    pub interface: String,
    /// Our UDP port.
    pub listen_port: u16,
    /// Boot time, in nanoseconds, …
    pub boot_ns: u64,
    /// … and wall time at the same moment.
    pub wall_ns: u64,
    /// Which packets were asked for; empty: all.
    pub filter: String,
    /// Bytes kept of each.
    pub snap: u32,
}

/// Makes one file, or several, of what it is told.
pub struct Recorder {
    began: Began,
    /// Frames in this file so far.
    frames: u64,
    /// Packets whose carriers are still being told: session, counters, and their frame in this file.
    under_way: VecDeque<(u32, Range<u64>, u64)>,
    statistics: [Statistics; 2],
    handshakes: u64,
    recent: Recent,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets of the tunnel.
    pub packets: u64,
    /// What carried them.
    pub carriers: u64,
    /// Messages of handshakes.
    pub handshakes: u64,
    /// Packets that came too fast.
    pub lost: u64,
}

impl Recorder {
    /// Of nothing yet.
    pub fn new(began: Began) -> Self {
        let statistics =
            Statistics { began_ns: began.wall_ns, ended_ns: began.wall_ns, ..Statistics::default() };
        Self {
            began,
            frames: 0,
            under_way: VecDeque::new(),
            statistics: [statistics; 2],
            handshakes: 0,
            recent: Recent::default(),
        }
    }

    /// What a file begins with; frames count from 1 again. A file after the first repeats the handshakes of the sessions
    /// that may still be in use, so that it can be read without those before it.
    pub fn header(&mut self) -> Vec<u8> {
        self.frames = 0;
        self.under_way.clear();
        let (name, filter) = (&self.began.interface, &*self.began.filter);
        let outer = format!("{name}-carrier");
        let snap = self.began.snap;
        let interfaces = [
            Interface { name, description: INNER_IS, filter, snap },
            Interface { name: &outer, description: OUTER_IS, filter, snap: snap.saturating_add(HEADERS) },
        ];
        let mut bytes: Vec<u8> = [pcapng::section()]
            .into_iter()
            .chain(interfaces.iter().map(pcapng::interface))
            .flatten()
            .collect();
        let recent = std::mem::take(&mut self.recent);
        for (handshake, ours) in recent.iter() {
            bytes.extend(self.message(handshake, *ours, true));
        }
        self.recent = recent;
        bytes
    }

    /// A message of a handshake, behind the keys that open it, where there are any.
    pub fn handshake(&mut self, handshake: &Handshake, ours: Option<IpAddr>) -> Vec<u8> {
        self.handshakes += 1;
        self.recent.note(handshake, ours);
        self.message(handshake, ours, false)
    }

    fn message(&mut self, handshake: &Handshake, ours: Option<IpAddr>, again: bool) -> Vec<u8> {
        let mut bytes = match &handshake.secrets {
            Some(secrets) => pcapng::wireguard_secrets(secrets.expose()),
            None => Vec::new(),
        };
        let way = match handshake.way {
            Direction::Out => Way::Out,
            Direction::In => Way::In,
        };
        let ends = (ours.or(handshake.local), Some(handshake.remote));
        let payload = (&*handshake.bytes, handshake.bytes.len());
        bytes.extend(self.carrier(payload, way, handshake.at_ns, ends, &words::handshake(handshake, again)));
        bytes
    }

    /// A packet, as it was seen. `ours`: our address towards the peer, as far as it is known.
    pub fn packet(&mut self, seen: &Seen, ours: Option<IpAddr>) -> Vec<u8> {
        match &seen.vpnd {
            Vpnd::Sealed(_) => self.sealed(seen, ours),
            Vpnd::Opened(_) => self.opened(seen, ours),
            Vpnd::Refused(refused) if refused.from.is_some() => self.opened(seen, ours),
            Vpnd::Refused(_) => self.inner(seen, Way::Out, seen.at_ns, &words::inner(seen, None)),
            // It waits, and is told again when it goes; or it is no packet at all.
            Vpnd::Staged { .. } | Vpnd::Owned { .. } => Vec::new(),
        }
    }

    /// So many that matched are not here, since they came too fast.
    pub fn lost(&mut self, count: u64) {
        for statistics in &mut self.statistics {
            statistics.dropped += count;
            statistics.received += count;
        }
    }

    /// What a file ends with, at this wall time.
    pub fn trailer(&self, now_ns: u64) -> Vec<u8> {
        let ended = |statistics: &Statistics| Statistics { ended_ns: now_ns, ..*statistics };
        [INNER, OUTER]
            .into_iter()
            .zip(&self.statistics)
            .flat_map(|(interface, statistics)| pcapng::statistics(interface, &ended(statistics)))
            .collect()
    }

    /// What was written, and what was lost.
    pub fn counts(&self) -> Counts {
        let [inner, outer] = self.statistics;
        Counts {
            packets: inner.received - inner.dropped,
            carriers: outer.received - outer.dropped,
            handshakes: self.handshakes,
            lost: inner.dropped,
        }
    }

    fn sealed(&mut self, seen: &Seen, ours: Option<IpAddr>) -> Vec<u8> {
        let Vpnd::Sealed(sealed) = &seen.vpnd else { return Vec::new() };
        let mut bytes = Vec::new();
        if seen.packet.is_some() {
            let frame = self.frames + 1;
            bytes = self.inner(seen, Way::Out, seen.at_ns, &words::inner(seen, Some(frame + 1)));
            let counters = sealed.counter..sealed.counter + sealed.segments;
            self.under_way.push_front((sealed.session, counters, frame));
            self.under_way.truncate(UNDER_WAY);
        }
        let inner = self
            .under_way
            .iter()
            .find(|(session, counters, _)| *session == sealed.session && counters.contains(&sealed.counter));
        let comment = words::outer(seen, inner.map(|(.., frame)| *frame));
        let peers = (ours.or(sealed.local), Some(sealed.endpoint));
        bytes.extend(self.outer(seen, Way::Out, seen.done_ns.unwrap_or(seen.at_ns), peers, &comment));
        bytes
    }

    fn opened(&mut self, seen: &Seen, ours: Option<IpAddr>) -> Vec<u8> {
        let from = match &seen.vpnd {
            Vpnd::Opened(opened) => Some(opened.from),
            Vpnd::Refused(refused) => refused.from,
            _ => None,
        };
        let frame = self.frames + 1;
        let is_readable = seen.packet.is_some();
        let comment = words::outer(seen, is_readable.then_some(frame + 1));
        let mut bytes = self.outer(seen, Way::In, seen.at_ns, (ours, from), &comment);
        if is_readable {
            let at_ns = seen.done_ns.unwrap_or(seen.at_ns);
            bytes.extend(self.inner(seen, Way::In, at_ns, &words::inner(seen, Some(frame))));
        }
        bytes
    }

    fn inner(&mut self, seen: &Seen, way: Way, at_ns: u64, comment: &str) -> Vec<u8> {
        let whole = seen.packet.as_ref().and_then(|packet| packet.bytes).unwrap_or(0) as u32;
        self.statistics[INNER as usize].received += 1;
        self.write(INNER, at_ns, &seen.inner, whole, way, comment)
    }

    fn outer(
        &mut self,
        seen: &Seen,
        way: Way,
        at_ns: u64,
        ends: (Option<IpAddr>, Option<SocketAddr>),
        comment: &str,
    ) -> Vec<u8> {
        let whole = match &seen.vpnd {
            Vpnd::Sealed(sealed) => sealed.datagram_bytes as usize,
            Vpnd::Opened(opened) => opened.datagram_bytes as usize,
            _ => seen.outer.len(),
        };
        let bytes = self.carrier((&seen.outer, whole), way, at_ns, ends, comment);
        self.statistics[OUTER as usize].received += 1;
        bytes
    }

    /// A datagram between our address and theirs: what was kept of its payload, and how long that was.
    fn carrier(
        &mut self,
        (payload, whole): (&[u8], usize),
        way: Way,
        at_ns: u64,
        (ours, theirs): (Option<IpAddr>, Option<SocketAddr>),
        comment: &str,
    ) -> Vec<u8> {
        let is_v6 = theirs.is_some_and(|theirs| theirs.is_ipv6());
        let unknown: IpAddr = if is_v6 { [0; 16].into() } else { [0; 4].into() };
        let ours = ours.filter(|ours| ours.is_ipv6() == is_v6).unwrap_or(unknown);
        let ours = SocketAddr::new(ours, self.began.listen_port);
        let theirs = theirs.unwrap_or(SocketAddr::new(unknown, 0));
        let (source, destination) = if way == Way::Out { (ours, theirs) } else { (theirs, ours) };
        let (packet, whole) = carrier::packet(source, destination, payload, whole);
        self.write(OUTER, at_ns, &packet, whole, way, comment)
    }

    fn write(
        &mut self,
        interface: u32,
        at_ns: u64,
        bytes: &[u8],
        whole: u32,
        way: Way,
        comment: &str,
    ) -> Vec<u8> {
        self.frames += 1;
        let at_ns = self.began.wall_ns.saturating_add(at_ns).saturating_sub(self.began.boot_ns);
        pcapng::packet(&Packet { interface, at_ns, bytes, whole, way, comment })
    }
}

#[cfg(test)]
mod tests;
