//! The one door of randomness: the kernel's generator.

use getrandom::SysRng;
use rand_core::{CryptoRng, UnwrapErr};

/// The kernel's random numbers (`getrandom(2)`). Panics if the kernel refuses them, which it does only where the
/// system call is forbidden: going on without randomness would be worse.
pub fn os_rng() -> impl CryptoRng + Send {
    UnwrapErr(SysRng)
}
