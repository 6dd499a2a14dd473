//! The group of one dyno: where it is, who is in it, its end.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{
    Cgroups, Controller, Version,
    file::{open_file, remove_dir, write_file},
    part::Part,
    stats::IoStats,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::Limits,
};

/// How often is looked for processes that came after the first look.
pub(super) const LOOKS: usize = 1000;

/// The group of one dyno, in every hierarchy that matters to it.
#[derive(Debug)]
pub struct Group {
    pub(super) name: String,
    pub(super) parts: Vec<Part>,
    /// Hierarchies joined later: when it was paused, or got a limit that it did not have.
    late: [OnceLock<Box<Part>>; 4],
    /// `tasks` files that were opened ahead.
    entrances: Mutex<Vec<OwnedFd>>,
    /// What its init told at its end.
    pub(super) traffic: OnceLock<Box<IoStats>>,
}

impl Group {
    /// Makes the group and writes its limits, each read back from the kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] with the file and value that the kernel refused, naming a controller that this host lacks, or when a group
    /// of that name is left from before; nothing is left behind then.
    pub fn create(cgroups: &Cgroups, name: &str, limits: &Limits) -> Result<Self> {
        let needed = cgroups.needed(&Controller::asked_for(limits))?;
        let mut group = Self::of(name, Vec::with_capacity(needed.len()), Vec::new());
        let made = needed.into_iter().try_for_each(|h| {
            group.parts.push(Part::make(h, name)?);
            Ok(())
        });
        if let Err(e) = made.and_then(|()| group.limit(limits)) {
            group.remove()?;
            return Err(e);
        }
        Ok(group)
    }

    pub(super) fn open(cgroups: &Cgroups, name: &str) -> Result<Option<Self>> {
        let mut parts = Vec::with_capacity(cgroups.hierarchies.len());
        for h in &cgroups.hierarchies {
            parts.extend(Part::open(h, name)?);
        }
        Ok((!parts.is_empty()).then(|| Self::of(name, parts, Vec::new())))
    }

    pub(super) fn of(name: &str, parts: Vec<Part>, entrances: Vec<OwnedFd>) -> Self {
        Self { name: name.to_owned(), parts, late: Default::default(), entrances: entrances.into(), traffic: OnceLock::new() }
    }

