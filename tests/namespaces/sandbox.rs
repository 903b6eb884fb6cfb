//! What a running daemon is still able to do, and those beside it. (How the sandbox holds from the inside:
//! `tests/sandbox.rs`. That it leaves a tunnel all that it needs: every other test here, since it is on in all of them.)

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use crate::{
    common::{need_root, program},
    world::{Node, Pair, Spec, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// As bits. The last two stay where a limit cannot be raised in their stead (CAP_SYS_RESOURCE).
const KEPT: [(u8, &str); 4] =
    [(10, "CAP_NET_BIND_SERVICE"), (12, "CAP_NET_ADMIN"), (14, "CAP_IPC_LOCK"), (23, "CAP_SYS_NICE")];
const SYS_RESOURCE: u64 = 1 << 24;
const NONE: &str = "0000000000000000";
/// CAP_NET_ADMIN.
const ONE: &str = "0000000000001000";

/// The bounding set: whoever has not CAP_SETPCAP cannot empty it.
fn bounding() -> &'static str {
    if program::user().is_some() { ONE } else { NONE }
}

/// The lines of /proc/PID/task/TID/status, by name, for each thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let lines = |text: String| {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    };
    tasks.flatten().filter_map(read).map(lines).collect()
}

/// The capabilities that a daemon of ours keeps: their bits, and their names, sorted.
fn kept() -> (String, Vec<&'static str>) {
    if program::user().is_some() {
        return (ONE.to_owned(), vec!["CAP_NET_ADMIN"]);
    }
    let own = &threads(std::process::id())[0]["CapEff"];
    let has_resource = u64::from_str_radix(own, 16).expect("hex digits") & SYS_RESOURCE != 0;
    let kept = if has_resource { &KEPT[..2] } else { &KEPT[..] };
    let bits = kept.iter().fold(0u64, |bits, (number, _)| bits | 1 << number);
    let mut names: Vec<_> = kept.iter().map(|(_, name)| *name).collect();
    names.sort_unstable();
    (format!("{bits:016x}"), names)
}

/// The processes beside a daemon, by name.
fn attendants(pid: u32) -> BTreeMap<String, u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    let named = children.split_whitespace().filter_map(|child| {
        let child: u32 = child.parse().ok()?;
        Some((fs::read_to_string(format!("/proc/{child}/comm")).ok()?.trim().to_owned(), child))
    });
    named.collect()
}

fn numbers_in(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).expect("it runs").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[test]
fn each_thread_is_bound_and_the_status_says_by_what() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("bound", &Spec::default());
    pair.left.ping(pair.right.inner4, 2);
    let pid = pair.left.pid();
    let all = threads(pid);
    let (bits, names) = kept();
    assert!(all.len() >= 2, "{all:?}");
    for thread in &all {
        let of =
            |name: &str| thread.get(name).map(String::as_str).unwrap_or_else(|| panic!("{name}: {thread:?}"));
        assert_eq!((of("Seccomp"), of("NoNewPrivs")), ("2", "1"), "{thread:?}");
        for (set, bits) in [
            ("CapEff", bits.as_str()),
            ("CapPrm", bits.as_str()),
            ("CapInh", NONE),
            ("CapBnd", bounding()),
            ("CapAmb", NONE),
        ] {
            assert_eq!(of(set), bits, "{set} of {}", of("Name"));
        }
        // Two lists for all; whoever carries data has two more: what it may do, and what fails.
        let lists: u32 = of("Seccomp_filters").parse().expect("a number");
        let expected = if of("Name").starts_with("vpnd-") { 5 } else { 3 };
        assert_eq!(lists, expected, "{}", of("Name"));
    }
    assert!(all.iter().any(|thread| thread["Name"].starts_with("vpnd-")), "somebody carries data");

    let status = pair.left.status();
    let sandbox = &status["sandbox"];
    assert_eq!(sandbox["on"], true);
    assert_eq!(sandbox["seccomp"], "kill");
    assert_eq!(sandbox["no_new_privileges"], true);
    assert_eq!(sandbox["capabilities"], serde_json::json!(names));
    assert_eq!(sandbox["bounding_set_empty"], bounding() == NONE);
    assert_eq!(sandbox["key_page"], true);
    let has_landlock =
        fs::read_to_string("/sys/kernel/security/lsm").map_or(true, |all| all.contains("landlock"));
    assert_eq!(sandbox["missing"], serde_json::json!([]), "has the kernel Landlock? {has_landlock}");
}

