//! A bounded run of lines: the log of an app, and what waits for one of its readers.

use std::{collections::VecDeque, sync::Arc};

use super::Line;

/// Lines kept per app, as on Heroku.
pub const MAX_LINES: usize = 1500;

/// Bytes kept per app.
pub const MAX_BYTES: usize = 1 << 20;

/// The latest lines, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
}

impl Ring {
    /// Adds a line; `dropped` gets each old one that has to go for it.
    pub(super) fn push(&mut self, line: Arc<Line>, mut dropped: impl FnMut(&Line)) {
        self.bytes += line.cost();
        self.lines.push_back(line);
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            let Some(old) = self.pop() else { return };
            dropped(&old);
        }
    }

    /// Takes the oldest line out.
    pub(super) fn pop(&mut self) -> Option<Arc<Line>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.cost();
        Some(line)
    }

    /// All lines, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Line>> {
        self.lines.iter()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::logs::{MAX_LINE, Source};

    fn check(text: &str, pushed: usize, kept: std::ops::RangeInclusive<usize>) {
        let mut ring = Ring::default();
        let mut dropped = 0;
        for _ in 0..pushed {
            let line = Line { at: Timestamp::UNIX_EPOCH, source: Source::App, ps: "web.1".into(), text: text.into() };
            ring.push(Arc::new(line), |_| dropped += 1);
        }
        let count = ring.iter().count();
        assert!(kept.contains(&count), "{count} lines kept, want {kept:?}");
        assert_eq!(count + dropped, pushed);
        assert!(ring.bytes <= MAX_BYTES);
        while ring.pop().is_some() {}
        assert_eq!(ring.bytes, 0);
    }

    #[test]
    fn lines_and_bytes_are_bounded() {
        check("", 10, 10..=10);
        check("short", MAX_LINES + 5, MAX_LINES..=MAX_LINES);
        check(&"x".repeat(MAX_LINE), 500, 100..=104);
    }
}
