//! The parent side of a start: everything that allocates or can fail on input happens here, before clone3.

mod assemble;
mod child;
mod debris;
mod exec;
pub(crate) mod parked;
mod standing;
mod stdio;
mod unprivileged;
mod words;

use std::{
    ffi::{CString, c_char},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair},
};
use serde::{Deserialize, Serialize};

pub use self::exec::{Exec, ExecStatus, Process};
pub(crate) use self::stdio::open_log;
pub use self::stdio::{Stdio, Stream, Streams};
use self::{
    assemble::Furnished,
    child::{Child, ChildNetwork, Step},
    debris::Debris,
    standing::Posture,
    words::{failure, killed_early},
};
use crate::{
    broken::{self, Part},
    cgroup::{Cgroups, Group},
    denials::Denials,
    dyno::{Dyno, Record, Tier, note_company, write_sandbox},
    error::{Context, Error, ErrorKind, Result},
    host::Host,
    mount::Lease,
    plan::{Plan, c_string, check::check_id},
    rootless,
    seccomp::Denied,
    spec::{Limits, Network, Sandbox},
    sys::{self, Flags, Row, Seated},
    workshop::{Order, Workshop},
};

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
    /// Report every call that the filter answers with an errno: see [`Dyno::take_denials`].
    pub log_denied: bool,
    /// TCP ports on the sandbox's loopback on which listening sockets are made before the program starts.
    pub listen: Vec<u16>,
    /// Whose sandbox this is. One that is alone in a private network leaves it, when it is freed, to the tenant's next one, once it is proven
    /// to be as it was made; never to another's ([`crate::HostOptions::recycled`]).
    pub tenant: Option<&'a str>,
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

/// An init that waits behind its walls.
struct Walled {
    pid: u32,
    /// The line to it.
    ready: OwnedFd,
    /// When all stood ready, and when the walls did.
    prepared: Instant,
    walled: Instant,
    /// Its network, where that was made or joined by descriptor.
    netns: Option<OwnedFd>,
    /// Its mount namespace.
    mounts: Option<OwnedFd>,
}

/// What walls are raised around.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    plan: &'a Plan,
    posture: &'a Posture<'a>,
    lease: &'a Lease,
    furnished: &'a Furnished,
    /// The program waits for a word of ours.
    waits: bool,
    /// There is none yet: it comes over this line.
    line: Option<BorrowedFd<'a>>,
}

