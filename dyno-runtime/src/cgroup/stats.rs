//! What a group has used and may use.
//!
//! Processor time is told by the v2 tree for those who are born in it, or by `cpuacct` if that shares a hierarchy with `cpu` (as
//! systemd mounts them) or was joined for `limits.cpu_ms`. Else it is added up from /proc/PID/stat: the living and those whom they
//! waited for, to the clock tick. Disk traffic is told by the group that the io controller makes for those who are limited there,
//! else it is added up from /proc/PID/io in the same way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Controller, Group, Version,
    file::{field, limit_of, read_file, value_of},
    part::Part,
    pressure::{Pressure, Stalls},
};
use crate::error::{Context, Result};

/// What a dyno uses. None: this host does not tell, or, of a limit, there is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Memory, incl. the writable layer in memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Processor.
    pub cpu: CpuStats,
    /// Disks.
    pub io: Option<IoStats>,
    /// Huge pages by size (`2MB`), for those who are limited there.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// Waiting (v2, or a v1 host that has the v2 tree too).
    pub pressure: Pressure,
    /// Stands still ([`crate::Dyno::pause`]).
    pub frozen: bool,
}

/// Bytes, and events at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use now.
    pub now: Option<u64>,
    /// Most that was in use (v2: Linux 5.19).
    pub peak: Option<u64>,
    /// What may be used.
    pub limit: Option<u64>,
    /// Processes' own memory.
    pub anon: Option<u64>,
    /// Page cache, incl. files in memory.
    pub file: Option<u64>,
    /// The kernel's, on their account (v2: Linux 5.18).
    pub kernel: Option<u64>,
    /// Swapped out; where the kernel accounts for swap.
    pub swap: Option<u64>,
    /// Processes killed at the limit.
    pub oom_kills: u64,
    /// v2: times that it was slowed down above `limits.memory_high`.
    pub high: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PidsStats {
    /// Now.
    pub now: Option<u64>,
    /// Most at a time (Linux 6.6).
    pub peak: Option<u64>,
    /// What may be.
    pub limit: Option<u64>,
    /// Times that a fork failed at the limit.
    pub refused: u64,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuStats {
    /// User and system.
    pub total_us: Option<u64>,
    /// In programs.
    pub user_us: Option<u64>,
    /// In the kernel.
    pub system_us: Option<u64>,
    /// Periods of 100 ms in which the quota was used up.
    pub throttled: Option<u64>,
    /// Time of its processors' standing still for that.
    pub throttled_us: Option<u64>,
}

/// Disk traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IoStats {
    /// All disks. From /proc/PID/io there are no operations.
    pub total: Disk,
    /// Each disk by `MAJOR:MINOR`; those of the io controller's group only.
    pub disks: BTreeMap<String, Disk>,
}

/// Traffic of one disk or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes.
    pub read: u64,
    /// Bytes.
    pub written: u64,
    /// Operations.
    pub reads: u64,
    /// Operations.
    pub writes: u64,
}

/// Bytes of huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HugetlbStats {
    /// In use now.
    pub now: Option<u64>,
    /// What may be used.
    pub limit: Option<u64>,
    /// Times that more was refused.
    pub refused: u64,
}

impl Group {
    /// Everything but whether it is frozen.
    ///
    /// # Errors
    /// ENODEV when the group is gone.
    pub(crate) fn stats(&self) -> Result<Stats> {
        if let Some(part) = self.part(Controller::Pids) {
            read_file(&part.dir, "cgroup.procs").io(|| format!("cgroup: read {}/cgroup.procs", part.path()))?;
        }
        Ok(Stats {
            memory: self.part(Controller::Memory).map(memory).unwrap_or_default(),
            pids: self.part(Controller::Pids).map(pids).unwrap_or_default(),
            cpu: self.cpu(),
            io: self.io(),
            hugetlb: self.part(Controller::Hugetlb).map(hugetlb).unwrap_or_default(),
            pressure: self.unified().map(pressure).unwrap_or_default(),
            frozen: false,
        })
    }

