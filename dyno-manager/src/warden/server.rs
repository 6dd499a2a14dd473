//! The warden itself: a privileged process of few verbs. Plain threads, one per connection of dynod.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use anyhow::{Context, bail};
use dyno_runtime::{Host, HostOptions, Layer, Network, Profile, Sandbox, StartOptions, Streams, Upper, Volume};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use uuid::Uuid;

use super::{
    Held, Launch, Reply, Request, Stdio, StreamKind, WardenError,
    held::{Body, Dynos, Entry, Note},
    wire,
};
use crate::printable::printable;

/// How a warden is set up; all of it the operator's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// State of the runtime, on a file system that a reboot empties.
    pub run_dir: PathBuf,
    /// Name of its cgroups.
    pub name: String,
    /// Its socket.
    pub socket: PathBuf,
    /// The user that may connect beside root: dynod's.
    pub client_uid: u32,
    /// Network namespaces and control groups kept ready ([`dyno_runtime::HostOptions::spares`]).
    pub spares: usize,
    /// Host paths that a dyno may be given, read-only. No other part of the host ever shows in a dyno.
    pub volumes: Vec<PathBuf>,
}

/// Runs until [`super::Client::shutdown`], which ends every dyno and takes the instance off the host. Killed at any other
/// moment it hurts no dyno; the next warden takes them up.
///
/// # Errors
/// A host that lacks what a sandbox needs, a second warden on the same state, or a socket that cannot be made.
pub fn serve(settings: Settings) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.run_dir).with_context(|| format!("mkdir {}", settings.run_dir.display()))?;
    let lock_path = settings.run_dir.with_extension("lock");
    raise_open_files()?;
    let lock = std::fs::File::create(&lock_path).with_context(|| format!("open {}", lock_path.display()))?;
    let Some(_lock) = take(lock) else {
        bail!("another warden runs on {}; stop it first, or give this one a --run-dir of its own", settings.run_dir.display());
    };
    let options = HostOptions { alone: true, spares: settings.spares, ..HostOptions::default() };
    let host = Host::open_with(&settings.run_dir, &settings.name, &options).context("this host cannot hold dynos")?;
    let dynos = Arc::new(Dynos::recover(host)?);
    let listener = bind(&settings)?;
    tracing::info!(socket = %settings.socket.display(), "the warden is ready");
    crate::ready::Notifier::connect().say();
    let (stop, stopped) = std::sync::mpsc::channel();
    let (accepting, socket) = (dynos.clone(), settings.socket.clone());
    let shared = Arc::new(settings);
    std::thread::spawn(move || accept(&listener, &accepting, &shared, &stop));
    stopped.recv().context("the warden's listener is gone")?;
    drop(std::fs::remove_file(&socket));
    drop(std::fs::remove_file(&lock_path));
    tracing::info!("the warden has left the host as it was");
    Ok(())
}

/// The lock, once it is ours. A warden that was killed may have left a child on its way to its exec that has it for some
/// milliseconds more; a living warden keeps it.
fn take(lock: std::fs::File) -> Option<std::fs::File> {
    if lock.try_lock().is_ok() {
        return Some(lock);
    }
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || lock.lock().map(|()| tell.send(lock)));
    told.recv_timeout(std::time::Duration::from_secs(2)).ok()
}

/// Five descriptors stay open for each dyno, and the usual soft limit is 1024.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).context("setrlimit(RLIMIT_NOFILE)")
}

/// Most connections at a time; dynod has as many as it has calls under way, on at most 512 threads.
const MAX_CONNECTIONS: usize = 1024;

