//! Reads what a dyno writes from its log FIFO.
//!
//! The dyno's init holds the other end open for as long as it lives, so that a new reader can take over after this
//! daemon was killed; end of file means that the dyno is gone.

use std::{io, os::fd::OwnedFd};

use jiff::Timestamp;
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    LogHub, Source,
    record::{Assembler, Decoder, Record, Stream},
};

/// The most that one turn reads; also the size of a FIFO by default (pipe(7)).
const CHUNK: usize = 64 * 1024;

/// The most that is read after `cancel`: what a FIFO can hold at most for an unprivileged owner
/// (`/proc/sys/fs/pipe-max-size`). A dyno that never stops writing must not keep its reader for ever.
const MAX_DRAIN: usize = 1 << 20;

/// Publishes what arrives on `fifo` as lines of `ps` until the dyno's init is gone or `cancel` fires; either
/// way what is buffered by then is published first.
///
/// # Errors
/// Reading failed; what was read before is published.
pub async fn follow(fifo: OwnedFd, hub: LogHub, app_id: Uuid, ps: String, cancel: CancellationToken) -> io::Result<()> {
    let fifo = Receiver::from_owned_fd(fifo)?;
    let mut publisher = Publisher { hub, app_id, ps, decoder: Decoder::default(), streams: Default::default() };
    let result = pump(&fifo, &mut publisher, &cancel).await;
    publisher.finish();
    result
}

async fn pump(fifo: &Receiver, publisher: &mut Publisher, cancel: &CancellationToken) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        // Waits before the first read: a FIFO that has had no writer yet reads as ended but does not poll as such.
        tokio::select! {
            ready = fifo.readable() => ready?,
            () = cancel.cancelled() => return drain(fifo, publisher, &mut buffer),
        }
        match fifo.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => publisher.push(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        // A dyno that writes faster than this loop reads would otherwise keep the thread to itself.
        tokio::task::coop::consume_budget().await;
    }
}

/// Asks the kernel itself: `try_read` knows only of data that the reactor has been told of.
fn drain(fifo: &Receiver, publisher: &mut Publisher, buffer: &mut [u8]) -> io::Result<()> {
    let mut left = MAX_DRAIN;
    while left > 0 {
        match rustix::io::read(fifo, &mut *buffer) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(n) => {
                publisher.push(&buffer[..n]);
                left = left.saturating_sub(n);
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// From bytes to the lines of one dyno.
struct Publisher {
    hub: LogHub,
    app_id: Uuid,
    ps: String,
    decoder: Decoder,
    /// stdout, stderr.
    streams: [Assembler; 2],
}

impl Publisher {
    fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
        for record in self.decoder.take() {
            match record {
                Record::Output { stream, at, bytes } => {
                    let Self { hub, app_id, ps, streams: [stdout, stderr], .. } = self;
                    let assembler = match stream {
                        Stream::Stdout => stdout,
                        Stream::Stderr => stderr,
                    };
                    assembler.push(&bytes, at, |line, at| hub.publish(*app_id, Source::App, ps, line, at));
                }
                Record::Dropped { lines, at } => self.tell_dropped(lines, at),
            }
        }
    }

    fn tell_dropped(&mut self, lines: u32, at: Timestamp) {
        // What comes after the gap does not continue the line before it.
        self.flush();
        let text = format!(
            "Error L10 (output buffer overflow) -> {lines} lines dropped: the dyno writes faster than its log is read"
        );
        self.hub.publish(self.app_id, Source::Platform, &self.ps, &text, at);
    }

    fn flush(&mut self) {
        let Self { hub, app_id, ps, streams, .. } = self;
        for stream in streams {
            stream.flush(|line, at| hub.publish(*app_id, Source::App, ps, line, at));
        }
    }

    fn finish(&mut self) {
        self.flush();
        if self.decoder.skipped > 0 {
            let skipped = self.decoder.skipped;
            tracing::info!(app = %self.app_id, ps = %self.ps, skipped, "log bytes outside of records were passed over");
        }
    }
}
