//! A dyno's standard streams as asynchronous readers and writers.
//!
//! Pipes are tokio's. A terminal's master side is a character device, which tokio has no type for, but its pipe
//! types poll, read and write whatever descriptor they are given, and that is all it takes. A read of the master
//! fails with EIO once the last process has closed the slave side (drivers/tty/tty_io.c): a terminal's end of file.

use std::{io, os::fd::OwnedFd};

use rustix::{fs::OFlags, termios::Winsize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::unix::pipe,
};

use crate::warden::StdioFds;

/// Where input goes.
pub(super) type Sink = Box<dyn AsyncWrite + Send + Unpin>;
/// Where output comes from; with a terminal, an error is its end.
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
            StdioFds::Tty(master) => Self::terminal(master),
            StdioFds::Log(_) | StdioFds::Gone => Err(io::Error::other("the dyno has no streams to attach to")),
        }
    }

    fn terminal(master: OwnedFd) -> io::Result<Self> {
        // O_NONBLOCK belongs to the open file, which the duplicates share (fcntl(2)); the slave side has its own.
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            stdin: Box::new(pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?),
            stdout: Box::new(pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?),
            stderr: None,
            tty: Some(Tty(master)),
        })
    }
}

/// The master side of a terminal.
#[derive(Debug)]
pub(super) struct Tty(OwnedFd);

impl Tty {
    /// Sets the window size; the kernel sends SIGWINCH to the foreground process group if it changed (tty_ioctl(4)).
    pub fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.0, size)?)
    }
}
