//! Memory that begins with a page: kernel copies to and from badly placed memory are many times slower on some
//! processors.

use std::ops::{Deref, DerefMut};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// A fixed number of bytes, the first of which begins a page.
pub struct Aligned {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// Zeros.
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE].into_boxed_slice();
        // Where an offset cannot be told, any other is as right, only slower. The box never moves its bytes.
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        Self { bytes, start, len }
    }
}

impl Deref for Aligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_page_and_has_its_length() {
        for len in [1, PAGE - 1, PAGE, 70_000] {
            let mut memory = Aligned::new(len);
            assert_eq!((memory.as_ptr().align_offset(PAGE), memory.len()), (0, len));
            memory.fill(7);
        }
    }
}