    fn cpu(&self) -> CpuStats {
        let mut cpu = CpuStats::default();
        if let Some(text) = self.part(Controller::Cpu).and_then(|p| read_file(&p.dir, "cpu.stat").ok()) {
            cpu.throttled = value_of(&text, "nr_throttled");
            cpu.throttled_us = value_of(&text, "throttled_usec").or_else(|| Some(value_of(&text, "throttled_time")? / 1000));
        }
        let counted = |told: [Option<u64>; 3]| CpuStats { total_us: told[0], user_us: told[1], system_us: told[2], ..cpu };
        // Joined at the start, or never.
        if let Some(part) = self.part(Controller::Cpuacct).filter(|part| part.version() == Version::V1) {
            return counted(["cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys"].map(|file| Some(part.number(file)? / 1000)));
        }
        let tree = self.unified().and_then(|p| Some((p, read_file(&p.dir, "cpu.stat").ok()?)));
        let tree = tree.map(|(part, text)| (part, ["usage_usec", "user_usec", "system_usec"].map(|key| value_of(&text, key))));
        match tree {
            Some((part, told)) if part.controllers().contains(&Controller::Cpu) => counted(told),
            // Maybe joined late: then the processes know more.
            other => counted(other.map_or([None; 3], |(_, told)| told).max(processes_time(&self.pids().unwrap_or_default()))),
        }
    }

    pub(super) fn io(&self) -> Option<IoStats> {
        let told = self.part(Controller::Io).and_then(|part| match part.version() {
            Version::V2 => Some(io_v2(&read_file(&part.dir, "io.stat").ok()?)),
            Version::V1 => {
                let read = |name: &str| read_file(&part.dir, &format!("blkio.throttle.{name}_recursive")).ok();
                Some(io_v1(&read("io_service_bytes")?, &read("io_serviced")?))
            }
        });
        told.or_else(|| self.traffic.get().map(|io| (**io).clone())).or_else(|| processes_io(&self.pids().ok()?))
    }

    /// Keeps what the init `pid` tells before it is waited for: the whole of what it and its descendants did, for nobody else ever waits
    /// for those. `is_it` says whether the number was its own all the while.
    pub(crate) fn note_traffic(&self, pid: u32, is_it: impl Fn() -> bool) {
        if self.traffic.get().is_none()
            && let Some(io) = processes_io(&[pid])
            && is_it()
        {
            self.traffic.get_or_init(|| Box::new(io));
        }
    }
}

impl Part {
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        read_file(&self.dir, file).ok()?.trim().parse().ok()
    }

    /// None for "no limit", too.
    fn limited(&self, file: &str) -> Option<u64> {
        limit_of(&read_file(&self.dir, file).ok()?)
    }
}

/// What these processes, and the ended ones whom they waited for, moved to and from disks (proc_pid_io(5)). A process that has ended
/// still tells as long as nobody has waited for it. None without CONFIG_TASK_IO_ACCOUNTING, or without processes.
fn processes_io(pids: &[u32]) -> Option<IoStats> {
    let [read, written] = sum(pids, "io", |text| {
        let told = |key: &str| value_of(text, key);
        Some([told("read_bytes:")?, told("write_bytes:")?])
    })?;
    Some(IoStats { total: Disk { read, written, ..Disk::default() }, disks: BTreeMap::new() })
}

/// Microseconds of these processes and of the ended ones whom they waited for: total, user, system.
fn processes_time(pids: &[u32]) -> [Option<u64>; 3] {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let [user, system] = sum(pids, "stat", ticks).map_or([None; 2], |times| times.map(|ticks| Some(ticks * 1_000_000 / per_second)));
    [user.zip(system).map(|(u, s)| u + s), user, system]
}

fn sum(pids: &[u32], file: &str, parse: impl Fn(&str) -> Option<[u64; 2]>) -> Option<[u64; 2]> {
    let told = pids.iter().filter_map(|pid| parse(&std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?));
    told.reduce(|[a, b], [c, d]| [a + c, b + d])
}

/// proc_pid_stat(5): utime, stime, cutime, cstime are fields 14 to 17; field 2, the name, may hold anything up to the last `)`.
fn ticks(stat: &str) -> Option<[u64; 2]> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|f| f.parse::<u64>().unwrap_or(0));
    let [user, system, user_below, system_below] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    Some([user + user_below, system + system_below])
}

