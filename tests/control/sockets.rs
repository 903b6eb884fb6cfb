//! Socket files: whose they are, what is left behind, and who gets the place.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use vpnd::control::{Access, ControlError, ControlServer, Holder};

use super::fake::{Fake, Model, NAME, daemon};

async fn serve(run: &Path, name: &str) -> Result<ControlServer, ControlError> {
    ControlServer::serve(name, run, Access::default(), daemon(Model::default())).await
}

async fn failure(run: &Path, name: &str) -> ControlError {
    match serve(run, name).await {
        Ok(_) => panic!("{name} was served"),
        Err(error) => error,
    }
}

fn files(run: &Path) -> Vec<String> {
    let folders = ["wireguard", "vpnd"].map(|folder| run.join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    files.map(|file| file.file_name().into_string().expect("text")).collect()
}

/// A socket file that nobody listens at, as after `kill -9`.
fn stale(path: &Path) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    drop(std::os::unix::net::UnixListener::bind(path).expect("a free path"));
    assert!(path.exists(), "closing leaves the file");
}

#[tokio::test]
async fn only_the_owner_can_talk_and_everybody_can_look() {
    let fake = Fake::start().await;
    for path in fake.server.paths() {
        let file = fs::metadata(path).expect("it is there");
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, 0o600, "{path:?}");
        let folder = fs::metadata(path.parent().expect("a folder")).expect("it is there");
        assert_eq!(folder.permissions().mode() & 0o7777, 0o755, "{path:?}");
    }
}

