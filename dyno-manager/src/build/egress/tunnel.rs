//! Two byte streams joined until both have ended, or nothing moves for a while.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::record::Meter;

/// Copies both ways; an end on one side is passed on, and the other direction goes on.
pub(super) async fn join(build: impl AsyncRead + AsyncWrite, host: impl AsyncRead + AsyncWrite, meter: &Meter, idle: Duration) -> io::Result<()> {
    let (build_in, build_out) = tokio::io::split(build);
    let (host_in, host_out) = tokio::io::split(host);
    let moved = || meter.up.load(Ordering::Relaxed) + meter.down.load(Ordering::Relaxed);
    let up = copy(build_in, host_out, &meter.up, &moved, idle);
    let down = copy(host_in, build_out, &meter.down, &moved, idle);
    tokio::try_join!(up, down).map(drop)
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
    moved: &impl Fn() -> u64,
    idle: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let before = moved();
        let n = match timeout(idle, from.read(&mut buffer)).await {
            Ok(n) => n?,
            // This direction is quiet, but the other one moves: a long download.
            Err(_) if moved() != before => continue,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        if n == 0 {
            return to.shutdown().await;
        }
        timeout(idle, to.write_all(&buffer[..n])).await.map_err(|_| io::ErrorKind::TimedOut)??;
        count.fetch_add(n as u64, Ordering::Relaxed);
    }
}
