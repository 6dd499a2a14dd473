//! Waiting for the end of a dyno without a thread for each.

use std::{io, os::fd::AsFd, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Resolves once the process of `pidfd` has ended: a pidfd is readable from then on (pidfd_open(2)).
///
/// # Errors
/// When the descriptor cannot be watched.
pub async fn ended(pidfd: &OwnedFd) -> io::Result<()> {
    let copy = pidfd.as_fd().try_clone_to_owned()?;
    #[allow(deprecated, reason = "the successor is unsafe against a descriptor that changes under it; this one is ours alone")]
    let watched = AsyncFd::with_interest(copy, Interest::READABLE)?;
    drop(watched.readable().await?);
    Ok(())
}