#[tokio::test]
async fn the_files_come_with_the_server_and_go_with_it() {
    let run = tempfile::tempdir().expect("a run directory");
    let server = serve(run.path(), NAME).await.expect("nobody is there");
    assert_eq!(files(run.path()), [format!("{NAME}.sock"), format!("{NAME}.sock")], "and nothing else");
    drop(server);
    assert_eq!(files(run.path()), [""; 0]);
    serve(run.path(), NAME).await.expect("the name is free again");
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_replaced() {
    let run = tempfile::tempdir().expect("a run directory");
    for folder in ["wireguard", "vpnd"] {
        stale(&run.path().join(folder).join(format!("{NAME}.sock")));
        // Killed between binding and moving; no process has this number.
        stale(&run.path().join(folder).join(format!(".{NAME}.4194305.0/new")));
    }
    let server = serve(run.path(), NAME).await.expect("nobody answers there");
    assert_eq!(files(run.path()), [format!("{NAME}.sock"), format!("{NAME}.sock")]);
    for path in server.paths() {
        tokio::net::UnixStream::connect(path).await.expect("it is ours and answers");
    }
}

#[tokio::test]
async fn a_socket_that_answers_is_left_alone_and_its_holder_is_named() {
    let fake = Fake::start().await;
    let run = fake.server.paths()[0].ancestors().nth(2).expect("the run directory").to_owned();
    let error = failure(&run, NAME).await;
    let text = error.to_string();
    let ControlError::Held { path, name, holder: Holder { pid, .. } } = error else { panic!("{text}") };
    assert_eq!((&path, name.as_str()), (&fake.server.paths()[0], NAME));
    assert_eq!(pid, Some(std::process::id() as i32));
    assert!(text.contains(&format!("(pid {})", std::process::id())) && text.contains("wireguard"), "{text}");
    assert_eq!(fake.ask("wireguard", b"get=1\n\n").await, "errno=0\n\n", "it still answers");
    assert_eq!(files(&run).len(), 2, "and nothing was left beside it");
}

#[tokio::test]
async fn when_the_second_socket_is_held_the_first_one_goes_too() {
    let run = tempfile::tempdir().expect("a run directory");
    let held = run.path().join("vpnd").join(format!("{NAME}.sock"));
    fs::create_dir_all(held.parent().expect("a folder")).expect("the folder can be made");
    let _listener = std::os::unix::net::UnixListener::bind(&held).expect("a free path");
    assert!(matches!(failure(run.path(), NAME).await, ControlError::Held { .. }));
    assert_eq!(files(run.path()), [format!("{NAME}.sock")], "the held one stays");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_touched() {
    let run = tempfile::tempdir().expect("a run directory");
    let path = run.path().join("wireguard").join(format!("{NAME}.sock"));
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    fs::write(&path, "precious").expect("it can be written");
    assert!(matches!(failure(run.path(), NAME).await, ControlError::NotASocket(_)));
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
}

#[tokio::test]
async fn a_file_that_took_our_place_is_not_removed_at_the_end() {
    let fake = Fake::start().await;
    let path = fake.server.paths()[0].clone();
    fs::remove_file(&path).expect("root removes what it likes");
    stale(&path);
    drop(fake.server);
    assert!(path.exists());
}

#[tokio::test]
async fn names_that_no_interface_can_have_are_refused() {
    let run = tempfile::tempdir().expect("a run directory");
    for name in ["", ".", "..", "a/b", "../x", "a b", "a:b", "0123456789abcdef", "a\n"] {
        assert!(matches!(failure(run.path(), name).await, ControlError::Name(_)), "{name:?}");
    }
    assert_eq!(fs::read_dir(run.path()).expect("it is there").count(), 0);
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_with_a_remedy() {
    let run = tempfile::tempdir().expect("a run directory");
    let deep = run.path().join("d".repeat(100));
    let error = failure(&deep, NAME).await.to_string();
    assert!(error.contains("shorter run directory"), "{error}");
    assert_eq!(files(&deep), [""; 0]);
}

#[test]
fn of_many_that_start_at_once_one_gets_the_name() {
    for _ in 0..20 {
        let run = tempfile::tempdir().expect("a run directory");
        stale(&run.path().join("wireguard").join(format!("{NAME}.sock")));
        let start = || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let ended = runtime.block_on(serve(run.path(), NAME));
            (runtime, ended)
        };
        let ended: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            starting.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let winners: Vec<_> = ended.iter().filter_map(|(_, ended)| ended.as_ref().ok()).collect();
        let losers: Vec<_> = ended.iter().filter_map(|(_, ended)| ended.as_ref().err()).collect();
        assert_eq!(winners.len(), 1, "{losers:?}");
        for path in winners[0].paths() {
            std::os::unix::net::UnixStream::connect(path).expect("the winner answers");
        }
    }
}

#[tokio::test]
async fn sockets_are_given_to_whom_the_file_names_and_taken_back_while_they_are_served() {
    let run = tempfile::tempdir().expect("a run directory");
    let whose = |server: &ControlServer| {
        let seen = |path: &std::path::PathBuf| {
            let found = fs::metadata(path).expect("a socket");
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        server.paths().each_ref().map(seen)
    };
    let own = fs::metadata("/proc/self").expect("we exist");
    let (uid, gid) = (own.uid(), own.gid());
    let group = Access { mode: 0o660, ..Access::default() };
    let server =
        ControlServer::serve(NAME, run.path(), group, daemon(Model::default())).await.expect("a free name");
    assert_eq!(whose(&server), [(uid, gid, 0o660); 2]);
    server.give(Access::default(), group).expect("our own");
    assert_eq!(whose(&server), [(uid, gid, 0o600); 2]);
    if uid != 0 {
        let other = Access { owner: Some(uid + 1), ..Access::default() };
        let error =
            server.give(other, Access::default()).expect_err("only root gives files away").to_string();
        assert!(error.contains("socket_owner"), "{error}");
        return;
    }
    let other = Access { owner: Some(65_534), group: Some(4711), mode: 0o660 };
    server.give(other, Access::default()).expect("root gives files away");
    assert_eq!(whose(&server), [(65_534, 4711, 0o660); 2]);
    server.give(Access::default(), other).expect("and takes them back");
    assert_eq!(whose(&server), [(uid, gid, 0o600); 2]);
    // A file that somebody put in the place of ours is not given to anybody, nor is the other socket.
    fs::remove_file(&server.paths()[1]).expect("root removes what it likes");
    fs::write(&server.paths()[1], "precious").expect("a file");
    let error = server.give(other, Access::default()).expect_err("it is not ours").to_string();
    assert!(error.contains("another file stands in its place"), "{error}");
    assert_eq!(whose(&server)[0], (uid, gid, 0o600));
    assert_eq!((whose(&server)[1].0, whose(&server)[1].1), (uid, gid));
}
