//! The mounts of a container: opened outside, attached inside, by descriptors only.
//!
//! The runtime calls [`Prepared::open`] while it still has the host's mounts and ids: the root, the sources of bind mounts, the device files and
//! the ids of shifted mounts become detached trees. The container's first process, in its new mount namespace, calls [`Prepared::raise`]
//! (everything attached below the root, where the host is still in reach for the hooks), then [`Root::enter`] (nothing but the root is left),
//! then [`Inside::protect`].
//!
//! An image may hold anything, and another container may share parts of it and change them meanwhile. So a destination is resolved once, by
//! openat2(2) below the root, and used as a descriptor ([`place`]); proc and sysfs go to directories that are reached without a symlink;
//! `/dev` is a file system of our own, furnished before it is attached; no object of an image is ever the source of a mount.

mod ahead;
mod cgroups;
mod copy_up;
mod dev;
mod enter;
mod fs;
mod ids;
mod place;
mod proc;
mod protect;
mod tree;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat},
    io::Errno,
    mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount},
};

pub use self::{
    ahead::{attach_ahead, pivot_ahead},
    enter::Inside,
};
use self::{
    fs::FileSystem,
    ids::Shifts,
    place::{Identity, Want},
};
use super::{
    cgroup,
    plan::{Container, Mount, Namespace, Source},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, MountAttr},
};

/// What the host gives to a container, opened.
#[derive(Debug)]
pub struct Prepared {
    /// The root; None when only the child may clone it.
    root: Option<OwnedFd>,
    /// One for each mount of the container: a bind mount's tree, `/dev` furnished, or what stands in for a file system that a user
    /// namespace refuses.
    trees: Vec<Option<OwnedFd>>,
    /// Whether `/dev` is among them.
    furnished: bool,
    /// Whether the host has one tree of control groups, where it matters.
    unified: bool,
    /// The root is attached, and nothing of the host's is in reach any more ([`ahead`]).
    pub entered: bool,
}

/// The root of a container with everything attached.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// To be made read-only when nothing more is to be made in them.
    late: Vec<OwnedFd>,
    null: Option<OwnedFd>,
    readonly: bool,
    propagation: Option<u64>,
    /// Whether the mount namespace is the container's own.
    own: bool,
    /// Whether this process is in it already.
    entered: bool,
    /// Where the host has it.
    path: std::path::PathBuf,
}

impl Prepared {
    /// Clones the root, first of all. Changes nothing.
    ///
    /// # Errors
    /// Of the calls.
    pub fn root(container: &Container) -> Result<Self> {
        Ok(Self {
            root: allowed(open_root(container))?,
            trees: Vec::with_capacity(container.mounts.len()),
            furnished: false,
            unified: false,
            entered: false,
        })
    }

    /// Opens everything else that the host has to give. Changes nothing.
    ///
    /// # Errors
    /// A source that is missing or cannot be cloned, ids that cannot be shifted; each names its mount.
    pub fn open(&mut self, container: &Container) -> Result<()> {
        let mut shifts = Shifts::default();
        for mount in &container.mounts {
            let tree = match &mount.source {
                Source::Bind { path, recursive } => allowed(bind(mount, path, *recursive, container, &mut shifts))?,
                _ if mount.idmap.is_some() => {
                    return Err(Error::refused(ErrorKind::Invalid, format!("{}: only bind mounts can be idmapped", name(mount))));
                }
                Source::FileSystem { .. } if dev::is_own(mount, container) => {
                    let dev = dev::furnish(mount, container)?;
                    self.furnished = dev.is_some();
                    dev
                }
                Source::FileSystem { kind, .. } => stand_in(kind, container),
                Source::Cgroup => {
                    self.unified = cgroups::is_unified(&name(mount))?;
                    None
                }
            };
            self.trees.push(tree);
        }
        Ok(())
    }
}

/// Without privilege over our mount namespace (EPERM) the child does it, which has privilege over its own.
fn allowed<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(e) if e.errno() == Some(Errno::PERM) => Ok(None),
        other => other.map(Some),
    }
}

fn open_root(container: &Container) -> Result<OwnedFd> {
    let what = || format!("root {}", container.rootfs.display());
    let tree = tree::open(&container.rootfs, true).wall(|| format!("{}: open_tree", what()))?;
    // What is mounted below it comes and goes with the host; the root itself must be nobody's peer, or pivot_root(2) refuses it.
    let base = Some(tree::base_propagation(container)).filter(|p| *p != 0).unwrap_or(tree::SLAVE);
    tree::change(tree.as_fd(), true, MountAttr { propagation: base, ..MountAttr::default() }, &what())?;
    if base == tree::SLAVE && container.root_propagation.map(|p| p & !libc::MS_REC) != Some(tree::SLAVE) {
        tree::change(tree.as_fd(), false, MountAttr { propagation: sys::PRIVATE, ..MountAttr::default() }, &what())?;
    }
    Ok(tree)
}

