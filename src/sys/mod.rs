//! Every unsafe line of the tree, each with its reason. Knows nothing of the rooms.
#![allow(unsafe_code)]

pub mod clock;
pub mod event;
pub mod namespace;
pub mod packet;
pub mod poll;
pub mod process;
pub mod signal;
pub mod socket;
pub mod timer;
pub mod tun;
