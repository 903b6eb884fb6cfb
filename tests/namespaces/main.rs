//! Real tunnels between network namespaces. Run as root; `make namespaces` has all that it needs.
//! The scenarios are those of the kernel's `netns.sh`; each test that stands for one says its number.

#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

mod battery;
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod cryptokey;
mod drift;
mod ecn;
mod fairness;
mod faults;
mod first;
mod glue;
mod interop;
mod keys;
mod life;
mod live;
mod loops;
mod manager;
mod many;
mod marks;
mod mixed;
mod mixture;
mod names;
mod nat;
mod nested;
mod padding;
mod panels;
mod people;
mod policy;
mod refusals;
mod relay;
mod reload;
mod restart;
mod roaming;
mod sandbox;
mod secrets;
mod sources;
mod streams;
mod told;
mod uapi;
mod unreachable;
mod wiretap;
mod workers;
mod world;
