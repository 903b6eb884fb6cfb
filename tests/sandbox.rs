//! The sandbox from the inside: a process goes into it as the daemon does, and then tries to get out. Each attempt is a
//! process of its own, since most end with it.
#![cfg(feature = "daemon")]

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use vpnd::sys::sandbox::{
    self, Folders, capabilities,
    files::{self, Absent},
    seccomp::{self, Stage, Threads},
};

/// Which attempt the attacker makes, and where it stands.
const ATTEMPT: &str = "VPND_TEST_ATTEMPT";
const STAGE: &str = "VPND_TEST_STAGE";
const FOLDER: &str = "VPND_TEST_FOLDER";
/// What it says when it got through, and when it was refused.
const THROUGH: &str = "got through";
const REFUSED: &str = "refused";

const RUNNING: Stage = Stage::Running { chown: false };

/// Starts the attacker: this very program, with that one test.
fn attack(attempt: &str, stage: Option<Stage>, folder: &Path) -> Output {
    let stage = match stage {
        None => "none",
        Some(Stage::SetUp) => "set-up",
        Some(Stage::Running { .. }) => "running",
        Some(Stage::Data) => "data",
    };
    attack_at(attempt, stage, folder)
}

fn attack_at(attempt: &str, stage: &str, folder: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "the_attacker", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(ATTEMPT, attempt).env(FOLDER, folder).env(STAGE, stage);
    command.output().expect("it can be started")
}

#[track_caller]
fn is_killed(attempt: &str, stage: Stage) {
    let ended = attack(attempt, Some(stage), Path::new("/"));
    assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{attempt} at {stage:?}: {ended:?}");
}

#[track_caller]
fn says(expected: &str, attempt: &str, stage: Option<Stage>, folder: &Path) {
    let ended = attack(attempt, stage, folder);
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains(&format!("{attempt}: {expected}")), "{attempt} at {stage:?}: {ended:?}");
}

/// System calls that a tunnel never makes, with arguments that do no harm where they are allowed.
const CALLS: &[(&str, libc::c_long, [libc::c_long; 4])] = &[
    ("execve", libc::SYS_execve, [0; 4]),
    ("execveat", libc::SYS_execveat, [-1, 0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [0x4200, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [0; 4]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [0; 4]),
    ("mount", libc::SYS_mount, [0; 4]),
    ("umount2", libc::SYS_umount2, [0; 4]),
    ("pivot_root", libc::SYS_pivot_root, [0; 4]),
    ("chroot", libc::SYS_chroot, [0; 4]),
    ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER as libc::c_long, 0, 0, 0]),
    ("setns", libc::SYS_setns, [-1, 0, 0, 0]),
    ("bpf", libc::SYS_bpf, [0; 4]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
    ("keyctl", libc::SYS_keyctl, [0; 4]),
    ("add_key", libc::SYS_add_key, [0; 4]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
    ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0]),
    ("init_module", libc::SYS_init_module, [0; 4]),
    ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, -1]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0]),
    ("pidfd_open", libc::SYS_pidfd_open, [-1, 0, 0, 0]),
    ("kill", libc::SYS_kill, [-12345678, 0, 0, 0]),
    ("tgkill of another process", libc::SYS_tgkill, [1, 1, 0, 0]),
    ("setuid", libc::SYS_setuid, [-1, 0, 0, 0]),
    ("capset", libc::SYS_capset, [0; 4]),
    ("personality", libc::SYS_personality, [-1, 0, 0, 0]),
    ("setrlimit", libc::SYS_prlimit64, [0, 0, 1, 0]),
    ("memfd_create", libc::SYS_memfd_create, [0; 4]),
    ("linkat", libc::SYS_linkat, [-1, 0, -1, 0]),
    ("symlinkat", libc::SYS_symlinkat, [0, -1, 0, 0]),
    ("fchownat", libc::SYS_fchownat, [-1, 0, 0, 0]),
    ("setxattr", libc::SYS_setxattr, [0; 4]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0]),
    ("clock_settime", libc::SYS_clock_settime, [-1, 0, 0, 0]),
    ("fork", libc::SYS_clone, [libc::SIGCHLD as libc::c_long, 0, 0, 0]),
    (
        "a thread in a namespace of its own",
        libc::SYS_clone,
        [(libc::CLONE_THREAD | libc::CLONE_NEWNET) as libc::c_long, 0, 0, 0],
    ),
    ("ioctl that types into a terminal", libc::SYS_ioctl, [-1, libc::TIOCSTI as libc::c_long, 0, 0]),
    ("ioctl that makes a TUN", libc::SYS_ioctl, [-1, libc::TUNSETIFF as libc::c_long, 0, 0]),
    ("memory that can be executed", libc::SYS_mmap, [0, 4096, 5, 0x22]),
    ("memory made executable", libc::SYS_mprotect, [0, 0, 5, 0]),
    ("prctl that gives privileges back", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as libc::c_long, 1, 0, 0]),
    ("raw socket", libc::SYS_socket, [libc::AF_INET as libc::c_long, libc::SOCK_RAW as libc::c_long, 1, 0]),
    (
        "raw socket of IPv6",
        libc::SYS_socket,
        [libc::AF_INET6 as libc::c_long, libc::SOCK_RAW as libc::c_long, 58, 0],
    ),
    (
        "packet socket",
        libc::SYS_socket,
        [libc::AF_PACKET as libc::c_long, libc::SOCK_DGRAM as libc::c_long, 0, 0],
    ),
    (
        "netlink of audit",
        libc::SYS_socket,
        [libc::AF_NETLINK as libc::c_long, libc::SOCK_RAW as libc::c_long, 9, 0],
    ),
    ("socket of a hypervisor", libc::SYS_socket, [40, libc::SOCK_STREAM as libc::c_long, 0, 0]),
];

