//! The user's terminal while an attached session has it: raw, and given back on every way out.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    panic,
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal and what it was like before; None while it is not ours. Global because a panic hook needs it.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Raw mode for as long as this lives.
pub(super) struct Raw(());

impl Raw {
    /// Puts the terminal of standard input into raw mode; every key goes to the dyno, Ctrl-C included.
    pub(super) fn enter() -> io::Result<Self> {
        Self::of(rustix::stdio::stdin())
    }

    fn of(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Noted first: from here on every way out restores it.
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal.try_clone_to_owned()?, before));
        let guard = Self(());
        tcsetattr(terminal, OptionalActions::Drain, &raw)?;
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
    if let Some((terminal, before)) = before {
        // A terminal that hung up has nothing left to restore.
        tcsetattr(terminal, OptionalActions::Now, &before).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::{
        fs::{Mode, OFlags, open},
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::LocalModes,
    };

    use super::*;

    /// One test for all ways out, as the terminal of a process is one.
    #[test]
    fn every_way_out_gives_the_terminal_back() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = open(ptsname(&master, Vec::new()).unwrap(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let cooked = || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ISIG);
        assert!(cooked());
        let raw = Raw::of(terminal.as_fd()).unwrap();
        assert!(!cooked());
        drop(raw);
        assert!(cooked(), "after the guard is dropped");
        let unwound = panic::catch_unwind(|| {
            let _raw = Raw::of(terminal.as_fd()).unwrap();
            assert!(!cooked());
            panic::resume_unwind(Box::new("on purpose, past all hooks"));
        });
        assert!(unwound.is_err());
        assert!(cooked(), "after unwinding");
        restore_on_panic();
        std::mem::forget(Raw::of(terminal.as_fd()).unwrap());
        assert!(!cooked());
        drop(panic::catch_unwind(|| panic!("on purpose, to run the hook")));
        assert!(cooked(), "after the panic hook alone");
    }
}
