//! The places that a packet passes on its way out of a host and into the other, in order, with their counts.

use super::{
    link::{Decision, Passed},
    netfilter::{Count, Hooks},
    page::{Host, Page, Reading, Tunnel},
    stories as story,
};

/// Which of the two packets is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// The program's own packet.
    Inner,
    /// Between the two: vpnd, and the programs at the ends.
    Program,
    /// The UDP packet that carries it.
    Outer,
}

/// A place.
pub(super) struct Station {
    pub(super) walk: Walk,
    /// One line each; most places have one.
    pub(super) rows: Vec<Row>,
    /// What happens there, for a reader who never heard of it.
    pub(super) story: String,
}

/// What was counted at a place.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) ping: Cell,
    pub(super) bulk: Cell,
    /// Instead of counts: what the kernel answered.
    pub(super) answer: Option<String>,
}

/// Packets and bytes, as far as they are known.
#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
}

/// Who walks: the two readings of one host, and what its program wrote or got.
#[derive(Clone, Copy)]
pub(super) struct Traveller<'a> {
    pub(super) host: &'a Host,
    pub(super) other: &'a Host,
    pub(super) ping: &'a Reading,
    pub(super) bulk: &'a Reading,
    pub(super) ping_program: Cell,
    pub(super) bulk_program: Cell,
}

impl<'a> Traveller<'a> {
    /// The left host: it sends the ping and the data of the transfer.
    pub(super) fn left(page: &'a Page) -> Self {
        Self {
            host: &page.left,
            other: &page.right,
            ping: &page.ping.left,
            bulk: &page.bulk.left,
            ping_program: Cell { packets: Some(1), bytes: Some(page.ping_written) },
            bulk_program: Cell { packets: None, bytes: Some(page.transfer.bytes) },
        }
    }

    /// The right host: it gets them.
    pub(super) fn right(page: &'a Page) -> Self {
        Self {
            host: &page.right,
            other: &page.left,
            ping: &page.ping.right,
            bulk: &page.bulk.right,
            ..Self::left(page)
        }
    }

    /// On the way back there is an answer to the ping, but acknowledgements are the kernel's own.
    pub(super) fn answering(self) -> Self {
        Self { bulk_program: Cell::default(), ..self }
    }

    /// From the program down to the cable.
    pub(super) fn outbound(self) -> Vec<Station> {
        vec![
            self.program(story::WRITTEN),
            self.hook(Walk::Inner, "OUTPUT", |hooks| hooks.output, story::INNER_OUTPUT),
            self.route(Walk::Inner, &self.host.inner_route, &self.other.inner, story::INNER_ROUTE),
            self.hook(Walk::Inner, "POSTROUTING", |hooks| hooks.postrouting, story::INNER_POSTROUTING),
            self.device(Walk::Inner, "TUN vpn0", |r| &r.tun, out, story::INTO_TUN),
            self.vpnd(
                ["vpnd took from vpn0", "     sealed and sent"],
                [|r| out(&r.tun).into(), |r| sealed(&r.tunnel)],
                story::SEALED,
            ),
            self.hook(Walk::Outer, "OUTPUT", |hooks| hooks.output, story::OUTER_OUTPUT),
            self.route(Walk::Outer, &self.host.outer_route, address(&self.other.outer), story::OUTER_ROUTE),
            self.hook(Walk::Outer, "POSTROUTING", |hooks| hooks.postrouting, story::OUTER_POSTROUTING),
            self.device(Walk::Outer, "the wire, eth0", |r| &r.wire, out, story::ONTO_WIRE),
        ]
    }

