//! Users and groups by name: getpwnam_r(3), getgrnam_r(3).

use std::{ffi::CString, io, mem::MaybeUninit, ptr};

/// What an entry with its texts may take; a group of a directory service can have very many members.
const ROOM: std::ops::RangeInclusive<u32> = 12..=20;

/// The number of a user; none: there is no such user.
pub fn user(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    with_room(|room| {
        let (mut entry, mut found) = (MaybeUninit::<libc::passwd>::uninit(), ptr::null_mut());
        // SAFETY: `name` ends with a zero; `entry`, `found` and `room` are writable, `room` for its length.
        let failed = unsafe {
            let (text, length) = (room.as_mut_ptr().cast(), room.len());
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), text, length, &mut found)
        };
        // SAFETY: where it is not null, it points to `entry`, which has been filled.
        (failed, unsafe { found.as_ref() }.map(|entry| entry.pw_uid))
    })
}

/// The number of a group; none: there is no such group.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    with_room(|room| {
        let (mut entry, mut found) = (MaybeUninit::<libc::group>::uninit(), ptr::null_mut());
        // SAFETY: as in `user`.
        let failed = unsafe {
            let (text, length) = (room.as_mut_ptr().cast(), room.len());
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), text, length, &mut found)
        };
        // SAFETY: as in `user`.
        (failed, unsafe { found.as_ref() }.map(|entry| entry.gr_gid))
    })
}

/// Asks with more and more room.
fn with_room(mut ask: impl FnMut(&mut [u8]) -> (libc::c_int, Option<u32>)) -> io::Result<Option<u32>> {
    for power in ROOM {
        match ask(&mut vec![0; 1 << power]) {
            (0, found) => return Ok(found),
            (libc::ERANGE, _) => {}
            // How some name services say "nobody" (the manual's list).
            (libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, _) => return Ok(None),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_else_is_taken_for_somebody() {
        assert_eq!((user("root").unwrap(), group("root").unwrap()), (Some(0), Some(0)));
        assert_eq!((user("vpnd-nobody-has-it").unwrap(), group("vpnd-nobody-has-it").unwrap()), (None, None));
        assert!(user("a\0b").is_err());
    }
}
