//! The runtime's side of `create` and `run`, from the configuration to a first process that waits for `start` (or, with `run`, has begun).
//!
//! Whatever fails, what was made until then is taken away again in the opposite order, and the error that caused it is the one told.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::process::{Signal, pidfd_send_signal};

use super::{
    cgroup::{self, Cgroup, Manager},
    channel::{Channel, GONE, Message},
    child::Child,
    console, filter, hooks, ids, net_devices, process, resctrl, rootfs, shield,
    namespaces::Birth,
    plan::{Container, Namespace},
    process::Outfit,
    spec,
    state::{Record, State, StateDir, Status},
    verbs::Global,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, Forked},
};

/// What is asked for on the command line.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Of the container.
    pub id: String,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// Another file than the bundle's `config.json`.
    pub config: Option<PathBuf>,
    /// Where the first process's pid goes.
    pub pid_file: Option<PathBuf>,
    /// Unix socket that the terminal's other side goes to.
    pub console_socket: Option<PathBuf>,
    /// Unix socket that the first process's pidfd goes to.
    pub pidfd_socket: Option<PathBuf>,
    /// MS_MOVE and chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Keep the runtime's session keyring.
    pub no_new_keyring: bool,
    /// Descriptors from 3 on to pass on.
    pub preserve_fds: u32,
    /// `run`: return once the program runs.
    pub detach: bool,
    /// `run`: leave the state directory when the program has ended.
    pub keep: bool,
    /// `run`: do not adopt the container's orphans.
    pub no_subreaper: bool,
}

/// A container that was made.
#[derive(Debug)]
pub struct Created {
    /// Its first process.
    pub pid: u32,
    /// Of its first process.
    pub pidfd: OwnedFd,
    /// Its directory, locked.
    pub dir: StateDir,
    /// What is kept of it.
    pub record: Record,
    /// The terminal, if it is ours to relay.
    pub terminal: Option<OwnedFd>,
}

/// What is to be undone if a step fails.
struct Made<'a> {
    dir: Option<&'a StateDir>,
    cgroup: Option<Cgroup>,
    child: Option<(OwnedFd, u32)>,
    resctrl: Option<PathBuf>,
}

impl Made<'_> {
    /// Never hides the error that caused it: what fails here is logged.
    fn undo(self) {
        let mut done: Vec<Result<()>> = Vec::new();
        if let Some((pidfd, _)) = &self.child {
            done.push(pidfd_send_signal(pidfd, Signal::KILL).or_else(gone_is_fine).io(|| "kill the container's first process".into()));
            done.push(sys::reap(pidfd.as_fd()).io(|| "waitid(first process)".into()));
        }
        if let Some(cgroup) = &self.cgroup {
            done.push(cgroup.remove());
        }
        if let Some(path) = &self.resctrl {
            done.push(std::fs::remove_dir(path).io(|| format!("rmdir({})", path.display())));
        }
        if let Some(dir) = self.dir {
            done.push(dir.remove());
        }
        for e in done.into_iter().filter_map(Result::err) {
            tracing::warn!("after a failed create: {e}");
        }
    }
}

fn gone_is_fine(e: rustix::io::Errno) -> std::result::Result<(), rustix::io::Errno> {
    if e == rustix::io::Errno::SRCH { Ok(()) } else { Err(e) }
}

/// Makes a container; its first process waits for `start`, or with `run` begins at once.
///
/// # Errors
/// The first thing that is wrong with the request or that the kernel refuses; nothing is left behind then.
pub fn create(global: &Global, request: &Request, run: bool) -> Result<Created> {
    let (text, container) = load(global, request)?;
    let dir = StateDir::create(&global.root, &request.id)?;
    let mut made = Made { dir: Some(&dir), cgroup: None, child: None, resctrl: None };
    match build(global, request, run, &container, &text, &mut made) {
        Ok((record, terminal)) => {
            let (pidfd, pid) = made.child.take().ok_or_else(|| Error::refused(ErrorKind::Io, GONE))?;
            Ok(Created { pid, pidfd, record, terminal, dir })
        }
        Err(e) => {
            made.undo();
            Err(e)
        }
    }
}

