//! A network namespace made ahead of the sandbox that gets it: nothing but a loopback, up.
//!
//! Half of what a start costs is this namespace: 300 us for it and 25 for its loopback, and for who makes many of them one after the
//! other the kernel's clean-up of former ones on top. It belongs to the user namespace of its maker, the host's, so no sandbox that
//! is put into it has a capability over it.

use std::os::fd::OwnedFd;

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// Makes a namespace on a thread of its own, so that the caller stays where it is.
///
/// # Errors
/// [`ErrorKind::Wall`] naming the call: EPERM without CAP_SYS_ADMIN, ENOSPC at `user.max_net_namespaces`.
pub fn fresh() -> Result<OwnedFd> {
    let thread = std::thread::Builder::new().name("dyno-net".into()).stack_size(64 << 10);
    let making = thread.spawn(enter_fresh).wall(|| "start a thread for a network namespace".into())?;
    making.join().unwrap_or_else(|_| Err(Error::refused(ErrorKind::Wall, "the thread that made a network namespace panicked")))
}

/// [`fresh`] by the calling thread, which is back where it was after.
pub(crate) fn fresh_from_here() -> Result<OwnedFd> {
    super::within_new(open_with_loopback)
}

fn enter_fresh() -> Result<OwnedFd> {
    sys::unshare(sys::Flags::NEWNET).wall(|| "unshare(CLONE_NEWNET)".into())?;
    open_with_loopback()
}

/// The namespace that this thread has just made, its loopback up.
pub(crate) fn open_with_loopback() -> Result<OwnedFd> {
    sys::interface_up(c"lo").wall(|| "ioctl(SIOCSIFFLAGS, lo up)".into())?;
    let path = "/proc/thread-self/ns/net";
    Ok(std::fs::File::open(path).wall(|| format!("open({path})"))?.into())
}
