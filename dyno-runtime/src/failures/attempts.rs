//! What is attempted: an instance opened, and starts that differ in their steps.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use crate::{
    Dyno, Host, Layer, Sandbox, StartOptions, Stdio, Upper, Volume,
    support::{self, Stage, layer},
};

/// What an attempt makes.
pub(crate) enum Made {
    Dyno(Box<Dyno>),
    Pair(Box<Dyno>, Box<Dyno>),
    Host(Host),
}

impl Made {
    pub fn unmake(self) -> crate::Result<()> {
        match self {
            Self::Dyno(dyno) => dyno.free(),
            Self::Pair(first, second) => second.free().and(first.free()),
            Self::Host(host) => host.dismantle(),
        }
    }
}

/// What is attempted, under a name: a description, made before anything is counted, and what is done with it.
pub(crate) type Attempt = (&'static str, fn(&Stage) -> Result<Sandbox>, fn(&Stage, &Sandbox) -> Result<crate::Result<Made>>);

pub const ATTEMPTS: &[Attempt] = &[
    ("open", quiet, |stage, _| {
        let name = format!("{}-second", stage.name);
        Ok(Host::open(&stage.work().join("second"), &name).map(Made::Host))
    }),
    // All of it in place: what is done when the workshop has other work.
    ("small", small, |stage, sandbox| {
        let rest = |resting| stage.host.workshop().into_iter().for_each(|workshop| workshop.rest(resting));
        rest(true);
        let started = start(stage, sandbox, StartOptions::default());
        rest(false);
        started
    }),
    // The network comes from nobody, so that the child makes its own.
    ("lost order", quiet, |stage, sandbox| {
        let lose = |losing| stage.host.workshop().into_iter().for_each(|workshop| workshop.lose(losing));
        lose(true);
        let started = start(stage, sandbox, StartOptions::default());
        lose(false);
        let started = started?;
        if let Ok(Made::Dyno(dyno)) = &started {
            let lone = rustix::net::connect(dyno.socket()?, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 80));
            // Non-blocking; without an address nothing would be under way.
            ensure!(matches!(lone, Err(Errno::INPROGRESS | Errno::CONNREFUSED)), "its loopback is down: {lone:?}");
        }
        Ok(started)
    }),
    ("log", quiet, |stage, sandbox| start(stage, sandbox, StartOptions { stdio: Stdio::Log, ..Default::default() })),
    ("large", large, |stage, sandbox| {
        start(stage, sandbox, StartOptions { stdio: Stdio::Tty { rows: 24, cols: 80 }, listen: vec![80, 81], ..Default::default() })
    }),
    ("packing", packing, pack),
    ("disk", quiet, |stage, sandbox| {
        // Of another size each time, so that mkfs.ext4 is run.
        static INODES: AtomicU64 = AtomicU64::new(64);
        let mut sandbox = sandbox.clone();
        sandbox.root.upper = Upper::Disk { directory: stage.work().into(), bytes: 8 << 20, inodes: INODES.fetch_add(1, Ordering::Relaxed) };
        start(stage, &sandbox, StartOptions::default())
    }),
    ("egress", linked, |stage, sandbox| start(stage, sandbox, StartOptions::default())),
    ("rootless", rootless, |stage, sandbox| {
        let options = StartOptions { stdio: Stdio::Tty { rows: 24, cols: 80 }, listen: vec![80], ..Default::default() };
        let host = rootless_host(stage)?;
        Ok(host.start("victim", sandbox, options).map(|dyno| Made::Dyno(Box::new(dyno))))
    }),
];

/// Whose calls are worth failing. Opening an instance starts nothing; the second start of a packing differs in the parent only, and
/// so do one with a link and one on disk, but for the start of mkfs.ext4.
pub fn callers(attempt: &str) -> &'static [&'static str] {
    match attempt {
        "open" | "packing" | "egress" => &["parent"],
        "lost order" => &["child"],
        "disk" => &["parent", "child"],
        _ => &["parent", "child", "init"],
    }
}

