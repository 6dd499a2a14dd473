//! The mounts of a rootless sandbox, made by a visitor of its user namespace: only there may an unprivileged user mount.
//!
//! Like `spawn/child.rs` it runs in the caller's memory while the caller sleeps: it allocates nothing, locks nothing, never unwinds;
//! what it needs stands ready, and what it makes comes back as detached mounts. It works in a mount namespace of its own that ends
//! with it, so places to attach things cost nothing and nothing is left: overlayfs gets its layers by relative paths, which every
//! kernel since 5.11 takes.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Uid, chmodat, fchown, mkdirat, open, openat, symlinkat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
        fsopen, move_mount, open_tree,
    },
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};

use crate::sys::{self, Flags, MountAttr, Visitor};

/// Options of a file system.
pub(super) type Options = Vec<(CString, CString)>;

/// The root.
pub(super) struct Root {
    /// Directories, the topmost first, and the names under which they are attached.
    pub layers: Vec<(CString, CString)>,
    /// Those names, joined by `:`.
    pub lower: CString,
    /// The writable layer, a tmpfs.
    pub upper: Option<Options>,
}

/// /dev.
pub(super) struct Dev {
    pub options: Options,
    /// Directories and links in it.
    pub dirs: Vec<CString>,
    pub links: Vec<(CString, CString)>,
    /// Names in it, and the host's nodes that are bound there: nobody but root may make some.
    pub nodes: Vec<(CString, CString)>,
}

/// What is attached for one volume.
pub(super) enum Volume {
    Bind { source: CString, writable: bool },
    Tmpfs(Options),
}

/// Where the building stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Join,
    Namespace,
    Scratch,
    Layer(usize),
    Upper,
    Overlay,
    Dev,
    Node(usize),
    Pts,
    Terminal,
    Shm,
    Volume(usize),
}

/// What is to be made, and what was.
pub(super) struct Builder<'a> {
    /// A directory of the host to attach things at.
    pub scratch: &'a CStr,
    pub root: Option<&'a Root>,
    pub dev: Option<&'a Dev>,
    pub pts: Option<&'a Options>,
    /// A terminal of that devpts, for this user inside.
    pub terminal: Option<u32>,
    pub shm: Option<&'a Options>,
    pub volumes: &'a [Volume],
    pub made: Made,
    pub step: Step,
}

/// Detached mounts. `volumes` comes with room for all.
#[derive(Default)]
pub(super) struct Made {
    pub root: Option<OwnedFd>,
    /// Its writable layer.
    pub upper: Option<OwnedFd>,
    pub dev: Option<OwnedFd>,
    pub pts: Option<OwnedFd>,
    pub terminal: Option<(OwnedFd, OwnedFd)>,
    pub shm: Option<OwnedFd>,
    pub volumes: Vec<Option<OwnedFd>>,
}

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);
const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;

impl Visitor for Builder<'_> {
    fn run(&mut self) -> Result<(), Errno> {
        self.step = Step::Namespace;
        // Owned by the user namespace just joined, so that its capabilities hold over it.
        sys::unshare(Flags::NEWNS)?;
        self.step = Step::Scratch;
        let scratch = tmpfs(&[], NOSUID | NODEV | NOEXEC)?;
        move_mount(&scratch, c"", CWD, self.scratch, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::process::fchdir(&scratch)?;
        if let Some(root) = self.root {
            self.made.root = Some(self.build_root(root)?);
        }
        if let Some(dev) = self.dev {
            self.made.dev = Some(self.build_dev(dev)?);
        }
        self.terminals()?;
        if let Some(options) = self.shm {
            self.step = Step::Shm;
            self.made.shm = Some(tmpfs(options, NOSUID | NODEV | NOEXEC)?);
        }
        for (i, (volume, made)) in self.volumes.iter().zip(self.made.volumes.iter_mut()).enumerate() {
            self.step = Step::Volume(i);
            *made = Some(match volume {
                Volume::Bind { source, writable } => clone_of(source, OFlags::empty(), *writable)?,
                Volume::Tmpfs(options) => tmpfs(options, NOSUID | NODEV)?,
            });
        }
        Ok(())
    }
}