fn memory(part: &Part) -> MemoryStats {
    let stat = read_file(&part.dir, "memory.stat").unwrap_or_default();
    if part.version() == Version::V1 {
        return MemoryStats {
            now: part.number("memory.usage_in_bytes"),
            peak: part.number("memory.max_usage_in_bytes"),
            limit: part.limited("memory.limit_in_bytes"),
            anon: value_of(&stat, "total_rss"),
            file: value_of(&stat, "total_cache"),
            kernel: part.number("memory.kmem.usage_in_bytes"),
            // With swap accounting only.
            swap: value_of(&stat, "total_swap"),
            oom_kills: part.oom_kills(),
            high: None,
        };
    }
    let events = read_file(&part.dir, "memory.events").unwrap_or_default();
    MemoryStats {
        now: part.number("memory.current"),
        peak: part.number("memory.peak"),
        limit: part.limited("memory.max"),
        anon: value_of(&stat, "anon"),
        file: value_of(&stat, "file"),
        kernel: value_of(&stat, "kernel"),
        swap: part.number("memory.swap.current"),
        oom_kills: value_of(&events, "oom_kill").unwrap_or(0),
        high: value_of(&events, "high"),
    }
}

fn pids(part: &Part) -> PidsStats {
    PidsStats { now: part.number("pids.current"), peak: part.number("pids.peak"), limit: part.limited("pids.max"), refused: part.forks_refused() }
}

fn hugetlb(part: &Part) -> BTreeMap<String, HugetlbStats> {
    let stats = |size: &String| match part.version() {
        Version::V1 => HugetlbStats {
            now: part.number(&format!("hugetlb.{size}.usage_in_bytes")),
            limit: part.limited(&format!("hugetlb.{size}.limit_in_bytes")),
            refused: part.number(&format!("hugetlb.{size}.failcnt")).unwrap_or(0),
        },
        Version::V2 => HugetlbStats {
            now: part.number(&format!("hugetlb.{size}.current")),
            limit: part.limited(&format!("hugetlb.{size}.max")),
            refused: read_file(&part.dir, &format!("hugetlb.{size}.events")).ok().and_then(|text| value_of(&text, "max")).unwrap_or(0),
        },
    };
    part.huge_page_sizes().unwrap_or_default().into_iter().map(|size| (size.clone(), stats(&size))).collect()
}

fn pressure(part: &Part) -> Pressure {
    let read = |file: &str| Stalls::parse(&read_file(&part.dir, file).ok()?);
    Pressure { cpu: read("cpu.pressure"), memory: read("memory.pressure"), io: read("io.pressure") }
}

/// io.stat: `8:0 rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…`.
fn io_v2(text: &str) -> IoStats {
    let mut io = IoStats::default();
    for line in text.lines() {
        let Some(device) = line.split_whitespace().next() else { continue };
        let number = |key| field(line, key).and_then(|n| n.parse().ok()).unwrap_or(0);
        io.add(device, Disk { read: number("rbytes"), written: number("wbytes"), reads: number("rios"), writes: number("wios") });
    }
    io
}

/// blkio.throttle.*: `8:0 Read N`, `8:0 Write N`, sums, and a last line `Total N`.
fn io_v1(bytes: &str, operations: &str) -> IoStats {
    let mut io = IoStats::default();
    let lines = |text: &str, set: fn(&mut Disk) -> [&mut u64; 2], io: &mut IoStats| {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(device), Some(kind), Some(Ok(n))) = (words.next(), words.next(), words.next().map(str::parse::<u64>)) else { continue };
            let mut disk = Disk::default();
            match kind {
                "Read" => *set(&mut disk)[0] = n,
                "Write" => *set(&mut disk)[1] = n,
                _ => continue,
            }
            io.add(device, disk);
        }
    };
    lines(bytes, |disk| [&mut disk.read, &mut disk.written], &mut io);
    lines(operations, |disk| [&mut disk.reads, &mut disk.writes], &mut io);
    io
}

impl IoStats {
    fn add(&mut self, device: &str, more: Disk) {
        for disk in [&mut self.total, self.disks.entry(device.to_owned()).or_default()] {
            disk.read += more.read;
            disk.written += more.written;
            disk.reads += more.reads;
            disk.writes += more.writes;
        }
    }
}

#[cfg(test)]
mod tests;
