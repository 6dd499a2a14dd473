//! The injector: watches the calls of one process and of everything that it starts, kills one of them or fails a call at a given moment, and
//! looks at the walls of an init and of a program before their first call is let go on.
//!
//! It is a filter with a listener ([`crate::sys::inject`]) and not strace: one counter sees all processes of a role, whoever they are, where
//! strace counts per process; a process can be killed while another is at a call; and nothing that is watched is a tracee, whose
//! parents, waits and stops are others.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, WaitOptions, pidfd_send_signal, wait},
};

use super::{calls, walls};
use crate::sys::{
    self,
    inject::{self, Call},
    notify,
};

/// As long as an attempt may take, and everything that it leaves to end.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The thread from which the watched process is started; it is watched too, and nobody's.
pub const STARTER: &str = "starter";

/// Who is watched.
pub type Role = &'static str;

/// What is done at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Its caller is killed before it.
    Kill,
    /// The process of another role is.
    KillOther(Role),
    /// It fails.
    Fail(Errno),
}

/// A moment: the n-th call of this number by this role, from 1.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub role: Role,
    pub call: i64,
    pub nth: usize,
    pub deed: Deed,
}

/// How roles are told: name of the thread, whether it is of the process that was started, number in its own pid namespace if it has one.
pub type Casting = fn(&str, bool, Option<u32>) -> Option<Role>;

/// Readings of one kind of process.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls by role and number.
    pub counts: BTreeMap<(Role, i64), usize>,
    /// Whether the moment came, and whether there was somebody to be killed.
    pub came: bool,
    pub hit: bool,
    /// The walls of the first init and of the first program, before they did anything.
    pub init: Option<Vec<String>>,
    pub program: Option<Vec<String>>,
    /// It did not end, and was ended.
    pub hangs: bool,
}

/// Shared with who starts and ends the watched.
#[derive(Debug, Default)]
pub struct Watched {
    /// Nothing more is begun: what is still there after [`PATIENCE`] hangs.
    pub over: AtomicBool,
    pub seen: Mutex<Seen>,
}

struct Watcher<'a> {
    listener: OwnedFd,
    casting: Casting,
    point: Option<Point>,
    watched: &'a Watched,
    seen: Seen,
    /// The process that was started: nobody else is foreign before it.
    first: Option<u32>,
    /// By process.
    known: BTreeMap<u32, (Role, Option<OwnedFd>)>,
}

/// Watches until nobody is left under the filter.
pub fn watch(listener: OwnedFd, casting: Casting, point: Option<Point>, watched: &Watched) -> Result<()> {
    let mut watcher = Watcher { listener, casting, point, watched, seen: Seen::default(), first: None, known: BTreeMap::new() };
    let result = watcher.serve();
    *watched.seen.lock().map_err(|e| anyhow::anyhow!("{e}"))? = watcher.seen;
    result
}

