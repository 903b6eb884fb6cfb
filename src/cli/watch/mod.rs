//! `vpnd status --watch`: a live view of the whole screen. `feed` asks the daemon, `model` knows what is to be seen,
//! `view` draws the part of it that fits; here they meet.

mod feed;
mod model;
mod view;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use ratatui::{DefaultTerminal, crossterm::event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::feed::Feed;
use self::model::{Model, Turn};
use super::ask::{self, AskError};

/// Keys that may wait.
const INPUT: usize = 64;
/// News are drawn no more often than this: thousands of events a second are not to be written to a terminal far away.
const FRAME: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("--watch needs a terminal; in a pipe, ask for `vpnd status` or `vpnd events`")]
    NoTerminal,
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Until `q`, Ctrl-C or a signal. The terminal is then as it was, whatever ended it.
pub(super) async fn run(run_dir: &Path, name: Option<&str>) -> Result<(), WatchError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(WatchError::NoTerminal);
    }
    let socket = ask::the_one(run_dir, name).await?;
    // A daemon that cannot be asked at all is said at once, on the screen as it is.
    ask::get(&socket, "/v1/samples?since=0&generation=0").await?;
    let mut screen = Screen { terminal: ratatui::try_init()? }; // after this a panic restores it, too
    let input = read_input();
    let feed = Feed::start(socket.clone());
    let mut model = Model::new(&ask::name_of(&socket));
    show(&mut screen.terminal, &mut model, feed, input).await
}

/// Restores the terminal when it goes.
struct Screen {
    terminal: DefaultTerminal,
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn show(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    mut feed: Feed,
    mut input: mpsc::Receiver<io::Result<event::Event>>,
) -> Result<(), WatchError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_news = true;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = frames.tick(), if is_news => is_news = false,
            news = feed.next() => {
                model.take(news);
                is_news = true;
                continue;
            }
            pressed = input.recv() => match pressed {
                Some(Ok(event::Event::Key(key))) => if model.press(key) == Turn::End {
                    return Ok(());
                },
                Some(Ok(_)) => {} // another size: it is drawn anew
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
        terminal.draw(|frame| view::draw(frame, model))?;
        feed.select(model.selected_key());
    }
}

/// Keys come from a blocking call: a thread of its own makes it, and ends with the process.
fn read_input() -> mpsc::Receiver<io::Result<event::Event>> {
    let (sender, receiver) = mpsc::channel(INPUT);
    std::thread::spawn(move || {
        loop {
            let read = event::read();
            let is_last = read.is_err();
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}
