//! `exec`: another process in a container.
//!
//! ```text
//! runtime                                          process
//! options, record, configuration
//! pidfd of the first process, its namespaces
//! control groups opened
//! setns(pid namespace); clone3, into the v2 group  born
//!                                                  closes what it has of the runtime's
//!                                                  v1 groups, namespaces, root, terminal
//! limits                                     <---> (if there are any)
//!                                                  process::finish: the same as a first process
//! hands a filter's listener over             <---  ready
//!                                                  exec, by which the channel is closed
//! pid file; stays in the foreground or ends
//! ```
//!
//! The namespaces are joined in one call by the pidfd of the first process (Linux 5.8): all of them are of one process, and of none that got
//! its number later. No process but the one of the record is ever joined.
//!
//! A runtime without privileges may join the container's pid namespace only from inside its user namespace, which it cannot leave again. So
//! there a process in between does that, and has the process as its sibling (CLONE_PARENT).

mod child;
mod options;
mod target;

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat, renameat},
    io::Errno,
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{CpuSet, ThreadNameSpaceType as Kinds, move_into_thread_name_spaces, sched_getaffinity, sched_setaffinity},
};

pub use self::options::Request;
use self::{child::Entry, target::Target};
use super::{
    cgroup::Cgroup,
    channel::{Channel, GONE, Message},
    console, filter,
    plan::Process,
    process::{Outfit, has_limits, limits},
    shield,
    state::Status,
    supervise::Signals,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, Flags, Forked},
};

/// Runs a process in the container `request.id` below `root`. Its exit status, or 0 when that goes on without us. Whoever prints an error
/// of this exits with 255.
///
/// # Errors
/// Whatever prevents the program from beginning.
pub fn exec(root: &Path, request: Request) -> Result<u8> {
    // First, because soon these numbers may be ours.
    preservable(request.preserve_fds)?;
    shield::raise()?;
    let target = Target::open(root, &request.id)?;
    let mut group = Cgroup::open(&target.record.cgroup)?;
    if !request.ignore_paused && group.is_frozen()? {
        return Err(Error::refused(ErrorKind::Invalid, "cannot exec in a paused container (use --ignore-paused to override)"));
    }
    if !request.cgroups.is_empty() {
        group = Cgroup::open(&target.cgroups(&request.cgroups)?)?;
    }
    let process = options::lower(&request.process(target.configured.as_ref())?)?;
    request.terminal_fits(process.terminal)?;
    Exec::new(request, target, process)?.run(&group)
}

/// Descriptors that whoever started us meant to be passed on: open, and not to be closed by exec.
fn preservable(count: u32) -> Result<()> {
    for number in 3..3 + i64::from(count) {
        let fd = i32::try_from(number).unwrap_or(-1);
        if !sys::is_open_over_exec(fd) {
            return Err(Error::refused(ErrorKind::Invalid, format!("--preserve-fds {count}: descriptor {number} is not open")));
        }
    }
    Ok(())
}

/// Everything that is known before the process is made.
struct Exec {
    request: Request,
    target: Target,
    process: Process,
    /// The end that the process sends its terminal to, and ours if we keep it.
    console: Option<(OwnedFd, Option<OwnedFd>)>,
}

impl Exec {
    fn new(request: Request, target: Target, process: Process) -> Result<Self> {
        let console = match &request.console_socket {
            Some(path) => Some((console::connect(path)?, None)),
            None if process.terminal => Some(console::pair().map(|(ours, theirs)| (theirs, Some(ours)))?),
            None => None,
        };
        Ok(Self { request, target, process, console })
    }

    fn outfit(&self) -> Outfit {
        let container = &self.target.container;
        let mut outfit = Outfit::default();
        outfit.filter.clone_from(&container.filter);
        outfit.personality = container.personality;
        outfit.memory_policy.clone_from(&container.memory_policy);
        outfit.keyring = true;
        outfit.preserve_fds = self.request.preserve_fds;
        outfit
    }

    fn run(self, group: &Cgroup) -> Result<u8> {
        // Whoever is in the container already must not look into what enters it: ptrace(2), /proc/PID/fd.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).wall(|| "prctl(PR_SET_DUMPABLE, 0)".into())?;
        let signals = if self.request.detach { None } else { Some(Signals::watch(false)?) };
        let (ours, theirs) = Channel::pair()?;
        let (pidfd, pid) = self.born(group, theirs)?;
        if let Err(e) = self.accompany(&ours, pid) {
            // It has told why it gave up, or we cannot give it what it needs: either way it is no use any more.
            sys::send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap_or_default();
            sys::reap(pidfd.as_fd()).io(|| "waitid(pidfd)".into())?;
            return Err(e);
        }
        if let Some(path) = &self.request.pidfd_socket {
            console::send_to(path, pidfd.as_fd())?;
        }
        if let Some(path) = &self.request.pid_file {
            write_pid(path, pid)?;
        }
        let Some(signals) = signals else { return Ok(0) };
        let master = self.console.as_ref().and_then(|(_, ours)| ours.as_ref()).map(|ours| console::receive(ours.as_fd())).transpose()?;
        signals.follow(pidfd.as_fd(), master)
    }

