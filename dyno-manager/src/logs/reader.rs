//! Reads what a dyno writes from its log FIFO.

use std::{io, os::fd::OwnedFd};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::LogHub;

/// Publishes what arrives on `fifo` as lines of `ps` until the dyno's init is gone or `cancel` fires; either
/// way what is buffered by then is published first.
///
/// # Errors
/// Reading failed; what was read before is published.
#[allow(clippy::unused_async)]
pub async fn follow(_fifo: OwnedFd, _hub: LogHub, _app_id: Uuid, _ps: String, _cancel: CancellationToken) -> io::Result<()> {
    unreachable!()
}