/// Those that a data thread is denied on top.
const OF_THE_DRIVER: &[(&str, libc::c_long, [libc::c_long; 4])] = &[
    ("connect", libc::SYS_connect, [-1, 0, 0, 0]),
    ("listen", libc::SYS_listen, [-1, 0, 0, 0]),
    ("accept4", libc::SYS_accept4, [-1, 0, 0, 0]),
    ("unlinkat", libc::SYS_unlinkat, [-1, 0, 0, 0]),
    ("renameat2", libc::SYS_renameat2, [-1, 0, -1, 0]),
    ("getdents64", libc::SYS_getdents64, [-1, 0, 0, 0]),
    ("seccomp", libc::SYS_seccomp, [-1, 0, 0, 0]),
    (
        "socket of the host",
        libc::SYS_socket,
        [libc::AF_UNIX as libc::c_long, libc::SOCK_STREAM as libc::c_long, 0, 0],
    ),
    (
        "netlink of routes",
        libc::SYS_socket,
        [libc::AF_NETLINK as libc::c_long, libc::SOCK_RAW as libc::c_long, 0, 0],
    ),
];

/// What a tracer writes over a call so that none is made.
const NO_CALL: (&str, libc::c_long, [libc::c_long; 4]) = ("no call at all", -1, [0; 4]);

#[test]
#[ignore = "started by the other tests, in a process that it may lose"]
fn the_attacker() {
    let attempt = std::env::var(ATTEMPT).expect("only the other tests start it");
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("where it stands"));
    enter(&std::env::var(STAGE).expect("how far"), &folder);
    let stage = std::env::var(STAGE).expect("how far");
    let known = CALLS
        .iter()
        .chain(OF_THE_DRIVER)
        .chain([&NO_CALL])
        .find(|(name, ..)| *name == attempt && stage != "names");
    let through = match known {
        Some((_, number, [a, b, c, d])) => {
            // SAFETY: each call has arguments that the kernel refuses or that change nothing of this process.
            let returned =
                unsafe { libc::syscall(*number, *a, *b, *c, *d, -1 as libc::c_long, 0 as libc::c_long) };
            let error = std::io::Error::last_os_error().raw_os_error();
            // It came back; and what is no call has done nothing.
            *number != NO_CALL.1 || (returned, error) == (-1, Some(libc::ENOSYS))
        }
        None => try_files(&attempt, &folder),
    };
    println!("{attempt}: {}", if through { THROUGH } else { REFUSED });
}

/// As the daemon does it, for this thread.
fn enter(stage: &str, folder: &Path) {
    let stages: &[Stage] = match stage {
        "none" => return,
        "names" => return sandbox::confine_name_service(),
        "set-up" => &[Stage::SetUp],
        "running" => &[Stage::SetUp, RUNNING],
        _ => &[Stage::SetUp, RUNNING, Stage::Data],
    };
    sandbox::no_new_privileges().expect("each kernel has that");
    let folders = Folders {
        read: vec![folder.join("read")],
        keep: vec![folder.join("keep")],
        sockets: vec![folder.join("sockets")],
        devices: vec![folder.join("device")],
    };
    match files::only(&folders) {
        Ok(_) | Err(Absent::Unknown | Absent::NotEnabled | Absent::TooOld(_)) => {}
        Err(refused) => panic!("{refused}"),
    }
    capabilities::keep(&[]).expect("they can be given up");
    for stage in stages {
        seccomp::apply(*stage, Threads::This).expect("this architecture has a list");
    }
}

