//! Commands beside a sandbox's program: `Dyno::exec`.
//!
//! It is the sandbox's own init that starts them, so they stand behind the very walls of the program: the same ids, capabilities,
//! filter, Landlock domain, control groups and limits, all inherited, none raised anew. Nothing of the caller's enters the sandbox,
//! so there is nothing in it that a process inside could trace, stop or write to (CVE-2016-9962, CVE-2019-5736 and their kin).
//! The init takes requests from a socket of which it holds both ends; whoever may take one of them from it (pidfd_getfd(2), Linux
//! 5.6) may ask, also after a restart.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, recvmsg, sendmsg, socketpair,
    },
    process::{PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_send_signal},
};

use super::stdio::{self, Owner, Prepared, Stdio, Streams};
use crate::{
    dyno::Dyno,
    error::{Context, Error, ErrorKind, Result},
    mount::host_id,
    plan::check,
    sys,
};

/// The init's number for the other end of its request socket (`init/main.rs`).
const REQUESTS_PEER: i32 = 8;

/// A command to run in a running sandbox.
#[derive(Debug, Default)]
pub struct Exec {
    /// Program and arguments; the program is looked up in `PATH` of the environment when it has no slash.
    pub argv: Vec<String>,
    /// The whole environment; None is that of the sandbox.
    pub env: Option<BTreeMap<String, String>>,
    /// Working directory inside; None is that of the sandbox.
    pub cwd: Option<PathBuf>,
    /// Standard streams: all but [`Stdio::Log`].
    pub stdio: Stdio,
}

impl Exec {
    /// A command with the sandbox's environment and working directory, and no streams.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecStatus {
    /// 0 to 255; 128 + n for signal n.
    pub status: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The sandbox ended as a whole, and the command with it.
    pub lost: bool,
}

/// A command that runs beside a sandbox's program. Dropping the handle leaves it running; it ends with the sandbox at the latest.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    answers: OwnedFd,
    streams: Option<Streams>,
}

impl Dyno {
    /// Runs a command in this sandbox; returns once its exec is done.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a bad description, or a sandbox that has ended or is paused, [`ErrorKind::Exec`] for a program that cannot be
    /// executed (EAGAIN: the limit of processes, or 64 commands at a time).
    pub fn exec(&self, command: Exec) -> Result<Process> {
        // Its init stands still too, and the answer would not come before it goes on.
        if self.held().is_some() && self.is_paused()? {
            return Err(Error::refused(ErrorKind::Invalid, format!("dyno {} is paused", self.id())));
        }
        let sandbox = self.sandbox()?;
        let env = command.env.unwrap_or(sandbox.env);
        let cwd = command.cwd.unwrap_or(sandbox.cwd);
        check::command(&command.argv, env.iter())?;
        check::cwd(&cwd)?;
        let userns = self.host.rootless().map(|_| self.user_namespace()).transpose()?;
        let uid = sandbox.identity.uid;
        let owner = userns.as_ref().map_or_else(|| Owner::OnHost(host_id(self.record().slot, uid)), |userns| Owner::Inside(userns.as_fd(), uid));
        let mut streams = match command.stdio {
            Stdio::Tty { rows, cols } => stdio::terminal(self.terminals()?.as_fd(), owner, rows, cols)?,
            other => stdio::without_init(other, stdio::open_null()?, owner)?,
        };
        let image = image(&command.argv, &env, &cwd.to_string_lossy());
        let (answers, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).io(|| "socketpair(exec)".into())?;
        self.request(&image, theirs.as_fd(), &streams)?;
        drop(theirs);
        streams.close_child_ends();
        let (pid, pidfd) = answer(&answers).map_err(|e| match e {
            None => self.gone(),
            Some(errno) => Error::call(ErrorKind::Exec, format!("execve({:?}) in dyno {}", command.argv[0], self.id()), errno),
        })?;
        Ok(Process { pid, pidfd, answers, streams: Some(streams.parent) })
    }

