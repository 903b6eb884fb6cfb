//! What the live view knows: peers with their last minute, which of them are to be seen and in which order, and what
//! happened. Knows nothing of the terminal but keys.

use std::collections::{HashMap, HashSet, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::feed::News;
use crate::control::{
    events::EventReport,
    samples::{Row, SampleReport},
    schema::PeerReport,
};

/// Samples that a peer's sparkline shows.
pub(super) const HISTORY: usize = 30;
/// Events that can be seen again.
const EVENTS: usize = 200;
/// A session older than this is dead (REJECT_AFTER_TIME).
const SESSION_LIFE_S: f64 = 180.0;

/// Does it go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    On,
    End,
}

/// By what peers are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    State,
    Received,
    Sent,
    Heard,
}

/// A peer's figures, and its last minute.
pub(super) struct Peer {
    pub(super) row: Row,
    /// Bytes per second.
    pub(super) rx_rate: f64,
    pub(super) tx_rate: f64,
    /// Both together, the newest last.
    pub(super) history: VecDeque<f32>,
    /// Seconds since boot.
    born: Option<f64>,
    heard: Option<f64>,
}

/// All that can be seen.
pub(super) struct Model {
    pub(super) interface: String,
    pub(super) total: usize,
    pub(super) connected: usize,
    pub(super) under_load: bool,
    pub(super) rx_rate: f64,
    pub(super) tx_rate: f64,
    /// Wall time of the last sample, in Unix seconds, and its time since boot, in seconds.
    pub(super) now: f64,
    boot: f64,
    peers: HashMap<u64, Peer>,
    /// Those that are to be seen, in order.
    order: Vec<u64>,
    pub(super) sort: Sort,
    reversed: bool,
    pub(super) filter: String,
    pub(super) is_filtering: bool,
    connected_only: bool,
    selected: Option<u64>,
    /// Is the selected one followed wherever it goes? Else it is whoever stands first.
    follows: bool,
    pub(super) is_detailed: bool,
    detail: Option<PeerReport>,
    /// The first that is drawn.
    offset: usize,
    /// Rows that the last drawing had room for.
    height: usize,
    pub(super) events: VecDeque<EventReport>,
    /// Why the daemon does not answer.
    pub(super) gone: Option<String>,
}

