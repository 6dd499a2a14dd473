//! The standard streams of a sandbox: null, inherited, pipes, a terminal of its own, or the lossy log.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use rustix::{fs::OFlags, pipe::PipeFlags};

use crate::{
    error::{Context, Result},
    mount::{self, Lease},
};

/// Where the standard streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdio {
    /// /dev/null, all three.
    #[default]
    Null,
    /// The caller's own.
    Inherit,
    /// A pipe each.
    Pipes,
    /// A pseudo-terminal of the sandbox's own devpts, as controlling terminal.
    Tty {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// stdin from /dev/null; output goes through the init to a FIFO in the state directory, in records (see [`crate::log`]).
    /// The FIFO outlives its reader, never blocks the program, and counts what it had to drop.
    Log,
}

impl Stdio {
    /// The init's MODE argument.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Null | Self::Inherit | Self::Pipes => "p",
            Self::Tty { .. } => "t",
            Self::Log => "l",
        }
    }
}

/// The caller's ends.
#[derive(Debug)]
pub enum Streams {
    /// Nothing to hold.
    None,
    /// Pipes.
    Pipes {
        /// Write here.
        stdin: OwnedFd,
        /// Read here.
        stdout: OwnedFd,
        /// Read here.
        stderr: OwnedFd,
    },
    /// Master side of the terminal.
    Tty(OwnedFd),
    /// Read end of the log FIFO, non-blocking.
    Log(OwnedFd),
}

/// Both sides, before the start.
pub(super) struct Prepared {
    pub parent: Streams,
    /// The devpts that holds the terminal; mounted in the sandbox.
    pub pts: Option<OwnedFd>,
    child: Vec<OwnedFd>,
    log: Option<OwnedFd>,
    null: OwnedFd,
    inherit: bool,
}

/// Size of the log FIFO: what is kept while nobody reads.
const LOG_BYTES: usize = 256 * 1024;

pub(super) fn prepare(stdio: &Stdio, dir: &Path, lease: &Lease, uid: u32) -> Result<Prepared> {
    let null = File::options().read(true).write(true).open("/dev/null").io(|| "open(/dev/null)".into())?;
    let mut prepared = Prepared { parent: Streams::None, pts: None, child: Vec::new(), log: None, null: null.into(), inherit: *stdio == Stdio::Inherit };
    let owner = rustix::fs::Uid::from_raw(lease.host_id(uid));
    match *stdio {
        Stdio::Null | Stdio::Inherit => {}
        Stdio::Pipes => {
            let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).io(|| "pipe2".into());
            let ((in_read, stdin), (stdout, out_write), (stderr, err_write)) = (pipe()?, pipe()?, pipe()?);
            for end in [&in_read, &out_write, &err_write] {
                // So that /dev/stdout can be opened inside.
                rustix::fs::fchown(end, Some(owner), None).io(|| "fchown(pipe)".into())?;
            }
            prepared.child = vec![in_read, out_write, err_write];
            prepared.parent = Streams::Pipes { stdin, stdout, stderr };
        }
        Stdio::Tty { rows, cols } => {
            let pts = mount::new_pts(lease, 64)?;
            let (master, slave) = mount::open_terminal(pts.as_fd(), owner.as_raw(), rows, cols)?;
            let copy = || slave.try_clone().io(|| "dup".into());
            prepared.child = vec![copy()?, copy()?, slave.try_clone().io(|| "dup".into())?];
            prepared.parent = Streams::Tty(master);
            prepared.pts = Some(pts);
        }
        Stdio::Log => {
            let path = dir.join("log");
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).io(|| format!("mkfifo({})", path.display()))?;
            let reader = open_log(dir)?;
            // Read and write, so that the writer never meets a FIFO without a reader (EPIPE).
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let writer = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).io(|| format!("open({})", path.display()))?;
            rustix::pipe::fcntl_setpipe_size(&writer, LOG_BYTES).io(|| "fcntl(F_SETPIPE_SZ)".into())?;
            prepared.log = Some(writer);
            prepared.parent = Streams::Log(reader);
        }
    }
    Ok(prepared)
}

/// The read end of the log FIFO of the dyno whose state is in `dir`.
pub(crate) fn open_log(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("log");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let reader = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).io(|| format!("open({})", path.display()))?;
    // To a reader that never saw a writer poll(2) does not tell the end of file (fifo(7); pipe_poll: w_counter), and of an ended
    // dyno no writer will come. So it is shown one.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    drop(rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).io(|| format!("open({}, O_WRONLY)", path.display()))?);
    Ok(reader)
}

impl Prepared {
    /// Sources of the child's descriptors 0 to 5.
    pub fn child_fds(&self, exit: RawFd, ready: RawFd) -> [RawFd; 6] {
        let null = self.null.as_raw_fd();
        let stream = |i: usize| match self.child.get(i) {
            Some(fd) => fd.as_raw_fd(),
            None if self.inherit => i as RawFd,
            None => null,
        };
        [stream(0), stream(1), stream(2), self.log.as_ref().map_or(null, AsRawFd::as_raw_fd), exit, ready]
    }

    /// Drops our copies of the child's ends, so that end of file can be seen.
    pub fn close_child_ends(&mut self) {
        self.log = None;
        self.child.clear();
    }
}
