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
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount,
        fsopen, mount_change, move_mount, open_tree, unmount,
    },
    process::{Resource, Rlimit},
    thread::LinkNameSpaceType,
};

use crate::sys::{self, Filter, MountAttr, SharedChild};

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begun,
    Scheduling,
    EnterCgroup,
    CgroupNamespace,
    LoopbackUp,
    PrivateMounts,
    AttachRoot,
    PivotRoot,
    DetachHost,
    Mount(usize),
    Hostname,
    Rlimits,
    Keyring,
    Session,
    JoinUserNamespace,
    Ids,
    Capabilities,
    NoNewPrivs,
    Descriptors,
    OpenFiles,
    WorkingDirectory,
    SystemCallFilter,
    SelfCheck,
    ExecInit,
}

/// A mount that the child attaches.
pub(crate) enum ChildMount {
    /// A tree made by the parent.
    Tree { tree: OwnedFd, target: std::ffi::CString },
    /// procfs: only a task inside the pid namespace can make it (or `pidns=`, Linux 6.17).
    Proc,
    /// Hidden by an empty file or directory.
    Masked(std::ffi::CString),
    /// Made read-only.
    ReadOnly(std::ffi::CString),
}

/// Everything that the child needs, prepared by the parent.
pub(crate) struct Child<'a> {
    pub tasks: &'a [OwnedFd],
    pub attach_point: &'a CStr,
    pub root: BorrowedFd<'a>,
    pub mounts: &'a [ChildMount],
    pub hostname: &'a [u8],
    pub open_files: u64,
    pub userns: BorrowedFd<'a>,
    pub uid: u32,
    pub gid: u32,
    /// Become descriptors 0 to 5: streams, log, exit record, ready.
    pub fds: [RawFd; 6],
    pub init: BorrowedFd<'a>,
    pub cwd: &'a CStr,
    pub filter: &'a [Filter],
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

/// Where `place_descriptors` puts the init.
const INIT_FD: RawFd = 6;

/// Soft limit of an app's stack, as everywhere on Linux.
const STACK: u64 = 8 << 20;

