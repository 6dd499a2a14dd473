//! Signals as something to poll, for the command line.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::check;

/// Makes `signals` wait in the returned, non-blocking descriptor instead of ending the calling thread. Children inherit that they are
/// blocked; a sandbox's init sets its own mask.
///
/// # Errors
/// Of sigprocmask(2) and signalfd(2).
pub fn watch_signals(signals: &[i32]) -> Result<OwnedFd, Errno> {
    // SAFETY: zero is a valid sigset_t, sigaddset writes only to it, and the two calls read it; a null old set is allowed.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        for signal in signals {
            check(libc::c_long::from(libc::sigaddset(&raw mut set, *signal)))?;
        }
        check(libc::c_long::from(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())))?;
        let fd = check(libc::c_long::from(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// The next signal that waits there.
///
/// # Errors
/// EAGAIN when there is none.
pub fn next_signal(from: &OwnedFd) -> Result<i32, Errno> {
    // SAFETY: zero is valid for this struct, and the call writes at most its size to it.
    let (n, info) = unsafe {
        let mut info: libc::signalfd_siginfo = std::mem::zeroed();
        (libc::syscall(libc::SYS_read, from.as_raw_fd(), &raw mut info, size_of_val(&info)), info)
    };
    check(n).map(|_| info.ssi_signo.cast_signed())
}

/// Makes ended children of ours wait to be collected, whatever whoever started us has said of SIGCHLD: with SIG_IGN their exit statuses
/// would be lost.
///
/// # Errors
/// Of sigaction(2).
#[cfg(feature = "oci")]
pub fn keep_ended_children() -> Result<(), Errno> {
    // SAFETY: zero (SIG_DFL, no flags) is a valid sigaction; null for what is not asked.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        check(libc::c_long::from(libc::sigaction(libc::SIGCHLD, &raw const default, std::ptr::null_mut()))).map(drop)
    }
}

/// Sends any signal, real-time ones too, to the process of `pidfd`.
///
/// # Errors
/// Of pidfd_send_signal(2): ESRCH when it has ended.
#[cfg(feature = "oci")]
pub fn send_signal(pidfd: std::os::fd::BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed; the others are numbers.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) }).map(drop)
}
