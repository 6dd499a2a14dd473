//! The standard streams of a sandbox: null, inherited, pipes, files, a terminal of its own, or the lossy log.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{fs::OFlags, pipe::PipeFlags};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    mount::{self, Lease},
    rootless,
    spec::Limits,
};

/// Where the standard streams go.
#[derive(Debug, Default)]
pub enum Stdio {
    /// /dev/null, all three.
    #[default]
    Null,
    /// The caller's own.
    Inherit,
    /// A pipe each.
    Pipes,
    /// Each its own way.
    Each {
        /// What the program reads.
        stdin: Stream,
        /// What it writes.
        stdout: Stream,
        /// What it complains to.
        stderr: Stream,
    },
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

/// Where one standard stream goes.
#[derive(Debug, Default)]
pub enum Stream {
    /// /dev/null.
    #[default]
    Null,
    /// The caller's own of the same number.
    Inherit,
    /// A pipe, whose other end is in [`Streams`].
    Pipe,
    /// An open file (or socket, or terminal), as it is: whoever runs inside may do with it what this descriptor allows, and
    /// [`crate::Dyno`] keeps no copy.
    File(OwnedFd),
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
    /// The other ends of those that are pipes.
    Each {
        /// Write here.
        stdin: Option<OwnedFd>,
        /// Read here.
        stdout: Option<OwnedFd>,
        /// Read here.
        stderr: Option<OwnedFd>,
    },
    /// Master side of the terminal.
    Tty(OwnedFd),
    /// Read end of the log FIFO, non-blocking.
    Log(OwnedFd),
}

impl Streams {
    /// Copies of the descriptors, for somebody else who looks on or types.
    ///
    /// # Errors
    /// EMFILE.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        let each = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        Ok(match self {
            Self::None => Self::None,
            Self::Pipes { stdin, stdout, stderr } => {
                Self::Pipes { stdin: stdin.try_clone()?, stdout: stdout.try_clone()?, stderr: stderr.try_clone()? }
            }
            Self::Each { stdin, stdout, stderr } => Self::Each { stdin: each(stdin)?, stdout: each(stdout)?, stderr: each(stderr)? },
            Self::Tty(master) => Self::Tty(master.try_clone()?),
            Self::Log(reader) => Self::Log(reader.try_clone()?),
        })
    }
}

/// Both sides, before the start.
pub(crate) struct Prepared {
    pub parent: Streams,
    /// The devpts that holds the terminal; mounted in the sandbox.
    pub pts: Option<OwnedFd>,
    /// Letter of the init's MODE argument.
    pub mode: char,
    /// The child's ends; None is inherited.
    child: [Option<OwnedFd>; 3],
    log: Option<OwnedFd>,
    null: OwnedFd,
}

/// Size of the log FIFO: what is kept while nobody reads.
const LOG_BYTES: usize = 256 * 1024;

/// The program's user, who owns what it opens by /dev/stdout.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'a> {
    /// By its id on the host.
    OnHost(u32),
    /// Rootless: by its id in the user namespace where alone it can be given something.
    Inside(BorrowedFd<'a>, u32),
}

impl<'a> Owner<'a> {
    fn new(lease: &'a Lease, uid: u32) -> Self {
        if lease.is_rootless() { Self::Inside(lease.userns(), uid) } else { Self::OnHost(lease.host_id(uid)) }
    }

    fn own(self, file: BorrowedFd<'_>, what: &str) -> Result<()> {
        match self {
            Self::Inside(userns, uid) => rootless::give(file, userns, uid),
            Self::OnHost(id) => rustix::fs::fchown(file, Some(rustix::fs::Uid::from_raw(id)), None).io(|| format!("fchown({what})")),
        }
    }
}

pub(super) fn prepare(stdio: Stdio, dir: &Path, lease: &Lease, uid: u32) -> Result<Prepared> {
    let owner = Owner::new(lease, uid);
    match stdio {
        Stdio::Tty { rows, cols } if lease.is_rootless() => {
            let (pts, master, slave) = rootless::terminal(lease, dir, 64, uid)?;
            mount::resize_terminal(slave.as_fd(), rows, cols)?;
            Ok(Prepared { pts: Some(pts), ..on_terminal(master, slave)? })
        }
        Stdio::Tty { rows, cols } => {
            let pts = mount::new_pts(lease, 64)?;
            let prepared = terminal(pts.as_fd(), owner, rows, cols)?;
            Ok(Prepared { pts: Some(pts), ..prepared })
        }
        Stdio::Log => {
            let null = open_null()?;
            let (reader, writer) = make_log(dir)?;
            let child = [Some(copy(&null)?), Some(copy(&null)?), Some(copy(&null)?)];
            Ok(Prepared { parent: Streams::Log(reader), pts: None, mode: 'l', child, log: Some(writer), null })
        }
        other => without_init(other, open_null()?, owner),
    }
}

/// As [`Stdio::Log`] of a sandbox that has its log already.
pub(super) fn to_kept_log(null: OwnedFd) -> Result<Prepared> {
    let reader = copy(&null)?;
    Ok(Prepared { parent: Streams::Log(reader), pts: None, mode: 'l', child: [Some(copy(&null)?), None, None], log: None, null })
}