fn bind(mount: &Mount, path: &Path, recursive: bool, container: &Container, shifts: &mut Shifts) -> Result<OwnedFd> {
    let what = name(mount);
    let tree = tree::open(path, recursive).wall(|| format!("{what}: open_tree({})", path.display()))?;
    tree::dress(tree.as_fd(), mount, recursive, container, shifts, &what)?;
    Ok(tree)
}

/// In a user namespace that does not own the network or process namespace, a new sysfs or proc is refused (EPERM): then the host's.
fn stand_in(kind: &str, container: &Container) -> Option<OwnedFd> {
    let (path, namespace) = match kind {
        "sysfs" => (Path::new("/sys"), &container.namespaces.network),
        "proc" => (Path::new("/proc"), &container.namespaces.pid),
        _ => return None,
    };
    let refused = container.namespaces.user != Namespace::Host && *namespace != Namespace::New;
    // What cannot be cloned is no loss yet: the mount may well be granted.
    refused.then(|| tree::open(path, true).ok()).flatten()
}

/// A mount for error messages.
fn name(mount: &Mount) -> String {
    let to = mount.destination.display();
    match &mount.source {
        Source::Bind { path, .. } => format!("mount {to} (bind of {})", path.display()),
        Source::FileSystem { kind, .. } => format!("mount {to} ({kind})"),
        Source::Cgroup => format!("mount {to} (cgroup)"),
    }
}

impl Prepared {
    /// Attaches the root where the host has it, in this process's mount namespace, and below it every mount, the device files and the
    /// links of `/dev`; makes the working directory of the process if it is missing. `groups` are the container's.
    ///
    /// # Errors
    /// Of the calls, each with its mount.
    pub fn raise(self, container: &Container, groups: &cgroup::Record) -> Result<Root> {
        let own = container.namespaces.mount == Namespace::New;
        if own && !self.entered {
            // Nothing that is mounted here from now on is seen outside.
            mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).wall(|| "mount(/, MS_SLAVE | MS_REC)".into())?;
        }
        // Modes are exact.
        let umask = rustix::process::umask(Mode::empty());
        let raised = self.raise_all(container, groups, own);
        rustix::process::umask(umask);
        raised
    }

    fn raise_all(mut self, container: &Container, groups: &cgroup::Record, own: bool) -> Result<Root> {
        let fd = match self.root.take() {
            Some(tree) => tree,
            None => open_root(container)?,
        };
        let below = mount_below(container)?;
        if !self.entered {
            attach_root(fd.as_fd(), container)?;
        }
        let raised = self.furnish(fd, container, groups, own);
        if let (Err(_), Some(below)) = (&raised, below) {
            detach(&container.rootfs, below)?;
        }
        raised
    }

    fn furnish(mut self, fd: OwnedFd, container: &Container, groups: &cgroup::Record, own: bool) -> Result<Root> {
        let mut raising = Raising {
            root: Identity::of(fd.as_fd()).wall(|| "statx(root)".into())?,
            fd,
            container,
            groups,
            unified: self.unified,
            late: Vec::new(),
            dev: None,
        };
        for (mount, tree) in container.mounts.iter().zip(std::mem::take(&mut self.trees)) {
            raising.mount(mount, tree)?;
        }
        dev::complete(raising.fd.as_fd(), container, self.furnished)?;
        if let Some(process) = &container.process {
            // What is wrong with it is said by chdir(2) later, in the words that clients know.
            let _made = place::ensure(raising.fd.as_fd(), &process.cwd, Want::Directory);
        }
        let Raising { fd, late, dev, .. } = raising;
        let (readonly, propagation) = (container.readonly_root, container.root_propagation);
        let null = if container.masked.is_empty() { None } else { Some(dev::null(dev.as_ref(), self.entered)?) };
        Ok(Root { fd, late, null, readonly, propagation, own, entered: self.entered, path: container.rootfs.clone() })
    }
}

/// The mount that the root is on, for a container whose mounts will be the host's too; None for every other.
///
/// # Errors
/// Of openat(2) and statx(2).
pub fn mount_below(container: &Container) -> Result<Option<u64>> {
    let root = &container.rootfs;
    (container.namespaces.mount == Namespace::Host).then(|| mount_of(root).wall(|| format!("root {}: statx", root.display()))).transpose()
}