impl Builder<'_> {
    fn build_root(&mut self, root: &Root) -> Result<OwnedFd, Errno> {
        for (i, (path, name)) in root.layers.iter().enumerate() {
            self.step = Step::Layer(i);
            let layer = clone_of(path, OFlags::DIRECTORY, false)?;
            if root.upper.is_none() && root.layers.len() == 1 {
                return Ok(layer);
            }
            attach(&layer, name)?;
        }
        if let Some(options) = &root.upper {
            self.step = Step::Upper;
            let upper = tmpfs(options, NOSUID | NODEV)?;
            for name in [c"upper", c"work"] {
                make_dir(upper.as_fd(), name)?;
            }
            attach(&upper, c"up")?;
            self.made.upper = Some(upper);
        }
        self.step = Step::Overlay;
        let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, c"source", c"dyno")?;
        fsconfig_set_string(&fs, c"lowerdir", &*root.lower)?;
        let mut attributes = NOSUID | NODEV;
        if root.upper.is_some() {
            fsconfig_set_string(&fs, c"upperdir", c"up/upper")?;
            fsconfig_set_string(&fs, c"workdir", c"up/work")?;
        } else {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        // trusted.* attributes are root's (overlayfs.rst, "User xattr"; Linux 5.11).
        fsconfig_set_flag(&fs, c"userxattr")?;
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// Attached while it is filled: before Linux 6.15 nothing can be attached to a detached mount.
    fn build_dev(&mut self, dev: &Dev) -> Result<OwnedFd, Errno> {
        self.step = Step::Dev;
        let tree = tmpfs(&dev.options, NOSUID | NOEXEC)?;
        for name in &dev.dirs {
            make_dir(tree.as_fd(), name)?;
        }
        for (name, target) in &dev.links {
            symlinkat(&**target, &tree, &**name)?;
        }
        attach(&tree, c"dev")?;
        for (i, (name, host)) in dev.nodes.iter().enumerate() {
            self.step = Step::Node(i);
            openat(&tree, &**name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o666))?;
            let node = open_tree(CWD, &**host, CLONE)?;
            let attr = MountAttr { set: sys::RDONLY | sys::NOSUID | sys::NOEXEC, propagation: sys::PRIVATE, ..MountAttr::default() };
            sys::mount_setattr(node.as_fd(), c"", false, &attr)?;
            move_mount(&node, c"", &tree, &**name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        self.step = Step::Dev;
        // AT_RECURSIVE: with its nodes.
        let whole = open_tree(CWD, c"dev", CLONE | OpenTreeFlags::AT_RECURSIVE)?;
        let attr = MountAttr { set: sys::RDONLY, ..MountAttr::default() };
        sys::mount_setattr(whole.as_fd(), c"", false, &attr)?;
        Ok(whole)
    }

    /// The slave comes from the master (TIOCGPTPEER), never by a name.
    fn terminals(&mut self) -> Result<(), Errno> {
        let Some(options) = self.pts else { return Ok(()) };
        self.step = Step::Pts;
        let pts = file_system(c"devpts", options, NOSUID | NOEXEC)?;
        if let Some(owner) = self.terminal {
            self.step = Step::Terminal;
            let master = openat(&pts, c"ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
            unlockpt(&master)?;
            let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            fchown(&slave, Some(Uid::from_raw(owner)), None)?;
            self.made.terminal = Some((master, slave));
        }
        self.made.pts = Some(pts);
        Ok(())
    }
}

fn tmpfs(options: &[(CString, CString)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    file_system(c"tmpfs", options, attributes)
}

fn file_system(kind: &CStr, options: &[(CString, CString)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&fs, &**key, &**value)?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A detached clone of what is at `path` on the host. Attributes are only added: those that the mount has are locked here
/// (mount_namespaces(7)).
fn clone_of(path: &CStr, flags: OFlags, writable: bool) -> Result<OwnedFd, Errno> {
    let source = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags, Mode::empty())?;
    let tree = open_tree(&source, c"", CLONE | OpenTreeFlags::AT_EMPTY_PATH)?;
    let read_only = if writable { 0 } else { sys::RDONLY };
    let attr = MountAttr { set: sys::NOSUID | sys::NODEV | read_only, propagation: sys::PRIVATE, ..MountAttr::default() };
    sys::mount_setattr(tree.as_fd(), c"", false, &attr)?;
    Ok(tree)
}

/// Attaches `tree` at a new directory of the working directory.
fn attach(tree: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    make_dir(CWD, name)?;
    move_mount(tree, c"", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Whatever the umask.
fn make_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    match mkdirat(dir, name, mode) {
        Ok(()) => chmodat(dir, name, mode, AtFlags::empty()),
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
    }
}
