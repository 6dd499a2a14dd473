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
/// The caller cancels when it learns that the dyno has ended: a FIFO that was opened after its last writer had gone never
/// reports an end.
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
        // A dyno that writes faster than this loop reads would otherwise keep the thread to itself. tokio's own budget is 128 turns, each
        // of thousands of lines: answers of the API waited 0.7 s for it.
        tokio::task::yield_now().await;
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
        let text = format!("Error L10 (output buffer overflow) -> {lines} lines dropped: the dyno writes faster than its log is read");
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
        let bytes = self.decoder.loose();
        if bytes > 0 {
            tracing::info!(app = %self.app_id, ps = %self.ps, bytes, "log bytes outside of records were passed over");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::logs::{Filter, Tail, record::tests::encode};

    const APP: Uuid = Uuid::from_u128(1);

    /// A FIFO as the warden makes it, and a hub that listens to it.
    struct Fixture {
        dir: TempDir,
        hub: LogHub,
        tail: Tail,
        cancel: CancellationToken,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            mknodat(CWD, dir.path().join("log"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            let hub = LogHub::new();
            let tail = hub.tail(APP, Filter::default(), 0);
            Self { dir, hub, tail, cancel: CancellationToken::new() }
        }

        fn end(&self, flags: OFlags) -> OwnedFd {
            open(self.dir.path().join("log"), flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap()
        }

        fn writer(&self) -> File {
            self.end(OFlags::WRONLY).into()
        }

        fn follow(&self, fifo: OwnedFd) -> JoinHandle<io::Result<()>> {
            tokio::spawn(follow(fifo, self.hub.clone(), APP, "web.1".into(), self.cancel.clone()))
        }

        async fn expect(&mut self, want: &[&str]) {
            for want in want {
                let line = self.tail.next().await.unwrap();
                assert_eq!(format!("{}[{}]: {}", line.source.as_str(), line.ps, line.text), *want);
            }
        }

        /// True when nothing but what was expected has been published.
        fn is_quiet(&self, published: usize) -> bool {
            self.hub.snapshot(APP, &Filter::default(), usize::MAX).len() == published
        }
    }

    fn out(text: &str) -> Vec<u8> {
        encode(1, 1, 0, 1_350_000_000_123_456, text.as_bytes())
    }

    fn err(text: &str) -> Vec<u8> {
        encode(1, 2, 0, 1_350_000_000_123_456, text.as_bytes())
    }

    #[tokio::test]
    async fn lines_come_as_they_end_and_the_rest_with_the_dynos_end() {
        let mut f = Fixture::new();
        let fifo = f.end(OFlags::RDONLY);
        let mut dyno = f.writer();
        let reader = f.follow(fifo);
        dyno.write_all(&[out("one\ntw"), err("warn"), out("o\n"), err("ing\nno end")].concat()).unwrap();
        f.expect(&["app[web.1]: one", "app[web.1]: two", "app[web.1]: warning"]).await;
        dyno.write_all(&out("\x1b[1mbold\0")).unwrap();
        drop(dyno);
        reader.await.unwrap().unwrap();
        f.expect(&["app[web.1]: \x1b[1mbold\u{fffd}", "app[web.1]: no end"]).await;
        assert!(f.is_quiet(5));
    }

    #[tokio::test]
    async fn lines_carry_the_dynos_time() {
        let mut f = Fixture::new();
        let fifo = f.end(OFlags::RDONLY);
        f.writer().write_all(&out("hi\n")).unwrap();
        // The writer has come and gone: what it left is still read, then the end is seen.
        f.follow(fifo).await.unwrap().unwrap();
        let want = "2012-10-12T00:00:00.123456+00:00 app[web.1]: hi";
        assert_eq!(f.tail.next().await.unwrap().to_string(), want);
    }

    #[tokio::test]
    async fn a_reader_takes_over_in_the_middle_of_a_record() {
        let mut f = Fixture::new();
        let fifo = f.end(OFlags::RDONLY);
        let mut dyno = f.writer();
        dyno.write_all(&[out("lost with the former reader\n"), out("kept\n")].concat()).unwrap();
        // The former reader took the first header and two bytes, then it was killed.
        assert_eq!(rustix::io::read(&fifo, &mut [0; 26]).unwrap(), 26);
        drop(fifo);
        // The dyno's end is still open, so the FIFO has kept the rest.
        let reader = f.follow(f.end(OFlags::RDONLY));
        f.expect(&["app[web.1]: kept"]).await;
        dyno.write_all(&out("more\n")).unwrap();
        f.expect(&["app[web.1]: more"]).await;
        drop(dyno);
        reader.await.unwrap().unwrap();
        assert!(f.is_quiet(2));
    }

    #[tokio::test]
    async fn dropped_lines_are_told_between_the_lines_around_them() {
        let mut f = Fixture::new();
        let fifo = f.end(OFlags::RDONLY);
        let mut dyno = f.writer();
        dyno.write_all(&[out("before"), encode(2, 0, 1234, 5, b""), out("after\n")].concat()).unwrap();
        drop(dyno);
        f.follow(fifo).await.unwrap().unwrap();
        let lost = "heroku[web.1]: Error L10 (output buffer overflow) -> 1234 lines dropped: \
                    the dyno writes faster than its log is read";
        f.expect(&["app[web.1]: before", lost, "app[web.1]: after"]).await;
    }

    #[tokio::test]
    async fn a_cancelled_reader_publishes_what_is_there() {
        let mut f = Fixture::new();
        let fifo = f.end(OFlags::RDONLY);
        let mut dyno = f.writer();
        dyno.write_all(&[out("one\n"), out("no end")].concat()).unwrap();
        f.cancel.cancel();
        f.follow(fifo).await.unwrap().unwrap();
        f.expect(&["app[web.1]: one", "app[web.1]: no end"]).await;
    }

    #[tokio::test]
    async fn a_waiting_reader_can_be_cancelled() {
        let f = Fixture::new();
        let fifo = f.end(OFlags::RDONLY);
        let _dyno = f.writer();
        let reader = f.follow(fifo);
        tokio::task::yield_now().await;
        f.cancel.cancel();
        reader.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_fifo_without_a_writer_yet_is_not_taken_for_ended() {
        let mut f = Fixture::new();
        let reader = f.follow(f.end(OFlags::RDONLY));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!reader.is_finished());
        let mut dyno = f.writer();
        dyno.write_all(&out("hi\n")).unwrap();
        f.expect(&["app[web.1]: hi"]).await;
        drop(dyno);
        reader.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn more_than_a_fifo_holds_comes_through_whole_and_in_order() {
        let mut f = Fixture::new();
        let fifo = f.end(OFlags::RDONLY);
        let dyno = tokio::net::unix::pipe::Sender::from_owned_fd(f.end(OFlags::WRONLY)).unwrap();
        let reader = f.follow(fifo);
        let writer = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let mut dyno = dyno;
            for n in 0..1000 {
                dyno.write_all(&out(&format!("{n} {}\n", "x".repeat(500)))).await.unwrap();
            }
        });
        for n in 0..1000 {
            let line = f.tail.next().await.unwrap();
            assert!(line.text.starts_with(&format!("{n} x")), "{n}: {line}");
        }
        writer.await.unwrap();
        reader.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn anything_but_a_fifo_is_refused() {
        let f = Fixture::new();
        let reader = f.follow(tempfile::tempfile().unwrap().into());
        assert_eq!(reader.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
