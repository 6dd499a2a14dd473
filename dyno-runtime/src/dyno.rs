//! The handle of a running sandbox, and the record that lets a later process take it up again.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::{Cgroups, Group, Usage},
    denials::Denials,
    error::{Context, Error, ErrorKind, Result},
    exit::{ExitRecord, Stop},
    host::Host,
    mount::{LayerTree, WritableLayer},
    proc_stat::start_time,
    spawn::{Streams, Timing},
    spec::Sandbox,
};

/// What is written down about a dyno, before and after its process exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Host pid of its init; 0 before clone3.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot (proc_pid_stat(5), field 22): guards against a reused pid.
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id: after a reboot nothing of this exists any more.
    pub boot_id: String,
    /// Its id range.
    pub slot: u32,
    /// Whether that range is its own (a packing dyno shares its build's).
    pub leased: bool,
    /// Where the time of its start went, but for the part that comes after this is written.
    #[serde(default)]
    pub timing: Timing,
    /// What it was made from.
    #[serde(default)]
    pub tier: Tier,
}

/// How much of a sandbox stood ready when it was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Nothing of its own.
    #[default]
    Cold,
    /// Its network and its group ([`crate::HostOptions::spares`]).
    Parts,
    /// All of it ([`Host::keep_parked`]).
    Parked,
}

impl Record {
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join("record.json");
        let json = serde_json::to_vec(self).map_err(|e| Error::refused(ErrorKind::Io, e.to_string()))?;
        // Once, when it begins. In part it is none: who was killed meanwhile has left a dyno that ends with him.
        std::fs::write(&path, json).io(|| format!("write {}", path.display()))
    }

    /// None when it was never written whole.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("record.json");
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).io(|| format!("read {}", path.display())),
        }
    }
}

/// File of the state directory that holds the description.
const SANDBOX: &str = "sandbox.json";

/// Writes down what is started: `exec` needs it, whoever calls it, and however much later.
pub(crate) fn write_sandbox(dir: &Path, sandbox: &Sandbox) -> Result<()> {
    let path = dir.join(SANDBOX);
    let json = serde_json::to_vec(sandbox).map_err(|e| Error::refused(ErrorKind::Io, e.to_string()))?;
    std::fs::write(&path, json).io(|| format!("write {}", path.display()))
}

/// What was started.
pub(crate) fn read_sandbox(dir: &Path) -> Result<Sandbox> {
    let path = dir.join(SANDBOX);
    let json = std::fs::read(&path).io(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&json).map_err(|e| Error::refused(ErrorKind::Io, format!("{}: {e}", path.display())))
}

/// A sandbox that was started or taken up again.
///
/// Dropping the handle leaves the dyno running; [`Dyno::free`] ends it and frees everything that it had.
#[derive(Debug)]
pub struct Dyno {
    pub(crate) host: Host,
    pub(crate) record: Record,
    pub(crate) pidfd: OwnedFd,
    pub(crate) netns: Option<OwnedFd>,
    /// Held, so that the last process does not take it apart at its end, which waits for a grace period.
    #[expect(dead_code, reason = "closed with the handle")]
    pub(crate) mounts: Option<OwnedFd>,
    /// See [`crate::mount::Root`].
    #[expect(dead_code, reason = "closed with the handle")]
    pub(crate) layers: Vec<LayerTree>,
    /// None for an unprivileged user's without control groups.
    pub(crate) group: Option<Group>,
    /// Held to the end, to see whether it is full then.
    pub(crate) upper: Option<WritableLayer>,
    /// Whether it may be a layer of another sandbox.
    pub(crate) keeps_upper: bool,
    pub(crate) streams: Option<Streams>,
    pub(crate) listeners: Vec<OwnedFd>,
    pub(crate) denials: Option<Denials>,
    /// Who gets its network next.
    pub(crate) tenant: Option<String>,
    /// The last part of its start's timing; 0 when another process started it.
    pub(crate) exec_us: u64,
}

impl Dyno {
    /// Takes up a dyno that an earlier process started. None if it has no process any more.
    pub(crate) fn adopt(host: &Host, record: Record) -> Result<Option<Self>> {
        if record.pid == 0 || record.boot_id != host.boot_id() {
            return Ok(None);
        }
        let pid = i32::try_from(record.pid).ok().and_then(rustix::process::Pid::from_raw);
        let pidfd = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            None | Some(Err(Errno::SRCH)) => return Ok(None),
            // What is not seen to be ended cannot be watched without it: a number may be another's at any time.
            Some(other) => other.wall(|| format!("take up dyno {}: pidfd_open({}) (Linux 5.3)", record.id, record.pid))?,
        };
        // The pidfd pins the process, so the start time read now is that of the process it refers to.
        if start_time(record.pid).ok() != Some(record.start_time) {
            return Ok(None);
        }
        let group = host.group(&record.id)?;
        if group.is_none() && host.cgroups().is_some() {
            return Ok(None);
        }
        let netns = network_of(record.pid, pidfd.as_fd())?;
        let streams = crate::spawn::open_log(&host.dyno_dir(&record.id)).ok().map(Streams::Log);
        Ok(Some(Self {
            host: host.clone(),
            record,
            pidfd,
            netns,
            mounts: None,
            layers: Vec::new(),
            group,
            upper: None,
            keeps_upper: false,
            streams,
            listeners: Vec::new(),
            denials: None,
            tenant: None,
            exec_us: 0,
        }))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// What was written down about it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Host pid of its init.
    pub fn pid(&self) -> u32 {
        self.record.pid
    }