impl Child<'_> {
    fn raise_walls(&mut self) -> Result<(), Errno> {
        self.scheduling()?;
        self.enter_cgroups()?;
        self.network()?;
        self.root()?;
        self.mounts()?;
        self.attributes()?;
        self.drop_privileges()?;
        self.descriptors()?;
        self.step = Step::WorkingDirectory;
        // As the user, and with no directory of the host open: `/proc/self/fd/N` leads nowhere (CVE-2024-21626).
        rustix::process::chdir(self.cwd)?;
        self.step = Step::SystemCallFilter;
        sys::install_filter(self.filter)?;
        self.check()
    }

    /// Nothing of the standing that the platform may have given itself. An oom_score_adj below 0 would make the kernel end others
    /// in an app's stead; one above 0 was the operator's choice and could not be taken back without CAP_SYS_RESOURCE.
    fn scheduling(&mut self) -> Result<(), Errno> {
        self.step = Step::Scheduling;
        sys::reset_scheduling()?;
        let file = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut first = [0u8; 1];
        if rustix::io::read(&file, &mut first)? == 1 && first == *b"-" {
            rustix::io::write(&file, b"0")?;
        }
        Ok(())
    }

    /// v1: one write per hierarchy moves this one thread, without a grace period. (v2: born there.) The
    /// namespace comes after, so that its root is the group just entered.
    fn enter_cgroups(&mut self) -> Result<(), Errno> {
        self.step = Step::EnterCgroup;
        for tasks in self.tasks {
            rustix::io::write(tasks, b"0")?;
        }
        self.step = Step::CgroupNamespace;
        sys::unshare_cgroup()
    }

    /// The namespace is new and has only a loopback, down.
    fn network(&mut self) -> Result<(), Errno> {
        self.step = Step::LoopbackUp;
        sys::interface_up(c"lo")
    }

    /// Our copy of the host's mounts must not tell the host what we do here; then the sandbox's root takes the
    /// place of `/` and everything of the host goes.
    fn root(&mut self) -> Result<(), Errno> {
        self.step = Step::PrivateMounts;
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        self.step = Step::AttachRoot;
        move_mount(self.root, c"", CWD, self.attach_point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::process::fchdir(self.root)?;
        self.step = Step::PivotRoot;
        // pivot_root(2), NOTES: with "." twice the old root is stacked on the new one at "/", …
        rustix::process::pivot_root(c".", c".")?;
        self.step = Step::DetachHost;
        // … from where it is taken off.
        unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    }

    fn mounts(&mut self) -> Result<(), Errno> {
        let mut empty_dir = None;
        for (i, mount) in self.mounts.iter().enumerate() {
            self.step = Step::Mount(i);
            match mount {
                ChildMount::Tree { tree, target } => attach(tree.as_fd(), target)?,
                ChildMount::Proc => attach(new_proc()?.as_fd(), c"/proc")?,
                ChildMount::Masked(path) => ignore_missing(mask(path, &mut empty_dir))?,
                ChildMount::ReadOnly(path) => ignore_missing(read_only(path))?,
            }
        }
        Ok(())
    }

    fn attributes(&mut self) -> Result<(), Errno> {
        self.step = Step::Hostname;
        rustix::system::sethostname(self.hostname)?;
        self.step = Step::Rlimits;
        // 1 and not 0: core(5), a piped core handler ignores 0; the kernel refuses to run it at 1.
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) })?;
        for limit in [Resource::Rtprio, Resource::Nice] {
            rustix::process::setrlimit(limit, Rlimit { current: Some(0), maximum: Some(0) })?;
        }
        // An unlimited stack lays memory out the old way, with less chance in it.
        sys::limit_stack(STACK)?;
        self.step = Step::Keyring;
        sys::join_new_session_keyring()?;
        self.step = Step::Session;
        rustix::process::setsid()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(())
    }

    fn drop_privileges(&mut self) -> Result<(), Errno> {
        self.step = Step::JoinUserNamespace;
        rustix::thread::move_into_link_name_space(self.userns, Some(LinkNameSpaceType::User))?;
        // Joining gave every capability in there, and as our uid is not mapped, changing ids keeps them: drop by hand.
        self.step = Step::Ids;
        sys::set_ids(self.uid, self.gid)?;
        self.step = Step::Capabilities;
        sys::drop_all_capabilities()?;
        self.step = Step::NoNewPrivs;
        rustix::thread::set_no_new_privs(true)
    }

    /// Six descriptors and the init, which vanishes at exec; everything else is closed, not only marked.
    fn descriptors(&mut self) -> Result<(), Errno> {
        self.step = Step::Descriptors;
        let [a, b, c, d, e, f] = self.fds;
        sys::place_descriptors([a, b, c, d, e, f, self.init.as_raw_fd()])?;
        // Only now: up to here there were copies of all that the parent has open, maybe more than an app may.
        self.step = Step::OpenFiles;
        sys::limit_open_files(self.open_files)
    }

    /// Asks the kernel whether the walls are up, rather than trusting that the calls above did what they say.
    fn check(&mut self) -> Result<(), Errno> {
        self.step = Step::SelfCheck;
        let up = sys::capabilities_are_empty() && sys::has_seccomp_filter() && rustix::thread::no_new_privs()?;
        let ids = rustix::process::getuid().as_raw() == self.uid && rustix::process::getgid().as_raw() == self.gid;
        if up && ids { Ok(()) } else { Err(Errno::PERM) }
    }
}

/// Attaches a detached tree where `target` says, without following a symlink that a tenant's layer may hold.
fn attach(tree: BorrowedFd<'_>, target: &CStr) -> Result<(), Errno> {
    let place = resolve(target)?;
    move_mount(tree, c"", &place, c"", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

fn resolve(path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

fn new_proc() -> Result<OwnedFd, Errno> {
    let fs = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

const CLONE_TREE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Hides a path of our procfs: a file by our own /dev/null (never one of the image: CVE-2025-31133), a
/// directory by an empty, read-only tmpfs, made once and cloned after.
fn mask(path: &CStr, empty_dir: &mut Option<OwnedFd>) -> Result<(), Errno> {
    let place = resolve(path)?;
    let directory = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Directory;
    let cover = if !directory {
        open_tree(CWD, c"/dev/null", CLONE_TREE)?
    } else if let Some(first) = empty_dir {
        open_tree(first, c"", CLONE_TREE | OpenTreeFlags::AT_EMPTY_PATH)?
    } else {
        let fs = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?
    };
    move_mount(&cover, c"", &place, c"", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)?;
    if directory && empty_dir.is_none() {
        *empty_dir = Some(cover);
    }
    Ok(())
}

fn read_only(path: &CStr) -> Result<(), Errno> {
    let place = resolve(path)?;
    let tree = open_tree(&place, c"", CLONE_TREE | OpenTreeFlags::AT_EMPTY_PATH)?;
    let attr = MountAttr { set: sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC, ..MountAttr::default() };
    sys::mount_setattr(tree.as_fd(), c"", false, &attr)?;
    move_mount(&tree, c"", &place, c"", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

/// What this kernel does not have needs no hiding.
fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
