//! The parent side of a start: everything that allocates or can fail on input happens here, before clone3.

mod child;
mod stdio;

use std::{
    ffi::{CString, c_char},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair},
};
use serde::{Deserialize, Serialize};

use self::child::{Child, ChildMount, Step};
pub(crate) use self::stdio::open_log;
pub use self::stdio::{Stdio, Streams};
use crate::{
    cgroup::Group,
    dyno::{Dyno, Record},
    error::{Context, Error, ErrorKind, Result},
    host::Host,
    mount::{self, Lease, WritableLayer},
    plan::{Mount, Plan, c_string, check_id},
    spec::{Layer, Sandbox},
    sys::{self, Flags, MountAttr},
};

const NAMESPACES: Flags = Flags::NEWNS.and(Flags::NEWPID).and(Flags::NEWNET).and(Flags::NEWIPC).and(Flags::NEWUTS);

/// What a start needs beside the sandbox.
#[derive(Debug, Default)]
pub struct StartOptions<'a> {
    /// Standard streams.
    pub stdio: Stdio,
    /// An ended dyno of the same owner: its id range is shared, and its writable layer can be used as a layer.
    pub after: Option<&'a Dyno>,
    /// Keep the writable layer readable after the end, until the dyno is freed.
    pub keep_upper: bool,
    /// The user whose image files are accepted beside root's. At its first use such a file is chowned to root and made read-only,
    /// so that what was verified stays what is mounted. A file of anybody else is refused and left as it is.
    pub image_maker: Option<u32>,
    /// TCP ports on the sandbox's loopback on which listening sockets are made before the program starts.
    pub listen: Vec<u16>,
}

/// Where the time of a start went, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Layers, root, cgroup, streams.
    pub prepare_us: u64,
    /// clone3 to the exec of init: namespaces and walls.
    pub walls_us: u64,
    /// Init's own start to the exec of the program.
    pub exec_us: u64,
}

impl Host {
    /// Starts `sandbox` as dyno `id`; returns once its program's exec is done.
    ///
    /// It may be called from any thread of a many-threaded program: the child shares this process's memory but
    /// allocates and locks nothing, and only the calling thread sleeps until the walls are up.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a bad description, [`ErrorKind::Image`] for a missing or wrong image,
    /// [`ErrorKind::Wall`] for a wall that could not be raised, [`ErrorKind::Exec`] for a program that cannot be
    /// executed. Whatever fails, nothing is left behind.
    pub fn start(&self, id: &str, sandbox: &Sandbox, options: StartOptions<'_>) -> Result<Dyno> {
        check_id(id)?;
        let plan = Plan::new(sandbox)?;
        let began = Instant::now();
        let mut debris = Debris::new(self, id)?;
        let lease = match options.after {
            // Two at work in one range could reach each other, and what is read as a layer would still be written.
            Some(former) if !former.has_ended() => {
                return Err(Error::refused(ErrorKind::Invalid, format!("dyno {}, whose id range is asked for, still runs", former.id())));
            }
            Some(former) => Lease::map(former.record().slot)?,
            None => debris.lease(self.leases().take(id)?),
        };
        let (root, upper) = self.root(&plan, &lease, &options, &debris.dir())?;
        if !options.keep_upper && upper.as_ref().is_some_and(WritableLayer::is_attached) {
            mount::detach(&debris.dir())?;
        }
        let mut streams = stdio::prepare(&options.stdio, &debris.dir(), &lease, plan.identity.uid)?;
        let mounts = self.mounts(&plan, &lease, streams.pts.take())?;
        let record = Record { id: id.to_owned(), pid: 0, start_time: 0, boot_id: crate::host::boot_id()?, slot: lease.slot(), leased: options.after.is_none() };
        record.write(&debris.dir())?;
        let exit_file = std::fs::File::create_new(debris.dir().join("exit")).io(|| "create exit record".into())?;
        let group = Group::create(self.cgroups(), id, &plan.limits)?;
        let group = &*debris.group.insert(group);
        let (ready, ready_child) = ready_pair()?;
        let tasks = group.task_files()?;
        let birthplace = group.birthplace();
        let (argv, envp) = (init_argv(&options.stdio, &plan), plan.c_env());
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        let (attach_point, cwd) = (c_string(&self.attach_point().to_string_lossy()), c_string(&plan.process.cwd));
        let filter = self.filter(&plan.seccomp)?;
        let mut child = Child {
            tasks: &tasks,
            attach_point: &attach_point,
            root: root.as_fd(),
            mounts: &mounts,
            hostname: plan.hostname.as_bytes(),
            open_files: plan.limits.open_files,
            userns: lease.userns(),
            uid: plan.identity.uid,
            gid: plan.identity.gid,
            fds: streams.child_fds(exit_file.as_raw_fd(), ready_child.as_raw_fd()),
            init: self.init(),
            cwd: &cwd,
            filter: &filter,
            argv: &argv_pointers,
            envp: &envp_pointers,
            step: Step::Begun,
            failed: None,
        };
        let prepared = Instant::now();
        let (pidfd, pid) = sys::vfork(NAMESPACES, birthplace, &mut child).wall(|| "clone3(namespaces)".into())?;
        let (step, failed) = (child.step, child.failed);
        debris.process = Some(pidfd);
        if failed.is_some() || step != Step::ExecInit {
            return Err(failure(step, failed, &mounts));
        }
        let walled = Instant::now();
        drop(ready_child);
        streams.close_child_ends();
        let record = Record { pid, start_time: crate::dyno::start_time(pid)?, ..record };
        record.write(&debris.dir())?;
        let (netns, listeners) = reach_in(pid, &options.listen)?;
        run_program(&ready, &plan)?;
        let timing = Timing { prepare_us: micros(prepared - began), walls_us: micros(walled - prepared), exec_us: micros(walled.elapsed()) };
        let kept = upper.filter(|_| options.keep_upper);
        let (host, group, pidfd) = debris.disarm()?;
        Ok(Dyno::started(host, record, pidfd, netns, group, kept, streams.parent, listeners, timing))
    }

