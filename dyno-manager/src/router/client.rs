//! The client's side of a connection: its stream, watched, and what has been noticed about it.
//!
//! Two things cannot be seen from inside an HTTP handler: a request head as it was sent ([`Framing`]), and a client that
//! has stopped reading. The latter is a write that stays pending; it ends here after the idle limit.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{code::Code, framing::Framing};

/// What is known of a client connection, shared with its exchanges.
#[derive(Debug, Default)]
pub(super) struct Client {
    stalled: AtomicBool,
    cut: AtomicBool,
    requests: AtomicU64,
    /// Ordinal of a request with conflicting lengths; 0 for none.
    conflict: AtomicU64,
}

impl Client {
    /// Counts a request; true if this one states its length in two ways.
    pub(super) fn next_conflicts(&self) -> bool {
        self.requests.fetch_add(1, Relaxed) + 1 == self.conflict.load(Relaxed)
    }

    /// The router is about to drop the connection.
    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Why an exchange on this connection went away under the router.
    pub(super) fn parting(&self) -> Code {
        if self.cut.load(Relaxed) {
            Code::H24
        } else if self.stalled.load(Relaxed) {
            Code::H28
        } else {
            Code::H27
        }
    }
}

/// A client's TCP stream.
pub(super) struct ClientStream {
    tcp: TcpStream,
    client: Arc<Client>,
    framing: Framing,
    patience: Duration,
    stall: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    /// Watches `tcp`; a write that makes no progress for `patience` fails with `TimedOut`.
    pub(super) fn new(tcp: TcpStream, client: Arc<Client>, patience: Duration) -> Self {
        Self { tcp, client, framing: Framing::default(), patience, stall: None }
    }

    /// Passes a write result on, unless it has been pending too long.
    fn unless_stalled<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall = None;
            return polled;
        }
        let patience = self.patience;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stall.as_mut().poll(cx));
        self.client.stalled.store(true, Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.framing.feed(&buf.filled()[before..]);
        if let Some(n) = self.framing.conflict() {
            self.client.conflict.store(n, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.unless_stalled(cx, polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.unless_stalled(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
