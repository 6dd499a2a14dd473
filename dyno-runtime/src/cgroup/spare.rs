//! Groups made ahead: empty, without limits, nobody's; one becomes a dyno's when that starts.
//!
//! ```text
//!   make_spare: mkdir in each hierarchy, files opened ─ from_spare: named after the dyno, limits written and read back ─ Group
//!                          │                                                                       │
//!                          └── dropped: rmdir                                                      └── refused: rmdir
//! ```
//!
//! Its directories are called `.spare-PID-START-N` after the process that made it, so that what a killed one leaves is known for what
//! it is: the next [`Cgroups::open`] removes it. A directory of v1 is renamed to the dyno's id. One of v2 cannot be (its file system
//! has no rename(2)) and bears the id as the extended attribute `user.dyno`, by which [`Cgroups::reopen`] and [`Cgroups::names`] find it.
//!
//! A group that was a dyno's never becomes a spare: see `docs/decisions.md`.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, XattrFlags, fgetxattr, fsetxattr, openat, renameat, statat},
    io::Errno,
};

use super::{Cgroups, Controller, Group, Version, detect::Hierarchy, file::open_dir, knob::first_files, part::Part};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::Limits,
};

/// Begins the name of every group that is nobody's yet.
const PREFIX: &str = ".spare-";

/// Whose a directory of the v2 tree is. Only who may write to the group may set it (Linux 5.7).
const OWNER: &str = "user.dyno";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A group that is nobody's yet, in every hierarchy that each dyno joins. Dropped, it is removed.
#[derive(Debug)]
pub struct Spare {
    cgroups: Cgroups,
    name: String,
    parts: Vec<Part>,
    entrances: Vec<OwnedFd>,
}

impl Cgroups {
    /// Makes a group for a dyno to come, and opens what its start is going to write to.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming the call; nothing is left behind.
    pub fn make_spare(&self) -> Result<Spare> {
        let pid = std::process::id();
        let name = format!("{PREFIX}{pid}-{}-{}", crate::proc_stat::start_time(pid)?, NEXT.fetch_add(1, Ordering::Relaxed));
        let mut spare = Spare { cgroups: self.clone(), name, parts: Vec::with_capacity(3), entrances: Vec::with_capacity(3) };
        for hierarchy in self.hierarchies.iter().filter(|h| h.site.always) {
            spare.parts.push(Part::make(hierarchy, &spare.name)?);
        }
        for part in &mut spare.parts {
            part.make_ready()?;
            if part.version() == Version::V1 {
                spare.entrances.push(part.entrance()?);
            }
        }
        Ok(spare)
    }

    /// Removes the spare groups of processes that are no more, and ends what such a process had put into them.
    pub(super) fn clear_spares(&self) -> Result<()> {
        let mut left = Vec::new();
        for hierarchy in &self.hierarchies {
            for name in hierarchy.entries()?.into_iter().filter(|name| is_orphan(name)) {
                if hierarchy.owner(&name)?.is_none() && !left.contains(&name) {
                    left.push(name);
                }
            }
        }
        for name in left {
            if let Err(e) = self.clear(&name) {
                tracing::warn!(name, %e, "a spare group of an ended process could not be removed");
            }
        }
        Ok(())
    }

    fn clear(&self, name: &str) -> Result<()> {
        let mut parts = Vec::with_capacity(self.hierarchies.len());
        for hierarchy in &self.hierarchies {
            // One that is a dyno's in this hierarchy is not touched.
            if hierarchy.owner(name)?.is_none() {
                parts.extend(Part::at(hierarchy, name)?);
            }
        }
        let group = Group::of(name, parts, Vec::new());
        group.remove_after(|| group.kill_each())
    }
}

impl Spare {
    /// Whether all its directories are still there and empty: that nobody has removed or entered them.
    pub fn is_whole(&self) -> bool {
        self.parts.iter().all(|part| part.is_there() && part.pids().is_ok_and(|pids| pids.is_empty()))
    }

    /// Makes it a group with `limits` whose directories keep their names, for a sandbox that nobody has asked for yet:
    /// [`Group::rename`] gives it to a dyno.
    ///
    /// # Errors
    /// As [`Group::from_spare`].
    pub fn limited(mut self, limits: &Limits) -> Result<Group> {
        let mut group = Group::of(&self.name, std::mem::take(&mut self.parts), std::mem::take(&mut self.entrances));
        let done = group.complete(&self.cgroups, limits);
        done.or_else(|e| group.remove().and(Err(e)))?;
        Ok(group)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if !self.parts.is_empty()
            && let Err(e) = Group::of(&self.name, std::mem::take(&mut self.parts), Vec::new()).remove()
        {
            tracing::warn!(name = self.name, %e, "a spare group could not be removed");
        }
    }
}

