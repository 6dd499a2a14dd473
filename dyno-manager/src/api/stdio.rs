//! A dyno's standard streams as asynchronous readers and writers.
//!
//! Pipes are tokio's. A terminal's master side is a character device, which tokio has no type for: it is
//! made non-blocking and polled. Its read fails with EIO once the last process has closed the slave side
//! (tty_ioctl(4), drivers/tty/pty.c), which is how a terminal says end of file.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{fs::OFlags, io::Errno, termios::Winsize};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use crate::warden::StdioFds;

/// Where input goes.
pub(super) type Sink = Box<dyn AsyncWrite + Send + Unpin>;
/// Where output comes from.
pub(super) type Source = Box<dyn AsyncRead + Send + Unpin>;

/// The three streams, or the one of a terminal.
pub(super) struct Streams {
    pub stdin: Sink,
    pub stdout: Source,
    /// None with a terminal.
    pub stderr: Option<Source>,
    /// Some with a terminal.
    pub tty: Option<Tty>,
}

impl Streams {
    /// Registers the descriptors with the running reactor.
    ///
    /// # Errors
    /// The descriptors are not what their variant says, or there are none to attach to.
    pub fn open(fds: StdioFds) -> io::Result<Self> {
        match fds {
            StdioFds::Pipes { stdin, stdout, stderr } => Ok(Self {
                stdin: Box::new(pipe::Sender::from_owned_fd(stdin)?),
                stdout: Box::new(pipe::Receiver::from_owned_fd(stdout)?),
                stderr: Some(Box::new(pipe::Receiver::from_owned_fd(stderr)?)),
                tty: None,
            }),
            StdioFds::Tty(master) => {
                let tty = Tty::open(master)?;
                Ok(Self { stdin: Box::new(tty.clone()), stdout: Box::new(tty.clone()), stderr: None, tty: Some(tty) })
            }
            StdioFds::Log(_) | StdioFds::Gone => Err(io::Error::other("the dyno has no streams to attach to")),
        }
    }
}

/// The master side of a terminal; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Tty(Arc<AsyncFd<OwnedFd>>);

impl Tty {
    fn open(master: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        Ok(Self(Arc::new(AsyncFd::with_interest(master, Interest::READABLE | Interest::WRITABLE)?)))
    }

    /// Sets the window size; the kernel sends SIGWINCH to the foreground process group if it changed.
    pub fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }
}

impl AsyncRead for Tty {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), room)?)) {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) if Errno::from_io_error(&e) == Some(Errno::IO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Tty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), data)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
