//! What the kernel tells of a packet under way on this host, gathered beside the daemon by the command that traces:
//! netfilter's messages, its rules, a probe of our own, routing. All that is placed stands in one table of our own, which
//! the kernel removes with the process that placed it; nothing of others is changed.

mod counters; // losses that the kernel counted
mod crossings; // what crossed which device
pub mod decision; // routing, in the words of a page
mod drops; // why the kernel drops
mod netlink; // attributes of a netlink message
mod nftrace; // nftables' trace, message by message
mod placement; // the table that makes netfilter tell
mod probe; // one packet of our own
mod program; // which packets a packet socket sees
pub mod routing; // the kernel's answers to a draft's questions
mod ruleset; // what stands behind a handle

pub use counters::Counters;
pub use crossings::Crossings;
pub use drops::{Drops, sweep_behind};
pub use nftrace::{Messages, NfTrace};
pub use placement::{Carried, Placement, Unplaced};
pub use probe::{Prober, Shape};
pub use ruleset::Ruleset;
