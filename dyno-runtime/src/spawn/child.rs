//! The child side: from clone3 to the exec of our init, top to bottom, each step for a reason.
//!
//! It runs in the parent's memory while the parent sleeps, so it allocates nothing, locks nothing and never
//! unwinds; all it needs stands ready in [`Child`], and a failure is left there as step and errno. Namespaces but
//! the user one belong to the host's user namespace: the child joins its mapped one only at the end
//! (user_namespaces(7)), so that not even root inside owns its network, mounts or processes.

use std::{
    ffi::{CStr, c_char},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{CWD, FileType},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount,
        fsopen, mount_change, move_mount, open_tree, unmount,
    },
    thread::LinkNameSpaceType,
};

use super::standing::{self, Standing};
use crate::broken::{self, Part};
use crate::sys::{self, Flags, MountAttr, Seated, SharedChild};

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begun,
    OwnTable,
    Scheduling,
    EnterCgroup,
    CgroupNamespace,
    LoopbackUp,
    EmptyMounts,
    NewProc,
    PrivateMounts,
    AttachRoot,
    PivotRoot,
    DetachHost,
    Mount(usize),
    Hostname,
    Rlimits,
    Keyring,
    Session,
    JoinNetwork,
    CollectNetwork,
    NewNetwork,
    JoinUserNamespace,
    OwnNamespaces,
    Ids,
    Capabilities,
    NoNewPrivs,
    Descriptors,
    OpenFiles,
    WorkingDirectory,
    Landlock,
    SystemCallFilter,
    SelfCheck,
    ExecInit,
}

/// A mount that the child attaches.
pub(crate) enum ChildMount {
    /// /dev, made by the parent and nobody else's; an empty directory of it hides others.
    Dev(OwnedFd),
    /// A tree made by the parent.
    Tree { tree: OwnedFd, target: std::ffi::CString },
    /// procfs: only a task inside the pid namespace can make it (or `pidns=`, Linux 6.17).
    Proc,
    /// Hidden by an empty file or directory.
    Masked(std::ffi::CString),
    /// Made read-only.
    ReadOnly(std::ffi::CString),
}

/// The network namespace that the child is in, or is to be in.
pub(crate) enum ChildNetwork<'a> {
    /// New, its loopback still down.
    New,
    /// To be made later, by the user namespace that is to own it.
    Later,
    /// Another sandbox's, or one that lay ready.
    Joined(BorrowedFd<'a>),
    /// Being made beside the start; it comes over this line.
    Ordered(BorrowedFd<'a>),
    /// The host's.
    Host,
}

/// Everything that the child needs, prepared by the parent.
pub(crate) struct Child<'a> {
    /// Where the descriptors below are, in the child's table.
    pub seated: Seated<'a>,
    pub tasks: &'a [OwnedFd],
    /// A mount namespace without mounts; else the child was born with a copy of the host's.
    pub nowhere: Option<BorrowedFd<'a>>,
    pub attach_point: &'a CStr,
    pub root: BorrowedFd<'a>,
    pub mounts: &'a [ChildMount],
    pub hostname: &'a [u8],
    pub network: ChildNetwork<'a>,
    /// None: it was born in there, as a rootless one is, and all its namespaces with it.
    pub userns: Option<BorrowedFd<'a>>,
    /// Made anew once inside the user namespace, which then owns them.
    pub own: Flags,
    pub standing: Standing<'a>,
    /// Become descriptors 0 to 8: see `init/main.rs`.
    pub fds: [BorrowedFd<'a>; 9],
    pub init: BorrowedFd<'a>,
    pub argv: &'a [*const c_char],
    pub envp: &'a [*const c_char],
    /// The step under way, and what it failed with.
    pub step: Step,
    pub failed: Option<Errno>,
}

impl SharedChild for Child<'_> {
    fn run(&mut self) -> ! {
        if let Err(errno) = self.raise_walls() {
            self.failed = Some(errno);
            sys::exit_now(1);
        }
        self.step = Step::ExecInit;
        // The filter is on: from here only calls that an app may make.
        self.failed = Some(sys::exec_fd(INIT_FD, self.argv, self.envp));
        sys::exit_now(1)
    }
}

/// Where `place_descriptors` puts the line to the parent.
pub(super) const READY_FD: RawFd = 5;

/// Where `place_descriptors` puts the init.
const INIT_FD: RawFd = 9;