/// Did it work?
fn try_files(attempt: &str, folder: &Path) -> bool {
    let file = |name: &str| folder.join(name);
    let done = match attempt {
        "reading the host's passwords" => File::open("/etc/shadow").map(drop),
        "reading what is to be read" => fs::read_to_string(file("read/file")).map(drop),
        "writing what is to be read" => File::options().append(true).open(file("read/file")).map(drop),
        "making a file where one reads" => File::create_new(file("read/new")).map(drop),
        "removing a file where one reads" => fs::remove_file(file("read/file")),
        "keeping a file" => File::create_new(file("keep/new"))
            .and_then(|_| fs::rename(file("keep/new"), file("keep/kept")))
            .and_then(|()| fs::remove_file(file("keep/kept"))),
        "removing a socket" => fs::remove_file(file("sockets/socket")),
        "exec" => Command::new("/bin/true").status().map(drop),
        "a name" => std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 1)).map(drop),
        "a raw socket" => {
            // SAFETY: plain integers go in.
            result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, 1) })
        }
        "a namespace" => {
            // SAFETY: as above.
            result(unsafe { libc::unshare(libc::CLONE_NEWUSER) })
        }
        "ptrace" => {
            // SAFETY: as above; the request has no memory to touch.
            result(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } as libc::c_int)
        }
        "reading beside" => fs::read_to_string(file("beside")).map(drop),
        "moving a file out" => fs::rename(file("keep/old"), file("out")),
        other => panic!("nobody knows the attempt {other:?}"),
    };
    match done {
        Ok(()) => true,
        Err(error) => {
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::PermissionDenied | ErrorKind::CrossesDevices),
                "{attempt}: {error}"
            );
            false
        }
    }
}

fn result(returned: libc::c_int) -> std::io::Result<()> {
    if returned < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["read", "keep", "sockets"] {
        fs::create_dir(folder.path().join(name)).expect("a folder in it");
    }
    for name in ["read/file", "keep/old", "sockets/socket", "beside", "device"] {
        fs::write(folder.path().join(name), "x").expect("a file in it");
    }
    folder
}

#[test]
fn no_call_that_a_tunnel_never_makes_comes_back_once_it_runs() {
    let at_first: Vec<_> = CALLS.iter().map(|(name, ..)| *name).collect();
    assert!(at_first.len() > 40);
    for name in at_first {
        is_killed(name, RUNNING);
    }
}

#[test]
fn while_it_is_set_up_it_starts_no_program_and_leaves_no_namespace_either() {
    for name in [
        "execve",
        "execveat",
        "ptrace",
        "mount",
        "unshare",
        "setns",
        "bpf",
        "io_uring_setup",
        "keyctl",
        "kill",
        "fork",
        "init_module",
        "memory that can be executed",
    ] {
        is_killed(name, Stage::SetUp);
    }
}

#[test]
fn a_thread_that_carries_data_reaches_nothing_else() {
    for (name, ..) in OF_THE_DRIVER {
        is_killed(name, Stage::Data);
        if *name != "seccomp" {
            says(THROUGH, name, Some(RUNNING), Path::new("/")); // what this test would see, were there no list
        }
    }
    let folder = place();
    says(REFUSED, "reading what is to be read", Some(Stage::Data), folder.path());
}

/// So that `strace` can let calls fail while the lists are in force: see list.rs.
#[test]
fn a_call_that_a_tracer_took_away_is_none_and_kills_nobody() {
    for stage in [None, Some(Stage::SetUp), Some(RUNNING), Some(Stage::Data)] {
        says(THROUGH, NO_CALL.0, stage, Path::new("/"));
    }
}

/// Its list is one of what is forbidden, with an error: the C library's modules do as they please.
#[test]
fn a_process_that_looks_up_names_reaches_no_program_no_namespace_and_no_network_device() {
    let folder = place();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    for name in [
        "exec",
        "a raw socket",
        "a namespace",
        "ptrace",
        "writing what is to be read",
        "reading the host's passwords",
    ] {
        let ended = attack_at(name, "names", folder.path());
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(said.contains(&format!("{name}: {REFUSED}")), "{name}: {ended:?}");
    }
    for name in ["a name", "reading what is to be read"] {
        let ended = attack_at(name, "names", folder.path());
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(said.contains(&format!("{name}: {THROUGH}")), "{name}: {ended:?}");
    }
}

#[test]
fn what_is_attempted_here_works_outside() {
    for name in
        ["ptrace", "bpf", "io_uring_setup", "keyctl", "raw socket", "memory that can be executed", "kill"]
    {
        says(THROUGH, name, None, Path::new("/"));
    }
    let folder = place();
    for name in ["reading beside", "making a file where one reads", "moving a file out"] {
        says(THROUGH, name, None, folder.path());
    }
}

#[test]
fn there_are_no_files_but_those_that_were_named() {
    let folder = place();
    // A kernel without Landlock says so in the status, and has the other two.
    if attack("reading beside", Some(RUNNING), folder.path())
        .stdout
        .windows(11)
        .any(|text| text == b"got through")
    {
        let in_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!in_ci, "the kernel that CI runs on must have Landlock");
        eprintln!("*** NOT TESTED: this kernel has no Landlock ***");
        return;
    }
    for name in [
        "reading the host's passwords",
        "writing what is to be read",
        "making a file where one reads",
        "removing a file where one reads",
        "reading beside",
        "moving a file out",
    ] {
        says(REFUSED, name, Some(RUNNING), folder.path());
    }
    for name in ["reading what is to be read", "keeping a file", "removing a socket"] {
        says(THROUGH, name, Some(RUNNING), folder.path());
    }
}
