//! Work on another processor, for a process of one thread: a child that shares our memory and goes on while we do.
//!
//! Unlike [`super::vfork`] we do not sleep, so this is only for short-lived programs: in a memory cgroup at its limit the kernel's OOM killer takes
//! both. What the child touches is its own until it was waited for, and it is child-safe but for that. It must not use the C library's errno,
//! which is one for both: rustix's calls have none.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    pin::Pin,
};

use rustix::{io::Errno, process::Pid};

use super::{
    clone::{ChildStack, Flags, SharedChild, clone_on, enter},
    keep_off_ours,
};

/// A child at work. Dropped, it is waited for.
pub struct Beside<C> {
    pidfd: OwnedFd,
    _work: Pin<Box<C>>,
    _stack: ChildStack,
}

impl<C> std::fmt::Debug for Beside<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Beside({})", self.pidfd.as_raw_fd())
    }
}

impl<C> AsFd for Beside<C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl<C> Drop for Beside<C> {
    fn drop(&mut self) {
        // A wait that fails must not free what the child stands on.
        if let Err(e) = super::reap(self.pidfd.as_fd()) {
            tracing::error!(%e, "waitid(a helper that shares our memory)");
            super::exit_now(1);
        }
    }
}

impl<C: SharedChild> Beside<C> {
    /// Starts it; with [`Flags::FILES`] its descriptors are ours, otherwise copies.
    ///
    /// # Errors
    /// As of [`super::vfork`].
    pub fn start(flags: Flags, work: C) -> Result<Self, Errno> {
        let stack = ChildStack::new()?;
        let mut work = Box::pin(work);
        // SAFETY: nothing is moved out of it; it stays where it is until the child was waited for.
        let arg = std::ptr::from_mut(unsafe { work.as_mut().get_unchecked_mut() });
        let (pidfd, pid) = clone_on(&stack, flags, None, enter::<C>, arg.cast())?;
        // Where it goes on from there is the scheduler's affair again.
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
            && let Some(processors) = keep_off_ours(pid)
        {
            processors.give_back(Some(pid));
        }
        Ok(Self { pidfd, _work: work, _stack: stack })
    }
}

/// A descriptor that is being closed beside us.
#[derive(Debug)]
pub struct Closing(#[allow(dead_code, reason = "waited for when it is dropped")] Beside<Close>);

/// One descriptor of ours; the child, whose table is ours too, takes it out of here.
struct Close(Option<OwnedFd>);

impl SharedChild for Close {
    fn run(&mut self) -> ! {
        self.0.take();
        super::exit_now(0)
    }
}

/// Closes a descriptor whose last holder waits for something. Where no child can be made, here and now.
pub fn close_beside(fd: OwnedFd) -> Option<Closing> {
    Beside::start(Flags::FILES, Close(Some(fd))).map(Closing).ok()
}