/// A thread for each connection of those who may connect. Nothing that a client does ends the loop.
fn accept(listener: &UnixListener, dynos: &Arc<Dynos>, settings: &Arc<Settings>, stop: &std::sync::mpsc::Sender<()>) {
    let open = Arc::new(());
    for stream in listener.incoming() {
        let refused = stream.map_err(anyhow::Error::from).and_then(|stream| {
            permit_peer(&stream, settings)?;
            if Arc::strong_count(&open) > MAX_CONNECTIONS {
                bail!("{MAX_CONNECTIONS} connections are open");
            }
            let (dynos, settings, stop, open) = (dynos.clone(), settings.clone(), stop.clone(), open.clone());
            let talk = move || {
                if let Err(e) = converse(&stream, &dynos, &settings, &stop) {
                    tracing::warn!(%e, "a connection was closed");
                }
                drop(open);
            };
            std::thread::Builder::new().spawn(talk).context("start a thread")?;
            Ok(())
        });
        if let Err(e) = refused {
            tracing::warn!(%e, "a connection was refused");
            if e.downcast_ref::<std::io::Error>().is_some() {
                // Out of descriptors or threads: the kernel tells of none that comes free, and asking at once would be all we do.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}

fn bind(settings: &Settings) -> anyhow::Result<UnixListener> {
    let path = &settings.socket;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context(format!("remove the old {}", path.display())),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
    std::os::unix::fs::chown(path, Some(0), None).context("chown the socket")?;
    // Who may speak is decided by SO_PEERCRED for each connection; the mode only lets dynod reach it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).context("chmod the socket")?;
    Ok(listener)
}

fn permit_peer(stream: &UnixStream, settings: &Settings) -> anyhow::Result<()> {
    let uid = rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw();
    if uid != 0 && uid != settings.client_uid {
        bail!("user {uid} is not dynod's");
    }
    Ok(())
}

fn converse(stream: &UnixStream, dynos: &Dynos, settings: &Settings, stop: &std::sync::mpsc::Sender<()>) -> anyhow::Result<()> {
    while let Some((request, _)) = wire::receive::<Request>(stream)? {
        let shutdown = matches!(request, Request::Shutdown);
        let _under_way = match &request {
            Request::Start(_) => {
                let under_way = dynos.starting.read().unwrap_or_else(PoisonError::into_inner);
                // Nobody would hear of what a daemon had asked for that has died since; the next one has its own wishes.
                if hung_up(stream)? {
                    return Ok(());
                }
                Some(under_way)
            }
            _ => None,
        };
        let (reply, fds) = answer(request, dynos, settings).unwrap_or_else(|e| (Reply::Failed(e), Vec::new()));
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let sent = wire::send(stream, &reply, &borrowed);
        if shutdown && matches!(reply, Reply::Done) {
            // Nothing is left to serve, whether the one who asked still listens or not.
            stop.send(())?;
        }
        sent?;
    }
    Ok(())
}

/// Whether the other end is closed.
fn hung_up(stream: &UnixStream) -> std::io::Result<bool> {
    let mut watched = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(watched[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP))
}

type Answer = Result<(Reply, Vec<OwnedFd>), WardenError>;

fn answer(request: Request, dynos: &Dynos, settings: &Settings) -> Answer {
    match request {
        Request::Start(launch) => start(*launch, dynos, settings),
        Request::List => {
            // Starts for a former daemon that are under way are told of, too.
            drop(dynos.starting.write().unwrap_or_else(PoisonError::into_inner));
            let held = |(id, e): (Uuid, Arc<Entry>)| {
                let pid = if let Body::Dyno(d) = &e.body { d.pid() } else { 0 };
                Held { id, meta: e.note.meta.clone(), pid, running: e.running() }
            };
            Ok((Reply::Held(dynos.all().into_iter().map(held).collect()), Vec::new()))
        }
        Request::Open(id) => open(&*dynos.get(id)?),
        Request::Signal { id, signal } => {
            if let Body::Dyno(dyno) = &dynos.get(id)?.body {
                dyno.signal(signal)?;
            }
            Ok((Reply::Done, Vec::new()))
        }
        Request::Socket(id) => match &dynos.get(id)?.body {
            Body::Dyno(dyno) => Ok((Reply::Socket, vec![dyno.socket()?])),
            Body::Ended => Err(WardenError::new("unknown", format!("dyno {id} has ended"))),
        },
        Request::Exit(id) => Ok((Reply::Exit(dynos.get(id)?.exit()?), Vec::new())),
        Request::Free(id) => dynos.free(id).map(|()| (Reply::Done, Vec::new())),
        Request::Park { sandbox, count } => {
            permit_sandbox(&sandbox, settings)?;
            dynos.park(&sandbox, count)?;
            Ok((Reply::Done, Vec::new()))
        }
        Request::ParkNone => dynos.park_none().map(|()| (Reply::Done, Vec::new())),
        Request::Shutdown => shutdown(dynos),
    }
}

/// What may be started at all.
pub(super) fn permit(launch: &Launch, settings: &Settings) -> Result<(), WardenError> {
    if launch.listen.len() > 8 {
        return Err(WardenError::new("invalid", "at most 8 ports can be listened on"));
    }
    permit_sandbox(&launch.sandbox, settings)
}

/// The operator's rules on what a sandbox may name; dynod is not trusted to show a dyno parts of the host.
pub(super) fn permit_sandbox(sandbox: &Sandbox, settings: &Settings) -> Result<(), WardenError> {
    // Every field by name: one that the runtime gains is not permitted until somebody has thought of it here.
    let Sandbox { root, identity, seccomp, network, volumes, devices, masked: _, read_only: _, limits: _, argv: _, env: _, cwd: _, hostname: _ } =
        sandbox;
    let refuse = |text: &str| Err(WardenError::new("invalid", text));
    if root.layers.iter().any(|l| matches!(l, Layer::Directory(_))) {
        return refuse("directories of the host are not layers here; only images are");
    }
    if matches!(root.upper, Upper::Disk { .. }) {
        return refuse("writable layers on disk are not permitted here");
    }
    if !identity.capabilities.is_empty() || !devices.is_empty() {
        return refuse("capabilities and devices of the host are not permitted here");
    }
    if !matches!(seccomp, Profile::Dyno | Profile::Build) || *network != Network::Private {
        return refuse("only the profiles dyno and build and a private network are permitted here");
    }
    for volume in volumes {
        let permitted = matches!(volume, Volume::Bind { source, writable: false, .. } if settings.volumes.contains(source));
        if !permitted {
            let target = printable(&volume.target().to_string_lossy(), 200);
            return refuse(&format!("volume at {target}: not among the warden's --volume paths, or asked for writable"));
        }
    }
    Ok(())
}

fn start(launch: Launch, dynos: &Dynos, settings: &Settings) -> Answer {
    permit(&launch, settings)?;
    let former = launch.lease_of.map(|id| dynos.get(id)).transpose()?;
    let after = match former.as_deref() {
        Some(Entry { body: Body::Dyno(dyno), .. }) => Some(&**dyno),
        Some(_) => return Err(WardenError::new("unknown", "the dyno whose id range is asked for is gone")),
        None => None,
    };
    let stdio = match launch.stdio {
        Stdio::Log => dyno_runtime::Stdio::Log,
        Stdio::Pipes => dyno_runtime::Stdio::Pipes,
        Stdio::Tty { rows, cols } => dyno_runtime::Stdio::Tty { rows, cols },
    };
    let options = StartOptions {
        stdio,
        after,
        keep_upper: launch.keep_upper,
        image_maker: Some(settings.client_uid),
        listen: launch.listen.clone(),
        ..StartOptions::default()
    };
    let name = launch.id.to_string();
    let mut dyno = dynos.host.start(&name, &launch.sandbox, options)?;
    let note = Note::new(&launch);
    if let Err(e) = note.write(&dynos.host.dyno_dir(&name)) {
        dyno.free()?;
        return Err(WardenError::io("write launch.json", &e));
    }
    let (streams, listeners) = (dyno.take_streams(), dyno.take_listeners());
    tracing::debug!(id = name, tier = ?dyno.tier(), timing = ?dyno.timing(), "started");
    let entry = dynos.insert(launch.id, Entry::new(Body::Dyno(Box::new(dyno)), note, None));
    if launch.lease_of.is_some_and(|id| dynos.get(id).is_err()) {
        drop(entry);
        dynos.free(launch.id)?;
        return Err(WardenError::new("unknown", "the dyno whose id range is asked for was freed meanwhile"));
    }
    let Body::Dyno(dyno) = &entry.body else { return Err(WardenError::new("io", "lost")) };
    // One that has ended by now has no network to have a socket in, which is told by its end.
    let socket = if launch.socket { dyno.socket().ok() } else { None };
    started(dyno, streams, listeners, socket)
}

fn open(entry: &Entry) -> Answer {
    let Body::Dyno(dyno) = &entry.body else { return Err(WardenError::new("unknown", "it has ended")) };
    let streams = if entry.note.stdio == Stdio::Log { Streams::Log(dyno.open_log()?) } else { Streams::None };
    started(dyno, streams, Vec::new(), None)
}

fn started(dyno: &dyno_runtime::Dyno, streams: Streams, listeners: Vec<OwnedFd>, socket: Option<OwnedFd>) -> Answer {
    let pidfd = dyno.pidfd().try_clone_to_owned().map_err(|e| WardenError::io("dup(pidfd)", &e))?;
    let mut fds = vec![pidfd];
    let kind = match streams {
        // No launch asks for a mixture.
        Streams::None | Streams::Each { .. } => StreamKind::Gone,
        Streams::Log(fd) => {
            fds.push(fd);
            StreamKind::Log
        }
        Streams::Tty(fd) => {
            fds.push(fd);
            StreamKind::Tty
        }
        Streams::Pipes { stdin, stdout, stderr } => {
            fds.extend([stdin, stdout, stderr]);
            StreamKind::Pipes
        }
    };
    let reply = Reply::Started { pid: dyno.pid(), streams: kind, listeners: listeners.len(), socket: socket.is_some() };
    fds.extend(listeners);
    fds.extend(socket);
    Ok((reply, fds))
}

/// Ends every dyno and unmounts everything. The answer comes when the host is as before.
fn shutdown(dynos: &Dynos) -> Answer {
    let all = dynos.all();
    for (_, entry) in &all {
        if let Body::Dyno(dyno) = &entry.body {
            dyno.kill()?;
        }
    }
    let ids: Vec<Uuid> = all.iter().map(|(id, _)| *id).collect();
    drop(all);
    for id in ids {
        dynos.free(id)?;
    }
    dynos.host.clone().dismantle()?;
    Ok((Reply::Done, Vec::new()))
}
