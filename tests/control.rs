//! The control sockets against a daemon that keeps its tunnel in memory: real `wg`, and clients that `wg`
//! would never be.
#![cfg(feature = "daemon")]

mod control {
    pub mod fake;
    mod hostile;
    mod http;
    mod metrics;
    mod schema;
    mod sockets;
    mod streams;
    mod wg;
}