    fn root(&self, plan: &Plan, lease: &Lease, options: &StartOptions<'_>, scratch: &Path) -> Result<(OwnedFd, Option<WritableLayer>)> {
        let mut layers = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            layers.push(match layer {
                Layer::Image { path, sha256 } => mount::clone_tree(self.images().get(path, sha256, options.image_maker)?.as_fd(), lease)?,
                Layer::Directory(path) => mount::clone_tree(open_dir(path)?.as_fd(), lease)?,
                Layer::UpperOf(id) => {
                    let kept = options.after.filter(|d| d.id() == id).and_then(Dyno::upper);
                    let missing = || Error::refused(ErrorKind::Invalid, format!("layer upper_of {id:?}: no such ended dyno, or its layer was not kept"));
                    mount::LayerTree { tree: kept.ok_or_else(missing)?.as_layer()?, shifted: true }
                }
            });
        }
        mount::assemble(layers, &plan.upper, lease, scratch)
    }

    fn mounts(&self, plan: &Plan, lease: &Lease, mut pts: Option<OwnedFd>) -> Result<Vec<ChildMount>> {
        let mut mounts = Vec::with_capacity(plan.mounts.len());
        let tree = |tree: OwnedFd, target: &str| ChildMount::Tree { tree, target: c_string(target) };
        for mount in &plan.mounts {
            mounts.push(match mount {
                Mount::Dev { .. } => tree(self.dev()?, "/dev"),
                Mount::Pts { max } => tree(pts.take().map_or_else(|| mount::new_pts(lease, *max), Ok)?, "/dev/pts"),
                Mount::Shm { bytes } => tree(mount::new_shm(*bytes)?, "/dev/shm"),
                Mount::Proc => ChildMount::Proc,
                Mount::Masked(path) => ChildMount::Masked(c_string(path)),
                Mount::ReadOnly(path) => ChildMount::ReadOnly(c_string(path)),
                Mount::Volume(volume) => tree(mount::volume(volume, lease)?, &volume.target().to_string_lossy()),
            });
        }
        Ok(mounts)
    }

    /// A read-only clone of this host's /dev.
    fn dev(&self) -> Result<OwnedFd> {
        use rustix::mount::{OpenTreeFlags, open_tree};
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(rustix::fs::CWD, self.dev_point(), flags).wall(|| "open_tree(dev, OPEN_TREE_CLONE)".into())?;
        let attr = MountAttr { set: sys::RDONLY | sys::NOSUID | sys::NOEXEC, ..MountAttr::default() };
        sys::mount_setattr(tree.as_fd(), c"", false, &attr).wall(|| "mount_setattr(dev, RDONLY)".into())?;
        Ok(tree)
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).context(ErrorKind::Image, || format!("layer directory {}: open", path.display()))
}