#[test]
fn the_processes_beside_it_have_nothing_of_it_and_end_with_it() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("beside", &Spec::default());
    let pid = pair.left.pid();
    let beside = attendants(pid);
    assert_eq!(beside.keys().map(String::as_str).collect::<Vec<_>>(), ["vpnd-hooks", "vpnd-names"]);
    for (name, child) in &beside {
        let open = numbers_in(&format!("/proc/{child}/fd"));
        for descriptor in open {
            let to = fs::read_link(format!("/proc/{child}/fd/{descriptor}")).unwrap_or_default();
            assert!(!to.ends_with("net/tun"), "{name} has the device");
            let to = to.to_string_lossy();
            let is_own = to.starts_with("anon_inode:") || to.starts_with("socket:");
            assert!(descriptor < 3 || is_own, "{name} has {to}");
        }
        let sockets = fs::read_to_string(format!("/proc/{child}/net/udp")).expect("a table");
        assert!(sockets.contains(":CA6C"), "the port is in use, and not by {name}");
    }
    let [names] = &threads(beside["vpnd-names"])[..] else { panic!("one thread, until names are looked up") };
    assert_eq!((names["NoNewPrivs"].as_str(), names["CapEff"].as_str()), ("1", NONE));
    assert_eq!((names["CapBnd"].as_str(), names["Seccomp"].as_str()), (bounding(), "2"));
    assert_eq!(names["Uid"], "65534\t65534\t65534\t65534");

    pair.left.vpnd().kill9();
    let gone = wait_until(PATIENCE, || beside.values().all(|child| !is_running(*child)));
    assert!(gone, "{beside:?} outlive the daemon");
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// As a service without any privilege but the one: the tunnel works, and nothing else would.
#[test]
fn a_tunnel_needs_no_user_and_one_capability() {
    if !need_root() {
        return;
    }
    // Where udev is, everybody may open the device.
    let before = "unshare --mount sh -c 'cp \"$0\" {folder}/vpnd && mknod -m 666 {folder}/tun c 10 200 && mount --bind \
                  {folder}/tun /dev/net/tun && chown -R 65534:65534 {folder} && exec setpriv --reuid=65534 \
                  --regid=65534 --clear-groups --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin \
                  --bounding-set=-all,+net_admin {folder}/vpnd \"$@\"'";
    let spec = Spec { before: before.to_owned(), rekey_after: Some(2), ..Spec::default() };
    let pair = Pair::start("nobody", &spec);
    for end in [&pair.left, &pair.right] {
        for thread in threads(end.pid()) {
            assert_eq!(thread["Uid"], "65534\t65534\t65534\t65534");
            assert_eq!(
                (thread["CapEff"].as_str(), thread["CapPrm"].as_str()),
                ("0000000000001000", "0000000000001000")
            );
            assert_eq!((thread["Seccomp"].as_str(), thread["NoNewPrivs"].as_str()), ("2", "1"));
        }
        // Who looks up names does it without that one; who runs the file's commands has what they get.
        let beside = attendants(end.pid());
        for (name, bits) in [("vpnd-names", NONE), ("vpnd-hooks", "0000000000001000")] {
            let [process] = &threads(beside[name])[..] else { panic!("{name} has one thread") };
            for set in ["CapEff", "CapPrm", "CapAmb"] {
                assert_eq!(process[set], bits, "{set} of {name}");
            }
        }
    }
    pair.left.ping(pair.right.inner4, 2);
    pair.right.ping(pair.left.inner6, 2);
    let sandbox = &pair.left.status()["sandbox"];
    assert_eq!(sandbox["capabilities"], serde_json::json!(["CAP_NET_ADMIN"]));
    assert_eq!(sandbox["missing"], serde_json::json!([]));
    // Another handshake, another port, the file once more: all that changes while it runs.
    let first = pair.left.last_handshake(&pair.right.key());
    let again = wait_until(PATIENCE, || {
        pair.left.ping(pair.right.inner4, 1);
        pair.left.last_handshake(&pair.right.key()) > first
    });
    assert!(again, "no session was renewed: {}\n{}", pair.left.log(), pair.right.log());
    pair.left.set("listen-port 51821");
    pair.left.ping(pair.right.inner4, 2);
    let mut reload = Command::new(env!("CARGO_BIN_EXE_vpnd"));
    reload.args(["reload", "vpn0", "--run-dir"]).arg(pair.left.daemon().run_dir());
    crate::world::run(&pair.left.host, reload);
    pair.left.ping(pair.right.inner4, 2);
}

#[test]
fn switched_off_it_is_off_and_that_is_said_aloud() {
    if !need_root() {
        return;
    }
    let node = Node::alone("unbound", "sandbox = \"off\"", "");
    let own = threads(node.pid());
    assert!(own.iter().all(|thread| thread["Seccomp"] == "0" && thread["NoNewPrivs"] == "0"), "{own:?}");
    let status = node.status();
    assert_eq!(status["sandbox"]["on"], false);
    assert_eq!(status["sandbox"]["missing"], serde_json::json!(["switched off in the file"]));
    assert!(node.log().contains("the sandbox is off"), "{}", node.log());
}

/// Each file that the daemon has open, or could open: the file's own folder, what it keeps, and the kernel's own.
#[test]
fn what_it_has_open_is_what_a_tunnel_needs() {
    if !need_root() {
        return;
    }
    let node = Node::alone("open", "", "");
    let pid = node.pid();
    // What whoever runs this test has left open is no doing of the daemon.
    let ours = |descriptor: u32| fs::read_link(format!("/proc/self/fd/{descriptor}"));
    for descriptor in numbers_in(&format!("/proc/{pid}/fd")) {
        let Ok(to) = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")) else { continue };
        let text = to.to_string_lossy();
        let is_known = descriptor < 3
            || ours(descriptor).is_ok_and(|ours| ours == to)
            || text.starts_with("anon_inode:")
            || text.starts_with("socket:")
            || text.starts_with("pipe:")
            || text.starts_with("/memfd:vpnd-peers")
            || to == Path::new("/dev/net/tun");
        assert!(is_known, "descriptor {descriptor} is {text}");
    }
}
