//! One end of a connection, in memory.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Framing, Read, lock, strict};

/// Reads come from bytes that are there, writes are kept.
pub(super) struct Wire {
    input: Vec<u8>,
    read: usize,
    /// Bytes that come at once; 0 for all.
    piece: usize,
    output: Arc<Mutex<Vec<u8>>>,
    framing: Option<Arc<Mutex<Framing>>>,
    /// Nothing is read before a whole request was written.
    answers: bool,
    /// It does not end.
    open: bool,
    reader: Option<Waker>,
}

impl Wire {
    /// `input` comes in pieces of `piece` bytes; then it ends.
    pub(super) fn new(input: &[u8], piece: u8) -> Self {
        let (output, piece) = (Arc::default(), piece.into());
        Self { input: input.to_vec(), read: 0, piece, output, framing: None, answers: false, open: false, reader: None }
    }

    /// Gives `answer` in pieces of `piece` bytes once a request has come; a client that is told something unasked listens no more.
    pub(super) fn answering(answer: &[u8], piece: u8) -> Self {
        Self { answers: true, ..Self::new(answer, piece) }
    }

    /// Without an end.
    pub(super) fn open(self) -> Self {
        Self { open: true, ..self }
    }

    /// What is read is shown to `framing`.
    pub(super) fn watched(self, framing: Arc<Mutex<Framing>>) -> Self {
        Self { framing: Some(framing), ..self }
    }

    /// What was written.
    pub(super) fn output(&self) -> Arc<Mutex<Vec<u8>>> {
        self.output.clone()
    }

    fn may_answer(&self) -> bool {
        // Nonsense is answered too: it is looked at later.
        !self.answers || !matches!(strict::message(&lock(&self.output), false), Ok(Read::Incomplete))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.input.len() - self.read;
        if !self.may_answer() || (self.open && left == 0) {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let most = if self.piece == 0 { left } else { left.min(self.piece) };
        let n = most.min(into.remaining());
        let bytes = &self.input[self.read..self.read + n];
        if let Some(framing) = &self.framing {
            lock(framing).feed(bytes);
        }
        into.put_slice(bytes);
        self.read += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.output).extend_from_slice(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
