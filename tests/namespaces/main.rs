//! Real tunnels between network namespaces. Run as root; `make namespaces` has all that it needs.
//! The scenarios are those of the kernel's `netns.sh`; each test that stands for one says its number.

#[path = "../common/mod.rs"]
mod common;
mod cryptokey;
mod first;
mod life;
mod names;
mod nat;
mod policy;
mod world;
