//! Asks the daemon for what the screen shows: figures each second, events as they come, one peer whole. When the
//! daemon goes it waits for the next one.

use std::{path::PathBuf, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::ask::{self, AskError};
use crate::control::{events::EventReport, samples::SampleReport, schema::PeerReport};

/// Between two samples, and between two attempts to reach a daemon that has gone.
const EVERY: Duration = Duration::from_secs(1);
/// News that may wait to be shown.
const WAITING: usize = 256;

/// What there is to show.
#[derive(Debug)]
pub(super) enum News {
    Sample(SampleReport),
    Event(Box<EventReport>),
    /// The peer that was asked for.
    Peer(Box<PeerReport>),
    /// The daemon does not answer, and why.
    Gone(String),
}

/// Two tasks that ask, and what they found.
pub(super) struct Feed {
    news: mpsc::Receiver<News>,
    selected: watch::Sender<Option<String>>,
    _tasks: JoinSet<()>,
}

impl Feed {
    pub(super) fn start(socket: PathBuf) -> Self {
        let (sender, news) = mpsc::channel(WAITING);
        let (selected, wanted) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(sample(socket.clone(), sender.clone(), wanted));
        tasks.spawn(listen(socket, sender));
        Self { news, selected, _tasks: tasks }
    }

    /// Which peer is to be told whole.
    pub(super) fn select(&self, public_key: Option<&str>) {
        self.selected.send_if_modified(|selected| {
            let differs = selected.as_deref() != public_key;
            if differs {
                *selected = public_key.map(str::to_owned);
            }
            differs
        });
    }

    pub(super) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await, // the tasks never end
        }
    }
}

/// Whole at first and after a change, then only what had traffic.
async fn sample(socket: PathBuf, news: mpsc::Sender<News>, mut wanted: watch::Receiver<Option<String>>) {
    let mut known = None;
    loop {
        let path = match known {
            Some((boot, generation)) => format!("/v1/samples?since={boot}&generation={generation}"),
            None => "/v1/samples".to_owned(),
        };
        let told = match one_sample(&socket, &path).await {
            Ok(sample) => {
                known = Some((sample.boot, sample.generation));
                News::Sample(sample)
            }
            Err(error) => {
                known = None; // the next one may be another daemon
                News::Gone(error.to_string())
            }
        };
        if news.send(told).await.is_err() {
            return;
        }
        let pause = sleep(EVERY);
        tokio::pin!(pause);
        loop {
            let peer = wanted.borrow_and_update().clone();
            if let Some(peer) = peer
                && let Ok(report) = one_peer(&socket, &peer).await
                && news.send(News::Peer(Box::new(report))).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = &mut pause => break,
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }
}

async fn one_sample(socket: &std::path::Path, path: &str) -> Result<SampleReport, AskError> {
    ask::read(socket, &ask::get(socket, path).await?)
}

async fn one_peer(socket: &std::path::Path, public_key: &str) -> Result<PeerReport, AskError> {
    let path = format!("/v1/peer?peer={}", ask::encoded(public_key));
    ask::read(socket, &ask::get(socket, &path).await?)
}

/// What is kept, then what comes; after a break, what came since.
async fn listen(socket: PathBuf, news: mpsc::Sender<News>) {
    let mut since = 0.0;
    loop {
        if let Ok(mut lines) = ask::stream(&socket, &format!("/v1/events?since={since}")).await {
            while let Ok(Some(line)) = lines.next().await {
                // An event of a newer daemon may be unknown here: then it is not shown.
                let Ok(event) = serde_json::from_str::<EventReport>(&line) else { continue };
                since = event.time;
                if news.send(News::Event(Box::new(event))).await.is_err() {
                    return;
                }
            }
        }
        sleep(EVERY).await;
    }
}
