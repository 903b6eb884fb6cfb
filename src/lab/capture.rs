//! Looks at every frame of one device, as a wiretapper on that device would.

use std::io;

use super::{
    error::{Attempted, LabError},
    link,
    namespace::Namespace,
};
use crate::sys::packet::PacketSocket;

/// A running capture: the kernel keeps a copy of each frame until [`Capture::finish`].
pub struct Capture(PacketSocket);

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Frames, in both directions.
    pub frames: u64,
    /// Frames in which the searched bytes stand.
    pub matching: u64,
    /// Length of the longest frame, link header included.
    pub longest: usize,
}

impl Capture {
    /// Begins. The kernel keeps about 200 KB: this is for a ping, not for bulk traffic.
    pub fn start(namespace: &Namespace, device: &str) -> Result<Self, LabError> {
        let index = link::index(namespace, device)?;
        namespace
            .run(|| PacketSocket::open(index))
            .map(Self)
            .attempted(|| format!("capture on {device} in {}", namespace.name()))
    }

    /// Ends, and searches all frames for `needle`.
    pub fn finish(self, needle: &[u8]) -> Result<Captured, LabError> {
        let mut seen = Captured::default();
        for frame in self.frames()? {
            seen.frames += 1;
            seen.longest = seen.longest.max(frame.len());
            seen.matching += u64::from(frame.windows(needle.len()).any(|part| part == needle));
        }
        Ok(seen)
    }

    /// What was seen since the last call, frame by frame.
    pub fn frames(&self) -> Result<Vec<Vec<u8>>, LabError> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_550];
        loop {
            match self.0.receive(&mut buffer) {
                Ok(length) => frames.push(buffer[..length.min(buffer.len())].to_vec()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(frames),
                Err(e) => return Err(e).attempted(|| "read captured frames".to_owned()),
            }
        }
    }
}
