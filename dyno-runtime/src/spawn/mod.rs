//! The parent side of a start: everything that allocates or can fail on input happens here, before clone3.

mod assemble;
mod child;
mod debris;
mod exec;
pub(crate) mod parked;
mod raise;
mod standing;
mod stdio;
mod unprivileged;
mod words;

use std::{
    os::fd::{AsFd, OwnedFd},
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
    debris::Debris,
    raise::{Ground, Walled, Wanted},
    standing::Posture,
    words::killed_early,
};
use crate::{
    cgroup::{Cgroups, Group},
    denials::Denials,
    dyno::{Dyno, Record, Tier, note_company, write_sandbox},
    error::{Context, Error, ErrorKind, Result},
    host::Host,
    mount::Lease,
    plan::{Plan, check::check_id},
    seccomp::Denied,
    spec::{Limits, Network, Sandbox},
    workshop::Workshop,
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

/// Whether the program is to wait for our word: something is to be made inside before it starts.
fn waits(plan: &Plan, options: &StartOptions<'_>) -> bool {
    options.log_denied || !options.listen.is_empty() || matches!(plan.network, Network::Egress(_))
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
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
