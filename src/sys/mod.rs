//! Every unsafe line of the tree, each with its reason. Knows nothing of the rooms.
#![allow(unsafe_code)]

#[cfg(feature = "daemon")]
pub mod namespace; // network namespaces
