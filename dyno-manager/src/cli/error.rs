//! What a command says when it cannot do what it was asked: one line that names the thing, hints that name
//! the next step, and the exit status. It is printed once, by [`super::main`].

use std::{fmt, io};

/// The exit status of a command that met an error.
const FAILED: u8 = 1;
/// The exit status of a command that was written wrongly.
const USAGE: u8 = 2;
/// 128 + SIGPIPE, what a shell reports of any program whose reader went away.
const BROKEN_PIPE: u8 = 141;

/// A command's result.
pub(super) type Result<T, E = CliError> = std::result::Result<T, E>;

/// Why a command ends early.
#[derive(Debug)]
pub(super) struct CliError {
    /// For people; empty when there is nothing to say (the reader of the output is gone).
    pub(super) message: String,
    /// What to try next, one per line.
    pub(super) hints: Vec<String>,
    /// The exit status.
    pub(super) status: u8,
}

impl CliError {
    /// Something failed: exit status 1.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new(), status: FAILED }
    }

    /// The command was written wrongly: exit status 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { status: USAGE, ..Self::new(message) }
    }

    /// Ends without a word.
    pub(super) fn quiet(status: u8) -> Self {
        Self { status, ..Self::new("") }
    }

    /// Adds a next step.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Output that nobody reads any more ends a command quietly; any other failure to write is told.
    pub(super) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet(BROKEN_PIPE);
        }
        Self::new(format!("Cannot write the output: {error}"))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |f: &mut fmt::Formatter<'_>, label: &str, text: &str| {
            for (index, line) in text.lines().enumerate() {
                writeln!(f, " ›   {}{line}", if index == 0 { label } else { "" })?;
            }
            Ok(())
        };
        lines(f, "Error: ", &self.message)?;
        self.hints.iter().try_for_each(|hint| lines(f, "Hint: ", hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_look_like_the_platform_s() {
        let check = |error: CliError, want: &str| assert_eq!(error.to_string(), want);
        check(CliError::new("No such app."), " ›   Error: No such app.\n");
        check(CliError::new("a\nb").hint("c"), " ›   Error: a\n ›   b\n ›   Hint: c\n");
        check(CliError::quiet(141), "");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_to_talk_about() {
        let quiet = CliError::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((quiet.status, quiet.to_string()), (141, String::new()));
        let full = CliError::output(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.status, 1);
        assert!(full.message.contains("Cannot write"));
    }
}
