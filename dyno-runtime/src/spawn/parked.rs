//! Parked sandboxes: raised ahead, every wall up, waiting for a program.
//!
//! What a start costs is paid before anybody asks: namespaces, groups with their limits, root, mounts, ids, filter. Inside wait the init and one
//! process that will become the program ([`Host::park`]; `init/park.rs`). To claim one ([`Parked::claim`]) is to send it a command and three
//! descriptors; while it execs its state directory, group and id range get the dyno's name. It fits whoever asks for the same walls
//! ([`same_walls`]): only program, environment, working directory, host name, streams and listening sockets are the caller's to choose.
//!
//! No program has ever run in a parked sandbox, and none runs in it a second time. It ends with the process that made it, because it must
//! hear of its claim from there.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::RenameFlags,
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg},
};

use super::{
    Ground, Posture, StartOptions, Stdio, Streams, Timing, Walled, Wanted,
    debris::Debris,
    exec, has_begun, micros, socket_pair,
    stdio::{self, Owner, Prepared},
    words::killed_early,
};
use crate::{
    cgroup::Group,
    dyno::{Dyno, Record, Tier, write_sandbox},
    error::{Context, Error, ErrorKind, Result},
    host::Host,
    mount::{Claim, Leases, WritableLayer, host_id},
    net,
    plan::{Plan, check},
    seccomp::Denied,
    spec::{self, Limits, Sandbox},
};

/// Longer commands start cold: the waiting process has room for this much.
const MOST: usize = 60 * 1024;

/// Begins the names of state directories of parked sandboxes; pid and start time of their process follow.
const PREFIX: &str = "parked-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// One that waits. Dropped, it is ended and freed.
#[derive(Debug)]
pub(crate) struct Parked {
    name: String,
    slot: u32,
    claim: Claim,
    /// What is written down in its state directory.
    like: Sandbox,
    hostname: String,
    pid: u32,
    start_time: u64,
    timing: Timing,
    /// The command goes here, and is answered here.
    line: OwnedFd,
    /// Tells the init that the dyno is written down.
    ready: OwnedFd,
    /// A /dev/null for its streams.
    null: Option<OwnedFd>,
    /// What the dyno will have; None once it has it.
    belongings: Option<Belongings>,
    dir: PathBuf,
    leases: Arc<Leases>,
}

#[derive(Debug)]
struct Belongings {
    pidfd: OwnedFd,
    netns: OwnedFd,
    mounts: Option<OwnedFd>,
    group: Option<Group>,
    upper: Option<WritableLayer>,
    log: OwnedFd,
}

impl Drop for Parked {
    fn drop(&mut self) {
        let Some(belongings) = self.belongings.take() else { return };
        crate::dyno::kill_and_reap(belongings.pidfd.as_fd());
        if let Some(Err(e)) = belongings.group.as_ref().map(Group::remove) {
            tracing::warn!(name = self.name, %e, "a parked sandbox left its cgroup");
        }
        if let Err(e) =
            crate::mount::detach(&self.dir).and_then(|()| std::fs::remove_dir_all(&self.dir).io(|| format!("remove {}", self.dir.display())))
        {
            tracing::warn!(name = self.name, %e, "a parked sandbox left its state directory");
        }
        self.leases.free(self.slot);
    }
}

/// Whether a parked sandbox like `a` can run `b`. Every field has a say, so that none is forgotten.
pub(crate) fn same_walls(a: &Sandbox, b: &Sandbox) -> bool {
    let Sandbox { root, argv: _, env: _, cwd: _, hostname: _, identity, limits, seccomp, network, volumes, devices, masked, read_only } = a;
    let same_reach = *network == b.network && *volumes == b.volumes && *devices == b.devices;
    *root == b.root
        && *identity == b.identity
        && *limits == b.limits
        && *seccomp == b.seccomp
        && same_reach
        && *masked == b.masked
        && *read_only == b.read_only
}

/// Whether such a sandbox can be parked at all, else why not.
pub(crate) fn refusal(sandbox: &Sandbox) -> Option<&'static str> {
    let Limits { wall_ms, cpu_ms, output, .. } = sandbox.limits;
    if sandbox.network != spec::Network::Private {
        Some("network: only a private one can wait")
    } else if wall_ms.is_some() || cpu_ms.is_some() || output.is_some() {
        Some("limits.wall_ms, cpu_ms, output: what is counted from the start cannot wait")
    } else if sandbox.limits.open_files < 16 {
        Some("limits.open_files: below 16 the waiting process cannot receive its streams")
    } else if !sandbox.identity.capabilities.is_empty() {
        Some("identity.capabilities: they hold over namespaces that are made at the start")
    } else if sandbox.root.layers.iter().any(|layer| matches!(layer, spec::Layer::UpperOf(_))) {
        Some("root.layers: what another dyno wrote is its own until it ends")
    } else {
        None
    }
}

