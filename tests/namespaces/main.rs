//! Real tunnels between network namespaces. Run as root; `make namespaces` has all that it needs.
//! The scenarios are those of the kernel's `netns.sh`; each test that stands for one says its number.

#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

#[path = "../common/mod.rs"]
mod common;
mod first;
mod glue;
mod interop;
mod live;
mod mixed;
mod mixture;
mod refusals;
mod relay;
mod uapi;
mod world;
