//! Standing still.
//!
//! v2: `cgroup.freeze`, for any group of the tree, with controllers or without (Linux 5.2). Tasks stop as if by a signal that
//! nobody can catch, and can still be killed. The kernel tells by `cgroup.events` when all have stopped.
//!
//! v1, where there is no v2 tree: the freezer. A task that is in the kernel stops when it comes out of it: FREEZING until then, and
//! nobody tells when. A frozen task of v1 does not even die before it is thawed.
//!
//! A dyno that is not in such a group joins it at its first pause, so that no start pays for it. The group is set to be frozen while
//! it is empty; what moves in stops at once and forks no more.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    Cgroups, Controller, Group, Version,
    file::{open_file, read_file, read_from_start, value_of, write_file},
    part::Part,
};
use crate::error::{Context, Error, ErrorKind, Result};

/// How long it may take until everything stands still. A task that waits for a dead disk takes for ever.
const PATIENCE: Duration = Duration::from_secs(10);

const STATE: &str = "freezer.state";

impl Group {
    /// Stops every process, and returns when all stand still.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] after ten seconds, naming what did not stop; all go on then. [`ErrorKind::Wall`] on a host that can freeze nothing.
    pub(crate) fn freeze(&self, cgroups: &Cgroups) -> Result<()> {
        let frozen = self.join_late(cgroups, Controller::Freezer, |part| part.set_frozen(true)).and_then(|part| part.wait_for_frozen(true));
        if frozen.is_err()
            && let Err(e) = self.thaw(cgroups)
        {
            tracing::warn!(%e, "a group that could not be frozen could not be thawed either");
        }
        frozen
    }

    /// Lets every process go on. No error if none was stopped.
    pub(crate) fn thaw(&self, cgroups: &Cgroups) -> Result<()> {
        let Some(part) = self.look_for(cgroups, Controller::Freezer)? else { return Ok(()) };
        part.set_frozen(false)?;
        part.wait_for_frozen(false)
    }

    /// What must be done for it to die after SIGKILL: nothing on v2.
    pub(crate) fn thaw_to_die(&self, cgroups: &Cgroups) -> Result<()> {
        match cgroups.find(Controller::Freezer) {
            Some(hierarchy) if hierarchy.site.version == Version::V1 => self.thaw(cgroups),
            _ => Ok(()),
        }
    }

    /// Whether it was stopped.
    pub(crate) fn is_frozen(&self, cgroups: &Cgroups) -> Result<bool> {
        let Some(part) = self.look_for(cgroups, Controller::Freezer)? else { return Ok(false) };
        match part.version() {
            Version::V1 => Ok(part.read(STATE)?.trim() == "FROZEN"),
            Version::V2 => Ok(value_of(&part.read("cgroup.events")?, "frozen") == Some(1)),
        }
    }
}

impl Part {
    fn read(&self, file: &str) -> Result<String> {
        read_file(&self.dir, file).io(|| format!("cgroup: read {}/{file}", self.path()))
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        Freezer { dir: &self.dir, path: &self.path(), version: self.version() }.set(frozen)
    }

    fn wait_for_frozen(&self, frozen: bool) -> Result<()> {
        Freezer { dir: &self.dir, path: &self.path(), version: self.version() }.wait(frozen)
    }
}

/// A group that can be frozen: any of v2, of v1 one of the freezer's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freezer<'g> {
    /// Of the group.
    pub dir: &'g OwnedFd,
    /// For messages.
    pub path: &'g str,
    /// Which interface.
    pub version: Version,
}

impl Freezer<'_> {
    fn read(&self, file: &str) -> Result<String> {
        read_file(self.dir, file).io(|| format!("cgroup: read {}/{file}", self.path))
    }

    /// Asks for it; does not wait.
    pub(crate) fn set(&self, frozen: bool) -> Result<()> {
        let (file, value) = match (self.version, frozen) {
            (Version::V1, true) => (STATE, "FROZEN"),
            (Version::V1, false) => (STATE, "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        write_file(self.dir, file, value).io(|| format!("cgroup: write {value:?} to {}/{file}", self.path))
    }

    /// Waits until it is so.
    pub(crate) fn wait(&self, frozen: bool) -> Result<()> {
        match self.version {
            Version::V1 if frozen => self.wait_v1(),
            Version::V1 => Ok(()),
            Version::V2 => self.wait_v2(frozen),
        }
    }

    fn wait_v2(&self, frozen: bool) -> Result<()> {
        let events = open_file(self.dir, "cgroup.events").io(|| format!("cgroup: open({}/cgroup.events)", self.path))?;
        let end = Instant::now() + PATIENCE;
        loop {
            // Reading re-arms the notification (kernfs).
            let text = read_from_start(&events).io(|| format!("cgroup: read {}/cgroup.events", self.path))?;
            if value_of(&text, "frozen") == Some(frozen.into()) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.restless("cgroup.freeze"));
            }
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Timespec::try_from(left).ok().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e).io(|| "poll(cgroup.events)".into()),
            }
        }
    }

    /// v1 has no event for it: looked at every millisecond. A task that was just being made when the state was set may have missed it
    /// and would run on for ever (5 of 40 pauses of a shell that forks, on 6.18); each write tells all tasks again. Should that not
    /// do, they all go on for a moment, so that none stays where it cannot be stopped.
    fn wait_v1(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        for look in 1.. {
            if self.read(STATE)?.trim() == "FROZEN" {
                return Ok(());
            }
            if Instant::now() > end {
                break;
            }
            if look % 50 == 0 {
                self.set(false)?;
            }
            std::thread::sleep(Duration::from_millis(1));
            self.set(true)?;
        }
        Err(self.restless(STATE))
    }

    fn restless(&self, file: &str) -> Error {
        Error::refused(ErrorKind::Io, format!("cgroup: {}/{file}: not all processes came to a stop within {} s", self.path, PATIENCE.as_secs()))
    }
}