/// `dyno-init MODE PROGRAM ARG0 ARG…`: see `init/main.rs`.
fn init_argv(stdio: &Stdio, plan: &Plan) -> Vec<CString> {
    let mut argv = vec![c_string("dyno-init"), c_string(stdio.mode()), c_string(&plan.process.argv[0])];
    argv.extend(plan.c_argv());
    argv
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// Opens the network of the init, which waits for us, and makes listening sockets there.
fn reach_in(pid: u32, ports: &[u16]) -> Result<(OwnedFd, Vec<OwnedFd>)> {
    let path = format!("/proc/{pid}/ns/net");
    // ENOENT: an ending process has left its namespaces, some time before its pidfd says so.
    let netns = std::fs::File::open(&path).io(|| format!("open({path})"));
    let netns = netns.map_err(|e| if e.errno() == Some(Errno::NOENT) { killed_early() } else { e })?;
    let listeners = ports.iter().map(|port| crate::net::listen_in(netns.as_fd(), *port)).collect::<Result<_>>()?;
    Ok((netns.into(), listeners))
}

/// The line to the init: one byte to it lets the program start, its answer is what execve said.
fn ready_pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).io(|| "socketpair(ready)".into())
}

/// Until now the init has waited, so that whatever the program meets is there, and so that however soon it ends we have seen its
/// process. (Should we die here, it sees the end of file and goes.)
fn run_program(ready: &OwnedFd, plan: &Plan) -> Result<()> {
    match rustix::net::send(ready, b"g", SendFlags::NOSIGNAL) {
        Err(Errno::PIPE | Errno::CONNRESET) => return Err(killed_early()),
        other => other.io(|| "send(ready)".into())?,
    };
    let mut answer = [0u8; 4];
    let n = loop {
        match rustix::io::read(ready, &mut answer) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => break 0,
            other => break other.io(|| "read(ready)".into())?,
        }
    };
    match (n, i32::from_le_bytes(answer)) {
        (4, 0) => Ok(()),
        (4, errno) => Err(Error::call(ErrorKind::Exec, format!("execve({:?})", plan.process.argv[0]), Errno::from_raw_os_error(errno))),
        _ => Err(killed_early()),
    }
}

fn killed_early() -> Error {
    Error::refused(ErrorKind::Wall, "the sandbox was killed at its start, in: init (is the memory limit too small?)")
}