fn load(global: &Global, request: &Request) -> Result<(Vec<u8>, Container)> {
    shield::raise()?;
    let bundle = std::path::absolute(&request.bundle).and_then(|dir| dir.canonicalize()).context(ErrorKind::Invalid, || format!("bundle {}", request.bundle.display()))?;
    let file = request.config.clone().unwrap_or_else(|| bundle.join("config.json"));
    let text = std::fs::read(&file).context(ErrorKind::Invalid, || format!("read {}", file.display()))?;
    let container = Container::new(&spec::read(&text)?, &bundle, global.rootless())?;
    for warning in &container.warnings {
        tracing::warn!("{warning}");
    }
    let Some(p) = &container.process else { return Err(Error::refused(ErrorKind::Invalid, "process is missing: there is nothing to run")) };
    match (p.terminal, &request.console_socket) {
        (false, Some(_)) => Err(Error::refused(ErrorKind::Invalid, "--console-socket is given, but process.terminal is false")),
        _ => Ok((text, container)),
    }
}

type Done = (Record, Option<OwnedFd>);

fn build(global: &Global, request: &Request, run: bool, container: &Container, text: &[u8], made: &mut Made<'_>) -> Result<Done> {
    let Some(dir) = made.dir else { return Err(Error::refused(ErrorKind::Io, "no state directory")) };
    let (console, terminal) = console(request, run, container)?;
    let birth = Birth::prepare(&container.namespaces)?;
    let prepared = if container.namespaces.mount == Namespace::New { rootfs::prepare(container)? } else { rootfs::Prepared::default() };
    let groups = cgroup::Record::plan(&request.id, container.cgroups_path.as_deref(), global.manager())?;
    let mut record = record(request, container, groups)?;
    dir.write(&record)?;
    dir.save_config(text)?;
    let start = if run { None } else { Some(dir.awaiting_start()?) };
    let owner = owner(container);
    let group = made.cgroup.insert(Cgroup::create(&record.cgroup, &container.resources, owner)?);
    let (ours, theirs) = Channel::pair()?;
    let p = container.process.as_ref();
    let child = Child {
        container,
        state: state(&record, Status::Created, 0),
        cgroup: &record.cgroup,
        tasks: group.entrances()?,
        mount_namespace: None,
        prepared,
        runtime: theirs,
        console,
        start,
        outfit: outfit(request, container),
        no_pivot: request.no_pivot,
        halt: halts(container),
    };
    // Whoever may read this process's memory could read what the child holds of the host's.
    if rustix::process::geteuid().is_root() {
        sys::set_dumpable(0).wall(|| "prctl(PR_SET_DUMPABLE)".into())?;
    }
    let born = birth.fork(group.birthplace(), &ours, &child.runtime)?;
    let Forked::Parent { pidfd, pid } = born else {
        drop(ours);
        Child { mount_namespace: birth.mount, ..child }.run()
    };
    drop(child);
    made.child = Some((pidfd, pid));
    record.pid = pid;
    group.adopt(pid)?;
    ids::map(container, pid)?;
    go(&ours)?;
    if halts(container) {
        ours.expect_go()?;
        outside(container, &record, request, pid, made)?;
        record.intel_rdt = made.resctrl.clone();
        go(&ours)?;
    }
    ready(container, &record, &ours, pid)?;
    if let Some(p) = p {
        process::limits(p, pid)?;
    }
    record.start_time = super::state::start_time(pid)?;
    dir.write(&record)?;
    publish(request, made)?;
    go(&ours)?;
    if run {
        begun(&ours)?;
        hooks::run("poststart", &container.hooks.poststart, &state(&record, Status::Running, pid)).unwrap_or_else(|e| tracing::warn!("{e}"));
    }
    Ok((record, terminal))
}

fn go(channel: &Channel) -> Result<()> {
    // A child that has died has said why, or will be seen to be gone by the next reading.
    channel.send(&Message::Go).or_else(|e| if e.errno() == Some(rustix::io::Errno::PIPE) { Ok(()) } else { Err(e) })
}

/// What takes place between the namespaces and the mounts.
fn halts(container: &Container) -> bool {
    let h = &container.hooks;
    !h.prestart.is_empty() || !h.create_runtime.is_empty() || !container.time_offsets.is_empty() || !container.net_devices.is_empty() || container.intel_rdt.is_some()
}

fn outside(container: &Container, record: &Record, request: &Request, pid: u32, made: &mut Made<'_>) -> Result<()> {
    if !container.time_offsets.is_empty() {
        let lines: String = container.time_offsets.iter().map(|(clock, secs, nanos)| format!("{clock} {secs} {nanos}\n")).collect();
        let file = format!("/proc/{pid}/timens_offsets");
        std::fs::write(&file, &lines).wall(|| format!("linux.timeOffsets: write {lines:?} to {file}"))?;
    }
    if let Some(rdt) = &container.intel_rdt {
        made.resctrl = resctrl::join(rdt, &request.id, pid)?;
    }
    net_devices::give(&container.net_devices, pid)?;
    let state = state(record, Status::Creating, pid);
    hooks::run("prestart", &container.hooks.prestart, &state)?;
    hooks::run("createRuntime", &container.hooks.create_runtime, &state)
}