/// Where the network of a start comes from.
enum Ground<'h> {
    Ready(OwnedFd),
    /// From beside, meanwhile.
    Ordered(Order<'h>),
    /// The child is born into a new one, or what it is to be in is not the host's to make.
    Own,
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
        let started = match self.claim(id, sandbox, options) {
            Ok(Err(options)) => self.raise(id, sandbox, options),
            Ok(Ok(dyno)) => Ok(dyno),
            Err(e) => Err(e),
        };
        if let Some(workshop) = self.workshop() {
            workshop.nudge();
        }
        started
    }

    /// [`Self::start`] of one for which nothing is parked.
    fn raise(&self, id: &str, sandbox: &Sandbox, mut options: StartOptions<'_>) -> Result<Dyno> {
        let mut plan = Plan::without_filter(sandbox)?;
        self.fit(&mut plan, options.keep_upper)?;
        let posture = Posture::new(self, &plan, if options.log_denied { Denied::Report } else { Denied::Answer })?;
        let began = Instant::now();
        let _under_way = self.workshop().map(Workshop::start_begins);
        let ground = self.ground(&plan, options.tenant)?;
        let tier = if matches!(ground, Ground::Ready(_)) { Tier::Parts } else { Tier::Cold };
        let mut debris = Debris::new(self, id)?;
        let mut lease = self.lease(&mut debris, &plan, &options)?;
        let mut furnished = self.furnished(&plan, &mut lease, &mut options, &debris.dir())?;
        debris.group = self.cgroups().map(|cgroups| self.group_for(cgroups, id, &plan.limits)).transpose()?;
        // An unprivileged user finds the network by its process, which must not have ended by then.
        let waits = lease.is_rootless() || waits(&plan, &options);
        write_sandbox(&debris.dir(), sandbox)?;
        let wanted = Wanted { plan: &plan, posture: &posture, lease: &lease, furnished: &furnished, waits, line: None };
        let walled = self.raise_walls(&wanted, ground, &mut debris)?;
        furnished.streams.close_child_ends();
        let record = self.write_down(&debris, &lease, began, &walled, tier)?;
        let Walled { ready, walled, netns, mounts, .. } = walled;
        let denials = match &debris.process {
            Some(init) if posture.reports => Some(Denials::receive(&ready, posture.filter.clone(), init.as_fd())?),
            _ => None,
        };
        let there = || netns.as_ref().map(AsFd::as_fd).ok_or_else(killed_early);
        let listeners = options.listen.iter().map(|port| crate::net::listen_in(there()?, *port)).collect::<Result<_>>()?;
        if let Network::Egress(egress) = &plan.network {
            // A former owner of the range, which has ended, needs its link no more.
            options.after.map_or(Ok(()), |former| self.uplink().disconnect(&self.dyno_dir(former.id())))?;
            self.uplink().connect(&debris.dir(), lease.slot(), there()?, egress, &furnished.servers)?;
        }
        run_program(&ready, &plan, waits)?;
        let exec_us = micros(walled.elapsed());
        let (host, group, pidfd) = debris.disarm()?;
        let Furnished { upper, layers, streams, .. } = furnished;
        let tenant = options.tenant.filter(|_| plan.network == Network::Private).map(str::to_owned);
        Ok(Dyno {
            host,
            record,
            pidfd,
            netns,
            mounts,
            layers,
            group,
            upper,
            keeps_upper: options.keep_upper,
            streams: Some(streams.parent),
            listeners,
            denials,
            tenant,
            exec_us,
        })
    }

    /// A network that lies ready or is being made, where it is one that the host makes.
    fn ground(&self, plan: &Plan, tenant: Option<&str>) -> Result<Ground<'_>> {
        let Some(workshop) = self.workshop() else { return Ok(Ground::Own) };
        workshop.begin();
        let made_by_host = matches!(plan.network, Network::Private | Network::Egress(_)) && !plan.owns("net");
        let ready = made_by_host.then(|| tenant.and_then(|tenant| workshop.left_by(tenant)).or_else(|| workshop.network())).flatten();
        Ok(match ready {
            Some(netns) => Ground::Ready(netns),
            None if made_by_host => workshop.order_network()?.map_or(Ground::Own, Ground::Ordered),
            None => Ground::Own,
        })
    }

    fn group_for(&self, cgroups: &Cgroups, id: &str, limits: &Limits) -> Result<Group> {
        match self.workshop().and_then(Workshop::group) {
            Some(spare) => Group::from_spare(spare, id, limits),
            None => Group::create(cgroups, id, limits),
        }
    }

    /// From here on a later process finds it.
    fn write_down(&self, debris: &Debris<'_>, lease: &Lease, began: Instant, walled: &Walled, tier: Tier) -> Result<Record> {
        let timing = Timing { prepare_us: micros(walled.prepared - began), walls_us: micros(walled.walled - walled.prepared), exec_us: 0 };
        // Whoever ignores SIGCHLD has it collected at once; then there is nothing to be found any more.
        let start_time = crate::proc_stat::start_time(walled.pid).or_else(|e| if e.errno() == Some(Errno::SRCH) { Ok(0) } else { Err(e) })?;
        let record = Record {
            id: debris.id.clone(),
            pid: walled.pid,
            start_time,
            boot_id: self.boot_id().to_owned(),
            slot: lease.slot(),
            leased: debris.has_lease(),
            timing,
            tier,
        };
        record.write(&debris.dir())?;
        Ok(record)
    }

    /// From what stands ready to an init behind its walls, which waits for its word.
    fn raise_walls(&self, wanted: &Wanted<'_>, ground: Ground<'_>, debris: &mut Debris<'_>) -> Result<Walled> {
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
        let netns = network.map_or_else(|| network_of(pid, waits), |netns| Ok(Some(netns)))?;
        Ok(Walled { pid, ready, prepared, walled, netns, mounts: mounts_held })
    }

    fn lease(&self, debris: &mut Debris<'_>, plan: &Plan, options: &StartOptions<'_>) -> Result<Lease> {
        match options.after {
            // Two at work in one range could reach each other, and what is read as a layer would still be written.
            Some(former) if !former.has_ended() => {
                Err(Error::refused(ErrorKind::Invalid, format!("dyno {}, whose id range is asked for, still runs", former.id())))
            }
            former => match (self.rootless(), former) {
                (Some(rootless), former) => self.rootless_lease(rootless, debris, plan, former),
                (None, Some(former)) => Lease::map(former.record().slot),
                (None, None) => self.own_lease(debris),
            },
        }
    }

    fn own_lease(&self, debris: &mut Debris<'_>) -> Result<Lease> {
        let Some(spare) = self.workshop().and_then(Workshop::lease) else {
            return Ok(debris.lease(self.leases().take(&debris.id)?));
        };
        let spare = debris.lease(spare);
        self.leases().assign(spare.slot(), &debris.id).map(|()| spare)
    }

    /// The network of another sandbox that is to be joined.
    fn joined(&self, network: &Network) -> Result<Option<OwnedFd>> {
        let Network::Joined(id) = network else { return Ok(None) };
        self.joined_dyno(id).map(|(_, netns)| Some(netns))
    }

    /// Another sandbox that runs, and its network.
    fn joined_dyno(&self, id: &str) -> Result<(Record, OwnedFd)> {
        let other = match Record::read(&self.dyno_dir(id))? {
            Some(record) => {
                // Before it is seen to run: from now on its network is not its own.
                note_company(&self.dyno_dir(id))?;
                Dyno::adopt(self, record)?
            }
            None => None,
        };
        let gone = || Error::refused(ErrorKind::Invalid, format!("network joined {id:?} does not run"));
        other.and_then(|dyno| Some((dyno.record, dyno.netns?))).ok_or_else(gone)
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

/// Whether the program is to wait for our word: something is to be made inside before it starts.
fn waits(plan: &Plan, options: &StartOptions<'_>) -> bool {
    options.log_denied || !options.listen.is_empty() || matches!(plan.network, Network::Egress(_))
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

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// The network of the init, where its pidfd does not tell. None when it has ended already, which it can only where it does not wait for us.
fn network_of(pid: u32, waits: bool) -> Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/ns/net");
    match std::fs::File::open(&path) {
        Ok(netns) => Ok(Some(netns.into())),
        // An ending process has left its namespaces, some time before its pidfd says so.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if waits {
                Err(killed_early())
            } else {
                Ok(None)
            }
        }
        Err(e) => Err(e).io(|| format!("open({path})")),
    }
}

