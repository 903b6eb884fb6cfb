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

mod answers;
pub mod build;
#[cfg(test)]
mod build_tests;
mod conclude;
mod crossing;
mod deed;
pub mod drops;
pub mod facts;
pub mod feed;
pub mod filter;
pub mod handshake;
mod join;
mod leaving;
pub mod lengths;
mod meant;
mod mirror;
mod page;
pub mod passage;
pub mod picture;
pub mod record;
mod station;
mod stories;
pub mod text;
mod way;

pub use build::{Draft, Link, Probe, Sight, drafts};
pub use crossing::Crossing;
pub use deed::{Batch, Opened, Refused, Sealed, Vpnd};
pub use facts::Facts;
pub use feed::{Feed, Wanted};
pub use filter::Filter;
pub use handshake::{Handshake, Message, Secrets};
pub use join::join;
pub use meant::{Count, Meant};
pub use page::{Answer, Carrier, Death, Host, Killer, Kind, Outcome, Packet, Page, VERSION};
pub use passage::{Edge, Event, Passage};
pub use record::{Record, Seen};
pub use station::{Clock, Direction, Place, Route, RoutingRule, Rule, Station, Step, Verdict, Walk};
