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
    logs: Arc<Mutex<HashMap<Uuid, Option<SharedLog>>>>,
}

type SharedLog = Arc<Mutex<Log>>;

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

    fn log(&self, app_id: Uuid) -> Option<SharedLog> {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::logs::{MAX_BYTES, MAX_LINE, MAX_LINES};

    const APP: Uuid = Uuid::from_u128(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn say(hub: &LogHub, ps: &str, text: &str) {
        hub.publish(APP, Source::App, ps, text, at(0));
    }

    fn ps(name: &str) -> Filter {
        Filter { ps: Some(name.into()), source: None }
    }

    fn texts(lines: &[Arc<Line>]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    /// What the tail has without waiting; the flag tells whether it has ended.
    fn ready(tail: &mut Tail) -> (Vec<String>, bool) {
        let mut seen = Vec::new();
        loop {
            match tail.next().now_or_never() {
                Some(Some(line)) => seen.push(line.text.clone()),
                Some(None) => return (seen, true),
                None => return (seen, false),
            }
        }
    }

    #[test]
    fn snapshots_are_filtered_first_and_cut_then() {
        fn check(filter: Filter, n: usize, want: &[&str]) {
            let hub = LogHub::new();
            say(&hub, "web.1", "a\nb");
            hub.publish(APP, Source::Platform, "web.1", "up", at(0));
            say(&hub, "web.2", "c");
            hub.publish(Uuid::from_u128(2), Source::App, "web.1", "another app", at(0));
            assert_eq!(texts(&hub.snapshot(APP, &filter, n)), want, "{filter:?} {n}");
        }
        check(Filter::default(), 100, &["a", "b", "up", "c"]);
        check(Filter::default(), 2, &["up", "c"]);
        check(Filter::default(), 0, &[]);
        check(ps("web.1"), 2, &["b", "up"]);
        check(Filter { ps: None, source: Some(Source::App) }, 2, &["b", "c"]);
        check(ps("worker"), 9, &[]);
    }

    #[test]
    fn a_log_keeps_its_last_lines() {
        let hub = LogHub::new();
        for n in 0..MAX_LINES + 10 {
            say(&hub, "web.1", &n.to_string());
        }
        let lines = hub.snapshot(APP, &Filter::default(), usize::MAX);
        assert_eq!((lines.len(), lines[0].text.as_str()), (MAX_LINES, "10"));
        for _ in 0..1000 {
            say(&hub, "web.1", &"x".repeat(MAX_LINE));
        }
        let kept: usize = hub.snapshot(APP, &Filter::default(), usize::MAX).iter().map(|line| line.cost()).sum();
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&kept), "{kept} bytes");
    }

    #[tokio::test]
    async fn a_tail_begins_with_the_backlog_and_waits_for_more() {
        let hub = LogHub::new();
        say(&hub, "web.1", "a\nb");
        let mut tail = hub.tail(APP, ps("web"), 1);
        assert_eq!(ready(&mut tail), (vec!["b".to_owned()], false));
        let waiting = tokio::spawn(async move { tail.next().await.unwrap().text.clone() });
        tokio::task::yield_now().await;
        say(&hub, "worker.1", "not this one");
        say(&hub, "web.1", "c");
        assert_eq!(waiting.await.unwrap(), "c");
    }

    #[test]
    fn a_lagging_tail_is_told_how_much_it_missed_and_goes_on_with_the_latest() {
        fn check(published: i64, dropped: i64) {
            let hub = LogHub::new();
            let mut tail = hub.tail(APP, ps("web.1"), 0);
            for n in 0..published {
                hub.publish(APP, Source::App, "web.1", &n.to_string(), at(n + 100));
                hub.publish(APP, Source::App, "worker.1", "not counted", at(0));
            }
            let (mut seen, _) = ready(&mut tail);
            if dropped > 0 {
                let want = "messages dropped since 1970-01-01T00:01:40.000000+00:00";
                assert_eq!(seen.remove(0), format!("Error L11 (Tail buffer overflow) -> {dropped} {want}"));
            }
            assert_eq!(seen, (dropped..published).map(|n| n.to_string()).collect::<Vec<_>>());
            say(&hub, "web.1", "next");
            assert_eq!(ready(&mut tail).0, ["next"]);
        }
        check(1500, 0);
        check(1501, 1);
        check(4000, 2500);
    }

    #[test]
    fn a_noisy_dyno_costs_the_reader_of_a_quiet_one_nothing() {
        let hub = LogHub::new();
        let mut tail = hub.tail(APP, ps("run.1"), 0);
        say(&hub, "run.1", "first");
        for _ in 0..2 * MAX_LINES {
            say(&hub, "web.1", "noise");
        }
        say(&hub, "run.1", "last");
        assert_eq!(ready(&mut tail).0, ["first", "last"]);
    }

    #[test]
    fn the_word_about_lost_lines_is_the_platforms() {
        let hub = LogHub::new();
        let mut tail = hub.tail(APP, Filter::default(), 0);
        (0..=MAX_LINES).for_each(|_| say(&hub, "web.1", "x"));
        let line = tail.next().now_or_never().flatten().unwrap();
        assert_eq!((line.source, line.ps.as_str()), (Source::Platform, "logplex"));
    }

    #[tokio::test]
    async fn a_forgotten_app_ends_its_tails_and_stays_silent() {
        let hub = LogHub::new();
        let (mut waiting, mut unread) = (hub.tail(APP, Filter::default(), 0), hub.tail(APP, Filter::default(), 0));
        say(&hub, "web.1", "a");
        assert_eq!(waiting.next().await.unwrap().text, "a");
        let waiting = tokio::spawn(async move { waiting.next().await });
        tokio::task::yield_now().await;
        hub.forget(APP);
        assert_eq!(waiting.await.unwrap(), None);
        assert_eq!(ready(&mut unread), (vec!["a".to_owned()], true), "what was queued is still read");
        say(&hub, "web.1", "last words");
        assert_eq!(hub.snapshot(APP, &Filter::default(), 9), []);
        assert_eq!(ready(&mut hub.tail(APP, Filter::default(), 9)), (vec![], true));
    }

    #[test]
    fn readers_that_are_gone_are_cleared_away() {
        let hub = LogHub::new();
        let feeds = || lock(&hub.log(APP).unwrap()).feeds.len();
        (0..5).for_each(|_| drop(hub.tail(APP, Filter::default(), 0)));
        assert_eq!(feeds(), 1);
        say(&hub, "web.1", "x");
        assert_eq!(feeds(), 0);
    }

    #[test]
    fn nothing_is_lost_or_doubled_between_backlog_and_tail() {
        let hub = LogHub::new();
        let writer = {
            let hub = hub.clone();
            std::thread::spawn(move || (0..1000).for_each(|n| say(&hub, "web.1", &n.to_string())))
        };
        let mut tails: Vec<_> = (0..200).map(|_| hub.tail(APP, Filter::default(), usize::MAX)).collect();
        writer.join().unwrap();
        let want: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        assert!(tails.iter_mut().all(|tail| ready(tail).0 == want));
    }
}
