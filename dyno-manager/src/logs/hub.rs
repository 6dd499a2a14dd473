//! The logs of all apps, in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Filter, Line, Source, Tail,
    line::lines_of,
    ring::Ring,
    tail::{self, Feed},
};

/// All logs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogHub {
    /// None: forgotten. Such an id is kept, 16 bytes of it, so that the last words of its dynos do not start a new log.
    logs: Arc<Mutex<HashMap<Uuid, Option<Arc<Mutex<Log>>>>>>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Ring,
    feeds: Vec<Feed>,
}

/// A panic elsewhere leaves a log whole: lines are added one by one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogHub {
    /// No logs yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn log(&self, app_id: Uuid) -> Option<Arc<Mutex<Log>>> {
        lock(&self.logs).entry(app_id).or_insert_with(|| Some(Arc::default())).clone()
    }

    /// Adds `text` to the app's log. Never waits for readers. Newlines and texts over [`super::MAX_LINE`] bytes make
    /// several lines.
    pub fn publish(&self, app_id: Uuid, source: Source, ps: &str, text: &str, at: Timestamp) {
        let Some(log) = self.log(app_id) else { return };
        let mut log = lock(&log);
        let Log { lines, feeds } = &mut *log;
        for text in lines_of(text) {
            let line = Arc::new(Line { at, source, ps: ps.to_owned(), text });
            feeds.retain(|feed| feed.push(&line));
            lines.push(line, |_| ());
        }
    }

    /// The last `n` kept lines that pass `filter`, oldest first.
    pub fn snapshot(&self, app_id: Uuid, filter: &Filter, n: usize) -> Vec<Arc<Line>> {
        self.log(app_id).map(|log| lock(&log).last(filter, n)).unwrap_or_default()
    }

    /// As [`Self::snapshot`], then every line that follows, without a gap between the two.
    pub fn tail(&self, app_id: Uuid, filter: Filter, n: usize) -> Tail {
        let Some(log) = self.log(app_id) else {
            return tail::open(filter, Vec::new()).1;
        };
        let mut log = lock(&log);
        let backlog = log.last(&filter, n);
        let (feed, tail) = tail::open(filter, backlog);
        // An app that is silent, and tailed again and again, meets no `publish` that would clear the list.
        log.feeds.retain(Feed::is_open);
        log.feeds.push(feed);
        tail
    }

    /// Drops the app's log for good and ends its tails; later lines of it are ignored.
    pub fn forget(&self, app_id: Uuid) {
        let log = lock(&self.logs).insert(app_id, None).flatten();
        if let Some(log) = log {
            *lock(&log) = Log::default();
        }
    }
}

impl Log {
    fn last(&self, filter: &Filter, n: usize) -> Vec<Arc<Line>> {
        let mut lines: Vec<_> = self.lines.iter().rev().filter(|line| filter.wants(line)).take(n).cloned().collect();
        lines.reverse();
        lines
    }
}
