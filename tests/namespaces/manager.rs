//! A test in the place of the service manager: notifications and the descriptors that come with them (NOTIFY_SOCKET,
//! FDSTORE), the store that outlives a process (LISTEN_FDS), and the watchdog.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vpnd::lab::{Host, Process};

use crate::{
    common::program,
    world::{as_in_matrix, sh},
};

/// Nothing here takes a tenth of that on an idle machine.
const LONG: Duration = Duration::from_secs(20);
/// Where descriptors stand until the shell moves them: out of the way of everything.
const ASIDE: usize = 500;

/// One service, its process and its store.
pub struct Manager {
    pub host: Host,
    process: Option<Process>,
    socket: UnixDatagram,
    /// Name and descriptor, as they were stored.
    pub store: Vec<(String, OwnedFd)>,
    /// All lines that were notified by the present process.
    pub told: Vec<String>,
    /// WATCHDOG_USEC.
    pub watchdog: Option<Duration>,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Manager {
    /// For the service of this file; nothing is started.
    pub fn new(host: Host, toml: &str) -> Self {
        let path = host.folder().join("manager.notify");
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_nonblocking(true).expect("it can be");
        let manager = Self {
            host,
            process: None,
            socket,
            store: Vec::new(),
            told: Vec::new(),
            watchdog: None,
            arguments: Vec::new(),
        };
        manager.write(toml);
        manager
    }

    fn file(&self, name: &str) -> PathBuf {
        self.host.folder().join(name)
    }

    /// The file, from the next start on.
    pub fn write(&self, toml: &str) {
        let path = self.file("manager.toml");
        std::fs::write(&path, as_in_matrix(toml)).expect("the host's own folder");
        sh(&self.host, &format!("chmod 600 {}", path.display()));
    }

    /// Starts a process with what is in the store, and does not wait for it.
    pub fn begin(&mut self) {
        let count = self.store.len();
        let moves: String = (0..count).map(|n| format!(" {}<&{}", 3 + n, ASIDE + n)).collect();
        let closes: String = (0..count).map(|n| format!(" {}<&-", ASIDE + n)).collect();
        let environment = match count {
            0 => "unset LISTEN_PID LISTEN_FDS LISTEN_FDNAMES".to_owned(),
            _ => {
                let names: Vec<_> = self.store.iter().map(|(name, _)| name.as_str()).collect();
                format!("export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={}", names.join(":"))
            }
        };
        // The shell becomes the daemon, whose number it knows beforehand.
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("{environment}; exec \"$0\" \"$@\"{moves}{closes}"));
        command.arg(program::daemon()).args(["--log", "debug", "--config"]).arg(self.file("manager.toml"));
        command
            .arg("--run-dir")
            .arg(self.file("manager.run"))
            .arg("--state-dir")
            .arg(self.file("manager.state"));
        command.args(&self.arguments).env("NOTIFY_SOCKET", self.file("manager.notify"));
        if let Some(limit) = self.watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        let mapping = |(n, (_, fd)): (usize, &(String, OwnedFd))| FdMapping {
            parent_fd: fd.try_clone().expect("a descriptor"),
            child_fd: (ASIDE + n) as i32,
        };
        command
            .fd_mappings(self.store.iter().enumerate().map(mapping).collect())
            .expect("numbers of their own");
        self.told.clear();
        self.process = Some(self.host.spawn("manager", command).expect("it can be started"));
    }

    /// Starts a process with what is in the store; ready when this returns.
    #[track_caller]
    pub fn start(&mut self) {
        self.begin();
        let ready = self.until(|manager| manager.told.iter().any(|line| line == "READY=1"));
        assert!(ready, "not ready: {:?}\n{}", self.told, self.log());
    }

    /// Takes what was notified, until this is true; false after a while, or if the process ends.
    pub fn until(&mut self, mut is: impl FnMut(&mut Self) -> bool) -> bool {
        let end = Instant::now() + LONG;
        loop {
            let ended = self.process.as_mut().is_none_or(|process| process.ended().is_some());
            self.listen();
            if is(self) {
                return true;
            }
            if ended || Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes what was notified.
    pub fn listen(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg(self.socket.as_fd(), &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
            let Ok(received) = received else { return };
            let descriptors: Vec<OwnedFd> = ancillary
                .drain()
                .filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors.collect::<Vec<_>>()),
                    _ => None,
                })
                .flatten()
                .collect();
            let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
            self.notified(&text, descriptors);
        }
    }

    /// As sd_notify(3) has it.
    fn notified(&mut self, text: &str, descriptors: Vec<OwnedFd>) {
        let has = |line: &str| text.lines().any(|other| other == line);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
        if has("FDSTORE=1") {
            self.store.extend(descriptors.into_iter().map(|descriptor| (name.to_owned(), descriptor)));
        }
        if has("FDSTOREREMOVE=1") {
            self.store.retain(|(stored, _)| stored != name);
        }
        self.told.extend(text.lines().map(str::to_owned));
    }

    /// Of the process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// What the present process logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log)
    }

    pub fn signal(&self, name: &str) {
        sh(&self.host, &format!("kill -{name} {}", self.pid()));
    }

    /// Sends this signal, and waits for the end.
    #[track_caller]
    pub fn end(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let end = Instant::now() + LONG;
        while status.is_none() {
            assert!(Instant::now() < end, "it does not end: {}", self.log());
            self.listen();
            status = self.process.as_mut().expect("it runs").ended();
            std::thread::sleep(Duration::from_millis(2));
        }
        self.listen();
        status.expect("it ended")
    }

    /// As `systemctl restart` with the unit's RestartKillSignal= does it, or after a crash.
    #[track_caller]
    pub fn restart(&mut self, signal: &str) {
        let status = self.end(signal);
        if signal != "KILL" {
            assert!(status.success(), "{status}: {}", self.log());
        }
        self.start();
    }

    /// As `systemctl stop` does it: nobody starts it again, and what it left in the store is closed.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.end("TERM");
        assert!(status.success(), "{status}: {}", self.log());
        assert_eq!(self.stored(), [""; 0], "it empties the store itself");
    }

    /// The names in the store.
    pub fn stored(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.store.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// From where `wg` speaks to it.
    pub fn sockets(&self) -> PathBuf {
        self.file("manager.run").join("wireguard")
    }
}
