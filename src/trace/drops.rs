//! What the kernel does with its buffers, by its tracepoints: it receives a packet, queues it at a device, gives it up, and
//! why; and what it says of neighbours that packets wait for. None of it shows what is in a packet: so the one that died is
//! known by device, length and time. Where more than one fits, nobody is believed.

use std::{net::IpAddr, ops::RangeInclusive};

use super::{Clock, Direction, Draft, Outcome, Page, Place, Station};

/// Between the stamp on a packet and the kernel's word that it came: the core may have had something else to do.
const EARLIER_NS: u64 = 1_000_000;
const LATER_NS: u64 = 50_000_000;

/// One thing that the kernel did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When (CLOCK_BOOTTIME, nanoseconds).
    pub at_ns: u64,
    /// On which core.
    pub core: u32,
    /// With which buffer: a name that is used again. Of neighbours none is told.
    pub buffer: Option<String>,
    /// What.
    pub deed: Deed,
}

/// What the kernel did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It received a packet.
    Received {
        /// By this device.
        device: String,
        /// So long, from the IP header on.
        bytes: u64,
    },
    /// It has a packet that is to leave.
    Queued {
        /// By this device.
        device: String,
        /// So long, with the header of the link.
        bytes: u64,
    },
    /// The device's driver took it.
    Taken,
    /// It gave one up.
    Dropped {
        /// The reason, without its prefix.
        reason: String,
        /// The function that did it.
        by: String,
    },
    /// A packet waits until this neighbour has said its address on the link.
    Waits(Neighbour),
    /// Somebody told the kernel about that neighbour: mostly itself, and what waited goes on.
    Updated(Neighbour),
    /// That neighbour did not answer: what waited for it was given up before this was told.
    Failed(Neighbour),
}

/// A host on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Behind this device.
    pub device: String,
    /// Its address.
    pub address: IpAddr,
    /// When it was last known to be there, in the kernel's ticks: in another network namespace there may be one of the same
    /// name.
    pub confirmed: u64,
}

/// Steps in the order of their times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// All of them from a moment on.
    pub steps: Vec<Step>,
    /// That moment: what was before may be missing.
    pub since_ns: u64,
}

/// What was told of packets that came by a device, and of those that were to leave by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// [`Deed::Received`], [`Deed::Dropped`].
    pub came: Watched,
    /// All the others, and [`Deed::Dropped`].
    pub left: Watched,
}

impl Step {
    /// A line of the kernel's trace; `None`: it says something else.
    pub fn read(line: &str) -> Option<Self> {
        let (head, told) = line.split_once(": ")?;
        let core = head.rsplit_once('[')?.1.split_once(']')?.0.parse().ok()?;
        let at = head.split_whitespace().last()?;
        let (seconds, parts) = at.split_once('.')?;
        let micros: u64 = parts.parse().ok().filter(|_| parts.len() == 6)?;
        let at_ns = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(micros * 1000)?;
        let (name, fields) = told.split_once(": ")?;
        let field = |name: &str| fields.split_whitespace().find_map(|field| field.strip_prefix(name));
        let (device, bytes) = (|| field("dev=").map(str::to_owned), || field("len=")?.parse().ok());
        let deed = match name {
            "netif_receive_skb" => Deed::Received { device: device()?, bytes: bytes()? },
            "net_dev_queue" => Deed::Queued { device: device()?, bytes: bytes()? },
            "net_dev_xmit" if field("rc=")? == "0" => Deed::Taken,
            "kfree_skb" => {
                let by = field("location=")?.split('+').next()?.to_owned();
                Deed::Dropped { reason: fields.split_once("reason: ")?.1.trim().to_owned(), by }
            }
            _ => return Some(Self { at_ns, core, buffer: None, deed: of_a_neighbour(name, fields)? }),
        };
        Some(Self { at_ns, core, buffer: Some(field("skbaddr=")?.to_owned()), deed })
    }
}

/// Its fields are names and values by turns.
fn of_a_neighbour(name: &str, fields: &str) -> Option<Deed> {
    let field = |name: &str| {
        let mut words = fields.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()
    };
    let key = match field("family")? {
        "2" => "primary_key4",
        "10" => "primary_key6",
        _ => return None,
    };
    let neighbour = Neighbour {
        device: field("dev")?.to_owned(),
        address: field(key)?.parse().ok()?,
        confirmed: field("confirmed")?.parse().ok()?,
    };
    match (name, field("nud_state")?) {
        ("neigh_event_send_done", "incomplete") if field("err")? == "1" => Some(Deed::Waits(neighbour)),
        ("neigh_timer_handler", "failed") => Some(Deed::Failed(neighbour)),
        ("neigh_update", "incomplete") => Some(Deed::Updated(neighbour)),
        _ => None,
    }
}

