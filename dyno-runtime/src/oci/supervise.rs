//! A container's process in the foreground (`run`, `exec`): signals of ours are its signals, our terminal is joined to its own, and its
//! exit status becomes ours. One thread, one poll.
//!
//! Nothing here waits for a stream to be closed, because whoever is still running in the background may hold it for ever: the process's
//! end is the end, and what had been written to the terminal by then is carried before we return (n_tty flushes on read, so that a read
//! that would block has seen all of it).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait},
    pty::{OpenptFlags, ioctl_tiocgptpeer},
};

use crate::{
    cli::terminal::{self, Raw},
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// Not passed on: what cannot be caught, what faults of our own raise, what is about our own children and sockets, what the C library
/// keeps for itself (32 to 34).
const OURS: [i32; 13] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGPIPE,
    libc::SIGURG,
    32,
    33,
    34,
];

/// Most that is carried at once: what a pipe takes without blocking once poll has said that it takes something (PIPE_BUF).
const CHUNK: usize = 4096;

/// More than a terminal can hold of what was written before its process's end (drivers/tty/tty_buffer.c: 64 KiB, and n_tty's own 4);
/// what comes after that is of programs in the background, which need not end.
const LEFT: usize = 128 * 1024;

/// Signals that wait to be passed on. Made before the process is, so that none is lost; the process has them blocked until
/// [`super::process::Program::begin`].
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// From now on signals wait. With `subreaper` orphans of the container become our children, and are collected.
    ///
    /// # Errors
    /// Of signalfd(2), prctl(2).
    pub fn watch(subreaper: bool) -> Result<Self> {
        sys::keep_ended_children().io(|| "sigaction(SIGCHLD)".into())?;
        if subreaper {
            set_child_subreaper(Some(getpid())).io(|| "prctl(PR_SET_CHILD_SUBREAPER)".into())?;
        }
        let watched: Vec<i32> = (1..=64).filter(|signal| !OURS.contains(signal)).collect();
        sys::watch_signals(&watched).io(|| "signalfd".into()).map(Self)
    }
}

impl Signals {
    /// Stays until our child has ended; its exit status, or 128 and the signal that ended it. `master` is its terminal, which is joined to
    /// our streams.
    ///
    /// # Errors
    /// Of poll(2) and wait(2). Our own terminal is as it was in any case.
    pub fn follow(self, pidfd: BorrowedFd<'_>, master: Option<OwnedFd>) -> Result<u8> {
        let pid = sys::number(pidfd).ok_or_else(|| Error::refused(ErrorKind::Io, "the process was collected by somebody else"))?;
        let mut terminal = master.map(Terminal::join).transpose()?;
        // It may have ended before its signals were watched.
        let mut ended = collect(pid)?;
        while ended.is_none() {
            let (signalled, ready) = turn(&self, terminal.as_ref())?;
            if let Some(joined) = &mut terminal
                && !joined.carry(ready)?
            {
                // Who reads us has stopped: the program learns it as it would of a terminal that is gone.
                terminal = None;
            }
            if signalled {
                ended = pass_on(&self, pid, pidfd, terminal.as_ref())?;
            }
        }
        if let Some(joined) = terminal {
            joined.drain()?;
        }
        Ok(ended.unwrap_or(u8::MAX))
    }
}

/// Waits for something to do: whether there are signals, and what the terminal's descriptors are ready for.
fn turn(signals: &Signals, terminal: Option<&Terminal>) -> Result<(bool, Ready)> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let (stdin, stdout) = (stdin.as_fd(), stdout.as_fd());
    let mut fds = vec![PollFd::new(&signals.0, PollFlags::IN)];
    let mut also = |fd, flags: PollFlags| {
        (!flags.is_empty()).then(|| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            fds.len() - 1
        })
    };
    let [mut master_at, mut stdin_at, mut stdout_at] = [None; 3];
    if let Some(t) = terminal {
        let when = |wanted, flag| if wanted { flag } else { PollFlags::empty() };
        master_at = also(t.master.as_fd(), when(t.written.is_empty(), PollFlags::IN) | when(!t.typed.is_empty(), PollFlags::OUT));
        stdin_at = also(stdin, when(t.input && t.typed.is_empty(), PollFlags::IN));
        stdout_at = also(stdout, when(!t.written.is_empty(), PollFlags::OUT));
    }
    match poll(&mut fds, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok((false, Ready::default())),
        Err(e) => return Err(e).io(|| "poll".into()),
    }
    let is = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
    Ok((is(Some(0)), Ready { master: is(master_at), stdin: is(stdin_at), stdout: is(stdout_at) }))
}

/// What is ready.
#[derive(Debug, Default, Clone, Copy)]
struct Ready {
    master: bool,
    stdin: bool,
    stdout: bool,
}

