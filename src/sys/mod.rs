//! Every unsafe line of the tree, each with its reason. Knows nothing of the rooms.
#![allow(unsafe_code)]

pub mod random; // the one door of randomness
