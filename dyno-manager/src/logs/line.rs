//! A line of a log, how it is written and who wants it.

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
    /// At most [`MAX_LINE`] bytes; no newline, no NUL. Escape sequences are kept: colours are wanted.
    pub text: String,
}

impl Line {
    /// Bytes that it costs to keep.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + self.ps.len() + self.text.len()
    }
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

/// Which lines a reader wants; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// A dyno (`web.1`) or all of a process type (`web`).
    pub ps: Option<String>,
    /// One source only.
    pub source: Option<Source>,
}

impl Filter {
    /// Whether `line` is wanted.
    pub fn wants(&self, line: &Line) -> bool {
        let ps = self.ps.as_deref().is_none_or(|wanted| line.ps.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
        ps && self.source.is_none_or(|wanted| wanted == line.source)
    }
}

/// The lines that `text` makes: split at newlines (one at the end adds no line) and after [`MAX_LINE`] bytes, never
/// inside a character; NUL, which cuts a line short in many a reader, becomes U+FFFD.
pub(super) fn lines_of(text: &str) -> impl Iterator<Item = String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n').flat_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line).replace('\0', "\u{fffd}");
        pieces(&line).map(str::to_owned).collect::<Vec<_>>()
    })
}

fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        if line.len() <= MAX_LINE {
            rest = None;
            return Some(line);
        }
        let (piece, left) = line.split_at(cut(line.as_bytes()));
        rest = Some(left);
        Some(piece)
    })
}

/// Where to cut `bytes`, which are more than [`MAX_LINE`], so that no character is split: at most three bytes before
/// it, as none is longer than four.
pub(super) fn cut(bytes: &[u8]) -> usize {
    let begins_character = |at: &usize| bytes[*at] & 0xC0 != 0x80;
    (MAX_LINE - 3..=MAX_LINE).rev().find(begins_character).unwrap_or(MAX_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(source: Source, ps: &str, text: &str) -> Line {
        let at = "2012-10-11T03:47:20.1234567Z".parse().unwrap();
        Line { at, source, ps: ps.into(), text: text.into() }
    }

    #[test]
    fn lines_are_written_as_log_parsers_expect() {
        let text = "State changed from starting to up";
        let want = "2012-10-11T03:47:20.123456+00:00 heroku[web.1]: State changed from starting to up";
        assert_eq!(line(Source::Platform, "web.1", text).to_string(), want);
        assert_eq!(line(Source::App, "run.7", "").to_string(), "2012-10-11T03:47:20.123456+00:00 app[run.7]: ");
    }

    #[test]
    fn whole_seconds_keep_six_digits() {
        let at: Timestamp = "2012-10-11T03:47:20Z".parse().unwrap();
        assert_eq!(stamp(at).to_string(), "2012-10-11T03:47:20.000000+00:00");
    }

    #[test]
    fn filters() {
        fn check(ps: Option<&str>, source: Option<Source>, want: [bool; 4]) {
            let filter = Filter { ps: ps.map(Into::into), source };
            let lines = [(Source::App, "web.1"), (Source::Platform, "web.10"), (Source::App, "webs.1"), (Source::Platform, "api")];
            let got = lines.map(|(source, ps)| filter.wants(&line(source, ps, "x")));
            assert_eq!(got, want, "{filter:?}");
        }
        check(None, None, [true; 4]);
        check(Some("web.1"), None, [true, false, false, false]);
        check(Some("web"), None, [true, true, false, false]);
        check(Some("api"), None, [false, false, false, true]);
        check(None, Some(Source::App), [true, false, true, false]);
        check(Some("web"), Some(Source::Platform), [false, true, false, false]);
    }

    #[test]
    fn texts_become_safe_lines() {
        fn check(text: &str, want: &[&str]) {
            assert_eq!(lines_of(text).collect::<Vec<_>>(), want, "{text:?}");
        }
        check("", &[""]);
        check("\n", &[""]);
        check("a", &["a"]);
        check("a\r\n\nb\n", &["a", "", "b"]);
        check("a\0b\x1b[31mc", &["a\u{fffd}b\x1b[31mc"]);
        check("50%\r100%\r\n", &["50%\r100%"]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        fn check(text: &str, want: &[usize]) {
            let got: Vec<_> = lines_of(text).map(|l| l.len()).collect();
            assert_eq!(got, want);
            assert_eq!(lines_of(text).collect::<String>(), text);
        }
        check(&"x".repeat(MAX_LINE), &[MAX_LINE]);
        check(&"x".repeat(MAX_LINE + 1), &[MAX_LINE, 1]);
        check(&"x".repeat(2 * MAX_LINE), &[MAX_LINE, MAX_LINE]);
        check(&format!("x{}", "é".repeat(MAX_LINE / 2)), &[MAX_LINE - 1, 2]);
    }
}
