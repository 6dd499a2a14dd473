//! The output of a build: a file that grows, and readers that follow it from its first byte.

use std::{io, path::PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::{fs::File, io::AsyncReadExt, sync::watch};

/// How far an output has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Bytes written and readable.
    pub written: u64,
    /// Nothing follows.
    pub done: bool,
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
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(progress) = &mut self.progress {
            let at = self.at;
            // A writer that went away without saying so has ended too.
            let _ended = progress.wait_for(|p| p.written > at || p.done).await.is_err();
        }
        let mut piece = BytesMut::with_capacity(64 << 10);
        let n = self.file.read_buf(&mut piece).await?;
        self.at += n as u64;
        Ok((n > 0).then(|| piece.freeze()))
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::try_unfold(self, |mut reader| async {
            Ok(reader.next().await?.map(|piece| (piece, reader)))
        })
    }
}
