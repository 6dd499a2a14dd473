//! What an earlier process of this instance left: found, taken up again, or swept away.

use std::os::fd::AsFd;

use super::Host;
use crate::{
    cgroup::Group,
    dyno::{Dyno, Record},
    error::{Context, Result},
    exit::ExitRecord,
    spawn::parked,
    sys,
};

/// What [`Host::recover`] found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are as many as dynos, and each is taken apart at once")]
pub enum Found {
    /// It runs.
    Running(Dyno),
    /// It ended while nobody watched; its exit record, and the id under which [`Host::sweep`] frees it.
    Ended(String, ExitRecord),
}

impl Host {
    /// Finds every dyno that an earlier process of this instance left, and frees what belongs to none: half-made
    /// starts, orphaned cgroups, leases without owner. What cannot be freed keeps its lease, is logged, and stops nothing.
    ///
    /// # Errors
    /// When the state cannot be read, wholly or in part: what cannot be seen is not taken for ended. Nothing is harmed then.
    pub fn recover(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut debris: Vec<String> = Vec::new();
        let dynos = self.0.dir.join("dynos");
        let entries = std::fs::read_dir(&dynos).io(|| format!("list {}", dynos.display()))?;
        for id in entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|id| !parked::is_ours(id)) {
            match Record::read(&self.dyno_dir(&id))? {
                Some(record) if record.pid != 0 => found.push(match Dyno::adopt(self, record)? {
                    Some(dyno) => match dyno.try_wait()? {
                        // Waited for: should it be our own child, it is no zombie any more.
                        Some(exit) => Found::Ended(id, exit),
                        None => Found::Running(dyno),
                    },
                    None => Found::Ended(id.clone(), self.ended(&id)?),
                }),
                // Killed between the intent and clone3, or in the middle of the walls: not a dyno.
                _ => debris.push(id),
            }
        }
        let known: Vec<&str> = found.iter().map(Found::id).collect();
        if let Some(cgroups) = self.cgroups() {
            debris.extend(cgroups.names()?);
        }
        debris.extend(self.leases().list()?.into_iter().map(|(_, owner)| owner));
        debris.retain(|id| !parked::is_ours(id) && !known.contains(&id.as_str()));
        debris.sort_unstable();
        debris.dedup();
        self.leases().sweep_leftovers();
        for id in debris {
            if let Err(e) = self.sweep(&id) {
                tracing::warn!(id, %e, "what an earlier process left could not be freed");
            }
        }
        Ok(found)
    }

    /// The group of a dyno that an earlier process made, where there are groups.
    pub(crate) fn group(&self, id: &str) -> Result<Option<Group>> {
        self.cgroups().map_or(Ok(None), |cgroups| cgroups.reopen(id))
    }

    fn ended(&self, id: &str) -> Result<ExitRecord> {
        let usage = self.group(id)?.map(|g| g.usage()).unwrap_or_default();
        let timing = Record::read(&self.dyno_dir(id))?.map(|record| record.timing).unwrap_or_default();
        Ok(ExitRecord::of(&self.dyno_dir(id), usage, timing))
    }

    /// Frees whatever is left under the name `id`, without a handle: kills what its cgroup holds, removes cgroup, link, lease and
    /// directory.
    ///
    /// # Errors
    /// When its processes do not end, or of removing the directory. The id range is kept as long as a process may use it.
    pub fn sweep(&self, id: &str) -> Result<()> {
        crate::plan::check_id(id)?;
        match (self.group(id)?.zip(self.cgroups()), Record::read(&self.dyno_dir(id))?) {
            (Some((group, cgroups)), _) => {
                group.thaw_to_die(cgroups)?;
                // A child on its way in may come after the first look. One by one first, because ours must be waited for as well.
                group.remove_after(|| {
                    group.pids()?.into_iter().try_for_each(|pid| kill_member(&group, pid))?;
                    group.kill().map(drop)
                })?;
            }
            // Without groups its init is what is known of it, and takes all others along.
            (None, Some(record)) if self.cgroups().is_none() => {
                if let Some(dyno) = Dyno::adopt(self, record)? {
                    dyno.kill()?;
                    dyno.wait()?;
                }
            }
            _ => {}
        }
        // Before its range: an address that is still published must not become another's.
        self.uplink().disconnect(&self.dyno_dir(id))?;
        for (slot, owner) in self.leases().list()? {
            if owner == id {
                self.leases().free(slot);
            }
        }
        self.remove_dyno_dir(id)
    }

    /// Removes a state directory, and first what older kernels needed attached below it.
    pub(crate) fn remove_dyno_dir(&self, id: &str) -> Result<()> {
        let dir = self.dyno_dir(id);
        crate::mount::detach(&dir)?;
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).io(|| format!("remove {}", dir.display())),
            _ => Ok(()),
        }
    }
}

impl Found {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Running(dyno) => dyno.id(),
            Self::Ended(id, _) => id,
        }
    }
}

/// Kills one process by number, safely: the descriptor pins it, and it is killed only if the group still lists that number then.
fn kill_member(group: &Group, pid: u32) -> Result<()> {
    let Some(pin) = sys::pin(pid).io(|| format!("pidfd_open({pid})"))? else { return Ok(()) };
    if group.pids()?.contains(&pid) {
        crate::dyno::kill_and_reap(pin.as_fd());
    }
    Ok(())
}
