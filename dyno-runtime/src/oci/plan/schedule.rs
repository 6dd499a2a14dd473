//! `scheduler`, `ioPriority`, `linux.memoryPolicy`, `linux.personality`: names to numbers, and what the kernel would refuse.

use super::{
    MemoryPolicy, Scheduler, list,
    member::{quoted, refuse},
};
use crate::{Result, oci::spec};

/// By name (sched(7)); SCHED_ISO (4) of the specification is reserved and not in Linux.
pub const POLICIES: [(&str, u32); 6] =
    [("SCHED_OTHER", 0), ("SCHED_FIFO", 1), ("SCHED_RR", 2), ("SCHED_BATCH", 3), ("SCHED_IDLE", 5), ("SCHED_DEADLINE", 6)];

/// By name (sched_setattr(2)); the last two as the crate `oci-spec`, and with it youki's tests, spells them.
const SCHEDULER_FLAGS: [(&str, u64); 9] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ("SCHED_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_D_L_OVERRUN", 0x04),
];

/// By name (ioprio_set(2)).
const IO_CLASSES: [(&str, u16); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// By name (set_mempolicy(2)).
pub const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// By name (set_mempolicy(2)).
pub const MEMORY_FLAGS: [(&str, u32); 3] = [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// MAX_NUMNODES where it is greatest (linux/numa.h).
const MOST_NODES: u32 = 1024;

fn look_up<T: Copy>(member: &str, name: &str, among: &[(&str, T)]) -> Result<T> {
    match among.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<_> = among.iter().map(|(name, _)| *name).collect();
            refuse(member, format!("{} is none of {}", quoted(name), names.join(", ")))
        }
    }
}

/// `process.scheduler`.
pub fn scheduler(given: &spec::Scheduler) -> Result<Scheduler> {
    let policy = look_up("process.scheduler.policy", &given.policy, &POLICIES)?;
    let mut flags = 0;
    for (i, flag) in given.flags.iter().enumerate() {
        flags |= look_up(&format!("process.scheduler.flags[{i}]"), flag, &SCHEDULER_FLAGS)?;
    }
    let (nice, priority) = (given.nice.unwrap_or(0), given.priority.unwrap_or(0));
    let (runtime, deadline, period) = (given.runtime.unwrap_or(0), given.deadline.unwrap_or(0), given.period.unwrap_or(0));
    if !(-20..=19).contains(&nice) {
        return refuse("process.scheduler.nice", format!("{nice} is not within -20 and 19"));
    }
    let is = |name: &str| given.policy == name;
    let allowed = if is("SCHED_FIFO") || is("SCHED_RR") { 1..=99 } else { 0..=0 };
    if !allowed.contains(&priority) {
        let (from, to) = (allowed.start(), allowed.end());
        return refuse("process.scheduler.priority", format!("{priority} is not within {from} and {to}, as {} has it", given.policy));
    }
    if is("SCHED_DEADLINE") {
        // Without a period, it is the deadline.
        if !(1 << 10..=deadline).contains(&runtime) || period != 0 && deadline > period {
            return refuse("process.scheduler", "runtime, deadline and period must be in this order, and runtime at least 1024 ns");
        }
    } else if runtime != 0 || deadline != 0 || period != 0 {
        return refuse("process.scheduler", "runtime, deadline and period are for SCHED_DEADLINE only");
    }
    Ok(Scheduler { policy, flags, nice, priority: priority as u32, runtime, deadline, period })
}

/// `process.ioPriority`.
pub fn io_priority(given: &spec::IoPriority) -> Result<u16> {
    let class = look_up("process.ioPriority.class", &given.class, &IO_CLASSES)?;
    match u16::try_from(given.priority) {
        Ok(priority @ 0..=7) => Ok(class << 13 | priority),
        _ => refuse("process.ioPriority.priority", format!("{} is not within 0 and 7", given.priority)),
    }
}

/// `linux.memoryPolicy`.
pub fn memory_policy(given: &spec::MemoryPolicy) -> Result<MemoryPolicy> {
    let mode = look_up("linux.memoryPolicy.mode", &given.mode, &MEMORY_MODES)?;
    let mut flags = 0;
    for (i, flag) in given.flags.iter().enumerate() {
        flags |= look_up(&format!("linux.memoryPolicy.flags[{i}]"), flag, &MEMORY_FLAGS)?;
    }
    let nodes = list::bits(&given.nodes, MOST_NODES).or_else(|why| refuse("linux.memoryPolicy.nodes", why))?;
    let [balancing, relative, fixed] = MEMORY_FLAGS.map(|(_, flag)| flags & flag != 0);
    let mode_is = |names: &[&str]| names.contains(&given.mode.as_str());
    if relative && fixed {
        return refuse("linux.memoryPolicy.flags", "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other");
    }
    if balancing && !mode_is(&["MPOL_BIND", "MPOL_PREFERRED_MANY"]) {
        return refuse("linux.memoryPolicy.flags", format!("MPOL_F_NUMA_BALANCING does not go with {}", given.mode));
    }
    let without_nodes = mode_is(&["MPOL_DEFAULT", "MPOL_LOCAL"]);
    if without_nodes && !nodes.is_empty() {
        return refuse("linux.memoryPolicy.nodes", format!("{} has none", given.mode));
    }
    let optional = mode_is(&["MPOL_PREFERRED"]) && !relative && !fixed;
    if nodes.is_empty() && !without_nodes && !optional {
        return refuse("linux.memoryPolicy.nodes", format!("is empty: {} needs at least one", given.mode));
    }
    if mode_is(&["MPOL_LOCAL"]) && (relative || fixed) {
        return refuse("linux.memoryPolicy.flags", "MPOL_LOCAL has no nodes that they could be about");
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// `linux.personality`: PER_LINUX or PER_LINUX32 (personality(2)).
pub fn personality(given: &spec::Personality, warnings: &mut Vec<String>) -> Result<u64> {
    if !given.flags.is_empty() {
        warnings.push("linux.personality.flags: the specification defines none: left out".to_owned());
    }
    look_up("linux.personality.domain", &given.domain, &[("LINUX", 0), ("LINUX32", 8)])
}