impl Group {
    /// Makes `spare` the group of dyno `id` and writes its limits, each read back from the kernel. What such limits need beside it is
    /// joined, as by [`Group::create`].
    ///
    /// # Errors
    /// As [`Group::create`]; ENOENT or ENODEV when somebody has removed the spare. Nothing is left behind, and the spare is gone.
    pub fn from_spare(mut spare: Spare, id: &str, limits: &Limits) -> Result<Self> {
        let mut group = Self::of(id, std::mem::take(&mut spare.parts), std::mem::take(&mut spare.entrances));
        let done = group.parts.iter_mut().try_for_each(|part| part.become_owned(id)).and_then(|()| group.complete(&spare.cgroups, limits));
        done.or_else(|e| group.remove().and(Err(e)))?;
        Ok(group)
    }

    /// Gives it to dyno `id`, with whatever runs in it.
    ///
    /// # Errors
    /// EEXIST when that dyno has a group; the group may then have the one name here and the other there, and is to be removed.
    pub fn rename(&mut self, id: &str) -> Result<()> {
        self.parts_mut().try_for_each(|part| part.become_owned(id))?;
        id.clone_into(&mut self.name);
        Ok(())
    }

    /// What the limits need and is not there yet, and the limits.
    fn complete(&mut self, cgroups: &Cgroups, limits: &Limits) -> Result<()> {
        for hierarchy in cgroups.needed(&Controller::asked_for(limits))? {
            if !self.parts.iter().any(|part| std::sync::Arc::ptr_eq(&part.home, hierarchy)) {
                let part = Part::make(hierarchy, &self.name)?;
                self.add(part)?;
            }
        }
        self.limit(limits)?;
        self.parts.iter_mut().for_each(|part| part.ready = Vec::new());
        Ok(())
    }
}

impl Part {
    /// Opens the files of the limits that nearly every dyno has.
    fn make_ready(&mut self) -> Result<()> {
        let home = self.home.clone();
        for file in first_files(home.site.version, &home.site.controllers) {
            match openat(&self.dir, file, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
                // Swap that is not accounted for: whether that will do is for the limits to say.
                Err(Errno::NOENT) => {}
                other => self.ready.push((file, other.wall(|| format!("cgroup: open({}/{file})", self.path()))?)),
            }
        }
        Ok(())
    }

    fn become_owned(&mut self, id: &str) -> Result<()> {
        if self.version() == Version::V1 {
            renameat(self.parent(), &self.name, self.parent(), id).wall(|| format!("cgroup: rename({}, {id})", self.path()))?;
            id.clone_into(&mut self.name);
            return Ok(());
        }
        match statat(self.parent(), id, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(Error::call(ErrorKind::Wall, format!("cgroup: name {} {id}", self.path()), Errno::EXIST)),
            Err(e) => return Err(e).wall(|| format!("cgroup: stat({id}) beside {}", self.path())),
        }
        fsetxattr(&self.dir, OWNER, id.as_bytes(), XattrFlags::empty()).wall(|| format!("cgroup: setxattr({}, {OWNER}, {id})", self.path()))
    }

    fn is_there(&self) -> bool {
        open_dir(self.parent(), &self.name).is_ok_and(|dir| {
            let number = |dir: &OwnedFd| rustix::fs::fstat(dir).map(|stat| stat.st_ino);
            matches!((number(&dir), number(&self.dir)), (Ok(is), Ok(was)) if is == was)
        })
    }
}

impl Hierarchy {
    /// Which dyno the directory `name` was given to, if its name does not tell.
    pub fn owner(&self, name: &str) -> Result<Option<String>> {
        if self.site.version == Version::V1 {
            return Ok(None);
        }
        let mut id = [0u8; 128];
        match open_dir(&self.dir, name).and_then(|dir| fgetxattr(&dir, OWNER, &mut id[..])) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(id.get(..length).unwrap_or_default()).into_owned())),
            // None; gone; no group of the tree but a plain directory of a test's.
            Err(Errno::NODATA | Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            Err(e) => Err(e).io(|| format!("cgroup: getxattr({}/{name}, {OWNER})", self.site.path)),
        }
    }

    /// The directory that was given to `id` and is not called so.
    pub fn directory_of(&self, id: &str) -> Result<Option<String>> {
        if self.site.version == Version::V1 {
            return Ok(None);
        }
        for name in self.entries()?.into_iter().filter(|name| name.starts_with('.')) {
            if self.owner(&name)?.as_deref() == Some(id) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// A spare of a process that is no more.
fn is_orphan(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let mut numbers = rest.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else { return false };
    !u32::try_from(pid).is_ok_and(|pid| crate::proc_stat::lives(pid, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_spare_it_is() {
        let me = std::process::id();
        let start = crate::proc_stat::start_time(me).unwrap();
        let check = |name: String, orphan: bool| assert_eq!(is_orphan(&name), orphan, "{name}");
        check(format!(".spare-{me}-{start}-7"), false);
        // The number is another process's now, or nobody's.
        check(format!(".spare-{me}-{}-7", start + 1), true);
        check(format!(".spare-{}-{start}-7", u32::MAX), true);
        check(".spare-".into(), false);
        check(".spare-x-1-2".into(), false);
        check("web.1".into(), false);
    }
}
