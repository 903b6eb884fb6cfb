//! Real tunnels between network namespaces. Run as root; `make namespaces` has all that it needs.
//! The scenarios are those of the kernel's `netns.sh`; each test that stands for one says its number.

mod battery;
#[path = "../common/mod.rs"]
mod common;
mod ecn;
mod first;
mod glue;
mod interop;
mod live;
mod many;
mod marks;
mod mixed;
mod mixture;
mod nested;
mod padding;
mod refusals;
mod relay;
mod roaming;
mod secrets;
mod sources;
mod uapi;
mod unreachable;
mod wiretap;
mod world;