/// As root without a range of ids; with control groups where they are to be had (in a service of systemd only if it delegates).
pub fn rootless_host(stage: &Stage) -> Result<Host> {
    use crate::{RootlessOptions, Wall};
    static OPENED: OnceLock<Host> = OnceLock::new();
    if let Some(host) = OPENED.get() {
        return Ok(host.clone());
    }
    let ids = [Wall::IdRange, Wall::OwnIdRange, Wall::Groups];
    let groups = [Wall::MemoryLimit, Wall::PidsLimit, Wall::CpuLimit, Wall::CpuTime, Wall::OtherLimits];
    let (dir, name) = (stage.work().join("rootless"), format!("{}-rootless", stage.name));
    let open = |without: Vec<Wall>| Host::open_rootless(&dir, &name, &RootlessOptions { without, alone: false });
    let host = open(ids.to_vec()).or_else(|_| open([&ids[..], &groups].concat()))?;
    Ok(OPENED.get_or_init(|| host).clone())
}

fn rootless(stage: &Stage) -> Result<Sandbox> {
    rootless_host(stage)?;
    let mut sandbox = quiet(stage)?;
    sandbox.volumes = vec![Volume::Bind { source: stage.rootfs(), target: "/data".into(), writable: true }];
    Ok(sandbox)
}

fn start(stage: &Stage, sandbox: &Sandbox, options: StartOptions<'_>) -> Result<crate::Result<Made>> {
    Ok(stage.host.start("victim", sandbox, options).map(|dyno| Made::Dyno(Box::new(dyno))))
}

/// Runs until it is freed, and makes no calls that would be counted.
fn quiet(stage: &Stage) -> Result<Sandbox> {
    Ok(stage.sandbox(&["nap", "1000000"]))
}

fn small(stage: &Stage) -> Result<Sandbox> {
    let mut sandbox = quiet(stage)?;
    sandbox.root.upper = Upper::ReadOnly;
    Ok(sandbox)
}

fn large(stage: &Stage) -> Result<Sandbox> {
    let mut sandbox = quiet(stage)?;
    sandbox.limits.cpu_millis = Some(2000);
    sandbox.limits.cpus = Some("0".into());
    match support::missing(&["mksquashfs"]) {
        None => sandbox.root.layers = vec![layer(&stage.image("image.sqsh")?)?, Layer::Directory(stage.rootfs())],
        Some(reason) => println!("skipped: the image layer: {reason}"),
    }
    sandbox.volumes = vec![Volume::Bind { source: stage.rootfs(), target: "/data".into(), writable: true }];
    Ok(sandbox)
}

/// With something in the host's table, which there is from the first attempt on.
fn linked(stage: &Stage) -> Result<Sandbox> {
    let mut sandbox = quiet(stage)?;
    let publish = crate::Publish { address: std::net::Ipv4Addr::UNSPECIFIED, host_port: 8080, port: 80, protocol: crate::Protocol::Tcp };
    let dns = vec![std::net::Ipv4Addr::new(192, 0, 2, 1)];
    sandbox.network = crate::Network::Egress(crate::Egress { policy: crate::Policy::Open, dns, publish: vec![publish] });
    Ok(sandbox)
}

fn packing(stage: &Stage) -> Result<Sandbox> {
    let mut sandbox = quiet(stage)?;
    sandbox.root.layers.insert(0, Layer::UpperOf("first".into()));
    Ok(sandbox)
}

/// Two starts, the second on what the first has written.
fn pack(stage: &Stage, sandbox: &Sandbox) -> Result<crate::Result<Made>> {
    let first = match stage.host.start("first", &stage.sandbox(&["exit", "0"]), StartOptions { keep_upper: true, ..Default::default() }) {
        Ok(first) => first,
        Err(e) => return Ok(Err(e)),
    };
    // Not by `wait`, which reads what was used as well as it can.
    poll(&mut [PollFd::from_borrowed_fd(first.pidfd(), PollFlags::IN)], None)?;
    match stage.host.start("victim", sandbox, StartOptions { stdio: Stdio::Pipes, after: Some(&first), ..Default::default() }) {
        Ok(second) => Ok(Ok(Made::Pair(Box::new(first), Box::new(second)))),
        Err(e) => {
            first.free()?;
            Ok(Err(e))
        }
    }
}
