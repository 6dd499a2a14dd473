//! Work inside another user namespace, for callers that may not do it themselves.
//!
//! A thread of a many-threaded process cannot join a user namespace (user_namespaces(7), EINVAL), so a child does that shares our
//! memory while we sleep. What it opens must come back, so that it shares our descriptors as well; what it starts must be our
//! child and not its own (CLONE_PARENT), because it is gone right after.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::{fd::AsFd, io::Errno, thread::LinkNameSpaceType};

use super::{
    check,
    clone::{ChildStack, Flags, SharedChild, clone_on, enter},
};

/// What a visitor does inside. Child-safe, as a [`SharedChild`]; its descriptors are the caller's.
pub trait Visitor {
    /// Runs in the visitor, with every capability over what the user namespace owns.
    ///
    /// # Errors
    /// Handed to the caller.
    fn run(&mut self) -> Result<(), Errno>;
}

struct Visit<'a, V> {
    userns: BorrowedFd<'a>,
    visitor: &'a mut V,
    result: Option<Result<(), Errno>>,
}

impl<V: Visitor> SharedChild for Visit<'_, V> {
    fn run(&mut self) -> ! {
        let joined = rustix::thread::move_into_link_name_space(self.userns, Some(LinkNameSpaceType::User));
        self.result = Some(joined.and_then(|()| self.visitor.run()));
        super::exit_now(0)
    }
}

/// Runs an errand that must not be this thread's own.
struct Errand<'a, V> {
    visitor: &'a mut V,
    result: Option<Result<(), Errno>>,
}

impl<V: Visitor> SharedChild for Errand<'_, V> {
    fn run(&mut self) -> ! {
        self.result = Some(self.visitor.run());
        super::exit_now(0)
    }
}

/// Lets `visitor` run in a child with new namespaces of the kinds in `flags`, and waits for it. What it opens is ours.
///
/// # Errors
/// Of clone3(2); of the visitor; EINTR when it was killed in the middle.
pub fn errand<V: Visitor>(flags: Flags, visitor: &mut V) -> Result<(), Errno> {
    let stack = ChildStack::new()?;
    let mut errand = Errand { visitor, result: None };
    let flags = flags.and(Flags::SHARED).and(Flags::FILES);
    let (pidfd, _) = clone_on(&stack, flags, None, enter::<Errand<'_, V>>, std::ptr::from_mut(&mut errand).cast())?;
    if let Err(e) = super::reap(pidfd.as_fd()) {
        tracing::warn!(%e, "waitid(errand)");
    }
    errand.result.unwrap_or(Err(Errno::INTR))
}

/// Lets `visitor` run inside `userns`, which belongs to the caller's user, and waits for it.
///
/// # Errors
/// Of clone3(2) and setns(2); of the visitor; EINTR when it was killed in the middle.
pub fn visit<V: Visitor>(userns: BorrowedFd<'_>, visitor: &mut V) -> Result<(), Errno> {
    let stack = ChildStack::new()?;
    let mut visit = Visit { userns, visitor, result: None };
    let flags = Flags::SHARED.and(Flags::FILES);
    let (pidfd, _) = clone_on(&stack, flags, None, enter::<Visit<'_, V>>, std::ptr::from_mut(&mut visit).cast())?;
    if let Err(e) = super::reap(pidfd.as_fd()) {
        tracing::warn!(%e, "waitid(visitor of a user namespace)");
    }
    visit.result.unwrap_or(Err(Errno::INTR))
}

/// Clones the child while inside, in the manner of [`super::vfork`].
struct Middle<'a, C> {
    stack: &'a ChildStack,
    flags: Flags,
    cgroup: Option<BorrowedFd<'a>>,
    child: *mut C,
    cloned: Option<(OwnedFd, u32)>,
}

impl<C: SharedChild> Visitor for Middle<'_, C> {
    fn run(&mut self) -> Result<(), Errno> {
        let flags = self.flags.and(Flags::SHARED).and(Flags::PARENT);
        self.cloned = Some(clone_on(self.stack, flags, self.cgroup, enter::<C>, self.child.cast())?);
        Ok(())
    }
}

/// [`super::vfork`] of a child that is born inside `userns`, which then owns the namespaces in `flags` as well. It is the caller's
/// child all the same.
///
/// # Errors
/// As [`visit`] and [`super::vfork`].
pub fn vfork_within<C: SharedChild>(
    userns: BorrowedFd<'_>,
    flags: Flags,
    cgroup: Option<BorrowedFd<'_>>,
    child: &mut C,
) -> Result<(OwnedFd, u32), Errno> {
    let stack = ChildStack::new()?;
    let mut middle = Middle { stack: &stack, flags, cgroup, child: std::ptr::from_mut(child), cloned: None };
    let visited = visit(userns, &mut middle);
    match middle.cloned {
        Some(cloned) => Ok(cloned),
        None => Err(visited.err().unwrap_or(Errno::INTR)),
    }
}

/// The user namespace that owns the namespace `ns` (ioctl_ns(2), Linux 4.9).
///
/// # Errors
/// EPERM when it is not below ours.
pub fn owner_of(ns: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: takes no argument; answers a new descriptor.
    let fd = check(libc::c_long::from(unsafe { libc::ioctl(ns.as_raw_fd(), NS_GET_USERNS) }))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether others of the same user may look into this process (PR_GET_DUMPABLE: 0, 1, 2).
pub fn dumpable() -> Result<i32, Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }).map(|n| n as i32)
}

/// Puts back what [`dumpable`] has said.
pub fn set_dumpable(to: i32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, to, 0, 0, 0) }).map(drop)
}

/// Whether the calling thread keeps its capabilities when it changes from root to another user (SECBIT_NO_SETUID_FIXUP, and no
/// other secure bit). Child-safe.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn keep_over_ids(keep: bool) -> Result<(), Errno> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    let bits = if keep { NO_SETUID_FIXUP } else { 0 };
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }).map(drop)
}
