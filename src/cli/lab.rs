//! `vpnd lab`: two hosts in network namespaces, a tunnel between them, and the way that a packet takes; and the labs of
//! the handbook's chapters.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::{
    lab::{
        Interrupt, LabError,
        chapters::{CHAPTERS, Chapter, Stage},
        demo::Demo,
        rootless,
    },
    trace::{self, picture},
};

/// Two hosts on this machine, a tunnel between them, and a page that shows the way a packet takes. With the name of a
/// chapter of the handbook: the hosts and experiments of that chapter.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A chapter of the handbook.
    #[arg(value_name = "CHAPTER", value_parser = chapter_names())]
    chapter: Option<String>,
    /// List the chapters.
    #[arg(long, conflicts_with_all = ["chapter", "keep"])]
    list: bool,
    /// Draw the way of the ping, with its counters, as a picture into FILE.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["chapter", "list"])]
    svg: Option<PathBuf>,
    /// Leave the hosts up, say how to enter them, and remove them on Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Begin of the hosts' names: NAME-left and NAME-right. Two labs at once need two names.
    #[arg(long, value_name = "NAME", default_value = "vpnd-lab", value_parser = host_prefix)]
    name: String,
}

/// Runs the command; done when the ping and the transfer came through whole. Must be called before the process
/// has a second thread: an ordinary user's lab lives in a user namespace, which only a single thread may make.
pub fn run(args: Args) -> ExitCode {
    match show(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("vpnd lab: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything came through; an error is what there is to say to the user.
fn show(args: &Args) -> Result<bool, String> {
    if args.list {
        let line = |chapter: &Chapter| format!("{:<12}{}\n", chapter.name, chapter.title);
        say(&CHAPTERS.iter().map(line).collect::<String>());
        return Ok(true);
    }
    rootless::check_tun().map_err(|e| e.to_string())?;
    let rootless = rootless::needed();
    if rootless {
        rootless::enter().map_err(|e| e.to_string())?;
    }
    let interrupt = Interrupt::listen().map_err(|e| format!("listen for signals: {e}"))?;
    if let Some(chapter) = args.chapter.as_deref().and_then(Chapter::named) {
        return teach(args, chapter, &interrupt, rootless);
    }
    eprintln!(
        "Two hosts are made, {0}-left and {0}-right, and measured; this takes some seconds.\n",
        args.name
    );
    let demo = Demo::build(&args.name, Path::new("/proc/self/exe")).map_err(|e| explain(&e, rootless))?;
    if interrupt.came() {
        return Err("interrupted; everything was removed".to_owned());
    }
    let passed = measure(&demo, args.svg.as_deref())?;
    if args.keep && !interrupt.came() {
        say(&how_to_enter(&demo, rootless));
        interrupt.wait();
        drop(demo);
        eprintln!("\nBoth hosts are removed.");
    }
    Ok(passed)
}

/// The lab of one chapter.
fn teach(args: &Args, chapter: &Chapter, interrupt: &Interrupt, rootless: bool) -> Result<bool, String> {
    let mut stage = Stage::new(&args.name, "/proc/self/exe");
    let parts = chapter.run(&mut stage).map_err(|e| explain(&e, rootless))?;
    if interrupt.came() {
        return Err("interrupted; everything was removed".to_owned());
    }
    let mut text =
        format!("{}\n{}\n\n{}\n", chapter.title, "─".repeat(chapter.title.chars().count()), chapter.picture);
    for (number, part) in parts.iter().enumerate() {
        text += &format!("\n{}\n", part.render(number + 1));
    }
    say(&text);
    if args.keep && !interrupt.came() {
        say(&format!(
            "\nThe hosts stay up. To enter them, in another terminal:\n{}",
            enter(&stage.hosts(), rootless)
        ));
        say("Ctrl-C here removes everything.\n");
        interrupt.wait();
        drop(stage);
        eprintln!("\nThe hosts are removed.");
    }
    Ok(true)
}

/// Whether everything came through; an error is why the picture could not be written.
fn measure(demo: &Demo, svg: Option<&Path>) -> Result<bool, String> {
    let page = match demo.measure() {
        Ok(page) => page,
        Err(error) => {
            eprintln!("vpnd lab: {error}{}", last_words(demo));
            return Ok(false);
        }
    };
    say(&page.render(io::stdout().is_terminal()));
    if let Some(file) = svg {
        std::fs::write(file, picture::svg(&page.way()))
            .map_err(|e| format!("write {}: {e}", file.display()))?;
    }
    if !page.passed() {
        eprintln!("vpnd lab: not everything came through; see above.{}", last_words(demo));
    }
    Ok(page.passed() & show_trace(demo))
}

/// One more ping, station by station, on both hosts.
fn show_trace(demo: &Demo) -> bool {
    match demo.trace() {
        Ok(page) => {
            say("\nOne ping, followed through both hosts by `vpnd trace`\n\n");
            say(&trace::text::page(&page, io::stdout().is_terminal()));
            matches!(page.outcome, trace::Outcome::Arrived { .. })
        }
        Err(error) => {
            eprintln!("vpnd lab: {error}");
            false
        }
    }
}

fn last_words(demo: &Demo) -> String {
    let words = |(host, log): (&str, String)| format!("\n\nvpnd on {host} said last:\n{log}");
    demo.last_words(15).map(words).concat()
}

/// A line for each host.
fn enter(hosts: &[&str], rootless: bool) -> String {
    // This process, not a daemon: those let nobody look into them, so that no key is read from their memory.
    let through = match rootless {
        true => format!("nsenter --preserve-credentials -U -n -m -t {} ", std::process::id()),
        false => String::new(),
    };
    hosts.iter().map(|host| format!("  {through}ip netns exec {host} bash\n")).collect()
}

fn how_to_enter(demo: &Demo, rootless: bool) -> String {
    format!(
        "Both hosts stay up. To enter them, in another terminal:\n{}Inside, `ping {}` crosses the tunnel, `tcpdump -ni eth0` and `tcpdump -ni vpn0` show both packets,\n\
         and `nft list table inet vpnd_lab` the counters. Ctrl-C here removes everything.\n",
        enter(&demo.hosts(), rootless),
        demo.right_address(),
    )
}

fn explain(error: &LabError, rootless: bool) -> String {
    const EPERM: i32 = 1;
    match error.raw_os_error() {
        Some(EPERM) if !rootless => {
            format!(
                "{error}\n  This root may not make namespaces (a container?); it needs CAP_SYS_ADMIN and CAP_NET_ADMIN."
            )
        }
        _ => error.to_string(),
    }
}

/// A reader that has gone (`vpnd lab | head`) is no failure of the lab.
fn say(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
    let _ = io::stdout().lock().flush();
}

fn chapter_names() -> PossibleValuesParser {
    PossibleValuesParser::new(
        CHAPTERS.iter().map(|chapter| PossibleValue::new(chapter.name).help(chapter.title)),
    )
}

fn host_prefix(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match (1..=32).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('-') {
        true => Ok(text.to_owned()),
        false => Err("1 to 32 letters, digits, - or _".to_owned()),
    }
}
