//! The dyno's side of a connection: what has been read is acknowledged before more is waited for.
//!
//! Most servers write the head of an answer and its body in two pieces and leave Nagle's algorithm on: the second piece waits for
//! the acknowledgement of the first (RFC 896). On a connection that has served before, the kernel takes the exchange for an interactive one
//! and delays that acknowledgement by 40 ms in the hope of data to send along with it. The router knows that it has none to send.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A dyno's TCP stream.
pub(super) struct DynoStream {
    tcp: TcpStream,
    /// Something was read since the last acknowledgement.
    owes: bool,
}

impl DynoStream {
    /// Reads and writes `tcp`.
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, owes: false }
    }
}

impl AsyncRead for DynoStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.owes = true;
        } else if polled.is_pending() && std::mem::take(&mut self.owes) {
            // Sends what is owed and leaves the interactive mode until the next write (tcp(7)). A socket that refuses is one that ends.
            rustix::net::sockopt::set_tcp_quickack(&self.tcp, true).ok();
        }
        polled
    }
}

impl AsyncWrite for DynoStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
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
