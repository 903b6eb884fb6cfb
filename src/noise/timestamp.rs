//! TAI64N, whitened to 2^24 ns as the kernel does, so that it does not tell the exact clock.

/// A TAI64N label (12 bytes, big-endian); later compares greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tai64n(pub [u8; 12]);

impl Tai64n {
    /// From the time since the Unix epoch, whitened.
    pub fn from_unix(since_epoch: std::time::Duration) -> Self {
        todo!()
    }
    /// The smallest whitened label after this one.
    pub fn next(self) -> Self {
        todo!()
    }
}