    /// Readable once the dyno has ended: for poll, epoll and async runtimes.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The caller's ends of its standard streams, once.
    pub fn take_streams(&mut self) -> Streams {
        self.streams.take().unwrap_or(Streams::None)
    }

    /// A second read end of the log FIFO of a dyno with [`crate::Stdio::Log`].
    ///
    /// # Errors
    /// ENOENT for a dyno with other streams.
    pub fn open_log(&self) -> Result<OwnedFd> {
        crate::spawn::open_log(&self.dir())
    }

    /// The listening sockets asked for at the start, once.
    pub fn take_listeners(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.listeners)
    }

    /// The reports of denied calls of a dyno started with [`crate::StartOptions::log_denied`], once. None of any other, of one
    /// without a filter, and of one that was taken up again: whose starter has ended, its denied calls answer ENOSYS.
    ///
    /// A denied call waits until its report is read, so somebody must read them, as long as the dyno runs.
    pub fn take_denials(&mut self) -> Option<Denials> {
        self.denials.take()
    }

    /// Where the time of its start went.
    pub fn timing(&self) -> Timing {
        Timing { exec_us: self.exec_us, ..self.record.timing }
    }

    /// What stood ready when it was asked for.
    pub fn tier(&self) -> Tier {
        self.record.tier
    }

    /// What it was started from, as it was written down then.
    ///
    /// # Errors
    /// Of reading it.
    pub fn sandbox(&self) -> Result<Sandbox> {
        read_sandbox(&self.dir())
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.host.dyno_dir(self.id())
    }

    /// An unconnected, non-blocking TCP socket inside its network, which the handle keeps beyond the dyno's end.
    ///
    /// # Errors
    /// When the dyno had ended before there was a handle (its start had not returned, or it was taken up again), or of setns(2) and socket(2).
    pub fn socket(&self) -> Result<OwnedFd> {
        let gone = || Error::refused(ErrorKind::Io, format!("dyno {}: its network is gone", self.id()));
        crate::net::socket_in(self.netns.as_ref().ok_or_else(gone)?.as_fd())
    }

    /// Sends `signal` to every process; the init passes it on. SIGKILL ends all of them at once.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal. A dyno that has ended is no error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let named = Signal::from_named_raw(signal).ok_or_else(|| Error::refused(ErrorKind::Invalid, format!("signal {signal} does not exist")))?;
        if named == Signal::KILL {
            Stop::Killed.note(&self.dir())?;
        }
        match pidfd_send_signal(&self.pidfd, named) {
            Err(Errno::SRCH) | Ok(()) => {}
            Err(e) => return Err(e).io(|| format!("pidfd_send_signal({}, {signal})", self.id())),
        }
        match self.held() {
            Some((group, cgroups)) if named == Signal::KILL => group.thaw_to_die(cgroups),
            _ => Ok(()),
        }
    }

    /// SIGKILL to every process.
    ///
    /// # Errors
    /// As [`Dyno::signal`].
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// True once it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(ends_within(self.pidfd.as_fd(), Some(Duration::ZERO)), Ok(true))
    }

    /// Waits for the end. Works from any process that holds the handle, its parent or not.
    ///
    /// # Errors
    /// Of poll(2).
    pub fn wait(&self) -> Result<ExitRecord> {
        ends_within(self.pidfd.as_fd(), None)?;
        Ok(self.exit())
    }

    /// How it ended, or None while it runs. Never blocks.
    ///
    /// # Errors
    /// Of poll(2).
    pub fn try_wait(&self) -> Result<Option<ExitRecord>> {
        self.wait_timeout(Duration::ZERO)
    }

    /// Waits for the end, but not longer than `time`; None means that it still runs.
    ///
    /// # Errors
    /// Of poll(2).
    pub fn wait_timeout(&self, time: Duration) -> Result<Option<ExitRecord>> {
        Ok(ends_within(self.pidfd.as_fd(), Some(time))?.then(|| self.exit()))
    }

    /// SIGTERM to every process; what runs after `grace` gets SIGKILL. Waits for the end, whose cause is
    /// [`crate::Cause::Stopped`] or [`crate::Cause::Killed`].
    ///
    /// # Errors
    /// As [`Dyno::signal`] and [`Dyno::wait`].
    pub fn stop(&self, grace: Duration) -> Result<ExitRecord> {
        if !self.has_ended() {
            Stop::Asked.note(&self.dir())?;
        }
        self.signal(libc::SIGTERM)?;
        if let Some(exit) = self.wait_timeout(grace)? {
            return Ok(exit);
        }
        self.kill()?;
        self.wait()
    }

    fn exit(&self) -> ExitRecord {
        // Until it is waited for, the init tells what all its processes have moved to and from disks.
        let is_it = || start_time(self.pid()).ok() == Some(self.record.start_time);
        if let Some(group) = &self.group {
            group.note_traffic(self.pid(), is_it);
        }
        reap(self.pidfd.as_fd());
        ExitRecord::of(&self.dir(), self.usage(), self.timing())
    }

    /// Its group, and those of the instance, where there are any.
    pub(crate) fn held(&self) -> Option<(&Group, &Cgroups)> {
        self.group.as_ref().zip(self.host.cgroups())
    }

    /// What it used up to now; without a control group nothing is known but whether its disk is full.
    pub fn usage(&self) -> Usage {
        Usage { disk_full: self.upper.as_ref().is_some_and(WritableLayer::is_full), ..self.group.as_ref().map(Group::usage).unwrap_or_default() }
    }

    pub(crate) fn upper(&self) -> Option<&WritableLayer> {
        self.upper.as_ref().filter(|_| self.keeps_upper)
    }

    /// Ends it if it runs and frees everything that it had: processes, cgroup, link, id range, writable layer, state
    /// directory.
    ///
    /// # Errors
    /// Of the first step that failed; the others were done all the same.
    pub fn free(self) -> Result<()> {
        if !self.has_ended() {
            self.kill()?;
        }
        self.wait()?;
        let group = self.group.as_ref().map_or(Ok(()), Group::remove);
        // An address that is still published must not become another's: then the range and what is known of it stay.
        self.host.uplink().disconnect(&self.host.dyno_dir(self.id()))?;
        let was_alone = was_alone(&self.dir());
        let removed = self.host.remove_dyno_dir(self.id());
        if self.record.leased {
            self.host.leases().free(self.record.slot);
        }
        group.and(removed)?;
        if let (Some(tenant), Some(netns), Some(workshop), true) = (&self.tenant, self.netns, self.host.workshop(), was_alone) {
            workshop.offer(tenant, netns);
        }
        Ok(())
    }
}

