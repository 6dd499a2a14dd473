//! Upgraded connections: after the dyno's 101 the bytes belong to client and dyno, and the router only copies.

use std::{io, sync::Arc, time::Duration};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{code::Code, line::Ticket, pool::Lane, progress::Progress};

/// Copy buffer per direction, bytes.
const BUFFER: usize = 16 * 1024;

type Stream = TokioIo<Upgraded>;

/// What a spliced connection keeps until its end.
pub(super) struct Splice {
    pub(super) ticket: Ticket,
    pub(super) lane: Lane,
    pub(super) progress: Arc<Progress>,
    pub(super) idle: Duration,
    pub(super) shutdown: CancellationToken,
}

impl Splice {
    /// Copies both ways until both ends are done, one breaks, all is quiet for too long, or the router shuts down.
    pub(super) async fn run(mut self, client: OnUpgrade, dyno: OnUpgrade) {
        self.progress.bump();
        let progress = self.progress.clone();
        let mut received = 0;
        let copied = async {
            let (client, dyno) = tokio::try_join!(client, dyno).map_err(io::Error::other)?;
            let (client, dyno) = (split(TokioIo::new(client)), split(TokioIo::new(dyno)));
            let mut up = 0;
            tokio::try_join!(pump(client.0, dyno.1, &progress, &mut up), pump(dyno.0, client.1, &progress, &mut received),)
        };
        let end = tokio::select! {
            // An end that breaks off a WebSocket is how most of them end: not the app's fault, and not worth a code.
            _ = copied => None,
            () = quiet(&progress, self.idle) => Some(Code::H15),
            () = self.shutdown.cancelled() => Some(Code::H24),
        };
        self.ticket.bytes = received;
        match end {
            Some(code) => self.ticket.fault(code),
            None => self.ticket.finish(),
        }
        drop(self.lane);
    }
}

/// Copies one direction and passes its end on.
async fn pump(mut from: ReadHalf<Stream>, mut to: WriteHalf<Stream>, progress: &Progress, count: &mut u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        progress.bump();
        to.write_all(&buffer[..n]).await?;
        progress.bump();
        *count += n as u64;
    }
}

async fn quiet(progress: &Progress, idle: Duration) {
    loop {
        let limit = progress.quiet_at(idle);
        if limit <= Instant::now() {
            return;
        }
        sleep_until(limit).await;
    }
}