/// Whether a state directory is of a parked sandbox of this process.
pub(crate) fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('-')).is_some_and(|(whose, _)| mark().is_ok_and(|mark| mark == whose))
}

fn mark() -> Result<String> {
    let pid = std::process::id();
    Ok(format!("{pid}-{}", crate::proc_stat::start_time(pid)?))
}

impl Host {
    /// Raises a sandbox like `like` and lets it wait.
    pub(crate) fn park(&self, like: &Sandbox) -> Result<Parked> {
        let mut plan = Plan::without_filter(like)?;
        self.fit(&mut plan, false)?;
        let posture = Posture::new(self, &plan, Denied::Answer)?;
        let began = Instant::now();
        let name = format!("{PREFIX}{}-{}", mark()?, NEXT.fetch_add(1, Ordering::Relaxed));
        let mut debris = Debris::new(self, &name)?;
        let mut lease = self.own_lease(&mut debris)?;
        let mut options = StartOptions { stdio: Stdio::Log, ..StartOptions::default() };
        let mut furnished = self.furnished(&plan, &mut lease, &mut options, &debris.dir())?;
        debris.group = self.cgroups().map(|cgroups| cgroups.make_spare()?.limited(&plan.limits)).transpose()?;
        let (line, theirs) = socket_pair(SocketType::SEQPACKET, "parked")?;
        let wanted = Wanted { plan: &plan, posture: &posture, lease: &lease, furnished: &furnished, waits: false, line: Some(theirs.as_fd()) };
        let Walled { pid, ready, prepared, walled, netns, mounts } =
            self.raise_walls(&wanted, Ground::Ready(net::fresh_from_here()?), &mut debris)?;
        furnished.streams.close_child_ends();
        has_begun(&ready, || "fork, for the process that waits".into())?;
        write_sandbox(&debris.dir(), like)?;
        let Streams::Log(log) = furnished.streams.parent else { return Err(Error::refused(ErrorKind::Io, "a parked sandbox without log")) };
        let netns = netns.ok_or_else(|| Error::refused(ErrorKind::Io, "a parked sandbox without network"))?;
        let (claim, null, start_time) = (self.leases().claim_on(lease.slot())?, stdio::open_null()?, crate::proc_stat::start_time(pid)?);
        let dir = debris.dir();
        let (_, group, pidfd) = debris.disarm()?;
        let timing = Timing { prepare_us: micros(prepared - began), walls_us: micros(walled - prepared), exec_us: 0 };
        Ok(Parked {
            name,
            slot: lease.slot(),
            claim,
            like: like.clone(),
            hostname: plan.hostname.clone(),
            pid,
            start_time,
            timing,
            line,
            ready,
            null: Some(null),
            belongings: Some(Belongings { pidfd, netns, mounts, group, upper: furnished.upper, log }),
            dir,
            leases: self.shared_leases(),
        })
    }

    /// Takes a parked sandbox for `id`, if one fits; else gives the options back.
    pub(super) fn claim<'a>(&self, id: &str, sandbox: &Sandbox, options: StartOptions<'a>) -> Result<std::result::Result<Dyno, StartOptions<'a>>> {
        let Some(workshop) = self.workshop() else { return Ok(Err(options)) };
        let plain = options.after.is_none() && !options.keep_upper && !options.log_denied && !matches!(options.stdio, Stdio::Tty { .. });
        if !plain || !workshop.has_lots() {
            return Ok(Err(options));
        }
        check::sandbox(sandbox)?;
        let command = exec::image(&sandbox.argv, &sandbox.env, &sandbox.cwd.to_string_lossy());
        if command.len() > MOST {
            return Ok(Err(options));
        }
        while let Some(parked) = workshop.parked(sandbox) {
            // One may have been killed while it waited, by a host that is out of memory.
            if parked.is_alive() {
                return parked.claim(self, id, sandbox, &command, options).map(Ok);
            }
        }
        Ok(Err(options))
    }
}

impl Parked {
    fn is_alive(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.belongings.as_ref().is_some_and(|b| matches!(poll(&mut [PollFd::new(&b.pidfd, PollFlags::IN)], Some(&now)), Ok(0)))
    }

