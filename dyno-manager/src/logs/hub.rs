//! The logs of all apps, in memory.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Line, Source};

/// Which lines a reader wants; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// A dyno (`web.1`) or a process type (`web`).
    pub ps: Option<String>,
    /// One source only.
    pub source: Option<Source>,
}

/// All logs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogHub {}

impl LogHub {
    /// No logs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `text` to the app's log. Never blocks on readers. Newlines and texts over [`super::MAX_LINE`] bytes make
    /// several lines.
    pub fn publish(&self, _app_id: Uuid, _source: Source, _ps: &str, _text: &str, _at: Timestamp) {
        unreachable!()
    }

    /// The last `n` kept lines that pass `filter`, oldest first.
    pub fn snapshot(&self, _app_id: Uuid, _filter: &Filter, _n: usize) -> Vec<Arc<Line>> {
        unreachable!()
    }

    /// As [`Self::snapshot`], then every line that follows, without a gap between the two.
    pub fn tail(&self, _app_id: Uuid, _filter: Filter, _n: usize) -> Tail {
        unreachable!()
    }

    /// Drops the app's log for good and ends its tails; later lines of it are ignored.
    pub fn forget(&self, _app_id: Uuid) {
        unreachable!()
    }
}

/// A live reader. Ends when its app is forgotten; dropping it is enough to unsubscribe.
#[derive(Debug)]
pub struct Tail {}

impl Tail {
    /// The next line; None after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<Line>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Tail {
    type Item = Arc<Line>;
    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Arc<Line>>> {
        unreachable!()
    }
}
