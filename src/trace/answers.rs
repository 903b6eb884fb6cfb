//! Which packet answers which, among those of one host.

use std::collections::VecDeque;

use super::{
    Answer, Clock, Direction, Facts, Page, Place, Verdict,
    build::{Draft, Probe, Sight},
};

/// Each answer behind its packet; what answers nothing that is meant goes. They come in the order of their times.
pub(super) fn pair(drafts: Vec<Draft>, sight: &Sight) -> Vec<Draft> {
    if sight.meant.answers.is_none() {
        return drafts;
    }
    let mut left = VecDeque::from(drafts);
    let mut paired = Vec::new();
    while let Some(mut draft) = left.pop_front() {
        // What nobody could read may be anything.
        let is_meant = draft.looks.is_empty() || draft.looks.iter().any(|look| sight.meant.is_packet(look));
        if !is_meant {
            continue;
        }
        let answer = left.iter().position(|later| later.answers(&draft)).and_then(|at| left.remove(at));
        draft.answer = answer.map(|answer| Box::new(answer.with_its_reading(sight)));
        paired.push(draft);
    }
    paired
}

impl Draft {
    fn answers(&self, asked: &Self) -> bool {
        let replies = |look: &Facts| asked.looks.iter().any(|asked| look.answers(asked));
        let is_it = |quoted: &Facts| asked.looks.iter().any(|asked| quoted.is_same_flow(asked));
        self.looks.iter().any(replies) || self.quoted.as_ref().is_some_and(is_it)
    }

    /// Of what answers our probe it is known when it was read.
    fn with_its_reading(mut self, sight: &Sight) -> Self {
        let answered = sight.probe.as_ref().and_then(|probe: &Probe| probe.answered_ns);
        let socket = self.page.stations.last_mut().filter(|last| {
            (last.place, last.direction, last.verdict) == (Place::Socket, Direction::In, Verdict::Unknown)
        });
        if let (Some(at_ns), Some(socket)) = (answered, socket) {
            (socket.verdict, socket.clock) = (Verdict::Passed, Some(Clock::Reader));
            socket.at_us = Some(sight.us(at_ns));
            socket.unknown.clear();
            socket.facts.push("vpnd trace read it".to_owned());
        }
        self
    }
}

impl Page {
    /// What stands behind `asked` as its answer: a page of the same host.
    pub(super) fn stand_behind(self, asked: &mut Page) {
        // Where the answer begins, there the packet has come to.
        let begins_here = self.stations.first().is_some_and(|first| first.direction == Direction::Out);
        let socket = asked.stations.last_mut().filter(|last| {
            (last.place, last.direction, last.verdict) == (Place::Socket, Direction::In, Verdict::Unknown)
        });
        if let (true, Some(socket)) = (begins_here, socket) {
            socket.verdict = Verdict::Passed;
            socket.unknown.clear();
            socket.facts.push("it was taken: its answer leaves from here".to_owned());
        }
        let Self { packet, carrier, stations, outcome, notes, .. } = self;
        asked.notes.extend(notes.into_iter().filter(|note| !asked.notes.contains(note)).collect::<Vec<_>>());
        asked.answer = Some(Answer { packet, carrier, stations, outcome });
    }
}
