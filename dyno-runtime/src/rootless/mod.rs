//! Sandboxes of a user who is not root: every wall that the kernel grants, and the others by name.
//!
//! What root's sandboxes have and these cannot is a [`Wall`]. A host that lacks one is opened, and a sandbox that would need one is
//! started, only if the caller has said that it does without ([`RootlessOptions::without`]); all that is missing is said in one error,
//! each with its reason and its remedy. What is done without stands in the [`Plan`].
//!
//! ```text
//!   caller ── clone3(NEWUSER) ──▶ holder sleeps; ids mapped by newuidmap/newgidmap, or the caller's own
//!     ├── visitor: joins it, new mount namespace, makes root, /dev, volumes (builder), is gone
//!     └── visitor: joins it, clones the sandbox with all other namespaces as the caller's child (spawn/child), is gone
//! ```
//!
//! All namespaces belong to the sandbox's user namespace, unlike root's, whose belong to the host. What holds its processes back is
//! that they have neither capabilities nor a way to get some.

mod builder;
mod ids;
mod open;
mod raise;

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::ids::Ids;
pub(crate) use self::{
    ids::give,
    raise::{Raised, raise, terminal},
};
use crate::{
    cgroup::Controller,
    error::{Context, Error, ErrorKind, Result},
    mount::{Lease, Leases},
    plan::Plan,
    spec::{Capability, Layer, Limits, Missing, Network, Upper, Wall},
    sys::{self, Flags},
};

/// What the caller of [`crate::Host::open_rootless`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RootlessOptions {
    /// Walls that it accepts to miss. Those that are there are raised all the same.
    pub without: Vec<Wall>,
    /// As [`crate::Host::open_alone`], where there are control groups.
    pub alone: bool,
}

/// The rootless part of a host.
#[derive(Debug)]
pub(crate) struct Rootless {
    ids: Ids,
    without: Vec<Wall>,
    missing: Vec<Missing>,
    lacking: Vec<(Controller, String)>,
}

const DELEGATE: &str = "run it where a cgroup v2 subtree is delegated to the user: systemd-run --user --scope -p Delegate=yes COMMAND";

/// One start at a time: a child that changes its user id makes the process whose memory it shares undumpable, for all of its
/// threads (prctl(2), PR_SET_DUMPABLE), and those could then not write the map of a namespace.
static TURN: Mutex<()> = Mutex::new(());

/// Puts dumpability back when dropped.
struct Turn {
    dumpable: i32,
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    fn take() -> std::result::Result<Self, Errno> {
        let guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { dumpable: sys::dumpable()?, _guard: guard })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // 2 cannot be set, and was not changed: it says already what the kernel sets.
        if self.dumpable == 1
            && sys::dumpable() != Ok(1)
            && let Err(e) = sys::set_dumpable(1)
        {
            tracing::warn!(%e, "prctl(PR_SET_DUMPABLE, 1)");
        }
    }
}

/// [`sys::vfork`] of a child that is born inside the user namespace of `lease`.
pub(crate) fn vfork<C: sys::SharedChild>(
    lease: &Lease,
    flags: Flags,
    cgroup: Option<BorrowedFd<'_>>,
    child: &mut C,
) -> std::result::Result<(OwnedFd, u32), Errno> {
    let _turn = Turn::take()?;
    sys::vfork_within(lease.userns(), flags, cgroup, child)
}

impl Rootless {
    /// What the caller may have here. `lacking`: the controllers that are not its to use, and why.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming every wall that is missing and was not accepted, or what forbids user namespaces.
    pub fn find(options: &RootlessOptions, scratch: &Path, lacking: Vec<(Controller, String)>) -> Result<Self> {
        let mut missing = Vec::new();
        for (controller, wall) in [(Controller::Memory, Wall::MemoryLimit), (Controller::Pids, Wall::PidsLimit), (Controller::Cpu, Wall::CpuLimit)] {
            let lacks = lacking.iter().filter(|(c, _)| *c == controller);
            missing.extend(lacks.map(|(_, why)| Missing::new(wall, why, DELEGATE)));
        }
        let ids = Ids::find(&mut missing);
        missing.extend(core_dumps());
        missing.extend(services());
        let this = Self { ids, without: options.without.clone(), missing, lacking };
        raise::probe(&this.mapped(0, (0, 0))?, scratch)?;
        this.accepted(this.missing.iter().filter(|m| m.wall.can_be_accepted()))?;
        Ok(this)
    }

