//! What the runtime has to say beside its results: lines of `--log`, in the shape that runc's have, because clients read the last error from there.
//!
//! ```text
//! json   {"level":"error","msg":"container does not exist: web","time":"2026-11-22T02:17:24.123456789Z"}
//! text   time="2026-11-22T02:17:24.123456789Z" level=error msg="container does not exist: web"
//! ```

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    error::{Context, Result},
    one_line::one_line,
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The command fails.
    Error,
    /// Something was left out.
    Warning,
    /// What is done, with `--debug`.
    Debug,
}

/// Where lines go.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

impl Log {
    /// Lines go to the end of `path`; without one, warnings go to stderr and errors nowhere but there.
    ///
    /// # Errors
    /// Of open(2).
    pub fn open(path: Option<&Path>, json: bool, debug: bool) -> Result<Self> {
        let open = |path: &Path| OpenOptions::new().append(true).create(true).open(path).io(|| format!("--log: open({})", path.display()));
        Ok(Self { file: path.map(open).transpose()?, json, debug })
    }

    /// What was left out.
    pub fn warn(&self, message: &str) {
        self.line(Level::Warning, message);
        if self.file.is_none() {
            complain(&format!("warning: {message}"));
        }
    }

    /// What is done, if anybody asked for that.
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            let message = message();
            self.line(Level::Debug, &message);
            if self.file.is_none() {
                complain(&format!("debug: {message}"));
            }
        }
    }

    /// Why the command fails: one line there and one on stderr.
    pub fn error(&self, message: &str) {
        let message = as_clients_read_it(message);
        self.line(Level::Error, &message);
        complain(&message);
    }

    /// One line in one write, so that runtimes that share the file do not mix theirs.
    fn line(&self, level: Level, message: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let level = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Debug => "debug",
        };
        let time = rfc3339(SystemTime::now());
        let line = if self.json {
            format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time}))
        } else {
            format!("time={time:?} level={level} msg={message:?}\n")
        };
        // Whoever gave a file that cannot be written has stderr still.
        file.write_all(line.as_bytes()).ok();
    }
}

/// The kernel's answers as runc writes them: `no such file or directory`, not `No such file or directory (os error 2)`. The docker engine looks
/// for these words, in lower case, to tell a program that is not there (127) from one that cannot be run (126).
fn as_clients_read_it(message: &str) -> String {
    let mut parts = message.split(" (os error ");
    let mut rest = parts.next().unwrap_or_default();
    let mut read = String::with_capacity(message.len());
    for next in parts {
        let (before, answer) = rest.rsplit_once(": ").map_or(("", rest), |(_, answer)| rest.split_at(rest.len() - answer.len()));
        let mut letters = answer.chars();
        read.push_str(before);
        read.extend(letters.next().map(|first| first.to_ascii_lowercase()));
        read.push_str(letters.as_str());
        rest = next.split_once(')').map_or(next, |(_, rest)| rest);
    }
    read + rest
}

/// One line to stderr, whatever the message holds. A closed stderr cannot be told of anywhere.
pub fn complain(message: &str) {
    let line: String = one_line(message.trim_end()).collect();
    std::io::stderr().write_all(format!("dyno-runtime: {line}\n").as_bytes()).ok();
}

/// UTC with nanoseconds, as RFC 3339 has it.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s, n) = (second / 3600, second / 60 % 60, second % 60, since.subsec_nanos());
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{n:09}Z")
}

/// Year, month and day of a day after 1970-01-01. Years begin in March here, so that the odd day is their last; 400 of them repeat.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * from_march + 2) / 5 + 1, if from_march < 10 { from_march + 3 } else { from_march - 9 });
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000000007Z"),
            (1_795_313_844, "2026-11-22T02:17:24.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000007Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, 7)), want);
        }
    }

    #[test]
    fn answers_are_in_lower_case() {
        for (said, read) in [
            ("exec: \"/x\": No such file or directory (os error 2)", "exec: \"/x\": no such file or directory"),
            ("a: b: Permission denied (os error 13); a hint: And more", "a: b: permission denied; a hint: And more"),
            ("A: Invalid argument (os error 22), then B: File exists (os error 17)", "A: invalid argument, then B: file exists"),
            ("Input/output error (os error 5)", "input/output error"),
            ("No answer: at all", "No answer: at all"),
            (" (os error ", ""),
            ("", ""),
        ] {
            assert_eq!(as_clients_read_it(said), read);
        }
    }

    #[test]
    fn lines_are_one_line_each() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (json, want) in [(true, r#"{"level":"error","msg":"a\n\"b\"","time":"#), (false, "time=\"20")] {
            let log = Log::open(Some(file.path()), json, false).unwrap();
            log.line(Level::Error, "a\n\"b\"");
            log.debug(|| unreachable!());
            let text = std::fs::read_to_string(file.path()).unwrap();
            let last = text.lines().last().unwrap();
            assert!(last.starts_with(want), "{last}");
            assert!(json || last.ends_with(r#"level=error msg="a\n\"b\"""#), "{last}");
        }
        assert_eq!(std::fs::read_to_string(file.path()).unwrap().lines().count(), 2);
    }
}