/// Empties the signals; Some is the status of `pid`, which has ended.
fn pass_on(signals: &Signals, pid: Pid, pidfd: BorrowedFd<'_>, terminal: Option<&Terminal>) -> Result<Option<u8>> {
    let mut status = None;
    while let Ok(signal) = sys::next_signal(&signals.0) {
        match (signal, terminal) {
            // A second one may tell of what was collected with the first: there may be no child left then.
            (libc::SIGCHLD, _) if status.is_some() => {}
            (libc::SIGCHLD, _) => status = collect(pid)?,
            // Our terminal may be gone; then there is no size to pass on.
            (libc::SIGWINCH, Some(terminal)) => terminal::fit(terminal.master.as_fd()).unwrap_or_default(),
            _ => match sys::send_signal(pidfd, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(e).io(|| format!("pidfd_send_signal({signal})")),
            },
        }
    }
    Ok(status)
}

/// Collects every ended child: `pid`, whose status it returns, and orphans.
fn collect(pid: Pid) -> Result<Option<u8>> {
    let mut of_pid = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((ended, status))) if ended == pid => of_pid = Some(status_of(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(of_pid),
            Err(Errno::CHILD) if of_pid.is_some() => return Ok(of_pid),
            Err(e) => return Err(e).io(|| "wait".into()),
        }
    }
}

fn status_of(status: WaitStatus) -> u8 {
    let by_signal = || status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or_else(by_signal).and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX)
}

/// The process's terminal, joined to our streams.
struct Terminal {
    master: OwnedFd,
    /// While we hold the other end too, the terminal is not hung up when all programs have closed it for a while: some close their
    /// streams and open `/dev/console` later.
    _slave: OwnedFd,
    /// Typed, not yet taken by the terminal.
    typed: Vec<u8>,
    /// Written by programs, not yet by us.
    written: Vec<u8>,
    /// Whether stdin may have more.
    input: bool,
    _raw: Option<Raw>,
}

impl Terminal {
    fn join(master: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&master, true).io(|| "ioctl(FIONBIO, terminal)".into())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags).io(|| "ioctl(TIOCGPTPEER)".into())?;
        terminal::fit(master.as_fd()).io(|| "ioctl(TIOCSWINSZ)".into())?;
        // A closed stdin (or one that cannot be polled) has nothing to give.
        let input = fcntl_dupfd_cloexec(std::io::stdin(), 3).is_ok();
        Ok(Self { master, _slave: slave, typed: Vec::new(), written: Vec::new(), input, _raw: Raw::enter() })
    }

    /// Moves what is ready; false when nobody takes the output any more.
    fn carry(&mut self, ready: Ready) -> Result<bool> {
        if ready.stdin {
            self.read_typed();
        }
        if ready.master {
            self.write_typed()?;
            self.read_written()?;
        }
        if ready.stdout { self.write_written() } else { Ok(true) }
    }

    fn read_typed(&mut self) {
        let mut chunk = [0; CHUNK];
        match rustix::io::read(std::io::stdin(), &mut chunk) {
            Ok(n @ 1..) => self.typed.extend_from_slice(&chunk[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => {
                self.input = false;
                self.typed = terminal::end_of_input(self.master.as_fd());
            }
        }
    }

    fn write_typed(&mut self) -> Result<()> {
        if self.typed.is_empty() {
            return Ok(());
        }
        match rustix::io::write(&self.master, &self.typed) {
            Ok(n) => drop(self.typed.drain(..n)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => return Err(e).io(|| "write(terminal)".into()),
        }
        Ok(())
    }

    /// False when there is nothing more for now.
    fn read_written(&mut self) -> Result<bool> {
        if !self.written.is_empty() {
            return Ok(true);
        }
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.master, &mut chunk) {
            Ok(0) | Err(Errno::AGAIN | Errno::IO) => Ok(false),
            Ok(n) => {
                self.written.extend_from_slice(&chunk[..n]);
                Ok(true)
            }
            Err(Errno::INTR) => Ok(true),
            Err(e) => Err(e).io(|| "read(terminal)".into()),
        }
    }

    /// False when nobody takes it.
    fn write_written(&mut self) -> Result<bool> {
        match rustix::io::write(std::io::stdout(), &self.written) {
            Ok(n) => drop(self.written.drain(..n)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for_room()?,
            // EBADF: there is no stdout. EIO: our own terminal was hung up.
            Err(Errno::PIPE | Errno::BADF | Errno::IO) => return Ok(false),
            Err(e) => return Err(e).io(|| "write(stdout)".into()),
        }
        Ok(true)
    }

    /// Carries what is left after the process's end.
    fn drain(mut self) -> Result<()> {
        let mut left = LEFT;
        while left > 0 && self.read_written()? {
            left = left.saturating_sub(self.written.len());
            while !self.written.is_empty() {
                if !self.write_written()? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// stdout is somebody's non-blocking pipe.
fn wait_for_room() -> Result<()> {
    match poll(&mut [PollFd::new(&std::io::stdout(), PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e).io(|| "poll(stdout)".into()),
    }
}
