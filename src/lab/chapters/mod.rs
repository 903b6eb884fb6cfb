//! The labs of the handbook: one for each chapter. What they print is what stands in the book.

mod bridge;
mod frames;
mod hooks;
mod mtu;
mod namespaces;
mod nat;
mod offloads;
mod routing;
mod rules;
mod sheet;
mod stack;
mod stage;
mod tun;
mod twice;
mod wireguard;

pub use sheet::{Part, without_measured};
pub use stage::Stage;

use super::error::LabError;

/// A chapter of the handbook that has a lab.
pub struct Chapter {
    /// What it is called by: `vpnd lab NAME`, and `docs/handbook/NAME.md`.
    pub name: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Who is connected to whom.
    pub picture: &'static str,
    lab: fn(&mut Stage) -> Result<Vec<Part>, LabError>,
}

/// All of them, in the order of the book.
pub const CHAPTERS: [Chapter; 11] = [
    stack::CHAPTER,
    hooks::CHAPTER,
    routing::CHAPTER,
    namespaces::CHAPTER,
    bridge::CHAPTER,
    tun::CHAPTER,
    twice::CHAPTER,
    wireguard::CHAPTER,
    offloads::CHAPTER,
    nat::CHAPTER,
    mtu::CHAPTER,
];

impl Chapter {
    /// The chapter of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        const ALL: &[Chapter] = &CHAPTERS;
        ALL.iter().find(|chapter| chapter.name == name)
    }

    /// Makes the hosts, does all experiments, and tells what came of them. The hosts stay as long as the stage.
    pub fn run(&self, stage: &mut Stage) -> Result<Vec<Part>, LabError> {
        (self.lab)(stage)
    }
}
