//! Descriptors that outlive a process, kept by its service manager: taking them over, telling what they are, and memory
//! to keep with them.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    sync::atomic::{AtomicBool, Ordering},
};

/// Those that the service manager handed over (sd_listen_fds_with_names(3)), with their names; closed on exec from now
/// on. Only the first call gets them.
pub fn handed_over() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let descriptors = sd_notify::listen_fds_with_names()?;
    // SAFETY: the numbers come from whoever started this process, who says by LISTEN_PID that it means us and that it
    // opened them for us; each was found open just now. Nothing else here knows them, and they are taken once.
    Ok(descriptors.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect())
}

/// Memory with a descriptor, of no size yet (memfd_create(2)).
pub fn memory(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: `name` is terminated, and only read; the result is checked.
    let fd = super::checked(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Is this TUN device (not its descriptor: a device can be moved) in the network namespace of the calling thread?
pub fn tun_is_here(tun: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: TUNGETDEVNETNS takes no argument.
    let namespace = super::checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETDEVNETNS as _) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    is_here(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// Is this socket of the network namespace of the calling thread?
pub fn socket_is_here(socket: BorrowedFd<'_>) -> io::Result<bool> {
    is_here(namespace_of(socket)?)
}

/// A socket made now tells where we are, where no /proc is mounted, too.
fn is_here(namespace: OwnedFd) -> io::Result<bool> {
    let here = namespace_of(UnixDatagram::unbound()?.as_fd())?;
    let [there, here] = [File::from(namespace), File::from(here)].map(|file| file.metadata());
    let (there, here) = (there?, here?);
    Ok((there.dev(), there.ino()) == (here.dev(), here.ino()))
}

/// SIOCGSKNS (linux/sockios.h); it takes CAP_NET_ADMIN.
fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    // SAFETY: SIOCGSKNS takes no argument.
    let namespace = super::checked(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}
