//! What can be done to a running dyno, and seen of it, beside its end: it can stand still, get other limits, and be watched.

use crate::{
    cgroup::{Cgroups, Events, Group, Stats},
    dyno::{Dyno, read_sandbox},
    error::{Error, ErrorKind, Result},
    plan::check_limits,
    spec::Limits,
};

impl Dyno {
    /// Stops every process, its init too, and returns when all stand still. A paused dyno keeps its memory and its connections. It
    /// can be killed, but does not see other signals before it goes on: [`Dyno::stop`] kills it after its grace. Its wall clock runs on;
    /// `limits.wall_ms` is looked at when it goes on. No error if it is paused already.
    ///
    /// v2: `cgroup.freeze` (Linux 5.2). v1 without a v2 tree: the freezer controller.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it has ended, or when a process does not come to a stop within ten seconds (all go on then);
    /// [`ErrorKind::Wall`] on a host without either.
    pub fn pause(&self) -> Result<()> {
        self.must_live("pause")?;
        let (group, cgroups) = self.must_be_held("pause")?;
        group.freeze(cgroups)
    }

    /// Lets a paused dyno go on. No error if it was not paused.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it has ended, or of the control file.
    pub fn resume(&self) -> Result<()> {
        self.must_live("resume")?;
        let (group, cgroups) = self.must_be_held("resume")?;
        group.thaw(cgroups)
    }

    /// Whether all of it stands still.
    ///
    /// # Errors
    /// Of reading the control file.
    pub fn is_paused(&self) -> Result<bool> {
        let (group, cgroups) = self.must_be_held("is_paused")?;
        Ok(!self.has_ended() && group.is_frozen(cgroups)?)
    }

    /// Gives it other limits while it runs: all that `limits` says, or, when something is refused, nothing of it. A limit that is None
    /// there is taken off.
    ///
    /// What control groups hold can be changed: memory, swap, processes, processor, CPUs, disks, huge pages. What was set on its
    /// processes at the start (`open_files`, `file_size`) and what its init watches (`wall_ms`, `cpu_ms`, `output`) cannot, and must be as
    /// it was. A controller that had nothing to limit before is joined now with all its processes; what disks and huge pages they
    /// used until then is not counted there.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] naming a field that is out of range or cannot be changed; EBUSY when more memory is in use than the new
    /// limit allows and cannot be reclaimed (nothing is killed); [`ErrorKind::Wall`] for a value that the kernel refuses, or a
    /// controller that this host lacks.
    pub fn update(&self, limits: &Limits) -> Result<()> {
        check_limits::limits(limits)?;
        unchanged(&read_sandbox(&self.host.dyno_dir(self.id()))?.limits, limits)?;
        self.must_live("update")?;
        let (group, cgroups) = self.must_be_held("update")?;
        group.update(cgroups, limits)
    }

    /// What it uses and may use, now or, until it is freed, at its end.
    ///
    /// # Errors
    /// When its groups cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let (group, _) = self.must_be_held("stats")?;
        Ok(Stats { frozen: self.is_paused()?, ..group.stats()? })
    }

    /// What happens to it from now on. Any number of these can be open at a time.
    ///
    /// # Errors
    /// Of inotify, eventfd, epoll, and of opening the control files.
    pub fn events(&self) -> Result<Events> {
        let (group, _) = self.must_be_held("events")?;
        Events::new(group, self.pidfd())
    }

    /// All of this is done by control groups, which an unprivileged user may lack.
    fn must_be_held(&self, what: &str) -> Result<(&Group, &Cgroups)> {
        let none =
            || Error::refused(ErrorKind::Wall, format!("{what} dyno {}: it has no control group, which this user cannot make here", self.id()));
        self.held().ok_or_else(none)
    }

    fn must_live(&self, what: &str) -> Result<()> {
        if self.has_ended() {
            return Err(Error::refused(ErrorKind::Io, format!("{what} dyno {}: it has ended", self.id())));
        }
        Ok(())
    }
}

/// Fails with the name of the first field that can only be set at the start.
fn unchanged(former: &Limits, new: &Limits) -> Result<()> {
    let fields = [
        ("limits.open_files", Some(former.open_files), Some(new.open_files)),
        ("limits.file_size", former.file_size, new.file_size),
        ("limits.wall_ms", former.wall_ms, new.wall_ms),
        ("limits.cpu_ms", former.cpu_ms, new.cpu_ms),
        ("limits.output", former.output, new.output),
    ];
    let text = |value: Option<u64>| value.map_or("none".to_owned(), |v| v.to_string());
    match fields.into_iter().find(|(_, former, new)| former != new) {
        Some((field, former, new)) => {
            Err(Error::refused(ErrorKind::Invalid, format!("{field} {:?} cannot be changed while it runs (it is {})", text(new), text(former))))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_only_be_set_at_the_start_is_named() {
        type Change = fn(&mut Limits);
        let fixed: &[(&str, Change)] = &[
            ("limits.open_files", |l| l.open_files = 64),
            ("limits.file_size", |l| l.file_size = Some(1)),
            ("limits.wall_ms", |l| l.wall_ms = Some(1)),
            ("limits.cpu_ms", |l| l.cpu_ms = Some(1)),
            ("limits.output", |l| l.output = Some(1)),
        ];
        let check = |change: Change| {
            let mut limits = Limits::default();
            change(&mut limits);
            unchanged(&Limits::default(), &limits)
        };
        for (field, change) in fixed {
            let e = check(*change).unwrap_err();
            assert!(e.kind() == ErrorKind::Invalid && e.to_string().starts_with(field), "{e}");
        }
        check(|l| (l.memory, l.pids, l.cpu_millis, l.cpus) = (None, Some(9), Some(10), Some("0".into()))).unwrap();
    }
}
