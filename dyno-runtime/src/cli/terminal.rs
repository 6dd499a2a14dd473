//! The terminal of whoever called us: in raw mode while a program inside has one of its own, and then as it was.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::complain;

/// The caller's terminal in raw mode, until dropped: ^C and the like are for the program inside.
pub(crate) struct Raw(Termios);

impl Raw {
    /// None when stdin is no terminal.
    pub fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(e) = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0) {
            complain(&format!("your terminal may need `reset`: {e}"));
        }
    }
}

/// Gives the terminal of `master` the size of ours: of the first of our streams that is one, if that knows its size.
///
/// # Errors
/// Of TIOCSWINSZ.
pub(crate) fn fit(master: BorrowedFd<'_>) -> Result<(), rustix::io::Errno> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let own = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().find(|fd| isatty(fd));
    match own.and_then(|fd| tcgetwinsize(fd).ok()).filter(|size| size.ws_row > 0 && size.ws_col > 0) {
        Some(size) => tcsetwinsize(master, size),
        None => Ok(()),
    }
}

/// What stands for the end of input on the terminal of `master`; empty when its program reads key by key.
pub(crate) fn end_of_input(master: BorrowedFd<'_>) -> Vec<u8> {
    match tcgetattr(master) {
        Ok(modes) if modes.local_modes.contains(LocalModes::ICANON) => vec![modes.special_codes[SpecialCodeIndex::VEOF]],
        _ => Vec::new(),
    }
}
