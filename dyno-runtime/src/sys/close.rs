//! Closing all descriptors from some number up.

use std::os::fd::RawFd;

use rustix::io::Errno;

use super::check;

/// Closes every descriptor from `first` up. Child-safe; only for a process with a descriptor table of its own.
///
/// By close_range(2) (Linux 5.9), or one by one as `/proc/self/fd` lists them where that is hidden. A limit of open files says
/// nothing of what is open: it may have been lowered after.
///
/// # Errors
/// Of close_range(2), and without it those of reading `/proc/self/fd`: what cannot be listed is not taken for closed.
pub(super) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: takes no pointers; the child owns a copy of the descriptor table and uses none of these any more.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }) {
        Err(Errno::NOSYS) => close_listed(first),
        other => other.map(drop),
    }
}

/// Leaves a table that is shared with another process for an empty one. Child-safe.
///
/// # Errors
/// ENOMEM; without close_range(2) those of [`close_from`].
pub(super) fn leave_all() -> Result<(), Errno> {
    // SAFETY: takes no pointers; the child uses none of the descriptors.
    match check(unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) }) {
        Err(Errno::NOSYS) => super::unshare(super::Flags::FILES).and_then(|()| close_listed(0)),
        other => other.map(drop),
    }
}

/// Closes every descriptor from 3 up but those in `keep`. For a process that has just been forked and lets go of what it holds of its
/// parent: whatever stood at these numbers must not be used (or dropped) any more.
///
/// # Errors
/// As [`close_from`].
#[cfg(feature = "oci")]
pub fn close_all_but(keep: &mut [RawFd]) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut first: RawFd = 3;
    for kept in keep.iter().copied().filter(|fd| *fd >= 3) {
        if kept > first {
            // SAFETY: takes no pointers; the caller uses none of these any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) })?;
        }
        first = first.max(kept + 1);
    }
    close_from(first)
}

/// Whether `fd` is open and stays so over exec: whoever started us has left it there on purpose.
#[cfg(feature = "oci")]
pub fn is_open_over_exec(fd: RawFd) -> bool {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFD) }).is_ok_and(|flags| flags & libc::c_long::from(libc::FD_CLOEXEC) == 0)
}

/// A `struct linux_dirent64` before its name.
const HEADER: usize = 19;

/// Aligned as the kernel's entries are.
#[repr(align(8))]
struct Entries([u8; 1024]);

fn close_listed(first: RawFd) -> Result<(), Errno> {
    let path = c"/proc/self/fd";
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a NUL-ended path and numbers.
    let list = check(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) })?;
    let mut entries = Entries([0; 1024]);
    loop {
        // SAFETY: the buffer is valid for writing its length.
        let read = check(unsafe { libc::syscall(libc::SYS_getdents64, list, entries.0.as_mut_ptr(), entries.0.len()) })?;
        let mut left = usize::try_from(read).ok().and_then(|read| entries.0.get(..read)).ok_or(Errno::IO)?;
        if left.is_empty() {
            break;
        }
        while let Some((number, rest)) = next(left) {
            left = rest;
            // The list is by number, not by position, so that closing disturbs no later read.
            if number.is_some_and(|fd| fd >= i64::from(first) && fd != list) {
                // SAFETY: as in `close_from`.
                check(unsafe { libc::syscall(libc::SYS_close, number.unwrap_or(-1)) })?;
            }
        }
    }
    // SAFETY: opened above, closed once.
    check(unsafe { libc::syscall(libc::SYS_close, list) }).map(drop)
}

/// The first entry, as number if it is one, and what follows it.
fn next(entries: &[u8]) -> Option<(Option<i64>, &[u8])> {
    let length = usize::from(u16::from_ne_bytes([*entries.get(16)?, *entries.get(17)?]));
    let (entry, rest) = entries.split_at_checked(length)?;
    let mut name = entry.get(HEADER..)?.iter().copied().take_while(|byte| *byte != 0);
    let number = name.try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')));
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Flags, SharedChild, exit_now, vfork};
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    /// Opens many, some far up, closes them from the fourth, and looks.
    struct Closer {
        left: Option<Errno>,
    }

    impl SharedChild for Closer {
        fn run(&mut self) -> ! {
            let open = |at: i32| {
                // SAFETY: numbers only.
                unsafe { libc::syscall(libc::SYS_dup3, 2, at, 0) }
            };
            for at in (10..200).chain([900]) {
                open(at);
            }
            let closed = close_listed(4);
            // SAFETY: numbers only.
            let is_open = |fd: i32| unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFD) } >= 0;
            self.left = closed.err().or((4..1000).any(is_open).then_some(Errno::BUSY)).or((!is_open(2)).then_some(Errno::BADF));
            exit_now(0)
        }
    }

    #[test]
    fn one_by_one_leaves_none_open_above_and_all_below() {
        let mut child = Closer { left: Some(Errno::IO) };
        let (pidfd, _) = vfork(Flags::NONE, None, &mut child).unwrap();
        waitid(WaitId::PidFd(rustix::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED).unwrap();
        assert_eq!(child.left, None);
    }
}
