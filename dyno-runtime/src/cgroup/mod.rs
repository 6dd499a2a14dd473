//! Control groups of v1, v2 and hybrid hosts behind one type: detect, create, limit, enter, read, remove.
//!
//! Each controller is taken from wherever the host has it: its own v1 hierarchy, or the v2 tree.
//! A child enters a v1 group by writing `0` to `tasks`, which moves one thread and waits for no RCU
//! grace period (`cgroup.procs` does, 10 ms and more on an idle host); it enters a v2 group at birth,
//! by CLONE_INTO_CGROUP. Groups are reached through directory fds, never by a path used twice.

mod detect;
mod group;

pub use detect::Cgroups;
pub use group::{Group, Usage};

/// The controllers that a sandbox needs. A host without one of them cannot hold a limit, so nothing starts there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory, incl. the writable layer.
    Memory,
    /// Processes and threads.
    Pids,
    /// Weight and quota.
    Cpu,
}

impl Controller {
    /// All of them, in the order in which they are entered.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}