fn mount_of(path: &Path) -> std::result::Result<u64, Errno> {
    let fd = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Identity::of(fd.as_fd()).map(|is| is.mount)
}

/// Takes off a root that was raised in the host's mount namespace, and with it everything that was mounted in it; what is mounted there
/// otherwise, `below`, stays.
///
/// # Errors
/// Of umount2(2).
pub fn detach(root: &Path, below: u64) -> Result<()> {
    match mount_of(root) {
        Ok(mount) if mount != below => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e).io(|| format!("root {}: statx", root.display())),
    }
    unmount(root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).io(|| format!("umount2({}, MNT_DETACH)", root.display()))
}

fn attach_root(tree: BorrowedFd<'_>, container: &Container) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let what = |call: &str| format!("root {}: {call}", container.rootfs.display());
    let point = match openat(CWD, &container.rootfs, flags, Mode::empty()) {
        // Ids of a user namespace need not be let through to where the host has it. Over the host's root it is as good: a root is left
        // by pivot_root(2) whatever lies over it.
        Err(Errno::ACCESS) => openat(CWD, c"/", flags, Mode::empty()),
        other => other,
    };
    attach(tree, point.wall(|| what("open"))?.as_fd()).wall(|| what("move_mount"))
}

/// Attaches a detached tree, by descriptors alone.
fn attach(tree: BorrowedFd<'_>, at: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    move_mount(tree, c"", at, c"", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

/// A root that is being furnished.
struct Raising<'a> {
    fd: OwnedFd,
    root: Identity,
    container: &'a Container,
    groups: &'a cgroup::Record,
    /// Whether the host has one tree of control groups.
    unified: bool,
    late: Vec<OwnedFd>,
    /// A `/dev` that we have furnished.
    dev: Option<OwnedFd>,
}