impl Model {
    pub(super) fn new(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            total: 0,
            connected: 0,
            under_load: false,
            rx_rate: 0.0,
            tx_rate: 0.0,
            now: 0.0,
            boot: 0.0,
            peers: HashMap::new(),
            order: Vec::new(),
            sort: Sort::Name,
            reversed: false,
            filter: String::new(),
            is_filtering: false,
            connected_only: false,
            selected: None,
            follows: false,
            is_detailed: false,
            detail: None,
            offset: 0,
            height: 1,
            events: VecDeque::new(),
            gone: None,
        }
    }

    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Sample(sample) => self.sampled(sample),
            News::Event(event) => {
                if self.events.len() == EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(*event);
            }
            News::Peer(peer) => self.detail = Some(*peer),
            News::Gone(why) => self.gone = Some(why),
        }
    }

    fn sampled(&mut self, sample: SampleReport) {
        let boot = sample.boot as f64 / 1e9;
        let is_new = self.gone.take().is_some() || self.boot == 0.0;
        let passed = if is_new { 0.0 } else { boot - self.boot };
        if is_new {
            self.peers.clear(); // another daemon counts anew
        }
        (self.boot, self.now) = (boot, sample.now);
        (self.total, self.connected, self.under_load) = (sample.total, sample.connected, sample.under_load);
        if sample.whole {
            let here: HashSet<u64> = sample.peers.iter().map(|row| row.id).collect();
            self.peers.retain(|id, _| here.contains(id));
        }
        for peer in self.peers.values_mut() {
            (peer.rx_rate, peer.tx_rate) = (0.0, 0.0);
        }
        for row in sample.peers {
            match self.peers.get_mut(&row.id) {
                Some(peer) => peer.update(row, boot, passed),
                None => drop(self.peers.insert(row.id, Peer::new(row, boot))),
            }
        }
        (self.rx_rate, self.tx_rate) = (0.0, 0.0);
        for peer in self.peers.values_mut() {
            self.rx_rate += peer.rx_rate;
            self.tx_rate += peer.tx_rate;
            if peer.history.len() == HISTORY {
                peer.history.pop_front();
            }
            peer.history.push_back((peer.rx_rate + peer.tx_rate) as f32);
        }
        self.arrange();
    }

    /// Which are to be seen, and in which order.
    fn arrange(&mut self) {
        let wanted = self.filter.to_lowercase();
        let is_wanted = |peer: &Peer| {
            (!self.connected_only || self.is_connected(peer)) && (wanted.is_empty() || peer.matches(&wanted))
        };
        let mut order: Vec<u64> =
            self.peers.iter().filter(|(_, peer)| is_wanted(peer)).map(|(id, _)| *id).collect();
        order.sort_unstable_by(|a, b| {
            let (first, second) = (&self.peers[a], &self.peers[b]);
            let by = match self.sort {
                Sort::Name => first.row.name.cmp(&second.row.name),
                Sort::State => self.rank(first).cmp(&self.rank(second)),
                Sort::Received => second.rx_rate.total_cmp(&first.rx_rate),
                Sort::Sent => second.tx_rate.total_cmp(&first.tx_rate),
                Sort::Heard => second.heard.unwrap_or(0.0).total_cmp(&first.heard.unwrap_or(0.0)),
            };
            let by = if self.reversed { by.reverse() } else { by };
            by.then_with(|| first.row.name.cmp(&second.row.name)).then(a.cmp(b))
        });
        self.order = order;
        if !self.follows || self.selected.is_none_or(|id| !self.order.contains(&id)) {
            self.selected = self.order.first().copied();
            self.follows = false;
        }
        self.scroll();
    }

    /// What needs looking at comes first.
    fn rank(&self, peer: &Peer) -> u8 {
        match (self.is_connected(peer), peer.row.attempts) {
            (_, 1..) => 0,
            (true, 0) => 1,
            (false, 0) => 2,
        }
    }

    pub(super) fn is_connected(&self, peer: &Peer) -> bool {
        peer.born.is_some_and(|born| self.boot - born < SESSION_LIFE_S)
    }

    /// Seconds since it was heard from.
    pub(super) fn heard_ago(&self, peer: &Peer) -> Option<f64> {
        peer.heard.map(|heard| self.boot - heard)
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Turn {
        if key.kind == KeyEventKind::Release {
            return Turn::On;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            // The others mean nothing here, and are no letters of a filter.
            return if key.code == KeyCode::Char('c') { Turn::End } else { Turn::On };
        }
        if self.is_filtering {
            self.edit_filter(key.code);
            return Turn::On;
        }
        match key.code {
            KeyCode::Char('q') => return Turn::End,
            KeyCode::Esc if self.filter.is_empty() && !self.is_detailed => return Turn::End,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_detailed = false;
                self.arrange();
            }
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-(self.height as isize)),
            KeyCode::PageDown => self.go(self.height as isize),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX),
            KeyCode::Enter => {
                self.is_detailed = !self.is_detailed;
                self.follows |= self.is_detailed;
            }
            KeyCode::Char('/') => self.is_filtering = true,
            KeyCode::Char('c') => {
                self.connected_only = !self.connected_only;
                self.arrange();
            }
            KeyCode::Char('i') => {
                self.reversed = !self.reversed;
                self.follows = false;
                self.arrange();
            }
            KeyCode::Char(letter) => self.sort_by(letter),
            _ => {}
        }
        Turn::On
    }

    fn sort_by(&mut self, letter: char) {
        let sort = match letter {
            'n' => Sort::Name,
            's' => Sort::State,
            'r' => Sort::Received,
            't' => Sort::Sent,
            'l' => Sort::Heard,
            _ => return,
        };
        (self.sort, self.reversed) = (sort, false);
        // Who sorts wants to see who comes first, though somebody else was looked at.
        self.follows = false;
        self.arrange();
    }

    fn edit_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_filtering = false,
            KeyCode::Esc => {
                self.is_filtering = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.len() < 64 => self.filter.push(letter),
            _ => {}
        }
        self.arrange();
    }

    fn place(&self) -> usize {
        self.order.iter().position(|id| Some(*id) == self.selected).unwrap_or(0)
    }

    fn go(&mut self, by: isize) {
        let last = self.order.len().saturating_sub(1);
        let place = self.place().saturating_add_signed(by).min(last);
        self.selected = self.order.get(place).copied();
        self.follows = place > 0;
        self.scroll();
    }

    /// The selected one is among those that are drawn.
    fn scroll(&mut self) {
        let place = self.place();
        let first = (place + 1).saturating_sub(self.height.max(1));
        let last_offset = self.order.len().saturating_sub(self.height.max(1));
        self.offset = self.offset.clamp(first, place.max(first)).min(last_offset.max(first));
    }

    /// There is room for so many rows.
    pub(super) fn fit(&mut self, height: usize) {
        self.height = height;
        self.scroll();
    }

    /// Those that fit; true: it is the selected one.
    pub(super) fn visible(&self) -> impl Iterator<Item = (&Peer, bool)> {
        let shown = self.order.iter().skip(self.offset).take(self.height);
        shown.map(|id| (&self.peers[id], self.selected == Some(*id)))
    }

    /// How many match the filter.
    pub(super) fn matching(&self) -> usize {
        self.order.len()
    }

    pub(super) fn selected(&self) -> Option<&Peer> {
        self.peers.get(&self.selected?)
    }

    /// Whose details are wanted.
    pub(super) fn selected_key(&self) -> Option<&str> {
        self.selected().filter(|_| self.is_detailed).map(|peer| peer.row.public_key.as_str())
    }

    /// The selected peer, whole, if it has been told.
    pub(super) fn detail(&self) -> Option<&PeerReport> {
        let key = &self.selected()?.row.public_key;
        self.detail.as_ref().filter(|detail| detail.public_key == *key)
    }
}

impl Peer {
    fn new(row: Row, boot: f64) -> Self {
        let mut peer = Self {
            rx_rate: 0.0,
            tx_rate: 0.0,
            history: VecDeque::with_capacity(HISTORY),
            born: None,
            heard: None,
            row,
        };
        peer.place(boot);
        peer
    }

    fn update(&mut self, row: Row, boot: f64, passed: f64) {
        if passed > 0.0 {
            self.rx_rate = row.rx_bytes.saturating_sub(self.row.rx_bytes) as f64 / passed;
            self.tx_rate = row.tx_bytes.saturating_sub(self.row.tx_bytes) as f64 / passed;
        }
        self.row = row;
        self.place(boot);
    }

    /// Ages become times: a peer that is not told again grows older all the same.
    fn place(&mut self, boot: f64) {
        self.born = self.row.session_age_s.map(|age| boot - age);
        self.heard = self.row.last_received_s.map(|ago| boot - ago);
    }

    fn matches(&self, wanted: &str) -> bool {
        self.row.name.to_lowercase().contains(wanted)
            || self.row.public_key.to_lowercase().contains(wanted)
            || self.row.endpoint.is_some_and(|endpoint| endpoint.to_string().contains(wanted))
    }
}
