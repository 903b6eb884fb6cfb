//! Where everything stands. Each host is a frame with three bands: programs above, the kernel in the middle, devices
//! below. A packet that goes one way in one host is a column; what it passes there stands below or above each other.

use super::card::{Card, End, Look};
use crate::trace::{Direction, Outcome, Page, Place, Station, Walk};

const CARD: [u32; 2] = [196, 58];
/// Between two columns, where the way changes over.
const GAP: u32 = 44;
/// Between a host's frame and its cards.
const MARGIN: u32 = 18;
/// Between two hosts: the cable.
const CABLE: u32 = 48;
const EDGE: u32 = 24;
/// Below title and legend.
const TOP: u32 = 70;
/// From one card in the kernel to the next.
const STEP: u32 = CARD[1] + 24;

/// A layer of all hosts.
pub(super) struct Band {
    pub(super) name: &'static str,
    pub(super) top: u32,
}

/// A host.
pub(super) struct Frame {
    pub(super) name: String,
    /// x, y, width, height.
    pub(super) area: [u32; 4],
}

/// A piece of the way.
pub(super) struct Wire {
    pub(super) walk: Walk,
    pub(super) points: Vec<(u32, u32)>,
    /// To a station of which nobody knows that it was passed.
    pub(super) faint: bool,
}

/// All of it.
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) bands: [Band; 3],
    pub(super) hosts: Vec<Frame>,
    pub(super) cards: Vec<Card>,
    pub(super) wires: Vec<Wire>,
    /// Where the words stand that name what lies between two hosts.
    pub(super) cables: Vec<(u32, u32)>,
}

/// Stations of one packet in one host, in one direction: indices into the page.
struct Column {
    host: usize,
    down: bool,
    /// Down behind FORWARD.
    turned: bool,
    walk: Option<Walk>,
    /// In the kernel.
    hooks: Vec<usize>,
    device: Option<usize>,
    /// The program above it.
    program: Option<usize>,
}

impl Layout {
    pub(super) fn of(page: &Page) -> Self {
        let columns = columns(page);
        let rows = columns.iter().map(|column| column.hooks.len()).max().unwrap_or(0).max(1) as u32;
        let programs = TOP + 40;
        let kernel = programs + 24 + CARD[1] + 16;
        let devices = kernel + 24 + rows * STEP;
        let bottom = devices + 24 + CARD[1] + 16;
        let mut layout = Self {
            width: EDGE,
            height: bottom,
            bands: [
                Band { name: "programs", top: programs },
                Band { name: "kernel", top: kernel },
                Band { name: "devices", top: devices },
            ],
            hosts: Vec::new(),
            cards: Vec::new(),
            wires: Vec::new(),
            cables: Vec::new(),
        };
        layout.place(page, &columns, rows);
        layout.connect(page);
        layout
    }

    /// Hosts from left to right, and their cards.
    fn place(&mut self, page: &Page, columns: &[Column], rows: u32) {
        let [programs, kernel, devices] = [0, 1, 2].map(|band: usize| self.bands[band].top + 24);
        let mut areas = vec![[0; 4]; page.stations.len()];
        let mut x = EDGE;
        for (number, host) in page.hosts.iter().enumerate() {
            let own: Vec<&Column> = columns.iter().filter(|column| column.host == number).collect();
            if own.is_empty() {
                continue;
            }
            let width = 2 * MARGIN + own.len() as u32 * CARD[0] + (own.len() as u32 - 1) * GAP;
            let area = [x, TOP, width, self.height - TOP];
            self.hosts.push(Frame { name: host.name.clone(), area });
            for (at, column) in own.iter().enumerate() {
                let left = x + MARGIN + at as u32 * (CARD[0] + GAP);
                let mut put = |station: usize, y: u32| areas[station] = [left, y, CARD[0], CARD[1]];
                for (&station, row) in column.hooks.iter().zip(rows_of(page, column, rows)) {
                    put(station, kernel + row * STEP);
                }
                if let Some(station) = column.device {
                    put(station, devices);
                }
                if let Some(station) = column.program {
                    put(station, programs);
                }
            }
            x += width + CABLE;
        }
        self.width = (x - CABLE.min(x) + EDGE).max(560);
        let end = |number: usize| match &page.outcome {
            Outcome::Died(death) if death.station == number => End::Here(death),
            Outcome::Died(_) => End::Elsewhere,
            _ => End::Open,
        };
        let cards = page.stations.iter().enumerate();
        let card = |(number, station)| Card::of(number + 1, station, end(number), areas[number]);
        self.cards = cards.map(card).collect();
    }

