//! The lists themselves. Each has the calls that are added to the list before it; who adds a call says in whose name.

use libc::*;

/// rename(3) of some C libraries; the crate does not have it for each architecture.
const RENAMEAT: c_long = if cfg!(target_arch = "x86_64") { 264 } else { 38 };

/// No call at all: what a tracer writes over a call's number so that it is not made (-1; filters see 32 bits of it). The
/// kernel asks the filter again after the tracer (since 4.8), then makes none, and answers what the tracer chose, or
/// ENOSYS where nobody traces (do_syscall_64, and el0_svc_common of arm64). So it takes nobody anywhere, and `strace` can
/// let calls fail while the lists are in force.
const NO_CALL: c_long = 0xffff_ffff;

/// A packet's walk, and what a thread needs to live, to log, and to end.
pub(super) const DATA: &[c_long] = &[
    // The walk.
    SYS_read,
    SYS_write,
    SYS_recvmsg,
    SYS_recvmmsg,
    SYS_sendmsg,
    SYS_ppoll,
    SYS_futex,
    SYS_clock_gettime,
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    // A rest after a fault; a thread that gives way.
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_sched_yield,
    SYS_restart_syscall,
    // ICMP errors: is the sender here (bind), what was its packet before NAT (netlink), the error itself; the journal.
    SYS_bind,
    SYS_sendto,
    SYS_recvfrom,
    SYS_setsockopt,
    SYS_getsockopt,
    SYS_getsockname,
    SYS_close,
    SYS_statx,
    SYS_newfstatat,
    SYS_writev,
    // Memory, never to be executed (mmap and mprotect have conditions).
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_getrandom,
    // Signals, a panic, the end.
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_getpid,
    SYS_gettid,
    SYS_fstat,
    SYS_lseek,
    SYS_exit,
    SYS_exit_group,
    // The C library's own, for each thread.
    SYS_set_robust_list,
    SYS_rseq,
    SYS_sched_getaffinity,
    SYS_membarrier,
    SYS_gettimeofday,
    SYS_getcpu,
    // A tracer's.
    NO_CALL,
];

/// To open a file, and to know where one is.
pub(super) const FILES: &[c_long] = &[
    SYS_openat,
    SYS_readlinkat,
    SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    SYS_open,
    #[cfg(target_arch = "x86_64")]
    SYS_readlink,
];

/// The driver, and those who work for it: handshakes, timers, control sockets, netlink, the file read again, timestamps
/// kept, another port, metrics elsewhere, another private key.
pub(super) const RUNNING: &[c_long] = &[
    // The runtime and its timers.
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_epoll_ctl,
    SYS_epoll_create1,
    SYS_eventfd2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_socketpair,
    SYS_pipe2,
    SYS_dup,
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait,
    // Sockets.
    SYS_connect,
    SYS_listen,
    SYS_accept4,
    SYS_shutdown,
    SYS_getpeername,
    SYS_readv,
    SYS_sendmmsg,
    // Files, as far as Landlock has them.
    SYS_pread64,
    SYS_pwrite64,
    SYS_getdents64,
    SYS_fsync,
    SYS_fdatasync,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_mkdirat,
    SYS_unlinkat,
    RENAMEAT,
    SYS_renameat2,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_fadvise64,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_flock,
    #[cfg(target_arch = "x86_64")]
    SYS_stat,
    #[cfg(target_arch = "x86_64")]
    SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    SYS_access,
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    SYS_rename,
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
    // Threads: clone has a condition, and clone3 fails (see `softened`).
    SYS_clone3,
    SYS_set_tid_address,
    SYS_getpriority,
    // The page of the private key.
    SYS_mlock,
    SYS_mlock2,
    SYS_munlock,
    // Who we are.
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_uname,
    SYS_sysinfo,
];

/// Until all stands: the TUN and its requests, raw sockets, the memory of where peers are, the sandbox itself.
pub(super) const SET_UP: &[c_long] = &[
    SYS_ioctl,
    SYS_socket,
    SYS_fcntl,
    SYS_prctl,
    SYS_prlimit64,
    SYS_memfd_create,
    SYS_linkat,
    SYS_capget,
    SYS_capset,
    SYS_mlockall,
    SYS_munlockall,
    SYS_close_range,
    SYS_umask,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_getattr,
    #[cfg(target_arch = "x86_64")]
    SYS_link,
];

/// `socket_owner` and `socket_group`.
pub(super) const CHOWN: &[c_long] = &[
    SYS_fchownat,
    SYS_fchown,
    #[cfg(target_arch = "x86_64")]
    SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    SYS_chown,
];

/// Of fcntl(2).
pub(super) const FCNTL: &[c_int] = &[F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC];

/// Of ioctl(2): non-blocking; is it a terminal?
#[allow(clippy::unnecessary_cast)] // musl says int
pub(super) const IOCTL: [u64; 2] = [FIONBIO as u64, TCGETS as u64];

/// Of prctl(2): a thread's name, and the way to a narrower list.
pub(super) const PRCTL: &[c_int] = &[PR_SET_NAME, PR_SET_NO_NEW_PRIVS];

/// Flags of clone(2) that make namespaces.
pub(super) const NAMESPACES: u64 = (CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET) as u64;

/// What no look-up of a name needs: other programs, other processes, the kernel's own affairs.
pub(super) const WAYS_OUT: &[c_long] = &[
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsmount,
    SYS_unshare,
    SYS_setns,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_open_by_handle_at,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_syslog,
    SYS_quotactl,
    SYS_setuid,
    SYS_setgid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
];