/// Waits until the first process has nothing left to do, and hands its filter's listener over.
fn ready(container: &Container, record: &Record, channel: &Channel, pid: u32) -> Result<()> {
    match channel.receive()? {
        Some(Message::Ready(listener)) => match (listener, container.filter.as_ref().and_then(|f| f.listener.as_ref())) {
            (Some(fd), Some((path, metadata))) => filter::hand_over(fd.as_fd(), path, metadata, &state(record, Status::Creating, pid), pid),
            _ => Ok(()),
        },
        Some(Message::Failed(kind, text)) => Err(Error::refused(kind, text)),
        Some(_) => Err(Error::refused(ErrorKind::Io, "runtime and container's first process are out of step")),
        None => Err(Error::refused(ErrorKind::Wall, GONE)),
    }
}

/// Exec closes the child's end; anything else that comes is a failure.
fn begun(channel: &Channel) -> Result<()> {
    match channel.receive()? {
        None => Ok(()),
        Some(Message::Failed(kind, text)) => Err(Error::refused(kind, text)),
        Some(_) => Err(Error::refused(ErrorKind::Io, "runtime and container's first process are out of step")),
    }
}

/// Who gets the terminal's other side: a socket of the caller's, or this process.
fn console(request: &Request, run: bool, container: &Container) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if !container.process.as_ref().is_some_and(|p| p.terminal) {
        return Ok((None, None));
    }
    match &request.console_socket {
        Some(path) => Ok((Some(console::connect(path)?), None)),
        None if run && !request.detach => {
            let (ours, theirs) = console::pair()?;
            Ok((Some(theirs), Some(ours)))
        }
        None => Err(Error::refused(ErrorKind::Invalid, "cannot allocate tty if runc will detach without setting console socket: process.terminal is true, so give --console-socket")),
    }
}

fn outfit(request: &Request, container: &Container) -> Outfit {
    let mut outfit = Outfit {
        filter: container.filter.clone(),
        personality: container.personality,
        memory_policy: container.memory_policy.clone(),
        keyring: !request.no_new_keyring,
        preserve_fds: request.preserve_fds,
        ..Outfit::default()
    };
    outfit.take_listening();
    outfit
}

/// The host's ids of the container's root, for the control group's files.
fn owner(container: &Container) -> Option<(u32, u32)> {
    if container.namespaces.user != Namespace::New {
        return None;
    }
    let host = |map: &[spec::IdMapping]| map.iter().find(|m| m.container_id == 0).map(|m| m.host_id);
    host(&container.uid_map).zip(host(&container.gid_map))
}

fn record(request: &Request, container: &Container, cgroup: cgroup::Record) -> Result<Record> {
    Ok(Record {
        id: request.id.clone(),
        oci_version: container.oci_version.clone(),
        bundle: request.bundle.canonicalize().context(ErrorKind::Invalid, || format!("bundle {}", request.bundle.display()))?,
        rootfs: container.rootfs.clone(),
        pid: 0,
        start_time: 0,
        created: super::log::now(),
        owner: rustix::process::geteuid().as_raw(),
        cgroup,
        annotations: container.annotations.clone(),
        hooks: container.hooks.clone(),
        user_namespace: container.namespaces.user != Namespace::Host,
        terminal: container.process.as_ref().is_some_and(|p| p.terminal),
        intel_rdt: None,
    })
}

fn state(record: &Record, status: Status, pid: u32) -> State {
    State {
        oci_version: record.oci_version.clone(),
        id: record.id.clone(),
        status,
        pid,
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone(),
    }
}

/// The pid's file and the pidfd's socket: the caller may use them as soon as they are there.
fn publish(request: &Request, made: &Made<'_>) -> Result<()> {
    let Some((pidfd, pid)) = &made.child else { return Ok(()) };
    if let Some(path) = &request.pid_file {
        write_pid(path, *pid)?;
    }
    if let Some(path) = &request.pidfd_socket {
        console::send_to(path, pidfd.as_fd())?;
    }
    Ok(())
}

/// Written aside and renamed, so that nobody reads half a number.
///
/// # Errors
/// Of writing.
pub fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let aside = path.with_file_name(name);
    let written = std::fs::write(&aside, pid.to_string()).and_then(|()| std::fs::rename(&aside, path));
    written.context(ErrorKind::Invalid, || format!("--pid-file {}", path.display()))
}

/// Which manager the global options ask for.
impl Global {
    fn manager(&self) -> Manager {
        self.cgroup_manager
    }
}