    /// From each station to the next, up to where the packet died.
    fn connect(&mut self, page: &Page) {
        for (number, pair) in page.stations.windows(2).enumerate() {
            let (from, to) = (self.cards[number].area, self.cards[number + 1].area);
            if self.cards[number].look == Look::Dead {
                break;
            }
            if pair[0].host != pair[1].host && from[1] == to[1] {
                self.cables.push((from[0] + from[2] + MARGIN + CABLE / 2, from[1] + from[3] / 2 - 8));
            }
            let faint = self.cards[number + 1].look == Look::Absent;
            self.wires.push(Wire { walk: walk_between(&pair[0], &pair[1]), points: points(from, to), faint });
        }
    }
}

/// How many steps below the top of the kernel each station stands. Where they are fewer than `rows`, each stands where
/// it would among all: so the hooks of two columns can be compared.
fn rows_of(page: &Page, column: &Column, rows: u32) -> Vec<u32> {
    let place = |station: &usize| match page.stations[*station].place {
        Place::Output | Place::Input | Place::Forward => 0,
        Place::Route => (rows - 1) / 2,
        _ => rows - 1,
    };
    let mut places: Vec<u32> = column.hooks.iter().map(place).collect();
    let rising = |rows: &[u32]| rows.is_sorted_by(|a, b| if column.down { a < b } else { a > b });
    if !rising(&places) {
        let count = column.hooks.len() as u32;
        places = (0..count).map(|row| if column.down { row } else { count - 1 - row }).collect();
    }
    places
}

/// The colour of the way between two stations: that of the packet which is under way there.
fn walk_between(from: &Station, to: &Station) -> Walk {
    match (from.walk, to.walk) {
        (Walk::Program, walk) | (walk, Walk::Program) => walk,
        (_, walk) => walk,
    }
}

/// From card to card: straight where one stands above the other, or beside it; else through the gap between.
fn points(from: [u32; 4], to: [u32; 4]) -> Vec<(u32, u32)> {
    let middle = |[x, y, width, height]: [u32; 4]| (x + width / 2, y + height / 2);
    let (a, b) = (middle(from), middle(to));
    if a.0 == b.0 {
        return match a.1 < b.1 {
            true => vec![(a.0, from[1] + from[3]), (b.0, to[1])],
            false => vec![(a.0, from[1]), (b.0, to[1] + to[3])],
        };
    }
    let (start, end) = ((from[0] + from[2], a.1), (to[0], b.1));
    if a.1 == b.1 {
        return vec![start, end];
    }
    let between = start.0 + (end.0.saturating_sub(start.0)) / 2;
    vec![start, (between, start.1), (between, end.1), end]
}

/// The page's stations as columns, in the order of the way.
fn columns(page: &Page) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for (number, station) in page.stations.iter().enumerate() {
        let last = columns.last_mut().filter(|column| column.host == station.host);
        if station.walk == Walk::Program || matches!(station.place, Place::Socket | Place::Vpnd) {
            match last {
                // A way up ends below a program …
                Some(column) if !column.down && column.program.is_none() => column.program = Some(number),
                // … and a way down begins there.
                _ => columns.push(Column { program: Some(number), ..Column::new(station.host, true) }),
            }
            continue;
        }
        // Behind FORWARD it goes down again, to another device.
        let turned = last.as_ref().is_some_and(|column| {
            column.turned && column.device.is_none()
                || column.hooks.last().is_some_and(|&hook| page.stations[hook].place == Place::Forward)
        });
        let down = turned || station.direction == Direction::Out;
        let column = match last {
            Some(column) if column.takes(down, station.walk) => column,
            _ => {
                columns.push(Column { turned, ..Column::new(station.host, down) });
                columns.last_mut().expect("it was pushed just now")
            }
        };
        column.walk = Some(station.walk);
        match station.place {
            Place::Device => column.device = Some(number),
            _ => column.hooks.push(number),
        }
    }
    columns
}

impl Column {
    fn new(host: usize, down: bool) -> Self {
        Self { host, down, turned: false, walk: None, hooks: Vec::new(), device: None, program: None }
    }

    /// Is a station of this packet, in this direction, a continuation? A way down has ended with its device, a way up
    /// with its program.
    fn takes(&self, down: bool, walk: Walk) -> bool {
        let over = if self.down { self.device.is_some() } else { self.program.is_some() };
        self.down == down && !over && self.walk.is_none_or(|own| own == walk)
    }
}