    /// Everything that is missing here.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// One error for all of `missing` that the caller does not do without.
    fn accepted<'a>(&self, missing: impl Iterator<Item = &'a Missing>) -> Result<()> {
        let refused: Vec<&Missing> = missing.filter(|m| !m.wall.can_be_accepted() || !self.without.contains(&m.wall)).collect();
        if refused.is_empty() {
            return Ok(());
        }
        // What is missing for one reason is said together.
        let together = refused.chunk_by(|a, b| (&a.why, &a.how) == (&b.why, &b.how)).map(|same| {
            let walls: Vec<String> = same.iter().map(|m| m.wall.to_string()).collect();
            format!("{}: {} ({})", walls.join(", "), same[0].why, same[0].how)
        });
        let text = together.collect::<Vec<_>>().join("; ");
        Err(Error::refused(ErrorKind::Wall, format!("walls that this user cannot have here, and has not accepted to miss: {text}")))
    }

    /// Makes `plan` what can be carried out here: without the limits that its caller has accepted to miss, which it then tells of.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming every wall that it asks for and cannot have; [`ErrorKind::Invalid`] for ids that are not mapped.
    pub fn fit(&self, plan: &mut Plan, keep_upper: bool) -> Result<()> {
        plan.missing = self.check(plan, keep_upper)?;
        plan.owned = plan.namespaces.iter().copied().filter(|name| *name != "user").collect();
        let limits = &mut plan.limits;
        for (controller, _) in &self.lacking {
            match controller {
                Controller::Memory => (limits.memory, limits.memory_high, limits.swap) = (None, None, 0),
                Controller::Pids => limits.pids = None,
                Controller::Cpu => (limits.cpu_weight, limits.cpu_millis) = (None, None),
                Controller::Cpuset => (limits.cpus, limits.memory_nodes) = (None, None),
                Controller::Io => (limits.io_weight, limits.io) = (None, Vec::new()),
                Controller::Hugetlb => limits.hugetlb.clear(),
                Controller::Cpuacct => limits.cpu_ms = None,
                Controller::Freezer => {}
            }
        }
        Ok(())
    }

    fn check(&self, plan: &Plan, keep_upper: bool) -> Result<Vec<Missing>> {
        let mut lacks: Vec<Missing> = self.missing.iter().filter(|m| asks_for(plan, keep_upper, m.wall)).cloned().collect();
        for controller in Controller::asked_for(&plan.limits) {
            let wall = if controller == Controller::Cpuacct { Wall::CpuTime } else { Wall::OtherLimits };
            let why = self.lacking.iter().filter(|(c, _)| *c == controller);
            lacks.extend(why.map(|(_, why)| Missing::new(wall, why, DELEGATE)));
        }
        if plan.identity.capabilities.contains(&Capability::SYS_ADMIN) {
            let why = "its own user namespace owns its mounts, so that SYS_ADMIN inside could take masks and read-only covers off";
            lacks.push(Missing::new(Wall::LockedMounts, why, "leave SYS_ADMIN out"));
        }
        if self.has_slices() && matches!(plan.network, Network::Joined(_)) {
            let why = "only its own user namespace can enter a sandbox's network: the one that joins it has the same ids";
            lacks.push(Missing::new(Wall::OwnIdRange, why, "let them share no network"));
        }
        if self.ids.range.is_some() && could_be_root(plan) {
            let why = "id 0 inside is the caller outside, and this sandbox runs as it or has capabilities over it";
            lacks.push(Missing::new(Wall::IdRange, why, "give it another uid and gid, and no capabilities but NET_*"));
        }
        self.accepted(lacks.iter())?;
        let identity = &plan.identity;
        let mut wanted = [identity.uid, identity.gid].into_iter().chain(identity.groups.iter().copied());
        if let Some(id) = wanted.find(|id| !self.ids.has(*id)) {
            return Err(Error::refused(ErrorKind::Invalid, format!("identity: id {id} is beyond the user's range in /etc/subuid or /etc/subgid")));
        }
        if self.ids.range.is_none() && !identity.groups.is_empty() {
            return Err(Error::refused(ErrorKind::Wall, "identity.groups: without a range in /etc/subgid a sandbox has one group only"));
        }
        Ok(lacks)
    }

    /// The leases of `instance`, shared with all others of this user.
    pub fn leases(&self, instance: &Path) -> Result<Leases> {
        Ok(Leases::within(lease_dir(self.ids.uid)?, instance, self.ids.slots()))
    }

    /// Whether each sandbox has a slice of its own.
    pub fn has_slices(&self) -> bool {
        self.ids.slots() >= 2
    }

    /// The user namespace of a sandbox with slice `slot`.
    pub fn map(&self, slot: u32, plan: &Plan) -> Result<Lease> {
        self.mapped(slot, (plan.identity.uid, plan.identity.gid))
    }

    fn mapped(&self, slot: u32, inside: (u32, u32)) -> Result<Lease> {
        let _turn = Turn::take().wall(|| "prctl(PR_GET_DUMPABLE)".into())?;
        self.ids.map(slot, inside)
    }

    /// The user namespace of another sandbox, which has slice `slot` and the network `netns`.
    pub fn share(&self, slot: u32, netns: BorrowedFd<'_>) -> Result<Lease> {
        let userns = sys::owner_of(netns).wall(|| "ioctl(NS_GET_USERNS) of the joined sandbox's network".into())?;
        Ok(Lease::held(slot, userns, self.ids.on_host(slot)))
    }

    /// Whether there are ids beside the caller's own.
    pub fn has_range(&self) -> bool {
        self.ids.range.is_some()
    }
}

