//! What the end of a container in the foreground leaves to be paid for.
//!
//! The last one who holds a mount namespace waits for a grace period of RCU when he lets go of it. That is the container's first process, in
//! the middle of its exit, and its parent sees it end only afterwards: a quarter of a millisecond and more. So the runtime holds the namespace
//! too, and once the process has ended a helper on the other processor lets go of it while the runtime deletes the container. Nothing
//! outlives the runtime: it waits for the helper.

use std::os::fd::OwnedFd;

use super::state::First;
use crate::sys;

/// A container's mount namespace, held.
#[derive(Debug)]
pub struct Mounts(Option<OwnedFd>);

/// It is on its way out; whoever drops this waits until it is gone.
#[derive(Debug)]
pub struct LetGo(#[allow(dead_code, reason = "waits when it is dropped")] Option<sys::Closing>);

impl Mounts {
    /// Of the first process. One that has ended, or a kernel that does not tell (Linux 6.11), is no loss but of time.
    pub fn of(first: &First) -> Self {
        Self(sys::mount_namespace(first.pidfd()))
    }

    /// Has it let go of.
    pub fn let_go(self) -> LetGo {
        LetGo(self.0.and_then(sys::close_beside))
    }
}