impl Watched {
    /// The only step of that kind in that time, and what was done with its buffer behind it.
    pub(super) fn the_one(
        &self,
        span: &RangeInclusive<u64>,
        deed: &Deed,
    ) -> Option<(&Step, impl Iterator<Item = &Step>)> {
        if *span.start() < self.since_ns {
            return None;
        }
        let mut ones = self.within(span).filter(|(_, step)| step.deed == *deed);
        let (at, one) = ones.next().filter(|_| ones.next().is_none())?;
        Some((one, self.steps[at + 1..].iter().filter(|step| step.buffer == one.buffer)))
    }

    /// The steps of that time, and where they stand.
    pub(super) fn within(&self, span: &RangeInclusive<u64>) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().filter(|(_, step)| span.contains(&step.at_ns))
    }

    /// Reason and function for the packet that a packet socket saw come by this device: if it can be no other.
    fn reason_of(&self, device: &str, bytes: u64, at_ns: u64) -> Option<(String, String)> {
        let span = at_ns.saturating_sub(EARLIER_NS)..=at_ns.saturating_add(LATER_NS);
        let received = Deed::Received { device: device.to_owned(), bytes };
        // Was its buffer received again, its end was not told.
        match &self.the_one(&span, &received)?.1.next()?.deed {
            Deed::Dropped { reason, by } => Some((reason.clone(), by.clone())),
            _ => None,
        }
    }
}

impl Draft {
    /// The kernel's reason for the death that this page ends with, where it can be had.
    pub(super) fn find_reason(&mut self, steps: &Steps) {
        let page = &mut self.page;
        let Outcome::Died(death) = &mut page.outcome else { return };
        let Some(before) = page.stations.get(..=death.station) else { return };
        let Some(died) = before.last() else { return };
        // The device by which it had come to the place where it died.
        let came = |station: &&Station| {
            (station.place, station.direction, station.walk) == (Place::Device, Direction::In, died.walk)
        };
        let came = before.iter().rev().find(came).filter(|station| station.clock == Some(Clock::Kernel));
        let seen = came.and_then(|came| {
            Some((came.device.clone()?, came.packet.as_ref()?.bytes?, (came.at_us? * 1e3).max(0.0) as u64))
        });
        let Some((device, bytes, at_ns)) = seen.filter(|_| death.drop_reason.is_none()) else { return };
        let at_ns = self.began_ns.saturating_add(at_ns);
        let Some((reason, by)) = steps.came.reason_of(&device, bytes, at_ns) else {
            if at_ns.saturating_sub(EARLIER_NS) < steps.came.since_ns {
                page.note_a_loss();
            }
            return;
        };
        page.stations[death.station].facts.push(format!(
            "the kernel gave it up in {by} (skb:kfree_skb): known as the only packet of {bytes} bytes that came by {device} \
             then"
        ));
        death.drop_reason = Some(format!("SKB_DROP_REASON_{reason}"));
    }
}

