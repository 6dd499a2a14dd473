//! Other limits for a group that lives: all of them or none.

use rustix::io::Errno;

use super::{
    Cgroups, Controller, Group, Version,
    file::{read_file, write_file},
    knob::Knob,
    part::Part,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::Limits,
};

/// A value to be put back.
struct Former<'g> {
    part: &'g Part,
    file: String,
    value: String,
}

impl Group {
    /// Makes `limits` the limits of this group. When one of them is refused, those written before it get their former values back.
    ///
    /// # Errors
    /// EBUSY when more memory is in use than the new limit allows and cannot be reclaimed; otherwise [`ErrorKind::Wall`] as at the start.
    pub(crate) fn update(&self, cgroups: &Cgroups, limits: &Limits) -> Result<()> {
        for controller in Controller::asked_for(limits).into_iter().filter(|c| *c != Controller::Cpuacct) {
            self.come_under(cgroups, controller)?;
        }
        let mut former = Vec::new();
        let done = self.set_all(cgroups, limits, &mut former);
        if done.is_err() {
            for Former { part, file, value } in former.into_iter().rev() {
                if let Err(e) = write_file(&part.dir, &file, &value) {
                    tracing::warn!(%e, value, "{}/{file} could not be put back", part.path());
                }
            }
        }
        done
    }

    /// Joins the hierarchy of a controller that had nothing to limit before, or lets it be handed down.
    fn come_under(&self, cgroups: &Cgroups, controller: Controller) -> Result<()> {
        let hierarchy = cgroups.find(controller).ok_or_else(|| cgroups.missing(controller))?;
        hierarchy.offer(controller)?;
        self.join_late(cgroups, controller, |_| Ok(())).map(drop)
    }

    fn set_all<'g>(&'g self, cgroups: &Cgroups, limits: &Limits, former: &mut Vec<Former<'g>>) -> Result<()> {
        let asked = Controller::asked_for(limits);
        for controller in Controller::REQUIRED.into_iter().chain([Controller::Cpuset, Controller::Io, Controller::Hugetlb]) {
            let Some(part) = self.look_for(cgroups, controller)? else { continue };
            // v2, never asked for: no such files, and nothing to take back.
            if controller == Controller::Cpuset && !asked.contains(&controller) && read_file(&part.dir, "cpuset.cpus").is_err() {
                continue;
            }
            if controller == Controller::Memory && part.version() == Version::V2 {
                part.make_room(limits)?;
            }
            for knob in part.knobs(controller, limits, false)? {
                part.change(&knob, former)?;
            }
        }
        Ok(())
    }
}

impl Part {
    fn change<'g>(&'g self, knob: &Knob, former: &mut Vec<Former<'g>>) -> Result<()> {
        if !knob.value.is_empty() {
            match read_file(&self.dir, &knob.file) {
                Ok(text) => former.push(Former { part: self, file: knob.file.clone(), value: knob.undo(&text) }),
                Err(Errno::NOENT) if knob.optional => return Ok(()),
                Err(e) => return Err(e).wall(|| format!("cgroup: read {}/{}", self.path(), knob.file)),
            }
        }
        self.turn(knob).map_err(|e| if e.errno() == Some(Errno::BUSY) { too_much_in_use(&e.to_string()) } else { e })
    }

    /// v2: a new `memory.max` below what is in use would be made true by killing. v1 answers EBUSY instead, and so do we: what can be
    /// reclaimed is reclaimed first, by `memory.high`, which slows but does not kill.
    fn make_room(&self, limits: &Limits) -> Result<()> {
        let Some(memory) = limits.memory else { return Ok(()) };
        let read = |file: &str| read_file(&self.dir, file).wall(|| format!("cgroup: read {}/{file}", self.path()));
        let in_use = || read("memory.current").map(|text| text.trim().parse().unwrap_or(u64::MAX));
        if in_use()? <= memory {
            return Ok(());
        }
        let high = read("memory.high")?;
        let write =
            |value: &str| write_file(&self.dir, "memory.high", value).wall(|| format!("cgroup: write {value:?} to {}/memory.high", self.path()));
        // The write itself reclaims (memory_high_write).
        write(&memory.to_string())?;
        let left = in_use();
        write(high.trim())?;
        match left? {
            left if left <= memory => Ok(()),
            left => Err(too_much_in_use(&format!("cgroup: {}/memory.current is {left}, the new limit {memory}", self.path()))),
        }
    }
}

fn too_much_in_use(what: &str) -> Error {
    let what = what.strip_suffix(&format!(": {}", Errno::BUSY)).unwrap_or(what);
    Error::call(ErrorKind::Io, format!("limits.memory: more is in use than that, and cannot be reclaimed ({what})"), Errno::BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_told_in_words() {
        let e = too_much_in_use(&Error::call(ErrorKind::Wall, "cgroup: write \"1\" to x", Errno::BUSY).to_string());
        assert_eq!((e.kind(), e.errno()), (ErrorKind::Io, Some(Errno::BUSY)));
        assert!(e.to_string().starts_with("limits.memory: more is in use than that, and cannot be reclaimed (cgroup: write \"1\" to x): "), "{e}");
    }
}
