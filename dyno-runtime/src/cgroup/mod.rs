//! Control groups of v1, v2 and hybrid hosts behind one type: detect, create, limit, enter, read, freeze, kill, remove.
//!
//! Each controller is taken from wherever the host has it: its own v1 hierarchy, or the v2 tree.
//! A child enters a v1 group by writing `0` to `tasks`, which moves one thread and waits for no RCU
//! grace period (`cgroup.procs` does, 10 ms and more on an idle host); it enters a v2 group at birth,
//! by CLONE_INTO_CGROUP. Groups are reached through directory fds, never by a path used twice.
//!
//! ```text
//! mounts      which hierarchies there are, and where in them this process is           (text in, values out)
//! parent      at the top of each, or where systemd lets us
//! detect      Cgroups: our parent group in each hierarchy
//! group       Group: one dyno's group in those hierarchies that it needs; its members, its end; part: it in one of them
//! spare       groups made ahead, which become a dyno's
//! knob        Limits -> what is written to which file, and what must be read back; limit does it
//! update      other limits for a group that lives
//! stats       what is used; usage: what was, in the end; freeze: pause and resume; events: what happens, as it happens
//! ```
//!
//! Memory, pids and cpu are joined by every dyno. Others are joined at the start by those whose limits ask for them, and later by those
//! that get such a limit or are paused; so is the v2 tree on a host whose controllers are on v1, unless
//! [`crate::HostOptions::v2_tree`] has every dyno born in it.

mod detect;
pub(crate) mod events;
pub(crate) mod file;
pub(crate) mod freeze;
mod group;
pub(crate) mod knob;
mod limit;
pub(crate) mod mounts;
mod parent;
mod part;
mod pressure;
mod spare;
mod stats;
mod update;
mod usage;
#[cfg(test)]
mod v1_only;

pub use detect::Cgroups;
pub use events::{Event, Events};
pub use group::Group;
pub use parent::CgroupParent;
pub use pressure::{Pressure, Stall, Stalls};
pub use spare::Spare;
pub use stats::{CpuStats, Disk, HugetlbStats, IoStats, MemoryStats, PidsStats, Stats};
pub use usage::Usage;

use crate::spec::Limits;

/// What a hierarchy can limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory, incl. the writable layer.
    Memory,
    /// Processes and threads.
    Pids,
    /// Weight and quota.
    Cpu,
    /// CPUs and memory nodes.
    Cpuset,
    /// Disks; `blkio` on v1.
    Io,
    /// Huge pages.
    Hugetlb,
    /// Standing still; no controller on v2, every group can.
    Freezer,
    /// Processor time; no controller on v2, every group tells.
    Cpuacct,
}

/// The two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// A hierarchy for one controller or several.
    V1,
    /// The one tree.
    V2,
}

impl Controller {
    /// Those that every sandbox needs, in the order in which they are entered. A host without one of them cannot hold a limit, so
    /// nothing starts there.
    pub const REQUIRED: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// What the v2 tree does without a controller.
    const BUILT_IN: [Self; 2] = [Self::Freezer, Self::Cpuacct];

    const KNOWN: [Self; 8] = [Self::Memory, Self::Pids, Self::Cpu, Self::Cpuset, Self::Io, Self::Hugetlb, Self::Freezer, Self::Cpuacct];

    /// The kernel's name, in a v1 hierarchy's mount options or in v2's `cgroup.controllers`.
    fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Memory, _) => "memory",
            (Self::Pids, _) => "pids",
            (Self::Cpu, _) => "cpu",
            (Self::Cpuset, _) => "cpuset",
            (Self::Io, Version::V1) => "blkio",
            (Self::Io, Version::V2) => "io",
            (Self::Hugetlb, _) => "hugetlb",
            (Self::Freezer, _) => "freezer",
            (Self::Cpuacct, _) => "cpuacct",
        }
    }

    /// Those that hold `limits` beside the required ones.
    pub(crate) fn asked_for(limits: &Limits) -> Vec<Self> {
        let asked = [
            (Self::Cpuset, limits.cpus.is_some() || limits.memory_nodes.is_some()),
            (Self::Io, limits.io_weight.is_some() || !limits.io.is_empty()),
            (Self::Hugetlb, !limits.hugetlb.is_empty()),
            (Self::Cpuacct, limits.cpu_ms.is_some()),
        ];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(controller, _)| controller).collect()
    }
}
