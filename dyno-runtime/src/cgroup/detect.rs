//! Our parent group in each hierarchy of this host.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    CgroupParent, Controller, Group, Version,
    file::{make_dir, open_dir, read_file, write_file},
    mounts::{self, Mounted},
    parent,
};
use crate::error::{Context, Error, ErrorKind, Result};

/// How long a group may stay locked by what is about to end.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);

/// One hierarchy and what it offers.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// The group below which ours is.
    base: String,
    /// Our parent group.
    pub path: String,
    pub version: Version,
    pub controllers: Vec<Controller>,
    /// Joined by every dyno.
    pub always: bool,
    /// Our parent group, once it is needed; every dyno's group holds it too.
    dir: OnceLock<Arc<OwnedFd>>,
}

/// The parent groups of one instance, one per hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    pub(super) hierarchies: Vec<Hierarchy>,
    name: String,
}

impl Cgroups {
    /// Finds the controllers in the mount table and makes (or reopens) the group `name` below `parent` for those that every dyno
    /// needs.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming the controller that this host lacks; groups that were not there before are gone again then.
    /// With `alone`, [`ErrorKind::Invalid`] when another process has claimed them.
    pub fn open(name: &str, alone: bool, parent: CgroupParent) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").wall(|| "read /proc/self/mountinfo".into())?;
        let cgroup = std::fs::read_to_string("/proc/self/cgroup").wall(|| "read /proc/self/cgroup".into())?;
        Self::open_among(&mounts::hierarchies(&mounts), &cgroup, name, alone, parent)
    }

    pub(super) fn open_among(mounted: &[Mounted], cgroup: &str, name: &str, alone: bool, parent: CgroupParent) -> Result<Self> {
        let place = |mounted| Some(Hierarchy::of(mounted, &parent.place(mounted, cgroup)?, name));
        let this = Self { hierarchies: mounted.iter().filter_map(place).collect(), name: name.to_owned() };
        for controller in Controller::REQUIRED {
            this.offers(controller, parent)?;
        }
        let opened = this.hierarchies.iter().try_for_each(|h| if h.always { h.prepare(name, &Controller::REQUIRED).map(drop) } else { h.look(name).map(drop) });
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

    fn offers(&self, controller: Controller, parent: CgroupParent) -> Result<()> {
        if self.find(controller).is_some() {
            return Ok(());
        }
        let missing = self.missing(controller);
        match parent {
            CgroupParent::Root => Err(missing),
            CgroupParent::Delegated => Err(Error::refused(ErrorKind::Wall, format!("{missing}; was it delegated to this process (Delegate=yes in its unit)?"))),
        }
    }

    /// The hierarchy that has `controller`.
    pub(super) fn find(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.controllers.contains(&controller))
    }

    pub(super) fn missing(&self, controller: Controller) -> Error {
        let (v1, v2) = (controller.name(Version::V1), controller.name(Version::V2));
        let way = match self.hierarchies.iter().find(|h| h.version == Version::V2) {
            Some(tree) => format!("{}/cgroup.controllers does not list it, and there is no v1 hierarchy with it (mount -t cgroup -o {v1})", tree.base),
            None => format!("mount cgroup2 with {v2} enabled, or a v1 hierarchy (mount -t cgroup -o {v1})"),
        };
        Error::refused(ErrorKind::Wall, format!("cgroup: this host has no {v2} controller: {way}"))
    }

    /// The hierarchies in which a dyno that needs `asked` has a group, ready for it.
    pub(super) fn needed(&self, asked: &[Controller]) -> Result<Vec<(&Hierarchy, Arc<OwnedFd>)>> {
        let tree = self.hierarchies.iter().any(|h| h.version == Version::V2);
        let asked: Vec<Controller> = asked.iter().copied().filter(|c| !(tree && *c == Controller::Cpuacct)).collect();
        for controller in &asked {
            self.find(*controller).ok_or_else(|| self.missing(*controller))?;
        }
        let needed = self.hierarchies.iter().filter(|h| h.always || h.controllers.iter().any(|c| asked.contains(c)));
        needed.map(|h| Ok((h, self.prepare(h, &asked)?))).collect()
    }

    pub(super) fn prepare(&self, hierarchy: &Hierarchy, asked: &[Controller]) -> Result<Arc<OwnedFd>> {
        hierarchy.prepare(&self.name, asked)
    }

    /// Our parent groups as far as there are any, those too that an earlier process or another handle made.
    pub(super) fn opened(&self) -> Result<Vec<(&Hierarchy, Arc<OwnedFd>)>> {
        let look = |h| Hierarchy::look(h, &self.name).transpose().map(|dir| Ok((h, dir?)));
        self.hierarchies.iter().filter_map(look).collect()
    }

    /// Makes these groups ours alone as long as this handle lives: what is found in them may then be taken for ours.
    fn claim(&self) -> Result<()> {
        let end = Instant::now() + CLAIM_PATIENCE;
        for (h, dir) in self.opened()?.into_iter().filter(|(h, _)| h.always) {
            loop {
                match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
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
        for (h, dir) in self.opened()? {
            let dir = rustix::fs::Dir::read_from(&*dir).io(|| format!("list {}", h.path))?;
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

    /// Removes the parent groups. They must be empty. What a v2 tree's top was made to hand down stays handed down: others may have
    /// come to rely on it. So does the group `supervisor` of [`CgroupParent::Delegated`].
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

impl Hierarchy {
    fn of(mounted: &Mounted, base: &str, name: &str) -> Self {
        let controllers = match mounted.version {
            Version::V1 => mounted.controllers.clone(),
            // Unreadable: it offers nothing, and a controller that is nowhere else will be missed.
            Version::V2 => mounts::listed(&std::fs::read_to_string(format!("{base}/cgroup.controllers")).unwrap_or_default()),
        };
        let always = mounted.version == Version::V2 || controllers.iter().any(|c| Controller::REQUIRED.contains(c));
        Self { base: base.to_owned(), path: format!("{base}/{name}"), version: mounted.version, controllers, always, dir: OnceLock::new() }
    }

    /// Our parent group if it is there.
    fn look(&self, name: &str) -> Result<Option<Arc<OwnedFd>>> {
        if let Some(dir) = self.dir.get() {
            return Ok(Some(dir.clone()));
        }
        match open_dir(&parent::open_place(&self.base)?, name) {
            Ok(dir) => Ok(Some(self.dir.get_or_init(|| Arc::new(dir)).clone())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).wall(|| format!("cgroup: open({})", self.path)),
        }
    }

    /// Our parent group, made if need be, with what of `asked` this hierarchy has handed down to the groups below.
    fn prepare(&self, name: &str, asked: &[Controller]) -> Result<Arc<OwnedFd>> {
        let ours: Vec<Controller> = asked.iter().copied().filter(|c| self.controllers.contains(c)).collect();
        let dir = match self.dir.get() {
            Some(dir) if self.version == Version::V1 || missing(dir, &ours).is_empty() => return Ok(dir.clone()),
            Some(dir) => dir.clone(),
            None => self.make(name, &ours)?,
        };
        if self.version == Version::V2 {
            hand_down(&parent::open_place(&self.base)?, &self.base, &ours)?;
            hand_down(&dir, &self.path, &ours)?;
        }
        Ok(self.dir.get_or_init(|| dir).clone())
    }

    fn make(&self, name: &str, ours: &[Controller]) -> Result<Arc<OwnedFd>> {
        let root = parent::open_place(&self.base)?;
        if self.version == Version::V2 && !missing(&root, ours).is_empty() {
            parent::step_aside(&root, &self.base)?;
        }
        make_dir(&root, name).wall(|| format!("cgroup: mkdir({})", self.path))?;
        let dir = open_dir(&root, name).wall(|| format!("cgroup: open({})", self.path))?;
        if self.version == Version::V1 && self.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&root, &dir, &self.path)?;
        }
        Ok(Arc::new(dir))
    }
}

/// v1: a new cpuset has no CPUs and no memory, and takes no task before it has both (cpusets.rst, 1.7).
pub(super) fn inherit_cpuset(from: &OwnedFd, to: &OwnedFd, path: &str) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |dir: &OwnedFd| read_file(dir, file).wall(|| format!("cgroup: read {file} of {path} and above"));
        if read(to)?.trim().is_empty() {
            let value = read(from)?;
            write_file(to, file, value.trim()).wall(|| format!("cgroup: write {:?} to {path}/{file}", value.trim()))?;
        }
    }
    Ok(())
}