/// File of the state directory: another sandbox was let into this one's network.
const COMPANY: &str = "company";

/// Another sandbox is about to be let into its network.
pub(crate) fn note_company(dir: &Path) -> Result<()> {
    let path = dir.join(COMPANY);
    std::fs::write(&path, "").io(|| format!("write {}", path.display()))
}

/// Whether none was. Whatever cannot be told, because the directory was removed meanwhile, is taken for a no.
fn was_alone(dir: &Path) -> bool {
    matches!(std::fs::symlink_metadata(dir.join(COMPANY)), Err(e) if e.kind() == std::io::ErrorKind::NotFound) && dir.is_dir()
}

/// True as soon as the process has ended, false when that takes longer than `time`.
fn ends_within(pidfd: BorrowedFd<'_>, time: Option<Duration>) -> Result<bool> {
    // A time beyond the clock's end is no limit.
    let deadline = time.and_then(|time| Instant::now().checked_add(time));
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], left.as_ref()) {
            Ok(n) => return Ok(n == 1),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).io(|| "poll(pidfd)".into()),
        }
    }
}

/// The network of a process; None once it has ended.
pub(crate) fn network_of(pid: u32, pidfd: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/ns/net");
    let netns = match std::fs::File::open(&path) {
        Ok(file) => Some(file.into()),
        // It has ended, or is just about to: it has left its namespaces some time before its pidfd says so.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES)) => None,
        Err(e) => return Err(e).io(|| format!("open({path})")),
    };
    // Once it has ended its number may be another's, and the namespace just opened with it.
    Ok(netns.filter(|_| !ended(pidfd)))
}

fn ended(pidfd: BorrowedFd<'_>) -> bool {
    matches!(ends_within(pidfd, Some(Duration::ZERO)), Ok(true))
}

fn reap(pidfd: BorrowedFd<'_>) {
    // Adopted, its exit is collected by somebody else; the record tells how it ended.
    if let Err(e) = crate::sys::reap(pidfd) {
        tracing::warn!(%e, "waitid(P_PIDFD)");
    }
}

pub(crate) fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => reap(pidfd),
        Err(e) => tracing::warn!(%e, "pidfd_send_signal(SIGKILL)"),
    }
}
