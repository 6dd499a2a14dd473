//! Our parent group in each hierarchy of this host.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Access, FlockOperation, access, flock},
    io::Errno,
};

use super::{
    CgroupParent, Controller, Group, Version,
    file::{make_dir, open_dir, read_file, remove_dir, write_file},
    mounts::{self, Mounted},
    parent,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    host::HostOptions,
};

/// How long a group may stay locked by what is about to end.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);

/// One hierarchy, what it offers, and our parent group in it; every dyno's group holds that too.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub site: Site,
    pub dir: OwnedFd,
}

/// Where our parent group is or is going to be.
#[derive(Debug)]
pub(super) struct Site {
    /// The group below which ours is.
    base: String,
    /// Our parent group.
    pub path: String,
    pub version: Version,
    pub controllers: Vec<Controller>,
    /// Joined by every dyno.
    pub always: bool,
}

/// The parent groups of one instance, one per hierarchy. A clone stands for the same ones.
#[derive(Debug, Clone)]
pub struct Cgroups {
    pub(super) hierarchies: Vec<Arc<Hierarchy>>,
}

/// Controllers that a user was not given, and why.
pub(crate) type Withheld = Vec<(Controller, String)>;

impl Cgroups {
    /// Finds the controllers in the mount table and makes (or reopens) the group `name` below `options.cgroups` in each hierarchy that has one
    /// of use. Those that not every dyno needs may be absent.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming the controller that this host lacks; groups that were not there before are gone again then.
    /// With `options.alone`, [`ErrorKind::Invalid`] when another process has claimed them.
    pub fn open(name: &str, options: &HostOptions) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").wall(|| "read /proc/self/mountinfo".into())?;
        let cgroup = std::fs::read_to_string("/proc/self/cgroup").wall(|| "read /proc/self/cgroup".into())?;
        Self::open_among(&mounts::hierarchies(&mounts), &cgroup, name, options)
    }

    pub(super) fn open_among(mounted: &[Mounted], cgroup: &str, name: &str, options: &HostOptions) -> Result<Self> {
        let sites = found(mounted, cgroup, name, options)?;
        must_have_required(&sites, options.cgroups)?;
        Self::open_at(sites, name, options.alone)
    }

    /// What an unprivileged user was given of control groups, if it is anything, and which controllers it was not, each with a reason.
    ///
    /// # Errors
    /// When the mount table cannot be read; with `alone`, [`ErrorKind::Invalid`] when another process has claimed the groups.
    pub(crate) fn granted(name: &str, alone: bool) -> Result<(Option<Self>, Withheld)> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").wall(|| "read /proc/self/mountinfo".into())?;
        let cgroup = std::fs::read_to_string("/proc/self/cgroup").wall(|| "read /proc/self/cgroup".into())?;
        let options = HostOptions { cgroups: CgroupParent::Delegated, alone, ..HostOptions::default() };
        let all = found(&mounts::hierarchies(&mounts), &cgroup, name, &options)?;
        let (ours, others): (Vec<Site>, Vec<Site>) = all.into_iter().partition(|site| access(&site.base, Access::WRITE_OK).is_ok());
        let tree = ours.iter().any(|site| site.version == Version::V2);
        let has =
            |c: Controller| ours.iter().any(|site| site.controllers.contains(&c)) || (tree && matches!(c, Controller::Cpuacct | Controller::Freezer));
        let why = |c: Controller| match others.iter().find(|site| site.controllers.contains(&c)) {
            Some(site) => format!("cgroup {} is not this user's", site.base),
            None => match ours.iter().chain(&others).find(|site| site.version == Version::V2) {
                Some(tree) => format!("cgroup {} has no {} controller handed down", tree.base, c.name(Version::V2)),
                None => format!("no control group that this user may use has the {} controller", c.name(Version::V2)),
            },
        };
        let lacking: Vec<_> = Controller::KNOWN.into_iter().filter(|c| !has(*c)).map(|c| (c, why(c))).collect();
        if Controller::REQUIRED.iter().all(|c| !has(*c)) {
            return Ok((None, lacking));
        }
        match Self::open_at(ours, name, alone) {
            Ok(this) => Ok((Some(this), lacking)),
            Err(e) if e.kind() == ErrorKind::Invalid => Err(e),
            Err(e) => Ok((None, Controller::KNOWN.map(|c| (c, e.to_string())).into())),
        }
    }

    fn open_at(sites: Vec<Site>, name: &str, alone: bool) -> Result<Self> {
        let mut this = Self { hierarchies: Vec::with_capacity(sites.len()) };
        let opened = sites.into_iter().try_for_each(|site| {
            let dir = site.make(name)?;
            this.hierarchies.push(Arc::new(Hierarchy { site, dir }));
            Ok(())
        });
        let claimed = opened.and_then(|()| if alone { this.claim() } else { Ok(()) });
        if let Err(e) = claimed.and_then(|()| this.clear_spares()) {
            // Of a failed start nothing is left; groups that hold dynos of an earlier one do not go (EBUSY).
            if e.kind() != ErrorKind::Invalid
                && let Err(e) = this.remove()
            {
                tracing::debug!(%e, "cgroups of an earlier start stay");
            }
            return Err(e);
        }
        Ok(this)
    }

    /// The hierarchy that is to be used for `controller`: one that is joined anyway; of others, to freeze the v2 tree, which tells when
    /// that is done, and to count time v1, which is cheaper to join.
    pub(super) fn find(&self, controller: Controller) -> Option<&Arc<Hierarchy>> {
        let candidates = self.hierarchies.iter().filter(|h| h.site.controllers.contains(&controller));
        candidates.min_by_key(|h| (!h.site.always, (controller == Controller::Freezer) != (h.site.version == Version::V2)))
    }

    pub(super) fn missing(&self, controller: Controller) -> Error {
        missing(controller, self.hierarchies.iter().map(|h| &h.site))
    }

    /// The hierarchies in which a dyno that needs `asked` has a group, ready for it.
    pub(super) fn needed(&self, asked: &[Controller]) -> Result<Vec<&Arc<Hierarchy>>> {
        let mut used = Vec::with_capacity(asked.len());
        for controller in asked {
            let hierarchy = self.find(*controller).ok_or_else(|| self.missing(*controller))?;
            hierarchy.offer(*controller)?;
            used.push(&hierarchy.site.path);
        }
        Ok(self.hierarchies.iter().filter(|h| h.site.always || used.contains(&&h.site.path)).collect())
    }

    /// Makes these groups ours alone as long as this handle lives: what is found in them may then be taken for ours.
    fn claim(&self) -> Result<()> {
        let end = Instant::now() + CLAIM_PATIENCE;
        for hierarchy in &self.hierarchies {
            let Hierarchy { site, dir } = &**hierarchy;
            loop {
                match flock(dir, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => break,
                    // A start that outlived its killed warden by some milliseconds has copies of its descriptors.
                    Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                    Err(e) => {
                        return Err(e)
                            .context(ErrorKind::Invalid, || format!("cgroup {}: in use by another instance; give this one another name", site.path));
                    }
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

    /// Names of the groups below ours: those of live dynos and those left over. What is nobody's yet ([`Spare`](super::Spare)) has none.
    ///
    /// # Errors
    /// Of reading the directories.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for hierarchy in &self.hierarchies {
            for entry in hierarchy.entries()? {
                let name = if entry.starts_with('.') { hierarchy.owner(&entry)? } else { Some(entry) };
                names.extend(name.filter(|name| !names.contains(name)));
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
        self.clear_spares()?;
        for Hierarchy { site, .. } in self.hierarchies.iter().map(|h| &**h) {
            match std::fs::remove_dir(&site.path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).io(|| format!("cgroup: rmdir({})", site.path)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The hierarchies that are of use here.
fn found(mounted: &[Mounted], cgroup: &str, name: &str, options: &HostOptions) -> Result<Vec<Site>> {
    let places = mounted.iter().filter_map(|m| Some((m, options.cgroups.place(m, cgroup)?)));
    places.map(|(m, base)| Site::of(m, &base, name, options.v2_tree)).collect()
}

fn must_have_required(sites: &[Site], parent: CgroupParent) -> Result<()> {
    for controller in Controller::REQUIRED {
        if !sites.iter().any(|site| site.controllers.contains(&controller)) {
            return Err(match parent {
                CgroupParent::Root => missing(controller, sites.iter()),
                CgroupParent::Delegated => {
                    let name = controller.name(Version::V2);
                    Error::refused(
                        ErrorKind::Wall,
                        format!("cgroup: the {name} controller was not delegated to this process (Delegate=yes in its unit)"),
                    )
                }
            });
        }
    }
    Ok(())
}

fn missing<'s>(controller: Controller, mut sites: impl Iterator<Item = &'s Site>) -> Error {
    let (v1, v2) = (controller.name(Version::V1), controller.name(Version::V2));
    let way = match sites.find(|site| site.version == Version::V2) {
        Some(tree) => format!("{}/cgroup.controllers does not list it, and there is no v1 hierarchy with it (mount -t cgroup -o {v1})", tree.base),
        None => format!("mount cgroup2 with {v2} enabled, or a v1 hierarchy (mount -t cgroup -o {v1})"),
    };
    Error::refused(ErrorKind::Wall, format!("cgroup: this host has no {v2} controller: {way}"))
}

impl Site {
    fn of(mounted: &Mounted, base: &str, name: &str, v2_tree: bool) -> Result<Self> {
        let controllers = match mounted.version {
            Version::V1 => mounted.controllers.clone(),
            Version::V2 => {
                let file = format!("{base}/cgroup.controllers");
                let mut listed = mounts::listed(&std::fs::read_to_string(&file).wall(|| format!("cgroup: read {file}"))?);
                listed.extend(Controller::BUILT_IN);
                listed
            }
        };
        let always = (v2_tree && mounted.version == Version::V2) || controllers.iter().any(|c| Controller::REQUIRED.contains(c));
        Ok(Self { base: base.to_owned(), path: format!("{base}/{name}"), version: mounted.version, controllers, always })
    }

    /// Our parent group, with what every dyno needs of this hierarchy handed down to the groups below.
    fn make(&self, name: &str) -> Result<OwnedFd> {
        let base = parent::open_place(&self.base)?;
        let needed: Vec<Controller> = Controller::REQUIRED.into_iter().filter(|c| self.controllers.contains(c)).collect();
        if self.version == Version::V2 && !withheld(&base, &self.base, &needed)?.is_empty() {
            parent::step_aside(&base, &self.base)?;
        }
        make_dir(&base, name).wall(|| format!("cgroup: mkdir({})", self.path))?;
        let opened = open_dir(&base, name).wall(|| format!("cgroup: open({})", self.path)).and_then(|dir| {
            match self.version {
                Version::V1 if self.controllers.contains(&Controller::Cpuset) => inherit_cpuset(&base, &dir, &self.path)?,
                Version::V1 => {}
                Version::V2 => {
                    hand_down(&base, &self.base, &needed)?;
                    hand_down(&dir, &self.path, &needed)?;
                }
            }
            Ok(dir)
        });
        // Unless it holds an earlier dyno.
        opened.inspect_err(|_| remove_dir(&base, name).unwrap_or_default())
    }
}

impl Hierarchy {
    /// Names of the directories below our parent group.
    pub fn entries(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).io(|| format!("list {}", self.site.path))? {
            let entry = entry.io(|| format!("list {}", self.site.path))?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == rustix::fs::FileType::Directory && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Has a controller handed down to the groups of dynos; of v1 they all are.
    pub fn offer(&self, controller: Controller) -> Result<()> {
        let Site { base, path, version, .. } = &self.site;
        if *version == Version::V1 || Controller::BUILT_IN.contains(&controller) || withheld(&self.dir, path, &[controller])?.is_empty() {
            return Ok(());
        }
        hand_down(&parent::open_place(base)?, base, &[controller])?;
        hand_down(&self.dir, path, &[controller])
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
fn withheld(dir: &OwnedFd, path: &str, controllers: &[Controller]) -> Result<Vec<Controller>> {
    if controllers.is_empty() {
        return Ok(Vec::new());
    }
    let have = mounts::listed(&read_file(dir, "cgroup.subtree_control").wall(|| format!("cgroup: read {path}/cgroup.subtree_control"))?);
    Ok(controllers.iter().copied().filter(|c| !have.contains(c)).collect())
}

/// v2: lets the groups below `dir` have `controllers`.
fn hand_down(dir: &OwnedFd, path: &str, controllers: &[Controller]) -> Result<()> {
    for controller in withheld(dir, path, controllers)? {
        let value = format!("+{}", controller.name(Version::V2));
        write_file(dir, "cgroup.subtree_control", &value).wall(|| {
            format!(
                "cgroup: write {value:?} to {path}/cgroup.subtree_control (EBUSY: a group that holds processes cannot; see CgroupParent::Delegated)"
            )
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
35 31 0:32 / /nonexistent/memory rw - cgroup cgroup rw,memory";
        let open = |parent| {
            Cgroups::open_among(
                &mounted(table),
                "0::/\n2:cpu,cpuacct:/\n3:memory:/\n",
                "x",
                &HostOptions { cgroups: parent, ..HostOptions::default() },
            )
            .unwrap_err()
        };
        let e = open(CgroupParent::Root);
        assert_eq!(e.kind(), ErrorKind::Wall);
        assert!(e.to_string().contains("no pids controller"), "{e}");
        assert!(open(CgroupParent::Delegated).to_string().contains("Delegate=yes"));
        let tree = mounted("41 31 0:38 / /nonexistent/unified rw - cgroup2 cgroup2 rw");
        let e = Cgroups::open_among(&tree, "", "x", &HostOptions::default()).unwrap_err();
        assert!(e.to_string().starts_with("cgroup: read /nonexistent/unified/cgroup.controllers: "), "{e}");
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
        let cgroups = Cgroups::open_among(&mounted(&table), "0::/\n", "ours", &HostOptions::default()).unwrap();
        assert_eq!(std::fs::read_to_string(&below).unwrap(), "memory pids cpu\n", "nothing was missing");
        let needed = cgroups.needed(&[Controller::Io]).unwrap();
        assert_eq!(needed.len(), 1);
        // A plain file keeps the rest of its text.
        assert_eq!(std::fs::read_to_string(&below).unwrap(), "+ioory pids cpu\n");
        let e = cgroups.needed(&[Controller::Hugetlb]).unwrap_err();
        assert!(e.to_string().contains("no hugetlb controller"), "{e}");
    }
}