    /// A second set of ends of its standard streams, for somebody who looks on or takes over: of the log always, of pipes and the
    /// terminal as long as [`Dyno::take_streams`] was not called (then [`Streams::try_clone`] makes one of what it gave).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when there is nothing to attach to.
    pub fn attach(&self) -> Result<Streams> {
        match &self.streams {
            Some(Streams::Log(_)) | None => match self.open_log() {
                Ok(reader) => Ok(Streams::Log(reader)),
                Err(e) if e.errno() == Some(Errno::NOENT) => Err(Error::refused(
                    ErrorKind::Invalid,
                    format!("dyno {}: its streams were taken, or belong to a process that is no more", self.id()),
                )),
                Err(e) => Err(e),
            },
            Some(streams) => streams.try_clone().io(|| format!("dup(streams of {})", self.id())),
        }
    }

    fn gone(&self) -> Error {
        Error::refused(ErrorKind::Invalid, format!("dyno {} has ended", self.id()))
    }

    fn user_namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/user", self.pid());
        let userns = std::fs::File::open(&path).io(|| format!("open({path})"))?;
        // Should it have ended since, the number may be another's.
        if self.has_ended() { Err(self.gone()) } else { Ok(userns.into()) }
    }

    /// Its devpts, found without following anything that a tenant could have put on the way.
    fn terminals(&self) -> Result<OwnedFd> {
        const DEVPTS: u64 = 0x1cd1;
        let path = format!("/proc/{}/root", self.pid());
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, directory, Mode::empty()).io(|| format!("open({path})"))?;
        let pts = sys::open_beneath(root.as_fd(), c"dev/pts", directory).io(|| "open(/dev/pts of the dyno)".into())?;
        // Should it have ended since, the number may be another's.
        if self.has_ended() {
            return Err(self.gone());
        }
        let kind = rustix::fs::fstatfs(&pts).io(|| "fstatfs(/dev/pts)".into())?.f_type.cast_unsigned();
        if kind != DEVPTS {
            return Err(Error::refused(ErrorKind::Wall, format!("dyno {}: its /dev/pts is something else by now", self.id())));
        }
        Ok(pts)
    }

    fn request(&self, image: &[u8], answers: BorrowedFd<'_>, streams: &Prepared) -> Result<()> {
        let peer = match pidfd_getfd(&self.pidfd, REQUESTS_PEER, PidfdGetfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(self.gone()),
            other => other.io(|| format!("pidfd_getfd({}, {REQUESTS_PEER})", self.id()))?,
        };
        let command = sys::data_in_memory("dyno-exec", image).io(|| "memory file of a command: memfd_create, write or fcntl(F_ADD_SEALS)".into())?;
        let mut message = [0u8; 16];
        message[0] = streams.mode as u8;
        message[8..].copy_from_slice(&(image.len() as u64).to_le_bytes());
        let [stdin, stdout, stderr] = streams.child_streams();
        let descriptors = [command.as_fd(), answers, stdin, stdout, stderr];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        match sendmsg(&peer, &[std::io::IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Err(Error::refused(ErrorKind::Invalid, format!("dyno {} takes no requests: is it paused or stopped?", self.id()))),
            other => other.map(drop).io(|| format!("sendmsg(exec, {})", self.id())),
        }
    }
}

impl Process {
    /// Its pid inside the sandbox.
    pub fn pid_inside(&self) -> u32 {
        self.pid
    }

    /// Refers to the process; readable once it has ended, for poll, epoll and async runtimes.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The caller's ends of its standard streams, once.
    pub fn take_streams(&mut self) -> Streams {
        self.streams.take().unwrap_or(Streams::None)
    }