pub(crate) fn socket_pair(kind: SocketType, purpose: &str) -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).io(|| format!("socketpair({purpose})"))
}

/// One that waits is given the word first: whatever the program meets is there then. One that does not is told after that it is known:
/// until then our end is its end.
fn run_program(ready: &OwnedFd, plan: &Plan, waits: bool) -> Result<()> {
    if waits {
        tell(ready)?;
    }
    has_begun(ready, || format!("execve({:?})", plan.process.argv[0]))?;
    if waits {
        return Ok(());
    }
    match tell(ready) {
        // One that has ended since needs no word.
        Err(e) if e.errno().is_none() => Ok(()),
        other => other,
    }
}

/// What the init says of the process that it has begun: nothing but that there is one, or with what the call failed.
fn has_begun(ready: &OwnedFd, call: impl FnOnce() -> String) -> Result<()> {
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
        (4, errno) => Err(Error::call(ErrorKind::Exec, call(), Errno::from_raw_os_error(errno))),
        _ => Err(killed_early()),
    }
}

fn tell(ready: &OwnedFd) -> Result<()> {
    match rustix::net::send(ready, b"g", SendFlags::NOSIGNAL) {
        Err(Errno::PIPE | Errno::CONNRESET) => Err(killed_early()),
        other => other.io(|| "send(ready)".into()).map(drop),
    }
}
