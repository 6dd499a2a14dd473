//! From what stands ready to an init behind its walls: what the child is given, its birth, and what came of it.

use std::{
    ffi::{CString, c_char},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::net::SocketType;

use super::{
    assemble::Furnished,
    child::{Child, ChildNetwork, Step},
    debris::Debris,
    socket_pair,
    standing::Posture,
    words::{failure, killed_early},
};
use crate::{
    broken::{self, Part},
    cgroup::Group,
    dyno::network_of,
    error::{Context, Result},
    host::Host,
    mount::Lease,
    plan::{Plan, c_string},
    rootless,
    spec::{Limits, Network},
    sys::{self, Flags, Row, Seated},
    workshop::Order,
};

/// An init that waits behind its walls.
pub(super) struct Walled {
    pub pid: u32,
    /// The line to it.
    pub ready: OwnedFd,
    /// When all stood ready, and when the walls did.
    pub prepared: Instant,
    pub walled: Instant,
    /// Its network; None once it has ended, which only one that does not wait for us can have by now.
    pub netns: Option<OwnedFd>,
    /// Its mount namespace.
    pub mounts: Option<OwnedFd>,
}

/// What walls are raised around.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub plan: &'a Plan,
    pub posture: &'a Posture<'a>,
    pub lease: &'a Lease,
    pub furnished: &'a Furnished,
    /// The program waits for a word of ours.
    pub waits: bool,
    /// There is none yet: it comes over this line.
    pub line: Option<BorrowedFd<'a>>,
}

/// Where the network of a start comes from.
pub(super) enum Ground<'h> {
    Ready(OwnedFd),
    /// From beside, meanwhile.
    Ordered(Order<'h>),
    /// The child is born into a new one, or what it is to be in is not the host's to make.
    Own,
}

impl Host {
    /// From what stands ready to an init behind its walls, which waits for its word.
    pub(super) fn raise_walls(&self, wanted: &Wanted<'_>, ground: Ground<'_>, debris: &mut Debris<'_>) -> Result<Walled> {
        let Wanted { plan, posture, lease, furnished, waits, line } = *wanted;
        let Furnished { root, streams, mounts, .. } = furnished;
        let exit_file = std::fs::File::create_new(debris.dir().join("exit")).io(|| "create exit record".into())?;
        let group = debris.group.as_ref();
        let (tasks, birthplace) = (group.map_or(Ok(Vec::new()), Group::task_files)?, group.and_then(Group::birthplace));
        let cpu = group.filter(|_| plan.limits.cpu_ms.is_some()).map(Group::cpu_time_file).transpose()?;
        let (ready, ready_child) = socket_pair(SocketType::STREAM, "ready")?;
        // Both ends are the init's: see `exec`.
        let (requests, requests_peer) = socket_pair(SocketType::SEQPACKET, "requests")?;
        let [stdin, stdout, stderr] = streams.child_streams();
        let (stdin, mode) = line.map_or((stdin, streams.mode), |line| (line, 'k'));
        let (argv, envp) = (init_argv(mode, waits, plan), plan.c_env());
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        let attach_point = c_string(&self.attach_point().to_string_lossy());
        let (joined, ordered) = match ground {
            Ground::Ready(netns) => (Some(netns), None),
            Ground::Ordered(order) => (None, order.line()),
            Ground::Own => (self.joined(&plan.network)?, None),
        };
        let mut child = Child {
            seated: Seated::NONE,
            tasks: &tasks,
            nowhere: self.nowhere(),
            attach_point: &attach_point,
            root: root.as_fd(),
            mounts,
            hostname: plan.hostname.as_bytes(),
            network: child_network(plan, joined.as_ref(), ordered.as_ref(), lease.is_rootless()),
            userns: (!lease.is_rootless()).then(|| lease.userns()),
            // A rootless one owns all of them from the start.
            own: if lease.is_rootless() { Flags::NONE } else { own_namespaces(plan) },
            standing: posture.standing(),
            fds: [
                stdin,
                stdout,
                stderr,
                streams.log_or_null(),
                exit_file.as_fd(),
                ready_child.as_fd(),
                cpu.as_ref().map_or(streams.null(), AsFd::as_fd),
                requests.as_fd(),
                requests_peer.as_fd(),
            ],
            init: self.init(),
            argv: &argv_pointers,
            envp: &envp_pointers,
            step: Step::Begun,
            failed: None,
        };
        let prepared = Instant::now();
        // A rootless one is cloned from inside its user namespace, which has its own way.
        let row = if lease.is_rootless() { None } else { self.seats().and_then(|seats| seats.seat(&child.descriptors().collect::<Vec<_>>())) };
        child.seated = row.as_ref().map_or(Seated::NONE, Row::seated);
        let born_with = born_with(&child);
        let cloned = if lease.is_rootless() {
            rootless::vfork(lease, born_with, birthplace, &mut child)
        } else {
            sys::vfork(born_with, birthplace, &mut child)
        };
        let (step, failed) = (child.step, child.failed);
        drop(row);
        let (pidfd, pid) = cloned.wall(|| "clone3(namespaces)".into())?;
        let walled = Instant::now();
        // Held, it is not taken apart while somebody waits for the end of the last process (do_exit waits for a grace period then).
        let mounts_held = sys::mount_namespace(pidfd.as_fd());
        let network = joined.or_else(|| sys::network_namespace(pidfd.as_fd()));
        debris.process = Some(pidfd);
        if failed.is_some() || step != Step::ExecInit {
            return Err(failure(step, failed, mounts));
        }
        // One that does not wait may have ended by the time that it is looked for.
        let netns = match (network, &debris.process) {
            (None, Some(pidfd)) => network_of(pid, pidfd.as_fd())?,
            (known, _) => known,
        };
        if netns.is_none() && waits {
            return Err(killed_early());
        }
        Ok(Walled { pid, ready, prepared, walled, netns, mounts: mounts_held })
    }
}

