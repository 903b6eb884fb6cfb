//! Question and answer between two processes: lines of JSON over a stream, many under way at once.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedReadHalf},
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

/// Questions that wait to be written.
const WAITING: usize = 128;
/// Bytes of a line; nobody has so much to say.
const LONGEST: u64 = 1 << 20;

/// The asking end.
#[derive(Clone)]
pub(super) struct Link {
    questions: mpsc::Sender<Asked>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    closing: Notify,
    ended: Notify,
    is_over: std::sync::atomic::AtomicBool,
}

struct Asked {
    question: String,
    answer: oneshot::Sender<String>,
}

impl Link {
    /// To be called within a runtime, which carries it.
    pub(super) fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let (questions, waiting) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        tokio::spawn(async move {
            converse(stream, waiting, &own.closing).await;
            own.is_over.store(true, std::sync::atomic::Ordering::Release);
            own.ended.notify_waiters();
        });
        Ok(Self { questions, shared })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<A: DeserializeOwned>(&self, question: &impl Serialize) -> io::Result<A> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Asked { question: text(question), answer }).await.map_err(|_| gone())?;
        read(answered).await
    }

    /// Asks without waiting for room; `None`: there is none.
    pub(super) fn try_ask<A: DeserializeOwned, Q: Serialize>(
        &self,
        question: &Q,
    ) -> Option<impl Future<Output = io::Result<A>> + Send + use<A, Q>> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Asked { question: text(question), answer }).ok()?;
        Some(read(answered))
    }

    /// Nothing more is asked.
    pub(super) fn close(&self) {
        self.shared.closing.notify_one();
    }

    /// Resolves when the other end is gone.
    pub(super) async fn ended(&self) {
        let ended = self.shared.ended.notified();
        if !self.shared.is_over.load(std::sync::atomic::Ordering::Acquire) {
            ended.await;
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the process beside the daemon has ended")
}

async fn read<A: DeserializeOwned>(answered: oneshot::Receiver<String>) -> io::Result<A> {
    let answer = answered.await.map_err(|_| gone())?;
    serde_json::from_str(&answer).map_err(io::Error::from)
}

/// As one line.
pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("questions and answers have text keys and no other failures")
}

/// Until the other end is gone.
async fn converse(stream: UnixStream, mut questions: mpsc::Receiver<Asked>, closing: &Notify) {
    let (reader, mut writer) = stream.into_split();
    let mut answers = BufReader::new(reader).lines();
    let mut waiting = HashMap::new();
    let (mut number, mut is_open) = (0u64, true);
    loop {
        tokio::select! {
            line = answers.next_line() => {
                let Ok(Some(line)) = line else { return };
                let answer = line.split_once(' ').and_then(|(number, text)| Some((number.parse().ok()?, text)));
                let place: Option<(oneshot::Sender<String>, &str)> =
                    answer.and_then(|(number, text): (u64, _)| Some((waiting.remove(&number)?, text)));
                if let Some((place, text)) = place {
                    let _ = place.send(text.to_owned()); // whoever asked may have gone
                }
            }
            Some(Asked { question, answer }) = questions.recv(), if is_open => {
                number += 1;
                waiting.insert(number, answer);
                // The other end always reads: it never holds this up.
                if writer.write_all(format!("{number} {question}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
            () = closing.notified(), if is_open => {
                is_open = false;
                let _ = writer.shutdown().await; // one that is gone hears nothing
            }
        }
    }
}

/// The answering end: answers each question in its own time, until nobody asks any more; what is under way then has
/// `last` to end, and is dropped after it.
pub(super) async fn serve<Q, F>(
    stream: std::os::unix::net::UnixStream,
    answer: impl Fn(Q) -> F,
    last: Duration,
) -> io::Result<()>
where
    Q: DeserializeOwned,
    F: Future<Output = String> + Send + 'static,
{
    stream.set_nonblocking(true)?;
    let (reader, mut writer) = UnixStream::from_std(stream)?.into_split();
    let (said, mut to_say) = mpsc::unbounded_channel::<String>();
    let writing = tokio::spawn(async move {
        while let Some(line) = to_say.recv().await {
            if writer.write_all(line.as_bytes()).await.is_err() {
                return; // the daemon is gone; reading ends, too
            }
        }
    });
    let mut lines = Lines { reader: BufReader::new(reader), line: Vec::new() };
    let mut running = JoinSet::new();
    while let Some((number, question)) = lines.next().await? {
        // Those that have ended make room.
        while let Some(ended) = running.try_join_next() {
            unless_it_panicked(ended);
        }
        let (answer, said) = (answer(serde_json::from_str(&question)?), said.clone());
        running.spawn(async move {
            let _ = said.send(format!("{number} {}\n", answer.await)); // the daemon may be gone
        });
    }
    drop(said);
    let all = async {
        while running.join_next().await.is_some_and(|ended| {
            unless_it_panicked(ended);
            true
        }) {}
    };
    let _ = timeout(last, all).await;
    running.shutdown().await;
    let _ = writing.await;
    Ok(())
}

/// A panic in any task ends the process.
fn unless_it_panicked(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Questions as they come, none of them endless.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> io::Result<Option<(u64, String)>> {
        self.line.clear();
        let length = (&mut self.reader).take(LONGEST).read_until(b'\n', &mut self.line).await?;
        if length == 0 {
            return Ok(None);
        }
        let line = self.line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        let parsed = line.and_then(|line| line.split_once(' '));
        let parsed = parsed.and_then(|(number, text)| Some((number.parse().ok()?, text.to_owned())));
        parsed.map(Some).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends, in this process: a number is answered after so many milliseconds.
    fn both(last: Duration) -> Link {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let answer = |wait: u64| async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            text(&format!("after {wait}"))
        };
        tokio::spawn(async move { serve(theirs, answer, last).await.expect("it is served") });
        Link::new(ours).expect("within a runtime")
    }

    #[tokio::test]
    async fn answers_find_their_questions_in_whatever_order_they_come() {
        let link = both(Duration::ZERO);
        let (late, early) = tokio::join!(link.ask::<String>(&60u64), link.ask::<String>(&1u64));
        assert_eq!(
            (late.expect("an answer").as_str(), early.expect("an answer").as_str()),
            ("after 60", "after 1")
        );
    }

    #[tokio::test]
    async fn what_is_under_way_at_the_end_has_its_time_and_no_more() {
        let link = both(Duration::from_millis(2000));
        let in_time = link.try_ask::<String, u64>(&50).expect("there is room");
        let too_late = link.try_ask::<String, u64>(&3_600_000).expect("there is room");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(20)).await; // until both have been heard
        link.close();
        assert_eq!(in_time.await.expect("an answer"), "after 50");
        assert_eq!(too_late.await.expect_err("the end came first").kind(), io::ErrorKind::BrokenPipe);
        link.ended().await;
        let error = link.ask::<String>(&1u64).await.expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_is_no_question_ends_the_one_who_answers() {
        for bytes in [&b"1 no number\n"[..], b"nothing\n", b"\xff 1\n", b"1 2"] {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
            std::io::Write::write_all(&mut &ours, bytes).expect("there is room");
            drop(ours);
            let answer = |_: u64| async { String::new() };
            let ended = serve(theirs, answer, Duration::ZERO).await;
            assert!(ended.is_err(), "{bytes:?}");
        }
    }
}
