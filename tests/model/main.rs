//! The model: tunnels in one thread under virtual time.

mod changes;
mod expiry;
mod handshakes;
mod load;
mod many;
mod random;
mod restart;
mod roaming;
mod rotation;
mod sleep;
mod timers;
mod watched;
mod world;
