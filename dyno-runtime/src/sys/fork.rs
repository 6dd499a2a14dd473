//! clone3 for a child with a memory of its own: fork(2) into new namespaces.
//!
//! Only for a process of one thread: the child goes on with a copy of everything, locks included. It is not made by the C library, so
//! that no handler of pthread_atfork(3) runs.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::{Flags, check, clone::CloneArgs};

/// Who returns from [`fork`].
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The one that called.
    Parent {
        /// Of the child.
        pidfd: OwnedFd,
        /// Of the child, in our pid namespace; valid until it is reaped.
        pid: u32,
    },
}

/// Forks; the child is born in `cgroup` (a v2 directory) and in new namespaces of the kinds in `flags`. With [`Flags::PARENT`] it is
/// the child of our parent.
///
/// # Errors
/// Of clone3(2) (Linux 5.7 for `cgroup`, 5.5 otherwise); EBUSY in a process of several threads.
pub fn fork(flags: Flags, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, Errno> {
    if !is_single_threaded() {
        return Err(Errno::BUSY);
    }
    let mut pidfd: RawFd = -1;
    let into = if cgroup.is_some() { Flags::INTO_CGROUP } else { 0 };
    let args = CloneArgs {
        flags: flags.bits() | Flags::PIDFD | into,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: if flags.bits() & Flags::PARENT.bits() == 0 { libc::SIGCHLD as u64 } else { 0 },
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is valid for the call. Without CLONE_VM and without a stack this is fork(2): the child has a copy of this process,
    // whose only thread is this one, and returns here.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has stored a new descriptor there (CLONE_PIDFD).
    Ok(Forked::Parent { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, pid: u32::try_from(pid).unwrap_or(0) })
}

/// The directory has a link for each thread, beside its own two.
fn is_single_threaded() -> bool {
    rustix::fs::stat("/proc/self/task").is_ok_and(|stat| stat.st_nlink == 3)
}

/// The kind of a namespace, as CLONE_NEW… (ioctl_ns(2), Linux 4.11).
///
/// # Errors
/// ENOTTY for a descriptor of something else.
pub fn namespace_type(ns: BorrowedFd<'_>) -> Result<libc::c_int, Errno> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: takes no argument.
    let kind = check(libc::c_long::from(unsafe { libc::ioctl(ns.as_raw_fd(), NS_GET_NSTYPE) }))?;
    Ok(kind as libc::c_int)
}