impl Child<'_> {
    /// Everything of the parent's that it uses.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let network = match &self.network {
            ChildNetwork::Joined(fd) | ChildNetwork::Ordered(fd) => Some(*fd),
            ChildNetwork::New | ChildNetwork::Later | ChildNetwork::Host => None,
        };
        let trees = self.mounts.iter().filter_map(|mount| match mount {
            ChildMount::Dev(tree) | ChildMount::Tree { tree, .. } => Some(tree.as_fd()),
            ChildMount::Proc | ChildMount::Masked(_) | ChildMount::ReadOnly(_) => None,
        });
        let several = self.tasks.iter().map(AsFd::as_fd).chain(trees).chain(self.fds);
        [Some(self.root), Some(self.init), self.nowhere, network, self.userns].into_iter().flatten().chain(several)
    }

    fn raise_walls(&mut self) -> Result<(), Errno> {
        self.step = Step::OwnTable;
        self.seated.leave_table()?;
        let step = &mut self.step;
        standing::scheduling(step)?;
        enter_cgroups(self.tasks, self.seated, step)?;
        network(&self.network, self.seated, step)?;
        if let Some(nowhere) = self.nowhere {
            self.step = Step::EmptyMounts;
            rustix::thread::move_into_link_name_space(self.seated.of(&nowhere), Some(LinkNameSpaceType::Mount))?;
            sys::unshare(Flags::NEWNS)?;
        }
        self.step = Step::NewProc;
        // Now: a user namespace may mount procfs only where it still sees the host's (mount_too_revealing in fs/namespace.c).
        let proc = new_proc()?;
        self.root()?;
        self.mounts(proc)?;
        self.collect_network()?;
        self.step = Step::Hostname;
        rustix::system::sethostname(self.hostname)?;
        self.standing.attributes(&mut self.step)?;
        self.join_user_namespace()?;
        self.standing.drop_privileges(&mut self.step)?;
        self.step = Step::Descriptors;
        let mut fds = [self.seated.of(&self.init).as_raw_fd(); 10];
        for (to, from) in fds.iter_mut().zip(&self.fds) {
            *to = self.seated.of(from).as_raw_fd();
        }
        sys::place_descriptors(fds, 1)?;
        self.standing.last_walls(&mut self.step)
    }

    /// Above nothing the root needs only be put, and entered.
    fn root(&mut self) -> Result<(), Errno> {
        if self.nowhere.is_none() {
            return self.root_over_the_hosts();
        }
        self.step = Step::AttachRoot;
        let root = self.seated.of(&self.root);
        move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::process::fchdir(root)?;
        rustix::process::chroot(c".")
    }

    /// Our copy of the host's mounts must not tell the host what we do here; then the sandbox's root takes the
    /// place of `/` and everything of the host goes.
    fn root_over_the_hosts(&mut self) -> Result<(), Errno> {
        self.step = Step::PrivateMounts;
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        self.step = Step::AttachRoot;
        let root = self.seated.of(&self.root);
        move_mount(root, c"", CWD, self.attach_point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::process::fchdir(root)?;
        self.step = Step::PivotRoot;
        // pivot_root(2), NOTES: with "." twice the old root is stacked on the new one at "/", …
        rustix::process::pivot_root(c".", c".")?;
        self.step = Step::DetachHost;
        // … from where it is taken off.
        unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    }

    fn mounts(&mut self, proc: OwnedFd) -> Result<(), Errno> {
        let mut nothing = None;
        for (i, mount) in self.mounts.iter().enumerate() {
            self.step = Step::Mount(i);
            match mount {
                ChildMount::Dev(tree) => {
                    attach(self.seated.of(tree), c"/dev")?;
                    nothing = Some(Nothing::of(self.seated.of(tree))?);
                }
                ChildMount::Tree { tree, target } => attach(self.seated.of(tree), target)?,
                ChildMount::Proc => attach(proc.as_fd(), c"/proc")?,
                ChildMount::Masked(path) => ignore_missing(mask(path, nothing.as_mut()))?,
                ChildMount::ReadOnly(path) => ignore_missing(read_only(path))?,
            }
        }
        Ok(())
    }

    /// By now it is mostly there. One that could not be made is made here, or it is told why not.
    fn collect_network(&mut self) -> Result<(), Errno> {
        let ChildNetwork::Ordered(line) = &self.network else { return Ok(()) };
        self.step = Step::CollectNetwork;
        if let Some(netns) = sys::receive_descriptor(self.seated.of(line))? {
            self.step = Step::JoinNetwork;
            return rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network));
        }
        self.step = Step::NewNetwork;
        sys::unshare(Flags::NEWNET)?;
        self.step = Step::LoopbackUp;
        sys::interface_up(c"lo")
    }

    /// Joining gives every capability in there: enough to make the namespaces that the sandbox is to own itself.
    fn join_user_namespace(&mut self) -> Result<(), Errno> {
        self.step = Step::JoinUserNamespace;
        if let Some(userns) = self.userns.filter(|_| !broken::is(Part::UserNamespace)) {
            rustix::thread::move_into_link_name_space(self.seated.of(&userns), Some(LinkNameSpaceType::User))?;
        }
        self.step = Step::OwnNamespaces;
        if self.own != Flags::NONE {
            sys::unshare(self.own)?;
        }
        if matches!(self.network, ChildNetwork::Later) {
            self.step = Step::LoopbackUp;
            sys::interface_up(c"lo")?;
        }
        Ok(())
    }
}

