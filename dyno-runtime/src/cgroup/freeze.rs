//! Standing still.
//!
//! v2: `cgroup.freeze`, for any group of the tree, with controllers or without (Linux 5.2). Tasks stop as if by a signal that
//! nobody can catch, and can still be killed. The kernel tells by `cgroup.events` when all have stopped.
//!
//! v1, where there is no v2 tree: the freezer's group is made and joined at the first pause, so that no start pays for it. It is set to
//! FROZEN while empty; what moves in stops at once and forks no more. A task that is in the kernel stops when it comes out of it:
//! FREEZING until then, and nobody tells when. A frozen task of v1 does not even die before it is thawed.

use std::time::{Duration, Instant};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    Cgroups, Controller, Group,
    file::{open_file, read_file, read_from_start, value_of, write_file},
    group::Part,
};
use crate::error::{Context, Error, ErrorKind, Result};

/// How long it may take until everything stands still. A task that waits for a dead disk takes for ever.
const PATIENCE: Duration = Duration::from_secs(10);

const STATE: &str = "freezer.state";

impl Group {
    /// Stops every process, and returns when all stand still.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] after ten seconds, naming what did not stop; all go on then. [`ErrorKind::Wall`] on a v1 host without freezer.
    pub(crate) fn freeze(&self, cgroups: &Cgroups) -> Result<()> {
        let frozen = match self.unified() {
            Some(part) => part.freeze_v2(true),
            None => self.join_late(cgroups, Controller::Freezer, |part| part.state("FROZEN")).and_then(Part::wait_for_frozen),
        };
        if frozen.is_err()
            && let Err(e) = self.thaw(cgroups)
        {
            tracing::warn!(%e, "a group that could not be frozen could not be thawed either");
        }
        frozen
    }

    /// Lets every process go on. No error if none was stopped.
    pub(crate) fn thaw(&self, cgroups: &Cgroups) -> Result<()> {
        match self.unified() {
            Some(part) => part.freeze_v2(false),
            None => self.look_for(cgroups, Controller::Freezer)?.map_or(Ok(()), |part| part.state("THAWED")),
        }
    }

    /// What must be done for it to die after SIGKILL: nothing on v2.
    pub(crate) fn thaw_to_die(&self, cgroups: &Cgroups) -> Result<()> {
        match self.unified() {
            Some(_) => Ok(()),
            None => self.thaw(cgroups),
        }
    }

    /// Whether it was stopped.
    pub(crate) fn is_frozen(&self, cgroups: &Cgroups) -> Result<bool> {
        if let Some(part) = self.unified() {
            return Ok(value_of(&part.read("cgroup.events")?, "frozen") == Some(1));
        }
        let Some(part) = self.look_for(cgroups, Controller::Freezer)? else { return Ok(false) };
        Ok(part.read(STATE)?.trim() == "FROZEN")
    }
}

impl Part {
    fn read(&self, file: &str) -> Result<String> {
        read_file(&self.dir, file).io(|| format!("cgroup: read {}/{file}", self.path))
    }

    fn freeze_v2(&self, freeze: bool) -> Result<()> {
        let value = if freeze { "1" } else { "0" };
        let events = open_file(&self.dir, "cgroup.events").io(|| format!("cgroup: open({}/cgroup.events)", self.path))?;
        write_file(&self.dir, "cgroup.freeze", value).io(|| format!("cgroup: write {value:?} to {}/cgroup.freeze", self.path))?;
        let end = Instant::now() + PATIENCE;
        loop {
            // Reading re-arms the notification (kernfs).
            let text = read_from_start(&events).io(|| format!("cgroup: read {}/cgroup.events", self.path))?;
            if value_of(&text, "frozen") == Some(freeze.into()) {
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

    fn state(&self, state: &str) -> Result<()> {
        write_file(&self.dir, STATE, state).io(|| format!("cgroup: write {state:?} to {}/{STATE}", self.path))
    }

    /// v1 has no event for it: looked at every millisecond.
    fn wait_for_frozen(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.read(STATE)?.trim() != "FROZEN" {
            if Instant::now() > end {
                return Err(self.restless(STATE));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn restless(&self, file: &str) -> Error {
        Error::refused(ErrorKind::Io, format!("cgroup: {}/{file}: not all processes came to a stop within {} s", self.path, PATIENCE.as_secs()))
    }
}