impl Watcher<'_> {
    fn serve(&mut self) -> Result<()> {
        let mut end = Instant::now() + 2 * PATIENCE;
        let mut over = false;
        loop {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            // Nobody tells of `over`.
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }))?;
            if fds[0].revents().contains(PollFlags::IN) {
                self.one()?;
            } else if fds[0].revents().contains(PollFlags::HUP) {
                return Ok(());
            }
            if !over && self.watched.over.load(Ordering::SeqCst) {
                (over, end) = (true, Instant::now() + PATIENCE);
            }
            if Instant::now() > end {
                self.seen.hangs = true;
                self.end_all();
                end = Instant::now() + PATIENCE;
            }
        }
    }

    fn one(&mut self) -> Result<()> {
        let call = match inject::receive(&self.listener) {
            Err(Errno::NOENT | Errno::INTR) => return Ok(()), // its caller was killed
            other => other?,
        };
        let errno = self.judge(&call);
        match inject::answer(&self.listener, &call, errno) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn judge(&mut self, call: &Call) -> Option<Errno> {
        let (role, process) = self.who(call)?;
        self.look(call, role, process);
        let number = i64::from(call.number);
        if is_no_step(call) {
            return None;
        }
        let count = self.seen.counts.entry((role, number)).or_default();
        *count += 1;
        let point = self.point.filter(|point| (point.role, point.call, point.nth) == (role, number, *count))?;
        self.seen.came = true;
        match point.deed {
            Deed::Fail(errno) => {
                self.seen.hit = true;
                return Some(errno);
            }
            Deed::Kill => self.seen.hit = self.kill(process),
            Deed::KillOther(victim) => {
                let found = self.known.iter().rev().find(|(_, known)| known.0 == victim).map(|(process, _)| *process);
                self.seen.hit = found.is_some_and(|process| self.kill(process));
            }
        }
        None
    }

    /// Its role and process.
    fn who(&mut self, call: &Call) -> Option<(Role, u32)> {
        let status = fs::read_to_string(format!("/proc/{}/status", call.pid)).ok()?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
        let process = field("Tgid")?.parse().ok()?;
        let name = field("Name")?;
        if process == std::process::id() {
            return None;
        }
        let is_first = *self.first.get_or_insert(process) == process;
        if name == STARTER {
            return None; // before its exec
        }
        let inside = field("NSpid")?.split_whitespace().skip(1).last();
        let role = (self.casting)(name, is_first, inside.and_then(|number| number.parse().ok()))?;
        match self.known.get_mut(&process) {
            Some(known) => known.0 = role,
            None => drop(self.known.insert(process, (role, sys::pin(process).ok().flatten()))),
        }
        Some((role, process))
    }

    /// At the first of its calls. What is read while its caller is being killed is not its own.
    fn look(&mut self, call: &Call, role: Role, process: u32) {
        let place = match role {
            "init" | "launcher" if self.seen.init.is_none() => &mut self.seen.init,
            "program" if self.seen.program.is_none() => &mut self.seen.program,
            _ => return,
        };
        let facts = walls::of(process, role == "program");
        if notify::still_waits(self.listener.as_fd(), call) {
            *place = Some(facts);
        }
    }

    /// Returns once it has ended: nothing that it might still have done is done.
    fn kill(&self, process: u32) -> bool {
        let Some((_, Some(pidfd))) = self.known.get(&process) else { return false };
        if pidfd_send_signal(pidfd, Signal::KILL).is_err() {
            return false;
        }
        let time = Timespec { tv_sec: 5, tv_nsec: 0 };
        poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&time)).is_ok()
    }

    fn end_all(&self) {
        for (_, pidfd) in self.known.values() {
            // That one has ended is what is wanted.
            pidfd.as_ref().map_or(Ok(()), |pidfd| pidfd_send_signal(pidfd, Signal::KILL)).unwrap_or_default();
        }
    }
}

/// No step of ours.
fn is_no_step(call: &Call) -> bool {
    let (number, [first, second, ..]) = (i64::from(call.number), call.arguments);
    match number {
        libc::SYS_poll | libc::SYS_ppoll => true, // watched for the program's first call
        // The standard library's debug assertion that a descriptor which it closes is open; the name of a thread.
        libc::SYS_fcntl => second == libc::F_GETFD as u64,
        libc::SYS_prctl => first == libc::PR_SET_NAME as u64,
        _ => sys::is_question(number, first),
    }
}

/// Starts what `spawn` starts, watched; `work` is done once that has ended and has what it said. Then nobody may be left.
pub fn under(
    casting: Casting,
    point: Option<Point>,
    mut command: std::process::Command,
    work: impl FnOnce(&Ended) -> Result<()>,
) -> Result<(Seen, Ended)> {
    let watched = Watched::default();
    let (send, receive) = std::sync::mpsc::channel();
    let done = std::thread::scope(|scope| -> Result<Ended> {
        let said = tempfile::tempfile()?;
        command.stdin(std::process::Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
        let starter = std::thread::Builder::new().name(STARTER.into()).spawn_scoped(scope, move || -> Result<std::process::ExitStatus> {
            send.send(inject::watch(&calls::numbers()).context("seccomp(NEW_LISTENER)"))?;
            let mut child = command.spawn().context("spawn")?;
            Ok(child.wait()?)
        })?;
        let listener = receive.recv()??;
        let watcher = scope.spawn(|| watch(listener, casting, point, &watched));
        let status = starter.join().map_err(|_| anyhow::anyhow!("the starter panicked"))?;
        let result = status.and_then(|status| {
            let ended = Ended { status, said: said_in(said)? };
            work(&ended).map(|()| ended)
        });
        watched.over.store(true, Ordering::SeqCst);
        collect(2 * PATIENCE);
        watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        result
    });
    let seen = watched.seen.into_inner().map_err(|e| anyhow::anyhow!("{e}"))?;
    if seen.hangs {
        return Err(done.map_or_else(|e| e, |_| anyhow::anyhow!("afterwards")).context("something did not end"));
    }
    Ok((seen, done?))
}

/// How the watched process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: std::process::ExitStatus,
    pub said: String,
}

fn said_in(mut file: fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut said = Vec::new();
    file.read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Waits for those whose parents were killed, which are ours then. Whether there are none any more.
pub fn collect(patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            // Whoever of them ends tells nobody who waits for all.
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