/// The namespaces of clone3; the others follow once the child is at work.
fn born_with(child: &Child<'_>) -> Flags {
    let flag = |wanted, flag| if wanted { flag } else { Flags::NONE };
    let mounts = flag(child.nowhere.is_none(), Flags::NEWNS);
    let network = flag(matches!(child.network, ChildNetwork::New), Flags::NEWNET);
    let files = flag(child.seated.shares_table(), Flags::FILES);
    let unless = |part, flag| if broken::is(part) { Flags::NONE } else { flag };
    unless(Part::PidNamespace, Flags::NEWPID).and(unless(Part::IpcNamespace, Flags::NEWIPC)).and(Flags::NEWUTS).and(mounts).and(network).and(files)
}

/// Those that are made again inside the user namespace, because a capability is to hold over them.
fn own_namespaces(plan: &Plan) -> Flags {
    let flag = |name: &str, flag| if plan.owns(name) { flag } else { Flags::NONE };
    let network = flag("net", Flags::NEWNET).and(flag("ipc", Flags::NEWIPC));
    flag("mount", Flags::NEWNS).and(flag("uts", Flags::NEWUTS)).and(network)
}

fn child_network<'a>(plan: &Plan, joined: Option<&'a OwnedFd>, ordered: Option<&'a OwnedFd>, rootless: bool) -> ChildNetwork<'a> {
    match (&plan.network, joined, ordered) {
        (Network::Host, ..) => ChildNetwork::Host,
        (_, Some(netns), _) => ChildNetwork::Joined(netns.as_fd()),
        (_, None, Some(line)) => ChildNetwork::Ordered(line.as_fd()),
        _ if plan.owns("net") && !rootless => ChildNetwork::Later,
        _ => ChildNetwork::New,
    }
}

/// `dyno-init MODE PROGRAM ARG0 ARG…`: see `init/main.rs`.
fn init_argv(mode: char, waits: bool, plan: &Plan) -> Vec<CString> {
    let Limits { wall_ms, cpu_ms, output, .. } = plan.limits;
    let micros = |ms: Option<u64>| ms.unwrap_or(0) * 1000;
    let processors = if cpu_ms.is_some() { sys::processors() } else { 1 };
    let mode = if waits { mode } else { mode.to_ascii_uppercase() };
    let mode = format!("{mode} {} {} {} {processors}", micros(wall_ms), micros(cpu_ms), output.unwrap_or(0));
    let mut argv = vec![c_string("dyno-init"), c_string(&mode), c_string(&plan.process.argv[0])];
    argv.extend(plan.c_argv());
    argv
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}
