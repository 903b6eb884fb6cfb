//! Packets that vpnd carries as a pcapng file: the packet inside the tunnel on one interface, the carrier on another,
//! and comments that join them. Pure: what a trace tells goes in, bytes come out.

mod carrier;
pub mod pcapng;
mod words; // comments

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use crate::trace::{Seen, Vpnd};
use pcapng::{Interface, Packet, Statistics, Way};

const INNER: u32 = 0;
const OUTER: u32 = 1;
/// Before what was cut off of a carrier.
const HEADERS: u32 = 48;
/// Super-packets that threads seal at the same time.
const UNDER_WAY: usize = 64;

/// What the packets of the outer interface are.
const OUTER_IS: &str = "the datagrams that carry the packets of the other interface; their payload is what vpnd handed to the kernel or got \
     from it, their IP and UDP headers are made again from what vpnd knows (an address that it does not know is 0); data \
     alone, no handshakes";
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
}

impl Recorder {
    /// Of nothing yet.
    pub fn new(began: Began) -> Self {
        let statistics =
            Statistics { began_ns: began.wall_ns, ended_ns: began.wall_ns, ..Statistics::default() };
        Self { began, frames: 0, under_way: VecDeque::new(), statistics: [statistics; 2] }
    }

    /// What a file begins with; frames count from 1 again.
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
        [pcapng::section()].into_iter().chain(interfaces.iter().map(pcapng::interface)).flatten().collect()
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

    /// Packets of each interface that were written, and those that were lost.
    pub fn counts(&self) -> [u64; 3] {
        let [inner, outer] = self.statistics;
        [inner.received - inner.dropped, outer.received - outer.dropped, inner.dropped]
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
        self.write(INNER, at_ns, &seen.inner, whole, way, comment)
    }

    fn outer(
        &mut self,
        seen: &Seen,
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
        let whole = match &seen.vpnd {
            Vpnd::Sealed(sealed) => sealed.datagram_bytes as usize,
            Vpnd::Opened(opened) => opened.datagram_bytes as usize,
            _ => seen.outer.len(),
        };
        let (packet, whole) = carrier::packet(source, destination, &seen.outer, whole);
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
        self.statistics[interface as usize].received += 1;
        let at_ns = self.began.wall_ns.saturating_add(at_ns).saturating_sub(self.began.boot_ns);
        pcapng::packet(&Packet { interface, at_ns, bytes, whole, way, comment })
    }
}

#[cfg(test)]
mod tests;
