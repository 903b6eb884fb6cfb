//! The kernel's reason for a drop, from its tracepoints `netif_receive_skb` and `skb:kfree_skb`. They do not show what is
//! in a packet: so the one that died is known by the device, the length and the time at which a packet socket saw it come.
//! Where more than one fits, nobody is believed.

use super::{Clock, Direction, Page, Place, Station};

/// Between the stamp on a packet and the kernel's word that it came: the core may have had something else to do.
const EARLIER_NS: u64 = 1_000_000;
const LATER_NS: u64 = 50_000_000;

/// One thing that the kernel did with one of its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When (CLOCK_BOOTTIME, nanoseconds).
    pub at_ns: u64,
    /// Which buffer: a name that is used again.
    pub buffer: String,
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
    /// It gave one up.
    Dropped {
        /// The reason, without its prefix.
        reason: String,
        /// The function that did it.
        by: String,
    },
}

impl Step {
    /// A line of the kernel's trace; `None`: it says something else.
    pub fn read(line: &str) -> Option<Self> {
        let (head, told) = line.split_once(": ")?;
        let at = head.split_whitespace().last()?;
        let (seconds, parts) = at.split_once('.')?;
        let micros: u64 = parts.parse().ok().filter(|_| parts.len() == 6)?;
        let at_ns = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(micros * 1000)?;
        let (name, fields) = told.split_once(": ")?;
        let field = |name: &str| fields.split_whitespace().find_map(|field| field.strip_prefix(name));
        let deed = match name {
            "netif_receive_skb" => {
                Deed::Received { device: field("dev=")?.to_owned(), bytes: field("len=")?.parse().ok()? }
            }
            "kfree_skb" => {
                let by = field("location=")?.split('+').next()?.to_owned();
                Deed::Dropped { reason: fields.split_once("reason: ")?.1.trim().to_owned(), by }
            }
            _ => return None,
        };
        Some(Self { at_ns, buffer: field("skbaddr=")?.to_owned(), deed })
    }
}

/// Reason and function for the packet that a packet socket saw come by this device: if it can be no other.
fn of_the_one(steps: &[Step], device: &str, bytes: u64, at_ns: u64) -> Option<(String, String)> {
    let span = at_ns.saturating_sub(EARLIER_NS)..=at_ns.saturating_add(LATER_NS);
    let fits = |step: &Step| {
        let received = Deed::Received { device: device.to_owned(), bytes };
        span.contains(&step.at_ns) && step.deed == received
    };
    let mut ones = steps.iter().enumerate().filter(|(_, step)| fits(step));
    let (at, one) = ones.next().filter(|_| ones.next().is_none())?;
    // What happened to that buffer next; was it received again, its end was not told.
    match &steps[at + 1..].iter().find(|step| step.buffer == one.buffer)?.deed {
        Deed::Dropped { reason, by } => Some((reason.clone(), by.clone())),
        Deed::Received { .. } => None,
    }
}

impl Page {
    /// The kernel's reason for the death that this page ends with, where it can be had. `began_ns`: time 0, by
    /// CLOCK_BOOTTIME.
    pub fn find_reason(&mut self, steps: &[Step], began_ns: u64) {
        let super::Outcome::Died(death) = &mut self.outcome else { return };
        let Some(before) = self.stations.get(..=death.station) else { return };
        let Some(died) = before.last() else { return };
        // The device by which it had come to the place where it died.
        let came = |station: &&Station| {
            (station.place, station.direction, station.walk) == (Place::Device, Direction::In, died.walk)
        };
        let came = before.iter().rev().find(came).filter(|station| station.clock == Some(Clock::Kernel));
        let seen = came.and_then(|came| {
            Some((came.device.clone()?, came.packet.as_ref()?.bytes?, (came.at_us? * 1e3).max(0.0) as u64))
        });
        let Some((device, bytes, at_ns)) = seen else { return };
        let Some((reason, by)) = of_the_one(steps, &device, bytes, began_ns.saturating_add(at_ns)) else {
            return;
        };
        self.stations[death.station].facts.push(format!(
            "the kernel gave it up in {by} (skb:kfree_skb): known as the only packet of {bytes} bytes that came by {device} \
             then"
        ));
        death.drop_reason = Some(format!("SKB_DROP_REASON_{reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: &str = "       vpnd-data-28679   [001] b.... 15436.525551: netif_receive_skb: dev=vpn0 skbaddr=00000000e7ed19ee len=928";
    const DROPPED: &str = "  vpnd-data-2 [001] b.... 15436.525562: kfree_skb: skbaddr=00000000e7ed19ee rx_sk=0000000000000000 \
                           protocol=2048 location=__udp4_lib_rcv+0x4bc/0xd00 reason: NO_SOCKET";

    fn steps(lines: &[&str]) -> Vec<Step> {
        lines.iter().filter_map(|line| Step::read(line)).collect()
    }

    /// 11 µs before it was received.
    const AT: u64 = 15_436_525_540_000;

    #[test]
    fn the_one_that_came_then_has_the_reason_of_its_buffer() {
        let told = of_the_one(&steps(&[RECEIVED, DROPPED]), "vpn0", 928, AT);
        assert_eq!(told, Some(("NO_SOCKET".to_owned(), "__udp4_lib_rcv".to_owned())));
        for (device, bytes, at_ns) in [
            ("vpn1", 928, AT),
            ("vpn0", 927, AT),
            ("vpn0", 928, AT + 2_000_000),
            ("vpn0", 928, AT - 60_000_000),
        ] {
            assert_eq!(
                of_the_one(&steps(&[RECEIVED, DROPPED]), device, bytes, at_ns),
                None,
                "{device} {bytes} {at_ns}"
            );
        }
    }

    #[test]
    fn where_two_fit_or_the_buffer_was_used_again_nobody_is_believed() {
        let other = RECEIVED.replace("e7ed19ee", "e7ed1900");
        assert_eq!(of_the_one(&steps(&[RECEIVED, &other, DROPPED]), "vpn0", 928, AT), None);
        let again = RECEIVED.replace("len=928", "len=60");
        assert_eq!(of_the_one(&steps(&[RECEIVED, &again, DROPPED]), "vpn0", 928, AT), None);
        assert_eq!(of_the_one(&steps(&[RECEIVED]), "vpn0", 928, AT), None, "it went on");
    }

    #[test]
    fn other_lines_say_nothing() {
        for line in
            ["", "# tracer: nop", "CPU:1 [LOST 12 EVENTS]", "a-1 [0] . 1.5: kfree_skb: x", &RECEIVED[..90]]
        {
            assert_eq!(Step::read(line), None, "{line}");
        }
    }
}
