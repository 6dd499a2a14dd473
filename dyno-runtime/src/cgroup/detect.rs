//! Where this host has its controllers.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags, flock, mkdirat, open, openat, unlinkat},
    io::Errno,
};

use super::{Controller, Group, group::read_file};
use crate::error::{Context, Error, ErrorKind, Result};

/// How long a group may stay locked by what is about to end.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);

/// One hierarchy and the controllers that we use there.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// Our parent group; every dyno's group holds it too.
    pub dir: Arc<OwnedFd>,
    /// Path of our parent group, for messages.
    pub path: String,
    /// What it limits.
    pub controllers: Vec<Controller>,
    /// The v2 tree.
    pub unified: bool,
}

/// The parent groups of one instance, one per hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    pub(super) hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// Finds memory, pids and cpu in the mount table and makes (or reopens) the group `name` in each.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming the controller that this host lacks; groups that were not there before are gone again then.
    /// With `alone`, [`ErrorKind::Invalid`] when another process has claimed them.
    pub fn open(name: &str, alone: bool) -> Result<Self> {
        let mut this = Self { hierarchies: Vec::new() };
        let opened = this.find(name);
        if opened.is_err() {
            // Of a failed start nothing is left; groups that hold dynos of an earlier one do not go (EBUSY).
            if let Err(e) = this.remove() {
                tracing::debug!(%e, "cgroups of an earlier start stay");
            }
        }
        opened?;
        if alone {
            this.claim()?;
        }
        Ok(this)
    }

    fn find(&mut self, name: &str) -> Result<()> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").wall(|| "read /proc/self/mountinfo".into())?;
        for controller in Controller::ALL {
            let (mount, unified) = locate(&mounts, controller)?;
            let path = format!("{mount}/{name}");
            if let Some(known) = self.hierarchies.iter_mut().find(|h| h.path == path) {
                known.controllers.push(controller);
                continue;
            }
            let root = open(&mount, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("open({mount})"))?;
            make_dir(&root, name).wall(|| format!("cgroup: mkdir({path})"))?;
            let dir = open_dir(&root, name).wall(|| format!("cgroup: open({path})"))?;
            self.hierarchies.push(Hierarchy { dir: Arc::new(dir), path, controllers: vec![controller], unified });
            if unified {
                delegate(&root, &mount)?;
            }
        }
        self.hierarchies.iter().filter(|h| h.unified).try_for_each(|h| delegate(&h.dir, &h.path))
    }

    /// Makes these groups ours alone as long as this handle lives: what is found in them may then be taken for ours.
    fn claim(&self) -> Result<()> {
        let end = Instant::now() + CLAIM_PATIENCE;
        for h in &self.hierarchies {
            loop {
                match flock(&h.dir, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => break,
                    // A start that outlived its killed warden by some milliseconds has copies of its descriptors.
                    Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                    Err(e) => return Err(e).context(ErrorKind::Invalid, || format!("cgroup {}: in use by another instance; give this one another name", h.path)),
                }
            }
        }
        Ok(())
    }

    /// Opens the group of a dyno that an earlier process made, in whatever hierarchies it is there: that process may have been
    /// killed while it made or removed it. None when it is gone.
    ///
    /// # Errors
    /// Of opening it. That is not "gone": a dyno may be running in it.
    pub fn reopen(&self, id: &str) -> Result<Option<Group>> {
        Group::open(self, id)
    }

    /// Names of the groups below ours: those of live dynos and those left over.
    ///
    /// # Errors
    /// Of reading the directories.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for h in &self.hierarchies {
            let dir = rustix::fs::Dir::read_from(&*h.dir).io(|| format!("list {}", h.path))?;
            for entry in dir {
                let entry = entry.io(|| format!("list {}", h.path))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type() == rustix::fs::FileType::Directory && !name.starts_with('.') && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// Removes the parent groups; the host is then as before. They must be empty.
    ///
    /// # Errors
    /// EBUSY while a dyno's group is left.
    pub fn remove(&self) -> Result<()> {
        for h in &self.hierarchies {
            match std::fs::remove_dir(&h.path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).io(|| format!("cgroup: rmdir({})", h.path)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The mount point that serves `controller`, and whether it is the v2 tree.
fn locate(mountinfo: &str, controller: Controller) -> Result<(String, bool)> {
    for line in mountinfo.lines() {
        // proc_pid_mountinfo(5): … mount-point options … - type source super-options
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4) else { continue };
        let mut after = after.split(' ');
        match after.next() {
            Some("cgroup") if after.nth(1).is_some_and(|o| o.split(',').any(|o| o == controller.name())) => {
                return Ok((point.to_owned(), false));
            }
            Some("cgroup2") => {
                let have = std::fs::read_to_string(format!("{point}/cgroup.controllers")).unwrap_or_default();
                if have.split_whitespace().any(|c| c == controller.name()) {
                    return Ok((point.to_owned(), true));
                }
            }
            _ => {}
        }
    }
    let name = controller.name();
    let hint = "mount it (cgroup2 with the controller enabled, or a v1 hierarchy)";
    Err(Error::refused(ErrorKind::Wall, format!("cgroup: this host has no {name} controller mounted; {hint}")))
}

/// v2: lets the children of `dir` have our controllers.
fn delegate(dir: &OwnedFd, path: &str) -> Result<()> {
    let have = read_file(dir, "cgroup.subtree_control").unwrap_or_default();
    for controller in Controller::ALL {
        if !have.split_whitespace().any(|c| c == controller.name()) {
            let value = format!("+{}", controller.name());
            super::group::write_file(dir, "cgroup.subtree_control", &value)
                .wall(|| format!("cgroup: write {value:?} to {path}/cgroup.subtree_control"))?;
        }
    }
    Ok(())
}

/// mkdir that accepts an existing directory.
pub(super) fn make_dir(parent: &OwnedFd, name: &str) -> std::result::Result<(), Errno> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

pub(super) fn open_dir(parent: &OwnedFd, name: &str) -> std::result::Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

pub(super) fn remove_dir(parent: &OwnedFd, name: &str) -> std::result::Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_controllers_are_found_by_their_mount_options() {
        let table = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /nonexistent/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(locate(table, Controller::Cpu).unwrap(), ("/sys/fs/cgroup/cpu,cpuacct".into(), false));
        assert_eq!(locate(table, Controller::Memory).unwrap(), ("/sys/fs/cgroup/memory".into(), false));
        let missing = locate(table, Controller::Pids).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Wall);
        assert!(missing.to_string().contains("no pids controller"), "{missing}");
    }
}
