//! What limits must be.

use super::{MIN_MEMORY, check::check};
use crate::{
    error::Result,
    spec::{IoLimit, Limits},
};

/// A thousand years: beyond it, sums of times would overflow.
const LONGEST_MS: u64 = 1000 * 366 * 86_400_000;

/// At the start, and when they are changed.
pub(crate) fn limits(limits: &Limits) -> Result<()> {
    memory(limits)?;
    if let Some(pids) = limits.pids {
        check((2..=4_194_304).contains(&pids), "limits.pids", &pids, "must be 2 to 4194304 (pid 1 is the sandbox's own)")?;
    }
    for (field, weight) in [("limits.cpu_weight", limits.cpu_weight), ("limits.io_weight", limits.io_weight)] {
        check(weight.is_none_or(|w| (1..=10_000).contains(&w)), field, &weight.unwrap_or(0), "must be 1 to 10000")?;
    }
    if let Some(millis) = limits.cpu_millis {
        check((10..=1_000_000).contains(&millis), "limits.cpu_millis", &millis, "must be 10 to 1000000")?;
    }
    for (field, list) in [("limits.cpus", &limits.cpus), ("limits.memory_nodes", &limits.memory_nodes)] {
        if let Some(list) = list {
            check(is_list(list), field, list, "must be a list such as 0-3,8")?;
        }
    }
    limits.io.iter().try_for_each(io)?;
    for size in limits.hugetlb.keys() {
        let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let known = ["KB", "MB", "GB"].contains(&&size[digits.len()..]) && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        check(known, "limits.hugetlb", size, "must be a page size such as 2MB or 1GB")?;
    }
    check((16..=1_048_576).contains(&limits.open_files), "limits.open_files", &limits.open_files, "must be 16 to 1048576")?;
    check(limits.file_size != Some(0), "limits.file_size", &0, "must be at least 1")?;
    for (field, ms) in [("limits.wall_ms", limits.wall_ms), ("limits.cpu_ms", limits.cpu_ms)] {
        check(ms.is_none_or(|ms| (1..=LONGEST_MS).contains(&ms)), field, &ms.unwrap_or(0), "must be 1 to 31622400000000 (a thousand years)")?;
    }
    check(limits.output != Some(0), "limits.output", &0, "must be at least 1")
}

fn memory(limits: &Limits) -> Result<()> {
    if let Some(memory) = limits.memory {
        check(memory >= MIN_MEMORY, "limits.memory", &memory, "must be at least 4 MiB")?;
        check(memory < 1 << 60, "limits.memory", &memory, "must be below 2^60 bytes")?;
    }
    if let Some(high) = limits.memory_high {
        check(high >= MIN_MEMORY, "limits.memory_high", &high, "must be at least 4 MiB")?;
        check(high <= limits.memory.unwrap_or(1 << 60), "limits.memory_high", &high, "must not be above limits.memory")?;
    }
    check(limits.swap < 1 << 60, "limits.swap", &limits.swap, "must be below 2^60 bytes")?;
    check(
        limits.swap == 0 || limits.memory.is_some(),
        "limits.swap",
        &limits.swap,
        "needs limits.memory: on cgroup v1 there is only a limit of both together",
    )
}

/// Numbers and ranges of them, as the kernel prints and takes them (cpuset(7), "List format").
fn is_list(text: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < 65_536);
    text.split(',').all(|part| match part.split_once('-') {
        Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
        None => number(part).is_some(),
    })
}

fn io(limit: &IoLimit) -> Result<()> {
    let number = |text: &str| !text.is_empty() && text.len() < 8 && text.bytes().all(|b| b.is_ascii_digit());
    let device = limit.device.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
    check(device, "limits.io.device", &limit.device, "must be MAJOR:MINOR of a disk")?;
    let values = [limit.read_bytes, limit.write_bytes, limit.reads, limit.writes];
    check(values.iter().any(Option::is_some), "limits.io", &limit.device, "must limit something")?;
    check(values.iter().flatten().all(|v| *v > 0), "limits.io", &limit.device, "must not have a limit of 0")
}