/// Streams that need neither a devpts of their own nor the init's help; see [`open_null`].
pub(super) fn without_init(stdio: Stdio, null: OwnedFd, owner: Owner<'_>) -> Result<Prepared> {
    let all_pipes = matches!(stdio, Stdio::Pipes);
    let (stdin, stdout, stderr) = match stdio {
        Stdio::Null => (Stream::Null, Stream::Null, Stream::Null),
        Stdio::Inherit => (Stream::Inherit, Stream::Inherit, Stream::Inherit),
        Stdio::Pipes => (Stream::Pipe, Stream::Pipe, Stream::Pipe),
        Stdio::Each { stdin, stdout, stderr } => (stdin, stdout, stderr),
        Stdio::Tty { .. } | Stdio::Log => return Err(Error::refused(ErrorKind::Invalid, "stdio: a terminal or the log cannot be had here")),
    };
    let (in_child, in_parent) = one(stdin, &null, true, owner)?;
    let (out_child, out_parent) = one(stdout, &null, false, owner)?;
    let (err_child, err_parent) = one(stderr, &null, false, owner)?;
    let parent = match (in_parent, out_parent, err_parent) {
        (Some(stdin), Some(stdout), Some(stderr)) if all_pipes => Streams::Pipes { stdin, stdout, stderr },
        (None, None, None) => Streams::None,
        (stdin, stdout, stderr) => Streams::Each { stdin, stdout, stderr },
    };
    Ok(Prepared { parent, pts: None, mode: 'p', child: [in_child, out_child, err_child], log: None, null })
}

/// The child's end (None: inherited) and the caller's.
fn one(stream: Stream, null: &OwnedFd, input: bool, owner: Owner<'_>) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    Ok(match stream {
        Stream::Null => (Some(copy(null)?), None),
        Stream::Inherit => (None, None),
        Stream::File(file) => (Some(file), None),
        Stream::Pipe => {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).io(|| "pipe2".into())?;
            let (child, parent) = if input { (read, write) } else { (write, read) };
            // So that /dev/stdout can be opened inside.
            owner.own(child.as_fd(), "pipe")?;
            (Some(child), Some(parent))
        }
    })
}

/// A terminal of the devpts `pts` as all three streams.
pub(super) fn terminal(pts: BorrowedFd<'_>, owner: Owner<'_>, rows: u16, cols: u16) -> Result<Prepared> {
    let (master, slave) = mount::open_terminal(pts, rows, cols)?;
    owner.own(slave.as_fd(), "terminal")?;
    on_terminal(master, slave)
}

fn on_terminal(master: OwnedFd, slave: OwnedFd) -> Result<Prepared> {
    let child = [Some(copy(&slave)?), Some(copy(&slave)?), Some(slave)];
    Ok(Prepared { parent: Streams::Tty(master), pts: None, mode: 't', child, log: None, null: open_null()? })
}

/// For one sandbox alone: flags and locks are of whoever shares an open file.
pub(super) fn open_null() -> Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null").io(|| "open(/dev/null)".into())?.into())
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().io(|| "dup".into())
}

/// The FIFO in the state directory: its read end, and the init's write end.
fn make_log(dir: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let path = dir.join("log");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .io(|| format!("mkfifo({})", path.display()))?;
    let reader = open_log(dir)?;
    // Read and write, so that the writer never meets a FIFO without a reader (EPIPE).
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let writer = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).io(|| format!("open({})", path.display()))?;
    rustix::pipe::fcntl_setpipe_size(&writer, LOG_BYTES).io(|| "fcntl(F_SETPIPE_SZ)".into())?;
    Ok((reader, writer))
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

fn or<'a>(end: &'a Option<OwnedFd>, own: BorrowedFd<'a>) -> BorrowedFd<'a> {
    end.as_ref().map_or(own, AsFd::as_fd)
}

impl Prepared {
    /// Lets the init count the output, where the limits say so.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for streams that it does not carry.
    pub fn watched(self, limits: &Limits) -> Result<Self> {
        let piped = matches!(self.parent, Streams::Pipes { .. } | Streams::Each { stdout: Some(_), stderr: Some(_), .. });
        match limits.output {
            Some(_) if piped => Ok(Self { mode: 'r', ..self }),
            Some(_) if self.mode != 'l' => Err(Error::refused(ErrorKind::Invalid, "limits.output needs stdout and stderr to be pipes, or the log")),
            _ => Ok(self),
        }
    }

    /// The child's streams 0 to 2.
    pub fn child_streams(&self) -> [BorrowedFd<'_>; 3] {
        let [stdin, stdout, stderr] = &self.child;
        [or(stdin, rustix::stdio::stdin()), or(stdout, rustix::stdio::stdout()), or(stderr, rustix::stdio::stderr())]
    }

    /// What the init finds at its descriptors 3 and 6, for those that need it.
    pub fn log_or_null(&self) -> BorrowedFd<'_> {
        self.log.as_ref().unwrap_or(&self.null).as_fd()
    }

    /// /dev/null, where a descriptor must be and nobody uses it.
    pub fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// Drops our copies of the child's ends, so that end of file can be seen.
    pub fn close_child_ends(&mut self) {
        self.log = None;
        self.child = [None, None, None];
    }
}
