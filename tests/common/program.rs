//! The vpnd that a test starts: as root, or as a user with one capability.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A user's number: each daemon of these tests runs as that one, with CAP_NET_ADMIN and nothing else; `make matrix` runs
/// all of them so.
const AS: &str = "VPND_TEST_AS";

/// Whom the daemons run as, if not as root.
pub fn user() -> Option<u32> {
    let user = std::env::var(AS).ok().filter(|user| !user.is_empty())?;
    Some(user.parse().unwrap_or_else(|_| panic!("{AS}={user} is no user's number")))
}

/// To be started with `--config FILE` and the like; for other commands there is the binary itself.
pub fn daemon() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match user() {
        None => env!("CARGO_BIN_EXE_vpnd").into(),
        Some(user) => launcher(user),
    })
}

/// Hands a file or a folder to whom the daemons run as.
pub fn give(path: &Path) {
    if user().is_some() {
        std::os::unix::fs::chown(path, user(), user()).expect("root may give");
    }
}

/// Says that this test was not run, as what it is about takes more than that one capability.
pub fn lacks(capability: &str) -> bool {
    let lacks = user().is_some();
    if lacks {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        writeln!(std::io::stderr(), "\n*** NOT TESTED: {test} is about what {capability} gives ***\n")
            .expect("standard error is open");
    }
    lacks
}

/// Becomes the daemon, with the same process number and descriptors. The folder of its file is its own, as that of a
/// service's user is. (Where udev is, everybody may open the device; here a device node of the start's own stands there.)
fn launcher(user: u32) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("as-{user}-{}", std::process::id()));
    let text = format!(
        "#!/bin/sh\n\
         [ \"$(id -u)\" = 0 ] || exec {binary} \"$@\"\n\
         before=; file=.\n\
         for word in \"$@\"; do [ \"$before\" = --config ] && file=$word; before=$word; done\n\
         folder=$(dirname \"$file\")\n\
         export VPND_FOLDER=\"$folder\"\n\
         exec unshare --mount sh -ec 'node=$VPND_FOLDER/tun; [ -c \"$node\" ] || mknod -m 666 \"$node\" c 10 200 || [ -c \"$node\" ]\n\
           mount --bind \"$node\" /dev/net/tun; chown -R {user}:{user} \"$VPND_FOLDER\"; unset VPND_FOLDER\n\
           exec setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all,+net_admin \
           --ambient-caps=-all,+net_admin --bounding-set=-all,+net_admin {binary} \"$@\"' launcher \"$@\"\n",
        binary = env!("CARGO_BIN_EXE_vpnd"),
    );
    script(&path, &text, 0o755);
    path
}

/// Writes a program that can be started at once. Another process writes it: a child that another test begins just now would
/// inherit a file that is open for writing here, and a file that somebody writes is not executed (ETXTBSY).
pub fn script(path: &Path, text: &str, mode: u32) {
    let mut install = Command::new("install");
    install.args(["-m", &format!("{mode:o}"), "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut writing = install.spawn().expect("install runs");
    writing.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    assert!(writing.wait().expect("it ends").success(), "{} is not written", path.display());
}