/// v2: those of `controllers` that the groups below `dir` do not have.
fn missing(dir: &OwnedFd, controllers: &[Controller]) -> Vec<Controller> {
    if controllers.is_empty() {
        return Vec::new();
    }
    let have = mounts::listed(&read_file(dir, "cgroup.subtree_control").unwrap_or_default());
    controllers.iter().copied().filter(|c| !have.contains(c)).collect()
}

/// v2: lets the groups below `dir` have `controllers`.
fn hand_down(dir: &OwnedFd, path: &str, controllers: &[Controller]) -> Result<()> {
    for controller in missing(dir, controllers) {
        let value = format!("+{}", controller.name(Version::V2));
        write_file(dir, "cgroup.subtree_control", &value).wall(|| {
            format!("cgroup: write {value:?} to {path}/cgroup.subtree_control (EBUSY: a group that holds processes cannot; see CgroupParent::Delegated)")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(table: &str) -> Vec<Mounted> {
        mounts::hierarchies(table)
    }

    #[test]
    fn a_missing_controller_is_named() {
        let table = "\
32 31 0:29 / /nonexistent/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /nonexistent/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /nonexistent/unified rw - cgroup2 cgroup2 rw";
        let open = |parent| Cgroups::open_among(&mounted(table), "0::/\n2:cpu,cpuacct:/\n3:memory:/\n", "x", false, parent).unwrap_err();
        let e = open(CgroupParent::Root);
        assert_eq!(e.kind(), ErrorKind::Wall);
        assert!(e.to_string().contains("no pids controller"), "{e}");
        assert!(open(CgroupParent::Delegated).to_string().contains("Delegate=yes"));
    }

    /// A directory of plain files instead of a v2 tree: what is written where, not what the kernel makes of it.
    #[test]
    fn a_v2_tree_hands_down_what_is_asked_for_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        std::fs::write(dir.path().join("cgroup.subtree_control"), "memory pids cpu\n").unwrap();
        std::fs::create_dir(dir.path().join("ours")).unwrap();
        let below = dir.path().join("ours/cgroup.subtree_control");
        std::fs::write(&below, "memory pids cpu\n").unwrap();
        let table = format!("41 31 0:38 / {point} rw - cgroup2 cgroup2 rw");
        let cgroups = Cgroups::open_among(&mounted(&table), "0::/\n", "ours", false, CgroupParent::Root).unwrap();
        assert_eq!(std::fs::read_to_string(&below).unwrap(), "memory pids cpu\n", "nothing was missing");
        let needed = cgroups.needed(&[Controller::Io]).unwrap();
        assert_eq!(needed.len(), 1);
        // A plain file keeps the rest of its text.
        assert_eq!(std::fs::read_to_string(&below).unwrap(), "+ioory pids cpu\n");
        let e = cgroups.needed(&[Controller::Hugetlb]).unwrap_err();
        assert!(e.to_string().contains("no hugetlb controller"), "{e}");
    }
}
