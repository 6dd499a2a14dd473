//! The runtime's side of `create` and `run`, from the configuration to a first process that waits for `start` (or, with `run`, has begun).
//!
//! Whatever fails, what was made until then is taken away again in the opposite order, and the error that caused it is the one told.

mod made;

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use self::made::Made;
use super::{
    Global,
    ahead::{Ahead, Joining},
    cgroup::{self, Cgroup},
    channel::{Channel, GONE, Message},
    child::Child,
    console, filter, hooks, ids,
    launcher::Launcher,
    namespaces::Birth,
    net_devices, notify,
    plan::{Container, Namespace},
    process::{self, Outfit},
    resctrl, rootfs,
    rootfs::Prepared,
    shield, spec,
    state::{GO, Held, Record, StateDir, Status},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, Flags, Forked},
};

/// What `create` and `run` are asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Of the container; not checked yet.
    pub id: String,
    /// As given; the working directory unless it is.
    pub bundle: PathBuf,
    /// Another configuration than `config.json` of the bundle (crun's `--config`).
    pub config: Option<PathBuf>,
    /// Gets the number of the first process.
    pub pid_file: Option<PathBuf>,
    /// Gets the terminal's master end.
    pub console_socket: Option<PathBuf>,
    /// Gets the first process's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// The root is moved to `/` instead of pivoted to.
    pub no_pivot: bool,
    /// The caller's session keyring is kept.
    pub no_new_keyring: bool,
    /// How many descriptors after the first three (and those of LISTEN_FDS) the program gets.
    pub preserve_fds: u32,
    /// `run`: the program is followed to its end, with this process's own terminal if it has one.
    pub foreground: bool,
    /// `run`: orphans of the container are not taken for children.
    pub no_subreaper: bool,
    /// `run`: nothing comes between `create` and `start`.
    pub begins: bool,
}

/// A container that waits for `start`.
#[derive(Debug)]
pub struct Created {
    /// Locked still.
    pub held: Held,
    /// As it was written.
    pub record: Record,
    /// Its control groups.
    pub group: Cgroup,
    /// Of the first process, our child.
    pub pidfd: OwnedFd,
    /// The master end of its terminal, where there is one that nobody else was given.
    pub console: Option<OwnedFd>,
    /// Where the byte of `start` was written already.
    pub begun: Option<File>,
}

/// Makes a container; its first process waits for `start`.
///
/// # Errors
/// The first thing that is wrong with the request or that the kernel refuses; whatever was made is gone again.
pub fn create(global: &Global, mut request: Request) -> Result<Created> {
    request.bundle = std::path::absolute(&request.bundle)
        .and_then(|dir| dir.canonicalize())
        .context(ErrorKind::Invalid, || format!("bundle {}", request.bundle.display()))?;
    let (text, mut container, launcher) = load(global, &request)?;
    let held = StateDir::create(&global.root, &request.id)?;
    let mut made = Made::default();
    let noticed = if notify::is_wanted(&container) { held.make_notify().map(|dir| notify::add(&mut container, &dir)) } else { Ok(()) };
    match noticed.and_then(|()| build(global, &request, (&container, launcher), &text, &held, &mut made)) {
        Ok(Done { record, console, begun }) => {
            let (pidfd, group) = made.child.zip(made.cgroup).ok_or_else(|| Error::refused(ErrorKind::Io, GONE))?;
            Ok(Created { held, record, group, pidfd, console, begun })
        }
        Err(e) => {
            let hooked = e.to_string().starts_with(hooks::FAILED);
            let record = if hooked { held.record().ok().flatten() } else { None };
            made.undo(held, global);
            // After a hook that fails the life goes on at its end (runtime-spec, lifecycle, steps 3 to 5).
            if let Some(record) = record {
                hooks::poststop(global, &record);
            }
            Err(e)
        }
    }
}

fn load(global: &Global, request: &Request) -> Result<(Vec<u8>, Container, Option<Launcher>)> {
    let file = request.config.clone().unwrap_or_else(|| request.bundle.join("config.json"));
    let (spec, text) = spec::read_with_text(&file)?;
    let container = Container::new(&spec, &request.bundle)?;
    let launcher = Launcher::prepare(&container);
    if launcher.is_none() {
        // From the second execution we come here again, with everything above done anew.
        shield::raise()?;
    }
    for warning in &container.warnings {
        global.log.warn(warning);
    }
    for note in &container.notes {
        global.log.debug(|| note.clone());
    }
    if request.console_socket.is_some() && !container.process.as_ref().is_some_and(|p| p.terminal) {
        return Err(Error::refused(
            ErrorKind::Invalid,
            "cannot use console socket if runc will not detach or allocate tty: process.terminal is false",
        ));
    }
    Ok((text, container, launcher))
}

/// What [`build`] comes to.
#[derive(Debug)]
struct Done {
    record: Record,
    console: Option<OwnedFd>,
    begun: Option<File>,
}

