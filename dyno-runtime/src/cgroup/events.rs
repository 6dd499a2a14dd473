//! What happens in a group, as it happens: one descriptor for all of it.
//!
//! ```text
//!                    v2 tree                              v1
//! Oom, OomKill       memory.events      inotify           memory.oom_control    eventfd, and the clock for the count
//! MemoryHigh         memory.events      inotify           memory.usage_in_bytes eventfd at limits.memory_high
//! PidsLimit          pids.events        inotify           pids.events           inotify, and the clock
//! Paused, Resumed    cgroup.events      inotify           not told without a v2 tree
//! Ended              the pidfd
//! ```
//!
//! The clock: since Linux 6.11 the kernel tells nobody of a change in v1's `pids.events` (it signals `pids.events.local`, which v1
//! does not have; neither inotify nor poll fires on 6.18), and v1's count of OOM kills goes up a moment after the event. So on v1
//! these two files are read five times a second.

use std::{
    collections::VecDeque,
    fmt::Write,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fs::inotify,
    io::Errno,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use serde::{Deserialize, Serialize};

use super::{
    Controller, Group, Version,
    file::{limit_of, open_file, read_file, read_from_start, value_of, write_file},
    part::Part,
};
use crate::error::{Context, Result};

/// How often v1's counters are read.
const TICK: i64 = 200_000_000; // ns

/// Something that happened to a dyno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The memory limit was reached, and nothing could be reclaimed.
    Oom,
    /// The kernel killed processes for that.
    OomKill {
        /// Since the last such event.
        count: u64,
    },
    /// It uses more than `limits.memory_high`. Told once for what was seen at once.
    MemoryHigh,
    /// A fork failed at `limits.pids`. Told once for what was seen at once.
    PidsLimit,
    /// It stands still.
    Paused,
    /// It goes on.
    Resumed,
    /// It has ended; the last event.
    Ended,
}

/// Events of one dyno, from [`crate::Dyno::events`] on.
///
/// For poll, epoll and async runtimes: its descriptor becomes readable when something may have happened; then call
/// [`Events::try_next`] until it answers None. It holds descriptors of its own and outlives the handle that it came from.
#[derive(Debug)]
pub struct Events {
    epoll: OwnedFd,
    /// None once its end was told.
    pidfd: Option<OwnedFd>,
    memory: Option<Counters>,
    pids: Option<Counters>,
    cgroup: Option<Counters>,
    watch: OwnedFd,
    /// v1 only.
    oom: Option<OwnedFd>,
    high: Option<(OwnedFd, OwnedFd, u64)>,
    clock: Option<OwnedFd>,
    told: VecDeque<Event>,
}

/// A file of counters, and what they were when last looked at.
#[derive(Debug)]
struct Counters {
    file: OwnedFd,
    text: String,
}

impl Counters {
    fn open(part: &Part, name: &str) -> Result<Self> {
        let file = open_file(&part.dir, name).io(|| format!("cgroup: open({}/{name})", part.path()))?;
        let text = read_from_start(&file).io(|| format!("cgroup: read {}/{name}", part.path()))?;
        Ok(Self { file, text })
    }

    /// What it was and what it is. None when nothing can be said any more: the group is gone.
    fn look(&mut self) -> Option<Change> {
        let new = read_from_start(&self.file).ok()?;
        Some(Change { old: std::mem::replace(&mut self.text, new.clone()), new })
    }
}

/// Two states of a file of counters.
struct Change {
    old: String,
    new: String,
}

impl Change {
    fn grown(&self, key: &str) -> u64 {
        let value = |text| value_of(text, key).unwrap_or(0);
        value(&self.new).saturating_sub(value(&self.old))
    }

    fn memory(&self, told: &mut VecDeque<Event>) {
        for (key, event) in [("high", Event::MemoryHigh), ("oom", Event::Oom)] {
            if self.grown(key) > 0 {
                told.push_back(event);
            }
        }
        match self.grown("oom_kill") {
            0 => {}
            count => told.push_back(Event::OomKill { count }),
        }
    }

    fn pids(&self, told: &mut VecDeque<Event>) {
        if self.grown("max") > 0 {
            told.push_back(Event::PidsLimit);
        }
    }

