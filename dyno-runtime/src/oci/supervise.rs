//! `run` and `exec` in the foreground.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::{Error, ErrorKind, Result};

/// Follows a child of ours to its end; its exit status, 128 and the signal for one that was killed.
///
/// # Errors
/// Of the terminal.
pub fn foreground(_pidfd: BorrowedFd<'_>, _console: Option<OwnedFd>) -> Result<u8> {
    Err(Error::refused(ErrorKind::Io, "foreground: not there yet"))
}