fn build(
    global: &Global,
    request: &Request,
    (container, launcher): (&Container, Option<Launcher>),
    text: &[u8],
    held: &Held,
    made: &mut Made,
) -> Result<Done> {
    let (theirs, ours) = console(request, container)?;
    let mut birth = Birth::prepare(&container.namespaces)?;
    let mut prepared = Prepared::root(container)?;
    // Whoever may read this process's memory could read what the child, and what helps it, hold of the host's.
    if rustix::process::geteuid().is_root() {
        sys::set_dumpable(0).wall(|| "prctl(PR_SET_DUMPABLE)".into())?;
    }
    let mut ahead = Ahead::begin(container, &prepared, request.no_pivot)?;
    prepared.open(container)?;
    let groups = cgroup::Record::plan(&request.id, container.cgroups_path.as_deref(), global.manager)?;
    let mut record = record(request, &request.bundle, container, groups)?;
    held.intend(&record)?;
    let start = held.make_start()?;
    let group = made.cgroup.insert(Cgroup::create(&record.cgroup, &container.resources, owner(container))?);
    let joining = Ahead::settle(&mut ahead, container, &mut prepared)?;
    birth.leave(joining.as_ref().map_or(Flags::NONE, Joining::kinds));
    let (runtime, first) = Channel::pair()?;
    let child = Child {
        container,
        state: record.state(Status::Created),
        cgroup: &record.cgroup,
        tasks: group.entrances()?,
        ahead: joining,
        prepared: Some(prepared),
        runtime: first,
        console: theirs,
        start,
        outfit: outfit(request, container),
        launcher,
        no_pivot: request.no_pivot,
        halt: halts(container),
        hooked: is_hooked(container),
    };
    let (runtime, pid) = born(child, birth, runtime, &record, made)?;
    record.pid = pid;
    held.save_config(text)?;
    follow(request, container, (held, record, ours), &runtime, made)
}

/// Forks the first process and does to it what is to be done before it may go on; the channel to it and its number.
fn born(child: Child<'_>, birth: Birth, runtime: Channel, record: &Record, made: &mut Made) -> Result<(Channel, u32)> {
    let container = child.container;
    // Where that is nothing, the word is there before the process is.
    let unheld = is_unheld(container, record);
    if unheld {
        go(&runtime)?;
    }
    let group = made.cgroup.as_mut().ok_or_else(|| Error::refused(ErrorKind::Io, GONE))?;
    let (pidfd, pid) = match birth.fork(group.birthplace(), &runtime, &child.runtime)? {
        Forked::Parent { pidfd, pid } => (pidfd, pid),
        Forked::Child => {
            drop(runtime);
            child.run(birth)
        }
    };
    made.child = Some(pidfd);
    if !unheld {
        group.adopt(pid)?;
        ids::map(container, pid)?;
        if let Some(p) = &container.process {
            process::limits(p, pid)?;
        }
        go(&runtime)?;
    }
    Ok((runtime, pid))
}

/// Whether the child may go on from its birth: it is in its groups or enters them itself, has no ids to be mapped and no limits that only the
/// host's root may set.
fn is_unheld(container: &Container, record: &Record) -> bool {
    record.cgroup.unit.is_none() && container.namespaces.user == Namespace::Host && !container.process.as_ref().is_some_and(process::has_limits)
}

/// Accompanies the first process from its birth until nothing is left for it but to wait for `start`.
fn follow(
    request: &Request,
    container: &Container,
    (held, mut record, ours): (&Held, Record, Option<OwnedFd>),
    runtime: &Channel,
    made: &mut Made,
) -> Result<Done> {
    let pid = record.pid;
    if halts(container) {
        runtime.expect_go()?;
        outside(container, pid, request, made)?;
        record.intel_rdt.clone_from(&made.resctrl);
        go(runtime)?;
    }
    // From here on the next call can end what a runtime leaves that is killed. Nobody takes it for a container before `made`.
    record.start_time = crate::proc_stat::start_time(pid)?;
    held.save(&record)?;
    let begun = begin(request, container, held, runtime)?;
    if is_hooked(container) {
        runtime.expect_go()?;
        let state = record.state(Status::Creating);
        hooks::run("prestart", &container.hooks.prestart, &state)?;
        hooks::run("createRuntime", &container.hooks.create_runtime, &state)?;
        go(runtime)?;
    }
    ready(container, &record, runtime)?;
    held.made()?;
    let console = ours.map(|socket| console::receive(socket.as_fd())).transpose()?;
    publish(request, made, pid)?;
    if begun.is_none() {
        go(runtime)?;
    }
    Ok(Done { record, console, begun })
}

/// With `run`, where nothing is to be done between the two, the byte of `start` is there before it is waited for: the first process goes on
/// without waiting for us to wake up.
fn begin(request: &Request, container: &Container, held: &Held, runtime: &Channel) -> Result<Option<File>> {
    let told = request.pid_file.is_some() || request.pidfd_socket.is_some() || notify::has_caller();
    let Some(process) = container.process.as_ref().filter(|_| request.begins && !told && !is_hooked(container)) else { return Ok(None) };
    if process.terminal || container.filter.as_ref().is_some_and(|filter| filter.listener.is_some()) {
        return Ok(None);
    }
    let Some(mut fifo) = held.starter()? else { return Ok(None) };
    match fifo.write_all(&[GO]) {
        // It says why it gave up by the channel.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(None),
        other => other.io(|| "write(start)".into())?,
    }
    go(runtime)?;
    Ok(Some(fifo))
}

