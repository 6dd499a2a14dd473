//! The API on a socket, TCP or unix.

use std::{future::IntoFuture, io, time::Duration};

use axum::{Router, serve::Listener};
use tokio_util::sync::CancellationToken;

/// Streams and sessions that go on this long after the shutdown began are cut.
const GRACE: Duration = Duration::from_secs(5);

/// Serves `router` until `shutdown` fires, then lets requests under way finish for a few seconds. Call it once per
/// listener (`TcpListener`, `UnixListener`) with clones of one router.
///
/// # Errors
/// The listener fails.
pub async fn serve<L>(listener: L, router: Router, shutdown: CancellationToken) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let stop = shutdown.clone().cancelled_owned();
    let cut = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stop).into_future() => served,
        () = cut => Ok(()),
    }
}