    fn cgroup(&self, told: &mut VecDeque<Event>) {
        match (value_of(&self.old, "frozen"), value_of(&self.new, "frozen")) {
            (Some(0), Some(1)) => told.push_back(Event::Paused),
            (Some(1), Some(0)) => told.push_back(Event::Resumed),
            _ => {}
        }
    }
}

impl Events {
    /// Watches `group`; `pidfd` tells of the end.
    pub(crate) fn new(group: &Group, pidfd: BorrowedFd<'_>) -> Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).io(|| "inotify_init1".into())?;
        let (memory, pids) = (group.part(Controller::Memory), group.part(Controller::Pids));
        let counters = |part: Option<&Part>, v1: &str, v2: &str| {
            let Some(part) = part else { return Ok(None) };
            let name = if part.version() == Version::V1 { v1 } else { v2 };
            watch_file(&watch, &part.dir, &part.path(), name)?;
            Counters::open(part, name).map(Some)
        };
        let old = |part: &&Part| part.version() == Version::V1;
        let mut this = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).io(|| "epoll_create1".into())?,
            pidfd: Some(pidfd.try_clone_to_owned().io(|| "dup(pidfd)".into())?),
            memory: counters(memory, "memory.oom_control", "memory.events")?,
            pids: counters(pids, "pids.events", "pids.events")?,
            cgroup: counters(group.unified(), "cgroup.events", "cgroup.events")?,
            oom: memory.filter(old).map(|part| Ok(notify(&part.dir, &part.path(), "memory.oom_control", "")?.0)).transpose()?,
            high: memory.filter(old).map_or(Ok(None), threshold)?,
            clock: memory.filter(old).or(pids.filter(old)).map(|_| ticking()).transpose()?,
            watch,
            told: VecDeque::new(),
        };
        for (source, read) in this.sources() {
            let data = epoll::EventData::new_u64(read.into());
            epoll::add(&this.epoll, source, data, epoll::EventFlags::IN).io(|| "epoll_ctl(EPOLL_CTL_ADD)".into())?;
        }
        // What happened between opening and watching.
        this.look();
        Ok(this)
    }

    /// All that can become readable, and whether it must be read to become quiet.
    fn sources(&self) -> Vec<(BorrowedFd<'_>, bool)> {
        let mut sources = vec![(self.watch.as_fd(), true)];
        sources.extend(self.oom.iter().map(|fd| (fd.as_fd(), true)));
        sources.extend(self.high.iter().map(|(fd, ..)| (fd.as_fd(), true)));
        sources.extend(self.clock.iter().map(|fd| (fd.as_fd(), true)));
        sources.extend(self.pidfd.iter().map(|fd| (fd.as_fd(), false)));
        sources
    }

    /// The next event, None if there is none now. Never blocks.
    ///
    /// # Errors
    /// Of epoll_wait(2).
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        self.wait(Some(Duration::ZERO))
    }

    /// The next event. None after `timeout`, or, whatever the timeout, once [`Event::Ended`] was told.
    ///
    /// # Errors
    /// Of epoll_wait(2).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        // A time beyond the clock's end is no limit.
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(Some(event));
            }
            if self.pidfd.is_none() {
                return Ok(None);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let mut ready = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 8];
            let count = match epoll::wait(&self.epoll, &mut ready[..], left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
                Err(Errno::INTR) => continue,
                other => other.io(|| "epoll_wait".into())?,
            };
            if count > 0 {
                self.look();
            } else if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// Reads everything and notes what is new. The end comes last, after what led to it.
    fn look(&mut self) {
        let ended = self.pidfd.as_ref().is_some_and(is_readable);
        let oom = self.oom.as_ref().is_some_and(drain);
        let high = self.high.as_ref().is_some_and(|(fd, ..)| drain(fd));
        drain(&self.watch);
        self.clock.as_ref().map(drain);
        if let Some(change) = self.memory.as_mut().and_then(Counters::look) {
            // A removed group signals its eventfds too; then there is nothing to read.
            if oom {
                self.told.push_back(Event::Oom);
            }
            change.memory(&mut self.told);
        }
        if let Some((_, usage, threshold)) = &self.high
            && high
            && read_from_start(usage).is_ok_and(|text| text.trim().parse::<u64>().is_ok_and(|n| n >= *threshold))
        {
            self.told.push_back(Event::MemoryHigh);
        }
        if let Some(change) = self.pids.as_mut().and_then(Counters::look) {
            change.pids(&mut self.told);
        }
        if let Some(change) = self.cgroup.as_mut().and_then(Counters::look) {
            change.cgroup(&mut self.told);
        }
        if ended {
            self.told.push_back(Event::Ended);
            self.pidfd = None;
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Empties a non-blocking descriptor; true if there was something.
pub(crate) fn drain(fd: &OwnedFd) -> bool {
    let mut buffer = [0u8; 4096];
    let mut any = false;
    while matches!(rustix::io::read(fd, &mut buffer), Ok(n) if n > 0) {
        any = true;
    }
    any
}

fn is_readable(fd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    matches!(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec::default())), Ok(1))
}