    /// Makes the process.
    fn born(&self, group: &Cgroup, theirs: Channel) -> Result<(OwnedFd, u32)> {
        let entrances = group.entrances()?;
        let mut join = self.target.join;
        let in_between = if join.contains(Kinds::PROCESS_ID) {
            // For children only; we make no other.
            match move_into_thread_name_spaces(self.target.pidfd(), Kinds::PROCESS_ID) {
                Ok(()) => false,
                Err(Errno::PERM) if join.contains(Kinds::USER) => true,
                Err(e) => return Err(e).wall(|| "exec: setns(pid namespace)".into()),
            }
        } else {
            false
        };
        join.remove(Kinds::PROCESS_ID);
        if in_between {
            join.remove(Kinds::USER);
        }
        let limits = has_limits(&self.process);
        let outfit = self.outfit();
        let console = self.console.as_ref().map(|(theirs, _)| theirs);
        let entry = Entry { target: &self.target, join, process: &self.process, outfit, entrances: &entrances, channel: &theirs, console, limits };
        if in_between {
            return between(entry, group);
        }
        // Inherited: with v2 the process is in its group from its birth, and this comes before.
        let own = self.process.affinity_initial.as_deref().map(pinned).transpose()?;
        let born = clone_into(&self.target, Flags::NONE, group);
        match born? {
            Forked::Child => child::run(entry),
            Forked::Parent { pidfd, pid } => {
                if let Some(own) = own {
                    sched_setaffinity(None, &own).wall(|| "sched_setaffinity(own processors)".into())?;
                }
                Ok((pidfd, pid))
            }
        }
    }

    /// Until its program has begun.
    fn accompany(&self, channel: &Channel, pid: u32) -> Result<()> {
        let mut ready = false;
        loop {
            match channel.receive()? {
                Some(Message::Go) => {
                    limits(&self.process, pid)?;
                    channel.send(&Message::Go)?;
                }
                Some(Message::Ready) => ready = true,
                Some(Message::Listener(listener)) => {
                    let asked = self.target.container.filter.as_ref().and_then(|filter| filter.listener.as_ref());
                    if let Some((to, metadata)) = asked {
                        filter::hand_over(listener.as_fd(), to, metadata, &self.target.record.state(Status::Running), pid)?;
                    }
                }
                Some(Message::Failed(kind, text)) => return Err(Error::refused(kind, text)),
                Some(Message::Born(..)) => return Err(Error::refused(ErrorKind::Io, "runtime and process are out of step")),
                // By exec, because it has said before that nothing else is left to be done.
                None if ready => return Ok(()),
                None => return Err(Error::refused(ErrorKind::Wall, GONE)),
            }
        }
    }
}

/// Runs on these processors from now on; those that it ran on before.
fn pinned(processors: &[u64]) -> Result<CpuSet> {
    let own = sched_getaffinity(None).wall(|| "sched_getaffinity".into())?;
    sys::pin_to(processors).wall(|| format!("process.execCPUAffinity.initial: sched_setaffinity({processors:x?})"))?;
    Ok(own)
}

/// Clones into the v2 group, or where the container's first process is.
fn clone_into(target: &Target, flags: Flags, group: &Cgroup) -> Result<Forked> {
    match sys::fork(flags, group.birthplace()) {
        Err(Errno::BUSY | Errno::OPNOTSUPP | Errno::NOENT) if group.birthplace().is_some() => {
            let leaf = target.group_of_first(Path::new("/sys/fs/cgroup"))?;
            sys::fork(flags, Some(leaf.as_fd())).wall(|| "exec: clone3(the group of the first process)".into())
        }
        other => other.wall(|| "exec: clone3".into()),
    }
}

/// By way of a process that joins the user namespace first.
fn between(entry: Entry<'_>, group: &Cgroup) -> Result<(OwnedFd, u32)> {
    // Of its own, because the process may be faster with its first word than the one in between.
    let (ours, theirs) = Channel::pair()?;
    let pidfd = match sys::fork(Flags::NONE, None).wall(|| "exec: clone3".into())? {
        Forked::Child => {
            let joined = move_into_thread_name_spaces(entry.target.pidfd(), Kinds::USER | Kinds::PROCESS_ID)
                .wall(|| "exec: setns(user and pid namespace)".into());
            let born = joined.and_then(|()| match clone_into(entry.target, Flags::PARENT, group)? {
                Forked::Child => child::run(entry),
                Forked::Parent { pidfd, pid } => Ok(Message::Born(pid, pidfd)),
            });
            // If the runtime is gone there is nobody to tell.
            theirs.send(&born.unwrap_or_else(|e| Message::Failed(e.kind(), e.to_string()))).unwrap_or_default();
            sys::exit_now(0)
        }
        Forked::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let born = ours.receive();
    sys::reap(pidfd.as_fd()).io(|| "waitid(pidfd)".into())?;
    match born? {
        Some(Message::Born(pid, pidfd)) => Ok((pidfd, pid)),
        Some(Message::Failed(kind, text)) => Err(Error::refused(kind, text)),
        _ => Err(Error::refused(ErrorKind::Wall, GONE)),
    }
}

/// Whole or not at all: whoever waits for the file reads a number in it.
fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let what = || format!("--pid-file {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::refused(ErrorKind::Invalid, format!("{}: it needs a name", what())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let hidden = path.with_file_name(hidden);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::SYNC;
    let file = openat(CWD, &hidden, flags, Mode::from_raw_mode(0o644)).io(what)?;
    let written = rustix::io::write(&file, pid.to_string().as_bytes()).and_then(|_| renameat(CWD, &hidden, CWD, path));
    if written.is_err() {
        rustix::fs::unlink(&hidden).unwrap_or_default();
    }
    written.io(what)
}