fn go(channel: &Channel) -> Result<()> {
    // A child that has died has said why, or will be seen to be gone by the next reading.
    channel.send(&Message::Go).or_else(|e| if e.errno() == Some(Errno::PIPE) { Ok(()) } else { Err(e) })
}

/// What takes place between the namespaces and the mounts.
fn halts(container: &Container) -> bool {
    !container.time_offsets.is_empty() || !container.net_devices.is_empty() || container.intel_rdt.is_some()
}

/// "Hooks authors should only expect from the runtime that the mount namespace have been created and the mount operations performed"
/// (runtime-spec, config.md, createRuntime Hooks): so that is when they run, before the root is pivoted to.
fn is_hooked(container: &Container) -> bool {
    !container.hooks.prestart.is_empty() || !container.hooks.create_runtime.is_empty()
}

fn outside(container: &Container, pid: u32, request: &Request, made: &mut Made) -> Result<()> {
    if !container.time_offsets.is_empty() {
        let lines: String = container.time_offsets.iter().map(|(clock, secs, nanos)| format!("{clock} {secs} {nanos}\n")).collect();
        let file = format!("/proc/{pid}/timens_offsets");
        std::fs::write(&file, &lines).wall(|| format!("linux.timeOffsets: write {lines:?} to {file}"))?;
    }
    if let Some(rdt) = &container.intel_rdt {
        made.resctrl = resctrl::join(rdt, &request.id, pid)?;
    }
    net_devices::give(&container.net_devices, pid)
}

/// Waits until the first process has nothing left to do, and hands its filter's listener over.
fn ready(container: &Container, record: &Record, channel: &Channel) -> Result<()> {
    loop {
        match channel.receive()? {
            Some(Message::Listener(fd)) => {
                if let Some((path, metadata)) = container.filter.as_ref().and_then(|filter| filter.listener.as_ref()) {
                    filter::hand_over(fd.as_fd(), path, metadata, &record.state(Status::Creating), record.pid)?;
                }
            }
            Some(Message::Ready) => return Ok(()),
            Some(Message::Failed(kind, text)) => return Err(Error::refused(kind, text)),
            Some(_) => return Err(Error::refused(ErrorKind::Io, "runtime and container's first process are out of step")),
            None => return Err(Error::refused(ErrorKind::Wall, GONE)),
        }
    }
}

/// Who gets the terminal's other side: a socket of the caller's, or this process.
fn console(request: &Request, container: &Container) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if !container.process.as_ref().is_some_and(|p| p.terminal) {
        return Ok((None, None));
    }
    match &request.console_socket {
        Some(path) => Ok((Some(console::connect(path)?), None)),
        None if request.foreground => {
            let (ours, theirs) = console::pair()?;
            Ok((Some(theirs), Some(ours)))
        }
        None => Err(Error::refused(
            ErrorKind::Invalid,
            "cannot allocate tty if runc will detach without setting console socket: process.terminal is true, so give --console-socket",
        )),
    }
}

fn outfit(request: &Request, container: &Container) -> Outfit {
    let mut outfit = Outfit::default();
    outfit.filter.clone_from(&container.filter);
    outfit.personality = container.personality;
    outfit.memory_policy.clone_from(&container.memory_policy);
    outfit.keyring = !request.no_new_keyring;
    outfit.preserve_fds = request.preserve_fds;
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

/// What is written down of a container before it is made; `bundle` is absolute and without symlinks.
///
/// # Errors
/// Of a look at the root.
pub(super) fn record(request: &Request, bundle: &Path, container: &Container, cgroup: cgroup::Record) -> Result<Record> {
    Ok(Record {
        id: request.id.clone(),
        oci_version: container.oci_version.clone(),
        bundle: bundle.to_owned(),
        rootfs: container.rootfs.clone(),
        pid: 0,
        start_time: 0,
        created: super::log::rfc3339(std::time::SystemTime::now()),
        owner: rustix::process::geteuid().as_raw(),
        cgroup,
        annotations: container.annotations.clone(),
        hooks: container.hooks.clone(),
        program: container.process.is_some(),
        user_namespace: container.namespaces.user != Namespace::Host,
        terminal: container.process.as_ref().is_some_and(|p| p.terminal),
        intel_rdt: None,
        mount_below: rootfs::mount_below(container)?,
    })
}

/// The pid's file and the pidfd's socket: the caller may use them as soon as they are there.
fn publish(request: &Request, made: &Made, pid: u32) -> Result<()> {
    let Some(pidfd) = &made.child else { return Ok(()) };
    if let Some(path) = &request.pid_file {
        write_pid(path, pid)?;
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
