//! A page for a secret: locked (never swapped out), left out of core dumps, empty in a child, and between two pages that
//! nobody may touch, so that no overrun of a neighbour reaches it.

use std::{io, ptr::NonNull, sync::atomic::Ordering};

/// Bytes of the secret, which stand at the end of the page: reading on behind them faults.
const SECRET: usize = 32;

/// A page with 32 secret bytes. Erased when dropped.
#[derive(Debug)]
pub struct SecretPage {
    /// Three pages, of which the middle one is ours.
    mapping: NonNull<u8>,
    page: usize,
    locked: bool,
}

// SAFETY: the mapping is this value's alone; shared access only reads, and what writes takes `&mut self`.
unsafe impl Send for SecretPage {}
// SAFETY: as above.
unsafe impl Sync for SecretPage {}

impl SecretPage {
    /// All zero. An error where the kernel has no memory; a limit on locked memory is none: [`Self::is_locked`] says it.
    pub fn new() -> io::Result<Self> {
        let page = page_size();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address that the kernel chooses; nothing else can know it.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), 3 * page, libc::PROT_NONE, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut made = Self { mapping, page, locked: false };
        let middle = made.middle().cast();
        // SAFETY: the middle page of our own mapping.
        super::checked(unsafe { libc::mprotect(middle, page, libc::PROT_READ | libc::PROT_WRITE) })?;
        // Not mlock(2), of which the address sanitizer leaves nothing: this is the same.
        // SAFETY: as above.
        made.locked = unsafe { libc::mlock2(middle, page, 0) } == 0;
        // SAFETY: as above. Both are refused by old kernels alone, where the process as a whole leaves no core.
        unsafe {
            libc::madvise(middle, page, libc::MADV_DONTDUMP);
            libc::madvise(middle, page, libc::MADV_WIPEONFORK);
        }
        Ok(made)
    }

    /// Is it kept out of swap?
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// The secret.
    pub fn bytes(&self) -> &[u8; SECRET] {
        // SAFETY: the last bytes of our middle page, which is readable as long as we live; bytes need no alignment.
        unsafe { &*self.place().cast() }
    }

    /// The secret, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8; SECRET] {
        // SAFETY: as above, and writable; `&mut self` keeps all others away.
        unsafe { &mut *self.place().cast() }
    }

    fn middle(&self) -> *mut u8 {
        // SAFETY: within the three pages.
        unsafe { self.mapping.as_ptr().add(self.page) }
    }

    fn place(&self) -> *mut u8 {
        // SAFETY: within the middle page.
        unsafe { self.middle().add(self.page - SECRET) }
    }
}

impl Drop for SecretPage {
    fn drop(&mut self) {
        for byte in self.bytes_mut() {
            // SAFETY: a valid place; volatile, so that it is done although nobody reads it any more.
            unsafe { std::ptr::write_volatile(byte, 0) };
        }
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        // SAFETY: our own mapping, whole, that nobody uses any more; what was locked in it is so no longer.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), 3 * self.page) };
    }
}

fn page_size() -> usize {
    // SAFETY: takes one integer.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| *size >= SECRET).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the kernel says of the mapping that begins here.
    fn flags_at(address: usize) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&format!("{address:x}-")));
        lines.find_map(|line| line.strip_prefix("VmFlags: ")).expect("each mapping has flags").to_owned()
    }

    #[test]
    fn the_page_is_locked_not_dumped_empty_in_a_child_and_stands_between_two_that_nobody_may_touch() {
        let mut page = SecretPage::new().unwrap();
        *page.bytes_mut() = [7; SECRET];
        assert_eq!(page.bytes(), &[7; SECRET]);
        let middle = page.middle() as usize;
        let flags = flags_at(middle);
        let has = |flag: &str| flags.split(' ').any(|one| one == flag);
        assert!(has("dd") && has("wf") && has("rd") && has("wr"), "{flags}");
        assert_eq!(has("lo"), page.is_locked(), "{flags}");
        assert!(page.is_locked(), "a test may lock a page");
        for guard in [middle - page.page, middle + page.page] {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let line = maps.lines().find(|line| {
                let (range, _) = line.split_once(' ').unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let [from, to] = [from, to].map(|hex| usize::from_str_radix(hex, 16).unwrap());
                (from..to).contains(&guard)
            });
            assert!(line.expect("it is mapped").contains(" ---p "), "{line:?}");
        }
    }
}