impl Raising<'_> {
    fn mount(&mut self, mount: &Mount, tree: Option<OwnedFd>) -> Result<()> {
        let what = name(mount);
        match (&mount.source, tree) {
            (Source::Bind { .. }, Some(tree)) => self.attach_bind(mount, tree, &what),
            (Source::Bind { path, recursive }, None) => {
                let tree = bind(mount, path, *recursive, self.container, &mut Shifts::default())?;
                self.attach_bind(mount, tree, &what)
            }
            (Source::FileSystem { kind, source }, tree) => self.file_system(mount, kind, source, tree, &what),
            (Source::Cgroup, _) => cgroups::mount(self, mount, &what),
        }
    }

    fn attach_bind(&self, mount: &Mount, tree: OwnedFd, what: &str) -> Result<()> {
        let is_directory = Identity::of(tree.as_fd()).wall(|| format!("{what}: statx(source)"))?.is_directory();
        let (place, there) = self.place(mount, if is_directory { Want::Directory } else { Want::File }, what)?;
        proc::check_bind(mount, tree.as_fd(), place.as_fd(), what)?;
        if there.is_directory() != is_directory {
            return Err(Error::call(
                ErrorKind::Wall,
                format!("{what}: the source is {} directory, the destination is not alike", if is_directory { "a" } else { "no" }),
                Errno::NOTDIR,
            ));
        }
        attach(tree.as_fd(), place.as_fd()).wall(|| format!("{what}: move_mount"))
    }

    /// The destination of a mount, made if it is missing.
    fn place(&self, mount: &Mount, want: Want, what: &str) -> Result<(OwnedFd, Identity)> {
        self.place_at(&mount.destination, want, what).map(|(place, there, _)| (place, there))
    }

    /// A destination, what it is, and whether it existed.
    fn place_at(&self, path: &Path, want: Want, what: &str) -> Result<(OwnedFd, Identity, bool)> {
        let place = match place::ensure(self.fd.as_fd(), path, want) {
            Err(Errno::LOOP | Errno::NOTDIR) if want == Want::PlainDirectory => {
                return Err(Error::refused(ErrorKind::Invalid, format!("{what} must be mounted on ordinary directory")));
            }
            other => other.wall(|| format!("{what}: make the mount point {} below the root", path.display()))?,
        };
        let there = Identity::of(place.fd.as_fd()).wall(|| format!("{what}: statx(mount point)"))?;
        if there.is(&self.root) {
            return Err(Error::refused(ErrorKind::Invalid, format!("{what}: the mount point is the top of the root")));
        }
        Ok((place.fd, there, place.existed))
    }

    fn file_system(&mut self, mount: &Mount, kind: &str, source: &str, tree: Option<OwnedFd>, what: &str) -> Result<()> {
        let want = if matches!(kind, "proc" | "sysfs") { Want::PlainDirectory } else { Want::Directory };
        let (place, there, existed) = self.place_at(&mount.destination, want, what)?;
        if kind != "proc" {
            proc::check(&mount.destination, place.as_fd(), what)?;
        }
        if !there.is_directory() {
            return Err(Error::refused(ErrorKind::Invalid, format!("{what} must be mounted on ordinary directory")));
        }
        let late = (mount.set | mount.set_recursive) & sys::RDONLY != 0 && (kind == "tmpfs" || mount.destination == Path::new("/dev"));
        let attributes = (mount.set | mount.set_recursive) & !if late { sys::RDONLY } else { 0 };
        let is_dev = dev::is_own(mount, self.container) && tree.is_some();
        let mode = (kind == "tmpfs" && existed).then_some(there.mode & 0o7777);
        let made = if is_dev { None } else { Some(FileSystem { kind, source, data: data(mount, kind, mode, self.container), attributes }) };
        let tree = match (made, tree) {
            (None, Some(dev)) => dev,
            (Some(fs), _) if !fs.fits() => return self.by_path(mount, &fs, place, what),
            (Some(fs), spare) => match (fs.make(what), spare) {
                (Err(e), Some(spare)) if e.errno() == Some(Errno::PERM) => {
                    tree::change(spare.as_fd(), true, MountAttr { set: attributes, propagation: tree::SLAVE, ..MountAttr::default() }, what)?;
                    spare
                }
                (made, _) => made?,
            },
            (None, None) => return Err(Error::refused(ErrorKind::Wall, format!("{what}: nothing to mount"))),
        };
        tree::propagate(tree.as_fd(), &mount.propagation, what)?;
        if mount.copy_up && existed {
            copy_up::copy(place.as_fd(), tree.as_fd(), what)?;
        }
        attach(tree.as_fd(), place.as_fd()).wall(|| format!("{what}: move_mount"))?;
        if late {
            self.late.push(tree.try_clone().io(|| format!("{what}: dup"))?);
        }
        if is_dev {
            self.dev = Some(tree);
        }
        Ok(())
    }

    /// By mount(2), on the directory that is `place`: it is the working directory meanwhile, so no path is resolved a second time.
    fn by_path(&self, mount: &Mount, fs: &FileSystem<'_>, place: OwnedFd, what: &str) -> Result<()> {
        rustix::process::fchdir(&place).wall(|| format!("{what}: fchdir(mount point)"))?;
        let made = fs.make_at(Path::new("."), what);
        rustix::process::chdir(c"/").wall(|| "chdir(/)".into())?;
        made?;
        let over = place::find(self.fd.as_fd(), &mount.destination, ResolveFlags::empty()).wall(|| format!("{what}: open what was mounted"))?;
        let (below, above) = (Identity::of(place.as_fd()), Identity::of(over.as_fd()));
        if below.wall(|| format!("{what}: statx"))?.mount == above.wall(|| format!("{what}: statx"))?.mount {
            return Err(Error::refused(ErrorKind::Wall, format!("{what}: its mount point was moved meanwhile")));
        }
        tree::change(over.as_fd(), false, MountAttr { set: fs.attributes, ..MountAttr::default() }, what)?;
        tree::propagate(over.as_fd(), &mount.propagation, what)
    }
}

/// The options of a file system: those of the configuration, the mode of what a tmpfs covers, the label.
fn data<'a>(mount: &'a Mount, kind: &str, mode: Option<u32>, container: &Container) -> Vec<(&'a str, Option<String>)> {
    let mut data: Vec<(&str, Option<String>)> = mount.data.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    if kind == "devpts" && container.namespaces.user == Namespace::New {
        // Terminals of a group that is not mapped (one id may be all that a user has): theirs who open them, as without the option.
        let is_mapped = |gid: &str| gid.parse().is_ok_and(|gid| ids::outside(&container.gid_map, gid).is_some());
        data.retain(|(key, value)| *key != "gid" || value.as_deref().is_none_or(is_mapped));
    }
    if let Some(mode) = mode
        && !data.iter().any(|(key, _)| *key == "mode")
    {
        data.push(("mode", Some(format!("{mode:o}"))));
    }
    if let Some(label) = &container.mount_label
        && !matches!(kind, "proc" | "sysfs" | "mqueue")
    {
        data.push(("context", Some(label.clone())));
    }
    data
}
