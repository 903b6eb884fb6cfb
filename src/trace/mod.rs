//! A packet's way, as a value: the stations that it met, what each of them did, and how it ended. `vpnd trace` fills
//! it with what happened, `vpnd explain` with what would happen; the pages for people and `--json` are made from it.
//! Nothing here asks anybody.
//!
//! ```text
//! Filter ─── which packets
//! Feed ───── from vpnd's data threads to one reader, bounded: Records
//! Record ─── what vpnd itself saw of one, as its control socket tells it
//! Page ───── all stations of one packet, from several witnesses
//! ```

pub mod build;
#[cfg(test)]
mod build_tests;
mod conclude;
pub mod facts;
pub mod feed;
pub mod filter;
pub mod handshake;
pub mod passage;
pub mod picture;
pub mod record;
pub mod station;
mod stories;
pub mod text;

pub use build::{Draft, Probe, Sight, drafts};
pub use conclude::join;
pub use facts::Facts;
pub use feed::{Feed, Wanted};
pub use filter::Filter;
pub use handshake::{Handshake, Message, Secrets};
pub use passage::{Edge, Event, Passage};
pub use record::{Record, Seen};
pub use station::{
    Batch, Carrier, Clock, Death, Direction, Host, Killer, Kind, Opened, Outcome, Packet, Page, Place,
    Refused, Route, RoutingRule, Rule, Sealed, Station, Step, Verdict, Vpnd, Walk,
};
