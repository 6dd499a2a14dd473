//! Live readers of a log.
//!
//! Each has a queue of its own, bounded like the log itself, that holds only lines which pass its filter: a reader of a
//! quiet dyno loses nothing to a noisy one. A full queue drops its oldest lines, and the reader is told so in their
//! place.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures_util::Stream;
use jiff::Timestamp;

use super::{Filter, Line, Source, line::stamp, ring::Ring};

/// A live reader. Ends when its app is forgotten; dropping it is enough to unsubscribe.
#[derive(Debug)]
pub struct Tail {
    queue: Arc<Mutex<Queue>>,
}

/// The log's end of a [`Tail`].
#[derive(Debug)]
pub(super) struct Feed {
    filter: Filter,
    queue: Weak<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Ring,
    dropped: usize,
    /// When the first of the dropped lines was written.
    since: Timestamp,
    closed: bool,
    waker: Option<Waker>,
}

/// Opens a tail that starts with `backlog`.
pub(super) fn open(filter: Filter, backlog: Vec<Arc<Line>>) -> (Feed, Tail) {
    let mut queue = Queue::default();
    for line in backlog {
        queue.push(line);
    }
    let queue = Arc::new(Mutex::new(queue));
    (Feed { filter, queue: Arc::downgrade(&queue) }, Tail { queue })
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn push(&mut self, line: Arc<Line>) {
        let Self { lines, dropped, since, .. } = self;
        lines.push(line, |old| {
            if *dropped == 0 {
                *since = old.at;
            }
            *dropped += 1;
        });
    }

    /// What the reader gets next: first the word about lines that are missing before the queue's oldest.
    fn pop(&mut self) -> Option<Arc<Line>> {
        if self.dropped == 0 {
            return self.lines.pop();
        }
        let dropped = std::mem::take(&mut self.dropped);
        let since = stamp(self.since);
        let text = format!("Error L11 (Tail buffer overflow) -> {dropped} messages dropped since {since}");
        Some(Arc::new(Line { at: Timestamp::now(), source: Source::Platform, ps: "logplex".into(), text }))
    }
}

impl Feed {
    /// Queues `line` if the reader wants it; false once the reader is gone.
    pub(super) fn push(&self, line: &Arc<Line>) -> bool {
        let Some(queue) = self.queue.upgrade() else { return false };
        if self.filter.wants(line) {
            let mut queue = lock(&queue);
            queue.push(Arc::clone(line));
            let waker = queue.waker.take();
            drop(queue);
            waker.into_iter().for_each(Waker::wake);
        }
        true
    }

    /// Whether the reader is still there.
    pub(super) fn is_open(&self) -> bool {
        self.queue.strong_count() > 0
    }
}

/// Dropped with the log that it belongs to: no line will follow.
impl Drop for Feed {
    fn drop(&mut self) {
        let Some(queue) = self.queue.upgrade() else { return };
        let mut queue = lock(&queue);
        queue.closed = true;
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Tail {
    /// The next line; None after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<Line>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Tail {
    type Item = Arc<Line>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arc<Line>>> {
        let mut queue = lock(&self.queue);
        match queue.pop() {
            Some(line) => Poll::Ready(Some(line)),
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
