//! Every unsafe line of the tree, each with its reason. Knows nothing of the rooms.
#![allow(unsafe_code)]

pub mod namespace; // namespaces and mounts, for the lab
pub mod packet; // AF_PACKET: what really passes a device
pub mod signal; // to our own children