    /// Makes it dyno `id`; returns once the program's exec is done.
    fn claim(mut self, host: &Host, id: &str, sandbox: &Sandbox, command: &[u8], options: StartOptions<'_>) -> Result<Dyno> {
        let asked = Instant::now();
        let belongings = self.belongings.as_ref().ok_or_else(killed_early)?;
        let listeners = options.listen.iter().map(|port| net::listen_in(belongings.netns.as_fd(), *port)).collect::<Result<_>>()?;
        if sandbox.hostname != self.hostname {
            net::name_host(self.pid, &sandbox.hostname)?;
        }
        let null = self.null.take().map_or_else(stdio::open_null, Ok)?;
        let mut streams = self.streams(options.stdio, null, sandbox)?;
        // The name is taken before anything runs under it.
        let dir = host.dyno_dir(id);
        match rustix::fs::renameat_with(rustix::fs::CWD, &self.dir, rustix::fs::CWD, &dir, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {
                return Err(Error::refused(ErrorKind::Invalid, format!("dyno {id}: rename({}) (does it run already?)", dir.display())));
            }
            other => other.io(|| format!("rename({}, {})", self.dir.display(), dir.display()))?,
        }
        self.dir.clone_from(&dir);
        if !matches!(streams.parent, Streams::Log(_)) {
            rustix::fs::unlinkat(rustix::fs::CWD, dir.join("log"), rustix::fs::AtFlags::empty()).io(|| format!("unlink({}/log)", dir.display()))?;
        }
        let let_go = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.send(command, &streams)?;
        streams.close_child_ends();
        // From here on it execs, on another processor where there is one.
        let record = self.write_down(host, id, sandbox)?;
        answer(self.line.as_fd(), &sandbox.argv[0])?;
        let exec_us = micros(asked.elapsed());
        self.tell(let_go, exec_us)?;
        let Belongings { pidfd, netns, mounts, group, upper, log } = self.belongings.take().ok_or_else(killed_early)?;
        let parent = match streams.parent {
            Streams::Log(_) => Streams::Log(log),
            other => other,
        };
        Ok(Dyno {
            host: host.clone(),
            record,
            pidfd,
            netns: Some(netns),
            mounts,
            layers: Vec::new(),
            group,
            upper,
            keeps_upper: false,
            streams: Some(parent),
            listeners,
            denials: None,
            tenant: options.tenant.map(str::to_owned),
            exec_us,
        })
    }

    fn streams(&self, stdio: Stdio, null: OwnedFd, sandbox: &Sandbox) -> Result<Prepared> {
        match stdio {
            Stdio::Log => stdio::to_kept_log(null),
            other => stdio::without_init(other, null, Owner::OnHost(host_id(self.slot, sandbox.identity.uid))),
        }
    }

    fn send(&self, command: &[u8], streams: &Prepared) -> Result<()> {
        let streams_inside = streams.child_streams();
        // The log is the init's own; only stdin goes there.
        let descriptors: &[BorrowedFd<'_>] = if streams.mode == 'l' { &streams_inside[..1] } else { &streams_inside };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(descriptors));
        match sendmsg(&self.line, &[std::io::IoSlice::new(command)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::PIPE | Errno::CONNRESET) => Err(killed_early()),
            other => other.map(drop).io(|| format!("sendmsg(command, {})", self.name)),
        }
    }

    /// Everything that bears a name gets the dyno's.
    fn write_down(&mut self, host: &Host, id: &str, sandbox: &Sandbox) -> Result<Record> {
        if let Some(group) = self.belongings.as_mut().and_then(|b| b.group.as_mut()) {
            group.rename(id)?;
        }
        self.claim.assign(id)?;
        if *sandbox != self.like {
            write_sandbox(&self.dir, sandbox)?;
        }
        let boot_id = host.boot_id().to_owned();
        let record = Record {
            id: id.to_owned(),
            pid: self.pid,
            start_time: self.start_time,
            boot_id,
            slot: self.slot,
            leased: true,
            timing: self.timing,
            tier: Tier::Parked,
        };
        record.write(&self.dir)?;
        Ok(record)
    }

    /// The init learns that it is known, and when its program began.
    fn tell(&self, let_go: Timespec, exec_us: u64) -> Result<()> {
        let mut word = [b'g'; 17];
        word[1..9].copy_from_slice(&(let_go.tv_sec * 1_000_000 + let_go.tv_nsec / 1000).to_le_bytes());
        word[9..].copy_from_slice(&exec_us.to_le_bytes());
        match rustix::net::send(&self.ready, &word, SendFlags::NOSIGNAL) {
            // It has ended since, and has told how.
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            other => other.io(|| "send(ready)".into()).map(drop),
        }
    }
}

/// What execve said: nothing, because the line closes with it.
fn answer(line: BorrowedFd<'_>, program: &str) -> Result<()> {
    let mut errno = [0u8; 4];
    let n = rustix::io::retry_on_intr(|| rustix::io::read(line, &mut errno[..]));
    match n {
        Ok(4) => Err(Error::call(ErrorKind::Exec, format!("execve({program:?})"), Errno::from_raw_os_error(i32::from_le_bytes(errno)))),
        Ok(_) | Err(Errno::CONNRESET) => Ok(()),
        Err(e) => Err(e).io(|| "read(parked)".into()),
    }
}
