//! The user's terminal while an attached session has it: raw, and given back on every way out.

use std::{
    io, panic,
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// What the terminal was like before; None while it is not ours. Global because a panic hook needs it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode for as long as this lives.
pub(super) struct Raw(());

impl Raw {
    /// Puts the terminal of standard input into raw mode; every key goes to the dyno, Ctrl-C included.
    pub(super) fn enter() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Noted first: from here on every way out restores it.
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let guard = Self(());
        tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that hung up has nothing left to restore.
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before).unwrap_or_default();
    }
}

/// Makes panics give the terminal back before they print, so that the message is readable.
pub(super) fn restore_on_panic() {
    let former = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        former(info);
    }));
}

/// Lines and columns of the terminal, or 24 by 80 where it does not know.
pub(super) fn size() -> (u16, u16) {
    let stdout = rustix::stdio::stdout();
    match tcgetwinsize(stdout) {
        Ok(size) if isatty(stdout) && size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}
