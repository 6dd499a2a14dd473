//! What a sandbox may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits of the whole process tree. `None` leaves that resource to the host.
///
/// The first part is held by control groups, the second by the kernel's limits per process, the third, which is for the whole
/// run, by the sandbox's own init: it ends everything when one is reached, and the exit record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory incl. the writable layer in memory; at least 4 MiB (below, the kernel's errors turn odd).
    pub memory: Option<u64>,
    /// Bytes above which the kernel reclaims and slows the sandbox down (v2 `memory.high`, v1 `memory.soft_limit_in_bytes`,
    /// which only acts when the host is short of memory). Both make [`crate::Event::MemoryHigh`].
    pub memory_high: Option<u64>,
    /// Bytes of swap beside `memory`. None by default: 0.
    pub swap: u64,
    /// Processes and threads at a time, at least 2 (ours is one).
    pub pids: Option<u64>,
    /// Share of the CPU under contention: 1 to 10000, 100 is one share (cgroup v2's `cpu.weight`).
    pub cpu_weight: Option<u64>,
    /// Hard ceiling in thousandths of one CPU (1500 = one and a half).
    pub cpu_millis: Option<u64>,
    /// CPUs it may run on, as a list: `0-3,8` (cpuset).
    pub cpus: Option<String>,
    /// Memory nodes it may use, as a list (cpuset).
    pub memory_nodes: Option<String>,
    /// Share of the disks under contention: 1 to 10000, 100 is one share (v2 `io.weight` with iocost, or `io.bfq.weight`; v1
    /// `blkio.bfq.weight`; BFQ's scale ends at 1000, so what is above 100 is compressed). Refused where no disk uses BFQ or iocost.
    pub io_weight: Option<u64>,
    /// Ceilings per disk.
    pub io: Vec<IoLimit>,
    /// Bytes of huge pages by page size as the kernel writes it: `2MB`, `1GB`.
    pub hugetlb: BTreeMap<String, u64>,

    /// Open files per process (RLIMIT_NOFILE).
    pub open_files: u64,
    /// Size of a file that it writes, bytes (RLIMIT_FSIZE).
    pub file_size: Option<u64>,

    /// Milliseconds from its start to its end ([`crate::Cause::Time`]).
    pub wall_ms: Option<u64>,
    /// Milliseconds of processor time of all its processes together ([`crate::Cause::CpuTime`]).
    pub cpu_ms: Option<u64>,
    /// Bytes of stdout and stderr together ([`crate::Cause::Output`]); for pipes and the log, which then both go through the init.
    pub output: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: Some(512 << 20),
            memory_high: None,
            swap: 0,
            pids: Some(256),
            cpu_weight: Some(100),
            cpu_millis: None,
            cpus: None,
            memory_nodes: None,
            io_weight: None,
            io: Vec::new(),
            hugetlb: BTreeMap::new(),
            open_files: 16384,
            file_size: None,
            wall_ms: None,
            cpu_ms: None,
            output: None,
        }
    }
}

/// Ceilings on one disk (v2 `io.max`, v1 `blkio.throttle.*`). v1 does not know whose the writes are that the kernel makes later from
/// its page cache, and lets them pass; it holds reads, direct and synchronous writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IoLimit {
    /// Its number, `MAJOR:MINOR`, a whole disk.
    pub device: String,
    /// Bytes read per second.
    pub read_bytes: Option<u64>,
    /// Bytes written per second.
    pub write_bytes: Option<u64>,
    /// Reads per second.
    pub reads: Option<u64>,
    /// Writes per second.
    pub writes: Option<u64>,
}
