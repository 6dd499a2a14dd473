//! A group in one hierarchy: a directory, reached by its descriptor.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, mkdirat, openat},
    io::Errno,
};

use super::{
    Controller, Version,
    detect::{Hierarchy, inherit_cpuset},
    file::{open_dir, open_file, read_file, read_from_start, remove_dir, value_of, write_file},
    group::LOOKS,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// The directory of a group in one hierarchy.
#[derive(Debug)]
pub(super) struct Part {
    pub dir: OwnedFd,
    pub(super) home: Arc<Hierarchy>,
    pub(super) name: String,
    /// Files of limits that were opened ahead.
    pub ready: Vec<(&'static str, OwnedFd)>,
}

impl Part {
    /// # Errors
    /// EEXIST when there is one of that name; nothing is left behind.
    pub fn make(h: &Arc<Hierarchy>, name: &str) -> Result<Self> {
        let path = || format!("{}/{name}", h.site.path);
        mkdirat(&h.dir, name, Mode::from_raw_mode(0o755)).wall(|| format!("cgroup: mkdir({})", path()))?;
        let made = open_dir(&h.dir, name).wall(|| format!("cgroup: open({})", path())).and_then(|dir| {
            let part = Self { dir, home: h.clone(), name: name.to_owned(), ready: Vec::new() };
            if part.version() == Version::V1 && part.controllers().contains(&Controller::Cpuset) {
                inherit_cpuset(&h.dir, &part.dir, &part.path())?;
            }
            Ok(part)
        });
        made.inspect_err(|_| remove_dir(&h.dir, name).unwrap_or_default())
    }

    /// The one that is `name`'s; None when there is no such group.
    pub fn open(h: &Arc<Hierarchy>, name: &str) -> Result<Option<Self>> {
        if let Some(part) = Self::at(h, name)? {
            return Ok(Some(part));
        }
        h.directory_of(name)?.map_or(Ok(None), |directory| Self::at(h, &directory))
    }

    /// The one in the directory `name`.
    pub fn at(h: &Arc<Hierarchy>, name: &str) -> Result<Option<Self>> {
        match open_dir(&h.dir, name) {
            Ok(dir) => Ok(Some(Self { dir, home: h.clone(), name: name.to_owned(), ready: Vec::new() })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).wall(|| format!("cgroup: open({}/{name})", h.site.path)),
        }
    }

    /// Of its directory, which is not always the dyno's id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For messages.
    pub fn path(&self) -> String {
        format!("{}/{}", self.home.site.path, self.name)
    }

    pub fn version(&self) -> Version {
        self.home.site.version
    }

    pub fn controllers(&self) -> &[Controller] {
        &self.home.site.controllers
    }

    /// Our parent group.
    pub fn parent(&self) -> &OwnedFd {
        &self.home.dir
    }

    /// Its `tasks` file (v1): `0` in it moves the thread that writes it.
    pub fn entrance(&self) -> Result<OwnedFd> {
        openat(&self.dir, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("cgroup: open({}/tasks)", self.path()))
    }

    /// Of a group that was removed meanwhile (ENODEV): none.
    pub fn pids(&self) -> Result<Vec<u32>> {
        match read_file(&self.dir, "cgroup.procs") {
            Err(Errno::NODEV) => Ok(Vec::new()),
            other => Ok(other.io(|| format!("cgroup: read {}/cgroup.procs", self.path()))?.lines().filter_map(|l| l.parse().ok()).collect()),
        }
    }

    /// A file of the group above, which is our parent group.
    pub fn above(&self, file: &str) -> Result<String> {
        read_file(self.parent(), file).wall(|| format!("cgroup: read {file} above {}", self.path()))
    }

    /// Undoes a late join: its processes go back to the group above, and it is removed.
    pub fn send_away(&self) -> Result<()> {
        for _ in 0..LOOKS {
            for pid in self.pids()? {
                match write_file(self.parent(), "cgroup.procs", &pid.to_string()) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(e) => return Err(e).wall(|| format!("cgroup: write {pid} to {}/../cgroup.procs", self.path())),
                }
            }
            match remove_dir(self.parent(), &self.name) {
                Err(Errno::BUSY) => {}
                other => return other.io(|| format!("cgroup: rmdir({})", self.path())),
            }
        }
        Err(Error::call(ErrorKind::Io, format!("cgroup: rmdir({})", self.path()), Errno::BUSY))
    }

    /// Waits until it is told to be empty, but not longer than `pause`.
    pub fn wait_for_empty(&self, pause: Duration) {
        if self.version() == Version::V1 {
            return std::thread::sleep(pause);
        }
        let populated = |events: &OwnedFd| read_from_start(events).is_ok_and(|text| value_of(&text, "populated") == Some(1));
        match (open_file(&self.dir, "cgroup.events"), Timespec::try_from(pause)) {
            // Reading arms the notification (kernfs). Whatever poll says, rmdir is tried again.
            (Ok(events), Ok(pause)) if populated(&events) => drop(poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&pause))),
            _ => std::thread::sleep(pause),
        }
    }

    /// SIGKILL to each process in it, by a descriptor that pins the process while the group still lists it.
    pub fn kill_each(&self) -> Result<()> {
        for pid in self.pids()? {
            let Some(pin) = sys::pin(pid).io(|| format!("pidfd_open({pid})"))? else { continue };
            if self.pids()?.contains(&pid) {
                crate::dyno::kill_and_reap(pin.as_fd());
            }
        }
        Ok(())
    }
}
