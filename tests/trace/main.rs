//! Golden traces: what `vpnd trace` says of packets whose way is known, on real namespaces with real firewalls.

#![allow(clippy::disallowed_methods, reason = "tests wait until something holds, with a limit")]

#[path = "../common/mod.rs"]
mod common;

mod deaths; // where and by what a packet ends
mod departures; // at a device by which it was to leave
mod left_behind; // nothing
mod pictures; // of a real way
mod ways; // packets that arrive
mod world;