    /// Sends it a signal. One that has ended is no error.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let named = Signal::from_named_raw(signal).ok_or_else(|| Error::refused(ErrorKind::Invalid, format!("signal {signal} does not exist")))?;
        match pidfd_send_signal(&self.pidfd, named) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(e) => Err(e).io(|| format!("pidfd_send_signal({signal})")),
        }
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Of recvmsg(2).
    pub fn wait(&self) -> Result<ExecStatus> {
        let mut bytes = [0u8; 4];
        loop {
            // Looked at and left there, so that it can be asked for again.
            match rustix::net::recv(&self.answers, &mut bytes[..], RecvFlags::PEEK) {
                Err(Errno::INTR) => {}
                Ok((_, 4)) => return Ok(ExecStatus::from_wait(i32::from_le_bytes(bytes))),
                Ok(_) | Err(Errno::CONNRESET) => return Ok(ExecStatus { status: 137, signal: Some(libc::SIGKILL), lost: true }),
                Err(e) => return Err(e).io(|| "recv(exec)".into()),
            }
        }
    }

    /// How it ended, or None while it runs. Never blocks.
    ///
    /// # Errors
    /// As [`Self::wait`], and of poll(2).
    pub fn try_wait(&self) -> Result<Option<ExecStatus>> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.answers, PollFlags::IN)], Some(&now)).io(|| "poll(exec)".into())? {
            0 => Ok(None),
            _ => self.wait().map(Some),
        }
    }
}

impl ExecStatus {
    fn from_wait(status: i32) -> Self {
        let signal = status & 0x7f;
        Self { status: if signal == 0 { (status >> 8) & 0xff } else { 128 + signal }, signal: (signal != 0).then_some(signal), lost: false }
    }
}

/// The command as the init wants it (`init/control.rs`).
pub(super) fn image(argv: &[String], env: &BTreeMap<String, String>, cwd: &str) -> Vec<u8> {
    // Words: their number, cwd, program, arguments, 0, environment, 0.
    let words = 1 + 2 + argv.len() + 1 + env.len() + 1;
    let (mut offsets, mut strings) = (Vec::with_capacity(words), Vec::new());
    let mut place = |text: &str| {
        let at = words * 8 + strings.len();
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    offsets.extend([words - 1, place(cwd), place(&argv[0])]);
    offsets.extend(argv.iter().map(|argument| place(argument)));
    offsets.push(0);
    offsets.extend(env.iter().map(|(name, value)| place(&format!("{name}={value}"))));
    offsets.push(0);
    let mut image: Vec<u8> = offsets.iter().flat_map(|word| (*word as u64).to_le_bytes()).collect();
    image.extend(strings);
    image
}

/// The first answer: pid and pidfd, the errno of what failed, or None when the sandbox ended meanwhile.
fn answer(answers: &OwnedFd) -> std::result::Result<(u32, OwnedFd), Option<Errno>> {
    let mut bytes = [0u8; 8];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(answers, &mut [std::io::IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other.map_or(0, |message| message.bytes),
        }
    };
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    if got != 8 {
        return Err(None);
    }
    if word(0) != 0 {
        return Err(Some(Errno::from_raw_os_error(word(0).cast_signed())));
    }
    let mut rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    rights.next().map(|pidfd| (word(4), pidfd)).ok_or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_every_string_at_its_offset() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())]);
        let image = image(&["sh".into(), "-c".into()], &env, "/tmp");
        let word = |i: usize| u64::from_le_bytes(image[i * 8..][..8].try_into().unwrap()) as usize;
        let text = |i: usize| image[word(i)..].split(|b| *b == 0).next().map(|b| String::from_utf8_lossy(b).into_owned()).unwrap();
        assert_eq!(word(0), 8);
        assert_eq!([1, 2, 3, 4].map(text), ["/tmp", "sh", "sh", "-c"]);
        assert_eq!((word(5), word(8)), (0, 0));
        assert_eq!([6, 7].map(text), ["A=1", "B="]);
    }

    #[test]
    fn wait_statuses() {
        let check = |wait, status, signal| assert_eq!(ExecStatus::from_wait(wait), ExecStatus { status, signal, lost: false });
        check(0, 0, None);
        check(3 << 8, 3, None);
        check(9, 137, Some(9));
        check(0x80 | 11, 139, Some(11));
    }
}
