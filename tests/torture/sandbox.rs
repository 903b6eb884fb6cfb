//! The whole namespace suite with daemons that are nobody's, and what tries to get out of the sandbox.

use std::{collections::BTreeMap, path::Path, process::Command};

use crate::{Torment, report::Figure};

/// Nobody, who has CAP_NET_ADMIN and nothing else; see `tests/common/program.rs`.
const USER: &str = "65534";

/// What a test harness says of each test, by name.
type Said = BTreeMap<String, String>;

pub fn sandbox(_: &Torment) -> Vec<Figure> {
    let suite = tested("namespaces");
    let inside = tested("sandbox");
    let attempts = [
        "no_call_that_a_tunnel_never_makes_comes_back_once_it_runs",
        "while_it_is_set_up_it_starts_no_program_and_leaves_no_namespace_either",
        "a_thread_that_carries_data_reaches_nothing_else",
        "there_are_no_files_but_those_that_were_named",
    ];
    let held = attempts.iter().filter(|name| inside.get(**name).is_some_and(|how| how == "ok")).count();
    vec![
        passed(
            "tests/namespaces, each daemon as user 65534 with CAP_NET_ADMIN alone, sandbox closed",
            &suite,
        ),
        passed("tests/sandbox: what a process in it attempts", &inside),
        Figure::hard(
            "among them /etc/shadow, exec, ptrace, raw socket, mount, new namespace",
            "refused, or the end",
            format!("{held} of {} tests of it passed", attempts.len()),
            held == attempts.len(),
        ),
    ]
}

fn tested(target: &str) -> Said {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked", "--no-fail-fast", "--test", target]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.args(["--", "--test-threads=2"]);
    command.env("VPND_TEST_AS", USER).env_remove("TORTURE");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    let output = command.output().expect("cargo is there");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = |line: &str| {
        let (name, how) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        Some((name.to_owned(), how.split(',').next().unwrap_or(how).to_owned()))
    };
    let said: Said = text.lines().filter_map(said).collect();
    assert!(!said.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn passed(what: &str, said: &Said) -> Figure {
    let of = |wanted: &str| -> Vec<&str> {
        let so = said.iter().filter(|(_, how)| *how == wanted);
        so.map(|(name, _)| name.as_str()).collect()
    };
    let (ok, failed, ignored) = (of("ok").len(), of("FAILED"), of("ignored").len());
    let figure = Figure::hard(
        what,
        "all pass",
        format!("{ok} pass, {} fail, {ignored} are for other targets", failed.len()),
        ok > 0 && ok + ignored == said.len(),
    );
    if failed.is_empty() { figure } else { figure.note(failed.join(", ")) }
}