/// v1: one write per hierarchy moves this one thread, without a grace period. (v2: born there.) The
/// namespace comes after, so that its root is the group just entered.
fn enter_cgroups(tasks: &[OwnedFd], seated: Seated<'_>, step: &mut Step) -> Result<(), Errno> {
    *step = Step::EnterCgroup;
    for tasks in tasks {
        rustix::io::write(seated.of(tasks), b"0")?;
    }
    *step = Step::CgroupNamespace;
    if broken::is(Part::CgroupNamespace) {
        return Ok(());
    }
    sys::unshare(Flags::NEWCGROUP)
}

fn network(network: &ChildNetwork<'_>, seated: Seated<'_>, step: &mut Step) -> Result<(), Errno> {
    match network {
        ChildNetwork::New => {
            *step = Step::LoopbackUp;
            sys::interface_up(c"lo")
        }
        ChildNetwork::Joined(netns) => {
            *step = Step::JoinNetwork;
            rustix::thread::move_into_link_name_space(seated.of(netns), Some(LinkNameSpaceType::Network))
        }
        ChildNetwork::Later | ChildNetwork::Ordered(_) | ChildNetwork::Host => Ok(()),
    }
}

/// Attaches a detached tree where `target` says, without following a symlink that a tenant's layer may hold.
fn attach(tree: BorrowedFd<'_>, target: &CStr) -> Result<(), Errno> {
    cover(tree, sys::open_without_symlinks(target)?.as_fd())
}

fn new_proc() -> Result<OwnedFd, Errno> {
    let fs = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

const CLONE_TREE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// What hides directories: an empty one, read-only.
struct Nothing {
    mount: OwnedFd,
    /// A detached mount can be cloned only since Linux 6.15, so the first place gets this one and the others clones of it.
    placed: bool,
}

impl Nothing {
    /// /dev/shm before anything is mounted there: of the sandbox's own, because whoever shares a directory hears of it when another opens
    /// it (inotify(7)) and can lock him out of it (flock(2)).
    fn of(dev: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mount = open_tree(dev, c"shm", CLONE_TREE)?;
        let attr = MountAttr { set: sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC, ..MountAttr::default() };
        sys::mount_setattr(mount.as_fd(), c"", false, &attr)?;
        Ok(Self { mount, placed: false })
    }

    fn put(&mut self, place: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.placed {
            return cover(open_tree(&self.mount, c"", CLONE_TREE | OpenTreeFlags::AT_EMPTY_PATH)?.as_fd(), place);
        }
        cover(self.mount.as_fd(), place)?;
        self.placed = true;
        Ok(())
    }
}

fn cover(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), Errno> {
    move_mount(mount, c"", place, c"", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

/// Hides a path of our procfs: a file by our own /dev/null (never one of the image: CVE-2025-31133), a directory by an empty one.
fn mask(path: &CStr, nothing: Option<&mut Nothing>) -> Result<(), Errno> {
    let place = sys::open_without_symlinks(path)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Directory {
        return nothing.ok_or(Errno::INVAL)?.put(place.as_fd());
    }
    cover(open_tree(CWD, c"/dev/null", CLONE_TREE)?.as_fd(), place.as_fd())
}

fn read_only(path: &CStr) -> Result<(), Errno> {
    let place = sys::open_without_symlinks(path)?;
    let tree = open_tree(&place, c"", CLONE_TREE | OpenTreeFlags::AT_EMPTY_PATH)?;
    let attr = MountAttr { set: sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC, ..MountAttr::default() };
    sys::mount_setattr(tree.as_fd(), c"", false, &attr)?;
    cover(tree.as_fd(), place.as_fd())
}

/// What this kernel does not have needs no hiding.
fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