/// Those of [`Rootless::missing`] that matter to one sandbox.
fn asks_for(plan: &Plan, keep_upper: bool, wall: Wall) -> bool {
    let Limits { memory, memory_high, swap, pids, cpu_weight, cpu_millis, .. } = &plan.limits;
    match wall {
        Wall::MemoryLimit => memory.is_some() || memory_high.is_some() || *swap > 0,
        Wall::PidsLimit => pids.is_some(),
        Wall::CpuLimit => cpu_weight.is_some() || cpu_millis.is_some(),
        // By their controllers.
        Wall::CpuTime | Wall::OtherLimits => false,
        Wall::IdRange | Wall::OwnIdRange | Wall::Groups | Wall::CoreDumps | Wall::LockedMounts => true,
        Wall::Images => plan.layers.iter().any(|l| matches!(l, Layer::Image { .. })),
        Wall::DiskUpper => matches!(plan.upper, Upper::Disk { .. }),
        Wall::KeptUpper => keep_upper || plan.layers.iter().any(|l| matches!(l, Layer::UpperOf(_))),
        Wall::Egress => matches!(plan.network, Network::Egress(_)),
    }
}

/// Whether a process of it is, could become, or may act for the one that is the caller outside.
fn could_be_root(plan: &Plan) -> bool {
    let identity = &plan.identity;
    identity.uid == 0 || identity.gid == 0 || identity.groups.contains(&0) || !identity.capabilities.iter().copied().all(Capability::is_of_network)
}

/// What no unprivileged user has.
fn services() -> [Missing; 4] {
    [
        Missing::new(Wall::Images, "squashfs cannot be mounted in a user namespace", "unpack the image, and give the directory as layer"),
        Missing::new(Wall::DiskUpper, "a file system on disk cannot be mounted in a user namespace", "use a writable layer in memory"),
        Missing::new(Wall::KeptUpper, "a writable layer ends with the namespaces of its sandbox", "write to a volume what is to be kept"),
        Missing::new(
            Wall::Egress,
            "the host's end of a link, its addresses and rules are root's to make",
            "pass connections in by listening sockets",
        ),
    ]
}

/// RLIMIT_CORE 1 keeps a piped core handler from being run (core(5)); who has a hard limit of 0 cannot set it.
fn core_dumps() -> Option<Missing> {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    let piped = std::fs::read_to_string("/proc/sys/kernel/core_pattern").is_ok_and(|p| p.starts_with('|'));
    let how = "raise the hard limit of core files (ulimit -Hc) to 1 or more";
    (hard == Some(0) && piped).then(|| Missing::new(Wall::CoreDumps, "RLIMIT_CORE is 0, which a core handler behind a pipe does not heed", how))
}

/// Where all instances of a user have their leases: on a file system that a reboot empties.
fn lease_dir(uid: u32) -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let ours = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == uid);
    let run = PathBuf::from(format!("/run/user/{uid}"));
    if ours(&run) {
        return Ok(run.join("dyno-leases"));
    }
    let shm = PathBuf::from(format!("/dev/shm/dyno-leases-{uid}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&shm) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e).io(|| format!("mkdir({})", shm.display()))?,
        _ => {}
    }
    // Anybody may make it there.
    if ours(&shm) { Ok(shm) } else { Err(Error::refused(ErrorKind::Wall, format!("{} is not this user's", shm.display()))) }
}
