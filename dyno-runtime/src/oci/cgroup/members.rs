//! Who is in a container's groups: stopped, let go on, killed, and the groups removed.
//!
//! Where there is a v2 tree it does all of that: its freezer tells when all stand still, frozen processes can be killed, and
//! `cgroup.kill` (Linux 5.14) reaches whoever is forked meanwhile. v1's freezer is used where there is no other.

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use super::{Cgroup, Record, group::Group, refused};
use crate::{
    cgroup::{Version, file::write_file, freeze::Freezer},
    error::{Context, Result},
};

/// How often is looked for processes that came after the first look.
const LOOKS: usize = 1000;

impl Group {
    fn freezer(&self) -> Freezer<'_> {
        Freezer { dir: &self.dir, path: &self.path, version: self.version }
    }
}

impl Cgroup {
    /// The group that can stop it.
    fn freezer(&self) -> Result<&Group> {
        let v2 = self.tree().filter(|tree| tree.read("cgroup.freeze").is_ok());
        v2.or_else(|| self.part("freezer")).ok_or_else(|| refused("cannot pause: the container has no control group that can be frozen"))
    }

    /// Stops every process, and returns when all stand still.
    ///
    /// # Errors
    /// After ten seconds, naming what did not stop; all go on then. [`crate::ErrorKind::Wall`] where nothing can be frozen.
    pub fn freeze(&self) -> Result<()> {
        let freezer = self.freezer()?.freezer();
        let frozen = freezer.set(true).and_then(|()| freezer.wait(true));
        if frozen.is_err()
            && let Err(e) = freezer.set(false)
        {
            tracing::warn!(%e, "a container that could not be frozen could not be thawed either");
        }
        frozen
    }

    /// Lets every process go on, whichever freezer stopped them. No error if none was stopped.
    ///
    /// # Errors
    /// As of [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        for group in self.groups.iter().filter(|group| group.version == Version::V2 || group.controllers.iter().any(|c| c == "freezer")) {
            if group.is_frozen()? {
                group.freezer().set(false)?;
                group.freezer().wait(false)?;
            }
        }
        Ok(())
    }

    /// Whether it stands still.
    ///
    /// # Errors
    /// Of reading.
    pub fn is_frozen(&self) -> Result<bool> {
        for group in &self.groups {
            if group.is_frozen()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// [`Cgroup::is_frozen`] of a container whose groups are not open: looks into those that can be frozen and no others.
    ///
    /// # Errors
    /// Of opening and reading.
    pub fn stands_still(record: &Record) -> Result<bool> {
        for (path, controllers) in record.groups.iter().filter(|(_, c)| c.is_empty() || c.iter().any(|c| c == "freezer")) {
            if let Some(group) = Group::open(path, controllers)?
                && group.is_frozen()?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is nothing of it: it was removed.
    pub fn is_gone(&self) -> bool {
        self.groups.is_empty()
    }

    /// Its processes, sorted; with `all`, also those in groups that were made inside.
    ///
    /// # Errors
    /// Of reading.
    pub fn pids(&self, all: bool) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for group in &self.groups {
            pids.extend(if all { group.all_procs()? } else { group.procs()? });
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Sends a signal to every process, nested groups and all. SIGKILL reaches those that are forked meanwhile; for another signal they
    /// are stopped as long as it is sent, where they can be.
    ///
    /// # Errors
    /// Of kill(2), but for those that are gone.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        if signal == Signal::KILL && self.kill_by_file()? {
            return self.thaw_v1();
        }
        let stopped = !self.is_frozen()? && self.freeze().is_ok();
        let done = self.send(signal);
        if stopped || signal == Signal::KILL {
            self.thaw()?;
        }
        done
    }

    /// A process that v1 has frozen does not die before it is thawed.
    fn thaw_v1(&self) -> Result<()> {
        match self.part("freezer") {
            Some(group) if group.is_frozen()? => group.freezer().set(false),
            _ => Ok(()),
        }
    }

    /// False where the kernel cannot, or cannot reach all.
    fn kill_by_file(&self) -> Result<bool> {
        let Some(tree) = self.tree() else { return Ok(false) };
        match write_file(&tree.dir, "cgroup.kill", "1") {
            Ok(()) => {}
            // An older kernel, a threaded group, or one that is gone.
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => return Ok(false),
            Err(e) => return Err(e).io(|| format!("cgroup: write \"1\" to {}/cgroup.kill", tree.path)),
        }
        // Whether somebody has moved a process out of the v2 group: one of v1 tells.
        let Some(other) = self.part("pids").or_else(|| self.groups.iter().find(|group| group.version == Version::V1)) else { return Ok(true) };
        let there = other.procs()?;
        let inside = if there.is_empty() { Vec::new() } else { tree.all_procs()? };
        Ok(there.iter().all(|pid| inside.contains(pid)))
    }

    fn send(&self, signal: Signal) -> Result<()> {
        let mut done: Vec<u32> = Vec::new();
        for _ in 0..LOOKS {
            let new: Vec<u32> = self.pids(true)?.into_iter().filter(|pid| !done.contains(pid)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                let Some(raw) = Pid::from_raw(pid.cast_signed()) else { continue };
                match kill_process(raw, signal) {
                    Ok(()) | Err(Errno::SRCH) => done.push(pid),
                    Err(e) => return Err(e).io(|| format!("kill({pid}, {signal:?})")),
                }
            }
        }
        Err(refused("the container's processes multiply faster than they can be sent a signal"))
    }

    /// Removes the groups and those that were made inside. What is left in them is killed. No error if there are none.
    ///
    /// # Errors
    /// EBUSY after two seconds. What can be removed is removed all the same.
    pub fn remove(&self) -> Result<()> {
        let stopped = self.stop_unit();
        stopped.and(self.remove_after(&|| self.kill(Signal::KILL)))
    }

    /// [`Cgroup::remove`] of groups that may be somebody else's: nothing in them is killed.
    ///
    /// # Errors
    /// EBUSY for one that is in use.
    pub fn remove_if_unused(&self) -> Result<()> {
        self.remove_after(&|| Ok(()))
    }

    fn remove_after(&self, empty: &dyn Fn() -> Result<()>) -> Result<()> {
        // From below: v2, which kills and tells when it is empty, first.
        let in_order = self.tree().into_iter().chain(self.groups.iter().filter(|group| group.version == Version::V1));
        // All are tried; the first that failed is told of.
        let results: Vec<_> = in_order.map(|group| group.remove(empty)).collect();
        results.into_iter().collect()
    }
}