impl Page {
    /// Of what was not told whole nothing can be said to be the only one.
    pub(super) fn note_a_loss(&mut self) {
        let note = "so many packets were under way that the kernel's account of what it dropped is not whole: its reason is \
                    not told";
        if !self.notes.iter().any(|other| other == note) {
            self.notes.push(note.to_owned());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const RECEIVED: &str = "       vpnd-data-28679   [001] b.... 15436.525551: netif_receive_skb: dev=vpn0 skbaddr=00000000e7ed19ee len=928";
    const DROPPED: &str = "  vpnd-data-2 [001] b.... 15436.525562: kfree_skb: skbaddr=00000000e7ed19ee rx_sk=0000000000000000 \
                           protocol=2048 location=__udp4_lib_rcv+0x4bc/0xd00 reason: NO_SOCKET";

    /// All that these lines say.
    pub(in crate::trace) fn watched(lines: &[&str]) -> Watched {
        Watched { steps: lines.iter().filter_map(|line| Step::read(line)).collect(), since_ns: 0 }
    }

    /// 11 µs before it was received.
    const AT: u64 = 15_436_525_540_000;

    #[test]
    fn the_one_that_came_then_has_the_reason_of_its_buffer() {
        let told = watched(&[RECEIVED, DROPPED]).reason_of("vpn0", 928, AT);
        assert_eq!(told, Some(("NO_SOCKET".to_owned(), "__udp4_lib_rcv".to_owned())));
        for (device, bytes, at_ns) in [
            ("vpn1", 928, AT),
            ("vpn0", 927, AT),
            ("vpn0", 928, AT + 2_000_000),
            ("vpn0", 928, AT - 60_000_000),
        ] {
            let told = watched(&[RECEIVED, DROPPED]).reason_of(device, bytes, at_ns);
            assert_eq!(told, None, "{device} {bytes} {at_ns}");
        }
    }

    #[test]
    fn where_two_fit_or_the_buffer_was_used_again_nobody_is_believed() {
        let reason = |lines: &[&str]| watched(lines).reason_of("vpn0", 928, AT);
        let other = RECEIVED.replace("e7ed19ee", "e7ed1900");
        assert_eq!(reason(&[RECEIVED, &other, DROPPED]), None);
        let again = RECEIVED.replace("len=928", "len=60");
        assert_eq!(reason(&[RECEIVED, &again, DROPPED]), None);
        assert_eq!(reason(&[RECEIVED]), None, "it went on");
    }

    #[test]
    fn where_something_may_be_missing_nobody_is_the_only_one() {
        let told =
            |since_ns| Watched { since_ns, ..watched(&[RECEIVED, DROPPED]) }.reason_of("vpn0", 928, AT);
        assert!(told(AT - EARLIER_NS).is_some());
        assert_eq!(told(AT - EARLIER_NS + 1), None);
    }

    #[test]
    fn lines_of_devices_and_neighbours_are_read_as_the_kernel_writes_them() {
        let read = |line: &str| Step::read(line).unwrap_or_else(|| panic!("{line}")).deed;
        let queued = " kworker/u8:0-22125   [001] b.... 23689.104632: net_dev_queue: dev=xtun skbaddr=00000000bf3301bd len=733";
        assert_eq!(read(queued), Deed::Queued { device: "xtun".to_owned(), bytes: 733 });
        assert_eq!(Step::read(queued).unwrap().core, 1);
        let taken = "lto cgu.0.rcgu.-28540 [001] b..1. 23688.883609: net_dev_xmit: dev=xtun skbaddr=0000000028227d85 len=48 rc=0";
        assert_eq!(read(taken), Deed::Taken);
        assert_eq!(Step::read(&taken.replace("rc=0", "rc=1")), None, "the driver gave it up");
        assert_eq!(Step::read(&taken.replace("rc=0", "rc=16")), None, "the driver was busy");
        let neighbour = |text: &str, confirmed| {
            let address = text.parse().unwrap();
            Neighbour { device: "xq7".to_owned(), address, confirmed }
        };
        assert_eq!(read(WAITS), Deed::Waits(neighbour("192.0.2.9", 4_300_798_249)));
        assert_eq!(Step::read(&WAITS.replace("incomplete", "delay")), None, "it went on");
        assert_eq!(read(FAILED), Deed::Failed(neighbour("fd00::9", 4_300_751_599)));
        assert_eq!(Step::read(&FAILED.replace("failed", "incomplete")), None, "it is asked again");
        let updated = "ping-26296 [001] ..s1. 23687.717734: neigh_update: family 2 dev xq7 lladdr 000000000000 flags 00 \
                       nud_state incomplete type 01 dead 0 refcnt 3 primary_key4 192.0.2.2 primary_key6 ::ffff:192.0.2.2 \
                       confirmed 4300799164 updated 4300814164 used 4300814164 new_lladdr a664c0b8bd2c new_state reachable \
                       update_flags 00 pid 0";
        assert_eq!(read(updated), Deed::Updated(neighbour("192.0.2.2", 4_300_799_164)));
    }

    const WAITS: &str = "ping-25197 [001] ..... 23684.058507: neigh_event_send_done: family 2 dev xq7 lladdr 000000000000 \
                         flags 00 nud_state incomplete type 01 dead 0 refcnt 2 primary_key4 192.0.2.9 primary_key6 \
                         ::ffff:192.0.2.9 confirmed 4300798249 updated 4300813249 used 4300813249 err 1";
    const FAILED: &str = "vpnd-data-4210 [001] .Ns.. 23500.532063: neigh_timer_handler: family 10 dev xq7 lladdr \
                          000000000000 flags 00 nud_state failed type 01 dead 0 refcnt 2 primary_key4 0.0.0.0 primary_key6 \
                          fd00::9 confirmed 4300751599 updated 4300767368 used 4300766599 err 0";

    #[test]
    fn other_lines_say_nothing() {
        for line in
            ["", "# tracer: nop", "CPU:1 [LOST 12 EVENTS]", "a-1 [0] . 1.5: kfree_skb: x", &RECEIVED[..90]]
        {
            assert_eq!(Step::read(line), None, "{line}");
        }
    }
}