/// Words for a step that failed in the child.
fn failure(step: Step, errno: Option<Errno>, mounts: &[ChildMount]) -> Error {
    let what = match step {
        Step::Begun => "clone3".to_owned(),
        Step::EnterCgroup => "enter the cgroup: write \"0\" to tasks".to_owned(),
        Step::CgroupNamespace => "unshare(CLONE_NEWCGROUP)".to_owned(),
        Step::LoopbackUp => "bring lo up: ioctl(SIOCSIFFLAGS)".to_owned(),
        Step::PrivateMounts => "mount(/, MS_PRIVATE | MS_REC)".to_owned(),
        Step::AttachRoot => "move_mount(root)".to_owned(),
        Step::PivotRoot => "pivot_root(., .)".to_owned(),
        Step::DetachHost => "umount2(old root, MNT_DETACH)".to_owned(),
        Step::Mount(i) => match mounts.get(i) {
            Some(ChildMount::Tree { target, .. }) => format!("mount at {} (does it exist, without symlinks on the way?)", target.to_string_lossy()),
            Some(ChildMount::Proc) => "mount proc at /proc".to_owned(),
            Some(ChildMount::Masked(path)) => format!("mask {}", path.to_string_lossy()),
            Some(ChildMount::ReadOnly(path)) => format!("make {} read-only", path.to_string_lossy()),
            None => "mount".to_owned(),
        },
        Step::Hostname => "sethostname".to_owned(),
        Step::Rlimits => "setrlimit(CORE, RTPRIO, NICE, STACK)".to_owned(),
        Step::Keyring => "keyctl(KEYCTL_JOIN_SESSION_KEYRING)".to_owned(),
        Step::Session => "setsid".to_owned(),
        Step::JoinUserNamespace => "setns(CLONE_NEWUSER)".to_owned(),
        Step::Ids => "setgroups, setresgid, setresuid".to_owned(),
        Step::Capabilities => "drop capabilities".to_owned(),
        Step::NoNewPrivs => "prctl(PR_SET_NO_NEW_PRIVS)".to_owned(),
        Step::Descriptors => "dup3, close_range".to_owned(),
        Step::OpenFiles => "setrlimit(NOFILE)".to_owned(),
        Step::Scheduling => "setpriority, sched_setscheduler, oom_score_adj".to_owned(),
        Step::WorkingDirectory => "chdir to the working directory".to_owned(),
        Step::SystemCallFilter => "seccomp(SECCOMP_SET_MODE_FILTER)".to_owned(),
        Step::SelfCheck => "self-check: the kernel reports ids, capabilities, no_new_privs or seccomp other than asked".to_owned(),
        Step::ExecInit => "execveat(init)".to_owned(),
    };
    match errno {
        Some(errno) => Error::call(ErrorKind::Wall, format!("the sandbox did not start: {what}"), errno),
        None => Error::refused(ErrorKind::Wall, format!("the sandbox was killed at its start, in: {what} (is the memory limit too small?)")),
    }
}

/// What a start has made so far; dropped armed, it unmakes all of it.
struct Debris<'h> {
    host: &'h Host,
    id: String,
    slot: Option<u32>,
    group: Option<Group>,
    process: Option<OwnedFd>,
    armed: bool,
}

impl<'h> Debris<'h> {
    fn new(host: &'h Host, id: &str) -> Result<Self> {
        let dir = host.dyno_dir(id);
        std::fs::create_dir(&dir).context(ErrorKind::Invalid, || format!("dyno {id}: mkdir({}) (does it run already?)", dir.display()))?;
        Ok(Self { host, id: id.to_owned(), slot: None, group: None, process: None, armed: true })
    }

    fn dir(&self) -> std::path::PathBuf {
        self.host.dyno_dir(&self.id)
    }

    fn lease(&mut self, lease: Lease) -> Lease {
        self.slot = Some(lease.slot());
        lease
    }

    /// Nothing of it is debris: it runs.
    fn disarm(mut self) -> Result<(Host, Group, OwnedFd)> {
        let (Some(group), Some(process)) = (self.group.take(), self.process.take()) else {
            return Err(Error::refused(ErrorKind::Io, format!("dyno {}: not started", self.id)));
        };
        self.armed = false;
        Ok((self.host.clone(), group, process))
    }
}

impl Drop for Debris<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some(pidfd) = &self.process {
            crate::dyno::kill_and_reap(pidfd.as_fd());
        }
        if let Some(group) = &self.group
            && let Err(e) = group.remove()
        {
            tracing::warn!(id = self.id, %e, "a failed start left its cgroup");
        }
        if let Some(slot) = self.slot {
            self.host.leases().free(slot);
        }
        if let Err(e) = self.host.remove_dyno_dir(&self.id) {
            tracing::warn!(id = self.id, %e, "a failed start left its state directory");
        }
    }
}
