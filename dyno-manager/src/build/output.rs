//! The output of a build: a file that grows, and readers that follow it from its first byte.
//!
//! What dynos print goes in as it comes, up to a bound; what the platform says goes in always and
//! on lines of its own. The file is the record: a reader of a finished build reads the same bytes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::{Mutex, watch},
};

/// How far an output has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Bytes written and readable.
    pub written: u64,
    /// Nothing follows.
    pub done: bool,
}

/// Writes one output. Clones write to the same.
#[derive(Debug, Clone)]
pub(super) struct Output {
    writer: Arc<Mutex<Writer>>,
    progress: Arc<watch::Sender<Progress>>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    written: u64,
    /// Bytes that dynos may still write.
    room: u64,
    in_line: bool,
}

impl Output {
    /// A new, empty file.
    pub(super) fn create(path: &Path, max: u64) -> io::Result<Self> {
        let file = File::from_std(std::fs::File::create(path)?);
        let writer = Writer { file, written: 0, room: max, in_line: false };
        Ok(Self { writer: Arc::new(Mutex::new(writer)), progress: Arc::default() })
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A line of the platform's own. A state directory that is full shows in the build's result,
    /// so that it is only traced here.
    pub(super) async fn line(&self, text: &str) {
        let mut writer = self.writer.lock().await;
        let start = if writer.in_line { "\n" } else { "" };
        let done = writer.append(format!("{start}{text}\n").as_bytes()).await;
        self.tell(&writer, done);
    }

    /// Copies what a dyno prints until it ends. Past the bound it is read and dropped, so that the
    /// dyno neither stalls nor dies of a broken pipe.
    pub(super) async fn copy(&self, mut from: impl AsyncRead + Unpin) {
        let mut piece = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut piece).await {
            let mut writer = self.writer.lock().await;
            let kept = writer.room.min(n as u64);
            let full = kept < n as u64 && writer.room > 0;
            writer.room -= kept;
            let mut done = writer.append(&piece[..kept as usize]).await;
            if full && done.is_ok() {
                done = writer.append(b"\n !     The output is too long; the rest of it is dropped.\n").await;
                writer.room = 0;
            }
            self.tell(&writer, done);
        }
    }

    /// Nothing follows.
    pub(super) fn close(&self) {
        self.progress.send_modify(|progress| progress.done = true);
    }

    fn tell(&self, writer: &Writer, done: io::Result<()>) {
        if let Err(error) = done {
            tracing::warn!(%error, "writing the output of a build");
        }
        self.progress.send_modify(|progress| progress.written = writer.written);
    }
}

impl Writer {
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.file.write_all(bytes).await?;
        // tokio's File keeps the last write to itself until it is flushed.
        self.file.flush().await?;
        self.written += bytes.len() as u64;
        self.in_line = *last != b'\n';
        Ok(())
    }
}

/// Reads one output from its first byte to its end, waiting while the build runs.
#[derive(Debug)]
pub struct OutputReader {
    file: File,
    at: u64,
    /// None for an output that no running build writes to.
    progress: Option<watch::Receiver<Progress>>,
}

impl OutputReader {
    /// `None` when there is no such file.
    pub(super) async fn open(path: PathBuf, progress: Option<watch::Receiver<Progress>>) -> io::Result<Option<Self>> {
        match File::open(&path).await {
            Ok(file) => Ok(Some(Self { file, at: 0, progress })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next piece; `None` at the end of a build that has ended.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let done = match &mut self.progress {
                // A writer that went away without saying so has ended too.
                Some(progress) => {
                    let at = self.at;
                    progress.wait_for(|p| p.written > at || p.done).await.map_or(true, |p| p.done)
                }
                None => true,
            };
            let mut piece = BytesMut::with_capacity(64 << 10);
            let n = self.file.read_buf(&mut piece).await?;
            self.at += n as u64;
            if n > 0 {
                return Ok(Some(piece.freeze()));
            }
            if done {
                return Ok(None);
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::try_unfold(self, |mut reader| async { Ok(reader.next().await?.map(|piece| (piece, reader))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut reader: OutputReader) -> String {
        let mut text = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn readers_replay_and_follow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let output = Output::create(&path, 1000).unwrap();
        output.line("-----> one").await;
        let mut early = OutputReader::open(path.clone(), Some(output.progress())).await.unwrap().unwrap();
        assert_eq!(early.next().await.unwrap().unwrap(), "-----> one\n");
        let waiting = tokio::spawn(async move { early.next().await.unwrap() });
        output.copy(&b"half"[..]).await;
        assert_eq!(waiting.await.unwrap().unwrap(), "half");
        let late = tokio::spawn(all(OutputReader::open(path.clone(), Some(output.progress())).await.unwrap().unwrap()));
        output.line("-----> two").await;
        output.close();
        let want = "-----> one\nhalf\n-----> two\n";
        assert_eq!(late.await.unwrap(), want);
        // After the daemon has forgotten the build, and for one that never was.
        assert_eq!(all(OutputReader::open(path, None).await.unwrap().unwrap()).await, want);
        assert!(OutputReader::open(dir.path().join("none"), None).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_writer_that_vanishes_ends_its_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let output = Output::create(&path, 1000).unwrap();
        output.line("a").await;
        let reader = OutputReader::open(path, Some(output.progress())).await.unwrap().unwrap();
        drop(output);
        assert_eq!(all(reader).await, "a\n");
    }

    #[tokio::test]
    async fn what_dynos_print_is_bounded_and_what_the_platform_says_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let output = Output::create(&path, 5).unwrap();
        output.copy(&b"abc"[..]).await;
        output.copy(&b"defgh"[..]).await;
        output.copy(&b"more"[..]).await;
        output.line("end").await;
        output.close();
        let want = "abcde\n !     The output is too long; the rest of it is dropped.\nend\n";
        assert_eq!(all(OutputReader::open(path, None).await.unwrap().unwrap()).await, want);
    }
}