    /// Its name, which is the dyno's id.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().chain(self.late.iter().filter_map(OnceLock::get).map(|part| &**part))
    }

    pub(super) fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.parts.iter_mut().chain(self.late.iter_mut().filter_map(OnceLock::get_mut).map(|part| &mut **part))
    }

    /// Where `controller` limits it.
    pub(super) fn part(&self, controller: Controller) -> Option<&Part> {
        self.parts().find(|p| p.controllers().contains(&controller))
    }

    /// Its part of the v2 tree.
    pub(super) fn unified(&self) -> Option<&Part> {
        self.parts().find(|p| p.version() == Version::V2)
    }

    /// The v2 directory in which the dyno is born, if the host has one for us.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.unified().map(|p| p.dir.as_fd())
    }

    /// The `tasks` files of the v1 hierarchies; the child writes `0` to each.
    ///
    /// # Errors
    /// Of opening them.
    pub fn task_files(&self) -> Result<Vec<OwnedFd>> {
        let ready = std::mem::take(&mut *self.entrances.lock().unwrap_or_else(PoisonError::into_inner));
        if !ready.is_empty() {
            return Ok(ready);
        }
        self.parts().filter(|p| p.version() == Version::V1).map(Part::entrance).collect()
    }

    /// One more hierarchy for who has not yet entered any.
    pub(super) fn add(&mut self, part: Part) -> Result<()> {
        let entrances = self.entrances.get_mut().unwrap_or_else(PoisonError::into_inner);
        // With none open yet all are opened when they are asked for.
        if part.version() == Version::V1 && !entrances.is_empty() {
            entrances.push(part.entrance()?);
        }
        self.parts.push(part);
        Ok(())
    }

    /// The file that tells the processor time used: `cpu.stat` of the v2 tree, or v1's `cpuacct.usage`.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] on a host that counts it nowhere.
    pub fn cpu_time_file(&self) -> Result<OwnedFd> {
        let Some(part) = self.part(Controller::Cpuacct) else {
            return Err(Error::refused(ErrorKind::Wall, "cgroup: limits.cpu_ms needs cpu.stat (v2) or cpuacct.usage (v1), which this host has not"));
        };
        let file = if part.version() == Version::V1 { "cpuacct.usage" } else { "cpu.stat" };
        open_file(&part.dir, file).wall(|| format!("cgroup: open({}/{file})", part.path()))
    }

    /// [`Self::part`], looking for one that another handle has made since.
    pub(super) fn look_for(&self, cgroups: &Cgroups, controller: Controller) -> Result<Option<&Part>> {
        if let Some(part) = self.part(controller) {
            return Ok(Some(part));
        }
        let Some(hierarchy) = cgroups.find(controller) else { return Ok(None) };
        Part::open(hierarchy, &self.name)?.map(|part| self.keep(part)).transpose()
    }

    /// Joins the hierarchy of `controller` with the processes that it has; `first` is done while the group is still empty. The processes
    /// move as a whole, by `cgroup.procs`: that waits for a grace period, which is why no dyno starts so.
    pub(super) fn join_late(&self, cgroups: &Cgroups, controller: Controller, first: impl Fn(&Part) -> Result<()>) -> Result<&Part> {
        let there = |part| first(part).and_then(|()| self.gather(part)).map(|()| part);
        if let Some(part) = self.look_for(cgroups, controller)? {
            return there(part);
        }
        let hierarchy = cgroups.find(controller).ok_or_else(|| cgroups.missing(controller))?;
        let part = match Part::make(hierarchy, &self.name) {
            // Another thread or process does the same just now.
            Err(e) if e.errno() == Some(Errno::EXIST) => return there(self.look_for(cgroups, controller)?.ok_or(e)?),
            other => other?,
        };
        match first(&part).and_then(|()| self.gather(&part)) {
            Ok(()) => self.keep(part),
            Err(e) => {
                part.send_away()?;
                Err(e)
            }
        }
    }

    fn keep(&self, part: Part) -> Result<&Part> {
        let mut part = Box::new(part);
        for place in &self.late {
            match place.set(part) {
                Ok(()) => break,
                Err(back) => part = back,
            }
        }
        let last = self.late.iter().rev().find_map(OnceLock::get).map(|part| &**part);
        last.ok_or_else(|| Error::refused(ErrorKind::Io, format!("cgroup {}: in too many hierarchies", self.name)))
    }

    /// Moves all processes of this group into `part` of it, until no more are found outside.
    fn gather(&self, part: &Part) -> Result<()> {
        for _ in 0..LOOKS {
            let inside = part.pids()?;
            let outside: Vec<u32> = self.pids()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match write_file(&part.dir, "cgroup.procs", &pid.to_string()) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(e) => return Err(e).wall(|| format!("cgroup: write {pid} to {}/cgroup.procs", part.path())),
                }
            }
        }
        Err(Error::refused(ErrorKind::Wall, format!("cgroup {}: its processes multiply faster than they can be moved", part.path())))
    }

    /// Host pids in the group (threads of v1 `tasks` are left out). One that was killed on its way in may be in some
    /// hierarchies only.
    ///
    /// # Errors
    /// Of reading `cgroup.procs`.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for part in self.parts() {
            pids.extend(part.pids()?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// SIGKILL to everything in it at once, which no fork escapes, where the v2 tree has it (`cgroup.kill`, Linux 5.14). False where
    /// it has not.
    ///
    /// # Errors
    /// Of writing.
    pub fn kill(&self) -> Result<bool> {
        let Some(part) = self.unified() else { return Ok(false) };
        match write_file(&part.dir, "cgroup.kill", "1") {
            Ok(()) => Ok(true),
            // An older kernel, or a group that is gone.
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            Err(e) => Err(e).io(|| format!("cgroup: write \"1\" to {}/cgroup.kill", part.path())),
        }
    }

    /// SIGKILL to each process in it, one after the other: where there is no [`Self::kill`], and for those that must be waited for.
    pub(super) fn kill_each(&self) -> Result<()> {
        self.parts().try_for_each(Part::kill_each)
    }

    /// Removes the group. A process is out of it before its end is seen; what came into it from outside may be in it still, so EBUSY
    /// is tried again for two seconds: at once when v2's `cgroup.events` tells that it is empty, and on v1, which tells nobody, after ever
    /// longer pauses. What stays is killed, where the kernel can do that ([`Self::kill`]).
    ///
    /// # Errors
    /// EBUSY when processes are left. What can be removed is removed all the same.
    pub fn remove(&self) -> Result<()> {
        self.remove_while(Ok(()), || self.kill().map(drop))
    }

    /// [`Self::remove`] that calls `empty` before each try.
    pub(crate) fn remove_after(&self, empty: impl Fn() -> Result<()>) -> Result<()> {
        self.remove_while(empty(), &empty)
    }

    /// `empty` is called after each try that failed.
    fn remove_while(&self, mut result: Result<()>, empty: impl Fn() -> Result<()>) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(2);
        for part in self.parts() {
            let mut pause = Duration::from_micros(20);
            loop {
                match remove_dir(part.parent(), part.name()) {
                    Ok(()) => break,
                    Err(Errno::BUSY) if Instant::now() < end => {
                        part.wait_for_empty(pause);
                        pause = (2 * pause).min(Duration::from_millis(1));
                        result = result.and(empty());
                    }
                    Err(e) => {
                        result = result.and(Err(Error::call(ErrorKind::Io, format!("cgroup: rmdir({})", part.path()), e)));
                        break;
                    }
                }
            }
        }
        result
    }
}
