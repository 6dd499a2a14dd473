//! A line of a log and how it is written.

use std::fmt;

use jiff::Timestamp;

/// Longest text of one line, bytes; longer ones become several lines.
pub const MAX_LINE: usize = 10_000;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A process of the app; written `app`.
    App,
    /// The platform about the app; written `heroku`, as log parsers expect.
    Platform,
}

impl Source {
    /// The word in a log line, also the one that `logs --source` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Platform => "heroku",
        }
    }
}

/// One line, without its newline. `Display` writes `<RFC 3339, µs, +00:00> <app|heroku>[<ps>]: <text>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: Timestamp,
    /// Who wrote it.
    pub source: Source,
    /// `web.1`, `router`, `api`.
    pub ps: String,
    /// At most [`MAX_LINE`] bytes, no newline, no NUL.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]: {}", stamp(self.at), self.source.as_str(), self.ps, self.text)
    }
}

/// `2012-10-11T03:47:20.123456+00:00`
pub(super) fn stamp(at: Timestamp) -> impl fmt::Display {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")
}
