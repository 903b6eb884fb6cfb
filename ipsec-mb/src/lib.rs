//! ChaCha20-Poly1305 (RFC 8439, section 2.8) of Intel's Multi-Buffer Crypto for IPsec, if this machine has the library
//! and a processor with AVX-512 IFMA: there it takes half the time of other libraries for a packet of usual size.
//!
//! The library is opened while running; whoever finds it absent uses another one. It is called by `shim.c`, which is
//! compiled against its header. Its managers are for one thread each: they live in thread-local memory.
#![warn(missing_docs)]

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes of a tag.
pub const TAG_LEN: usize = 16;

/// Why there is nothing to seal with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent(pub &'static str);

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Absent {}

/// What is done to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It is encrypted.
    Seal,
    /// It is decrypted.
    Open,
}

/// The proof that the library is there and does what it should on this processor; its functions are the whole use of it.
#[derive(Clone, Copy, Debug)]
pub struct Library(imp::Opened);

impl Library {
    /// Opens it, the first time; what came of it stays. Each manager tries all algorithms, which brings 3 MB of the library's
    /// code into memory: after this call it can go again.
    pub fn open() -> Result<Self, Absent> {
        imp::open().map(Self)
    }

    /// Its version, as `1.3.0`.
    pub fn version(self) -> &'static str {
        self.0.version()
    }

    /// Seals or opens `text` in place. Returns the tag that goes with it: what was opened is to be trusted only if that is the
    /// tag that came with it, which the caller compares in constant time.
    #[must_use = "without its tag nothing is authentic"]
    pub fn run(
        self,
        direction: Direction,
        key: &[u8; KEY_LEN],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_LEN] {
        self.0.run(direction, key, nonce, aad, text)
    }
}

#[cfg(shim)]
mod imp {
    use std::{
        ffi::{CStr, c_char, c_int, c_void},
        ptr::NonNull,
        sync::{Mutex, OnceLock, PoisonError},
    };

    use super::{Absent, Direction, KEY_LEN, NONCE_LEN, TAG_LEN};

    // SAFETY: the declarations are those of shim.c.
    unsafe extern "C" {
        fn vpnd_ipsec_mb_open() -> *const c_char;
        fn vpnd_ipsec_mb_version() -> *const c_char;
        fn vpnd_ipsec_mb_new() -> *mut c_void;
        fn vpnd_ipsec_mb_free(manager: *mut c_void);
        fn vpnd_ipsec_mb_run(
            manager: *mut c_void,
            decrypt: c_int,
            key: *const u8,
            nonce: *const u8,
            aad: *const u8,
            aad_length: u64,
            text: *mut u8,
            length: u64,
            tag: *mut u8,
        ) -> c_int;
    }

    #[derive(Clone, Copy, Debug)]
    pub(super) struct Opened(());

    pub(super) fn open() -> Result<Opened, Absent> {
        static OPENED: OnceLock<Result<Opened, Absent>> = OnceLock::new();
        *OPENED.get_or_init(|| {
            // SAFETY: it is called once, and what it returns is a literal or null.
            let why_not = unsafe { text(vpnd_ipsec_mb_open()) };
            if let Some(why) = why_not {
                return Err(Absent(why));
            }
            let unable =
                Absent("this processor has no AVX-512 IFMA, or the library does not erase what it leaves");
            let ahead = (0..MADE_AHEAD).map(|_| Manager::new()).collect::<Option<Vec<_>>>().ok_or(unable)?;
            *AHEAD.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
            Ok(Opened(()))
        })
    }

    /// # Safety
    /// `literal` is null, or a C string that lives for ever.
    unsafe fn text(literal: *const c_char) -> Option<&'static str> {
        if literal.is_null() {
            return None;
        }
        // SAFETY: the caller's promise.
        Some(unsafe { CStr::from_ptr(literal) }.to_str().unwrap_or("it said what is no text"))
    }

    impl Opened {
        pub(super) fn version(self) -> &'static str {
            // SAFETY: `self` shows that the library is open; its version is a literal in it.
            unsafe { text(vpnd_ipsec_mb_version()) }.unwrap_or("of an unknown version")
        }

        pub(super) fn run(
            self,
            direction: Direction,
            key: &[u8; KEY_LEN],
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            text: &mut [u8],
        ) -> [u8; TAG_LEN] {
            let mut tag = [0; TAG_LEN];
            let decrypt = c_int::from(matches!(direction, Direction::Open));
            let done = MANAGER.with(|manager| {
                // SAFETY: the manager is this thread's; each pointer is valid for the length that stands beside it or in
                // its type, and the library keeps none of them after the call.
                unsafe {
                    vpnd_ipsec_mb_run(
                        manager.0.as_ptr(),
                        decrypt,
                        key.as_ptr(),
                        nonce.as_ptr(),
                        aad.as_ptr(),
                        aad.len() as u64,
                        text.as_mut_ptr(),
                        text.len() as u64,
                        tag.as_mut_ptr(),
                    )
                }
            });
            assert_eq!(done, 0, "the library refused a job that is always of the same form");
            tag
        }
    }

    /// Managers that are made while the process is still small: for its first thread, and two that carry data.
    const MADE_AHEAD: usize = 3;
    static AHEAD: Mutex<Vec<Manager>> = Mutex::new(Vec::new());

    thread_local! {
        static MANAGER: Manager = {
            let ahead = AHEAD.lock().unwrap_or_else(PoisonError::into_inner).pop();
            ahead.or_else(Manager::new).expect("memory for 200 KB: the first one was made, too")
        };
    }

    struct Manager(NonNull<c_void>);

    // SAFETY: a manager is plain memory with pointers into itself; whoever has it may use it, one at a time.
    unsafe impl Send for Manager {}

    impl Manager {
        /// The library is open.
        fn new() -> Option<Self> {
            // SAFETY: the shim's functions are set.
            NonNull::new(unsafe { vpnd_ipsec_mb_new() }).map(Self)
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            // SAFETY: it is ours, and nobody uses it any more.
            unsafe { vpnd_ipsec_mb_free(self.0.as_ptr()) }
        }
    }
}

#[cfg(not(shim))]
mod imp {
    use super::{Absent, Direction, KEY_LEN, NONCE_LEN, TAG_LEN};

    /// There is none.
    #[derive(Clone, Copy, Debug)]
    pub(super) enum Opened {}

    pub(super) fn open() -> Result<Opened, Absent> {
        Err(Absent("vpnd was built without its header (Debian: libipsec-mb-dev), or not for x86-64"))
    }

    impl Opened {
        pub(super) fn version(self) -> &'static str {
            match self {}
        }

        pub(super) fn run(
            self,
            _: Direction,
            _: &[u8; KEY_LEN],
            _: &[u8; NONCE_LEN],
            _: &[u8],
            _: &mut [u8],
        ) -> [u8; TAG_LEN] {
            match self {}
        }
    }
}
