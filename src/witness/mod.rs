//! What the kernel tells of a packet under way on this host, gathered beside the daemon by the command that traces:
//! netfilter's messages, its rules, a probe of our own, routing. All that is placed stands in one table of our own, which
//! the kernel removes with the process that placed it; nothing of others is changed.

mod counters; // losses that the kernel counted
mod netlink; // attributes of a netlink message
mod nftrace; // nftables' trace, message by message
mod placement; // the table that makes netfilter tell
mod probe; // one packet of our own
pub mod routing; // the kernel's answers to a draft's questions
mod ruleset; // what stands behind a handle

pub use counters::Counters;
pub use nftrace::{Messages, NfTrace};
pub use placement::{Carried, Placement, Unplaced};
pub use probe::{Prober, Shape};
pub use ruleset::Ruleset;