/// inotify takes paths only: ours goes through the open directory.
pub(crate) fn watch_file(watch: &OwnedFd, dir: &OwnedFd, path: &str, name: &str) -> Result<()> {
    let here = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    inotify::add_watch(watch, &here, inotify::WatchFlags::MODIFY).io(|| format!("inotify_add_watch({path}/{name})")).map(drop)
}

/// v1: an eventfd for what `file` is about (memory.rst, 9 to 11), and the file.
pub(crate) fn notify(dir: &OwnedFd, path: &str, name: &str, arguments: &str) -> Result<(OwnedFd, OwnedFd)> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).io(|| "eventfd2".into())?;
    let file = open_file(dir, name).io(|| format!("cgroup: open({path}/{name})"))?;
    let mut line = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
    if !arguments.is_empty() {
        write!(line, " {arguments}").unwrap_or_default();
    }
    write_file(dir, "cgroup.event_control", &line).io(|| format!("cgroup: write {line:?} ({name}) to {path}/cgroup.event_control"))?;
    Ok((event, file))
}

/// v1: when the use crosses the soft limit, if there is one.
fn threshold(part: &Part) -> Result<Option<(OwnedFd, OwnedFd, u64)>> {
    let soft = read_file(&part.dir, "memory.soft_limit_in_bytes").ok().and_then(|text| limit_of(&text));
    let Some(bytes) = soft else { return Ok(None) };
    let (event, file) = notify(&part.dir, &part.path(), "memory.usage_in_bytes", &bytes.to_string())?;
    Ok(Some((event, file, bytes)))
}

fn ticking() -> Result<OwnedFd> {
    let clock = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK).io(|| "timerfd_create".into())?;
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK };
    timerfd_settime(&clock, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: tick, it_value: tick }).io(|| "timerfd_settime".into())?;
    Ok(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(from: &str, to: &str, tell: fn(&Change, &mut VecDeque<Event>)) -> Vec<Event> {
        let mut told = VecDeque::new();
        tell(&Change { old: from.into(), new: to.into() }, &mut told);
        told.into()
    }

    #[test]
    fn counters_become_events() {
        let v2 = |high, oom, kill| format!("low 0\nhigh {high}\nmax 9\noom {oom}\noom_kill {kill}\noom_group_kill 0\n");
        assert_eq!(told(&v2(0, 0, 0), &v2(0, 0, 0), Change::memory), []);
        assert_eq!(told(&v2(0, 0, 0), &v2(5, 1, 3), Change::memory), [Event::MemoryHigh, Event::Oom, Event::OomKill { count: 3 }]);
        assert_eq!(told(&v2(5, 1, 3), &v2(5, 1, 4), Change::memory), [Event::OomKill { count: 1 }]);
        let v1 = |kill| format!("oom_kill_disable 0\nunder_oom 1\noom_kill {kill}\n");
        assert_eq!(told(&v1(0), &v1(1), Change::memory), [Event::OomKill { count: 1 }]);
        assert_eq!(told("max 0\n", "max 7\n", Change::pids), [Event::PidsLimit]);
        assert_eq!(told("max 7\n", "max 7\n", Change::pids), []);
        let state = |frozen| format!("populated 1\nfrozen {frozen}\n");
        assert_eq!(told(&state(0), &state(1), Change::cgroup), [Event::Paused]);
        assert_eq!(told(&state(1), &state(0), Change::cgroup), [Event::Resumed]);
        assert_eq!(told("populated 1\n", "populated 0\n", Change::cgroup), []);
    }

    #[test]
    fn events_are_plain_data() {
        assert_eq!(serde_json::to_string(&[Event::Oom, Event::OomKill { count: 2 }]).unwrap(), r#"["oom",{"oom_kill":{"count":2}}]"#);
    }
}