    /// From the cable up to the program.
    pub(super) fn inbound(self) -> Vec<Station> {
        vec![
            self.device(Walk::Outer, "the wire, eth0", |r| &r.wire, arrived, story::OFF_WIRE),
            self.hook(Walk::Outer, "PREROUTING", |hooks| hooks.prerouting, story::OUTER_PREROUTING),
            self.hook(Walk::Outer, "INPUT", |hooks| hooks.input, story::OUTER_INPUT),
            self.vpnd(
                ["vpnd received", "     opened, to vpn0"],
                [|r| opened(&r.tunnel), |r| arrived(&r.tun).into()],
                story::OPENED,
            ),
            self.device(Walk::Inner, "TUN vpn0", |r| &r.tun, arrived, story::OUT_OF_TUN),
            self.hook(Walk::Inner, "PREROUTING", |hooks| hooks.prerouting, story::INNER_PREROUTING),
            self.hook(Walk::Inner, "INPUT", |hooks| hooks.input, story::INNER_INPUT),
            self.program(story::READ),
        ]
    }

    fn program(self, story: &str) -> Station {
        self.station(Walk::Program, [("application", self.ping_program, self.bulk_program)], story)
    }

    fn hook(self, walk: Walk, label: &str, at: fn(&Hooks) -> Count, story: &str) -> Station {
        let count = |reading: &Reading| {
            let walks = reading.walks?;
            Some(at(if walk == Walk::Inner { &walks.inner } else { &walks.outer }))
        };
        let cell = |reading| count(reading).map(Cell::from).unwrap_or_default();
        self.station(walk, [(label, cell(self.ping), cell(self.bulk))], story)
    }

    fn device(
        self,
        walk: Walk,
        label: &str,
        device: fn(&Reading) -> &Passed,
        way: fn(&Passed) -> Count,
        story: &str,
    ) -> Station {
        let cell = |reading| way(device(reading)).into();
        self.station(walk, [(label, cell(self.ping), cell(self.bulk))], story)
    }

    fn vpnd(self, labels: [&str; 2], counts: [fn(&Reading) -> Cell; 2], story: &str) -> Station {
        let rows = [0, 1].map(|i| (labels[i], counts[i](self.ping), counts[i](self.bulk)));
        self.station(Walk::Program, rows, story)
    }

    fn route(self, walk: Walk, decision: &Decision, destination: &str, story: &str) -> Station {
        let table = match decision.table {
            254 => "main".to_owned(),
            number => number.to_string(),
        };
        let source = decision.source.map(|source| format!(", source {source}")).unwrap_or_default();
        let answer = format!("{destination}: by {}, table {table}{source}", decision.device);
        let mut station = self.station(walk, [("routing", Cell::default(), Cell::default())], story);
        station.rows[0].answer = Some(answer);
        station
    }

    fn station<const N: usize>(self, walk: Walk, rows: [(&str, Cell, Cell); N], story: &str) -> Station {
        let row =
            |(label, ping, bulk): (&str, _, _)| Row { label: label.to_owned(), ping, bulk, answer: None };
        Station { walk, rows: rows.map(row).into(), story: self.fill(story) }
    }

    fn fill(self, story: &str) -> String {
        story
            .replace("{own}", &self.host.inner)
            .replace("{other}", &self.other.inner)
            .replace("{own_outer}", address(&self.host.outer))
            .replace("{other_outer}", address(&self.other.outer))
            .replace("{inner_device}", &self.host.inner_route.device)
            .replace("{outer_device}", &self.host.outer_route.device)
    }
}

/// `192.0.2.1:51820` without the port.
pub(super) fn address(outer: &str) -> &str {
    outer.rsplit_once(':').map_or(outer, |(address, _)| address)
}

fn out(passed: &Passed) -> Count {
    Count { packets: passed.tx_packets, bytes: passed.tx_bytes }
}

fn arrived(passed: &Passed) -> Count {
    Count { packets: passed.rx_packets, bytes: passed.rx_bytes }
}

fn sealed(tunnel: &Tunnel) -> Cell {
    Cell { packets: Some(tunnel.sealed), bytes: Some(tunnel.sealed_bytes) }
}

fn opened(tunnel: &Tunnel) -> Cell {
    Cell { packets: Some(tunnel.opened), bytes: Some(tunnel.opened_bytes) }
}

impl From<Count> for Cell {
    fn from(count: Count) -> Self {
        Self { packets: Some(count.packets), bytes: Some(count.bytes) }
    }
}
