//! Limits, and the files that hold them: what is written where, and what the kernel must say then.

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use super::{
    Controller, Group, Version,
    file::{field, limit_of, list_of, read_file, read_from_start, value_of},
    group::Part,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::{IoLimit, Limits},
};

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Knob {
    pub file: String,
    pub value: String,
    pub reads: Reads,
    /// A kernel without this file has nothing to limit.
    pub optional: bool,
}

/// What the file must say afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reads {
    /// A number.
    Number(u64),
    /// `max`, or what v1 says for it.
    Unlimited,
    /// A list of CPUs or memory nodes, in whatever form.
    List(Vec<u32>),
    /// These words.
    Words(String),
    /// A number, or a line `default NUMBER`.
    Default(u64),
    /// In the line of a device these fields; no line, or `max`, for None. v1 has one field without a name.
    Device(String, Vec<(&'static str, Option<u64>)>),
}

impl Reads {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Number(n) => text.trim().parse() == Ok(*n),
            Self::Unlimited => !text.trim().is_empty() && limit_of(text).is_none(),
            Self::List(list) => list_of(text) == *list,
            Self::Words(words) => text.split_whitespace().eq(words.split_whitespace()),
            Self::Default(n) => value_of(text, "default").or(limit_of(text)) == Some(*n),
            Self::Device(device, fields) => {
                let line = line_of(text, device).unwrap_or_default();
                fields.iter().all(|(key, want)| {
                    let is = if key.is_empty() { line.split_whitespace().nth(1) } else { field(line, key) };
                    is.and_then(|is| is.parse().ok()) == *want
                })
            }
        }
    }
}

/// The line of a device.
fn line_of<'a>(text: &'a str, device: &str) -> Option<&'a str> {
    text.lines().find(|line| line.split_whitespace().next() == Some(device))
}

impl Knob {
    fn number(file: impl Into<String>, value: u64) -> Self {
        Self { file: file.into(), value: value.to_string(), reads: Reads::Number(value), optional: false }
    }

    /// A number, or what `version` says for none.
    fn limit(version: Version, file: impl Into<String>, value: Option<u64>) -> Self {
        let none = if version == Version::V1 { "-1" } else { "max" };
        let reads = value.map_or(Reads::Unlimited, Reads::Number);
        Self { file: file.into(), value: value.map_or_else(|| none.to_owned(), |v| v.to_string()), reads, optional: false }
    }

    fn optional(self, optional: bool) -> Self {
        Self { optional, ..self }
    }

    /// What a new group has anyway.
    fn is_no_limit(&self) -> bool {
        match &self.reads {
            Reads::Unlimited => true,
            Reads::Words(words) => words.starts_with("max"),
            Reads::Device(_, fields) => fields.iter().all(|(_, value)| value.is_none()),
            Reads::Number(_) | Reads::List(_) | Reads::Default(_) => false,
        }
    }

    /// The value that makes the file say again what it says in `text`.
    pub fn undo(&self, text: &str) -> String {
        match &self.reads {
            // v2, nothing asked for: an empty write would do nothing.
            Reads::List(_) if text.trim().is_empty() => "\n".to_owned(),
            Reads::Device(device, fields) => match line_of(text, device) {
                Some(line) => line.to_owned(),
                None if fields.iter().any(|(key, _)| key.is_empty()) => format!("{device} 0"),
                None => format!("{device} {}", fields.iter().map(|(key, _)| format!("{key}=max")).collect::<Vec<_>>().join(" ")),
            },
            Reads::Unlimited | Reads::Number(_) | Reads::List(_) | Reads::Words(_) | Reads::Default(_) => text.trim().to_owned(),
        }
    }
}

/// Memory, processes, processor: in every group. `now` is the limit of memory and swap together that v1 has now (None: none).
pub(super) fn required(controller: Controller, version: Version, limits: &Limits, now: Option<u64>) -> Vec<Knob> {
    match (controller, version) {
        (Controller::Memory, Version::V1) => memory_v1(limits, now),
        (Controller::Memory, Version::V2) => vec![
            Knob::limit(version, "memory.high", limits.memory_high.map(whole_pages)),
            Knob::limit(version, "memory.max", limits.memory.map(whole_pages)),
            Knob::limit(version, "memory.swap.max", limits.memory.map(|_| whole_pages(limits.swap))).optional(limits.swap == 0),
            // Killing one process of an app leaves a broken rest; the whole dyno ends instead.
            Knob::number("memory.oom.group", limits.memory.is_some().into()),
        ],
        (Controller::Pids, _) => vec![Knob { value: limits.pids.map_or("max".into(), |n| n.to_string()), ..Knob::limit(version, "pids.max", limits.pids) }],
        (Controller::Cpu, Version::V1) => {
            // cgroup v1 counts in shares, 1024 to one; v2 in weights, 100 to one.
            let shares = limits.cpu_weight.map_or(1024, |weight| (weight * 1024 / 100).clamp(2, 262_144));
            let mut knobs = vec![Knob::number("cpu.shares", shares)];
            if limits.cpu_millis.is_some() {
                knobs.push(Knob::number("cpu.cfs_period_us", 100_000));
            }
            knobs.push(Knob::limit(version, "cpu.cfs_quota_us", limits.cpu_millis.map(quota)));
            knobs
        }
        (Controller::Cpu, Version::V2) => {
            let max = format!("{} 100000", limits.cpu_millis.map_or("max".to_owned(), |millis| quota(millis).to_string()));
            vec![
                Knob::number("cpu.weight", limits.cpu_weight.unwrap_or(100)),
                Knob { file: "cpu.max".into(), value: max.clone(), reads: Reads::Words(max), optional: false },
            ]
        }
        (Controller::Cpuset | Controller::Io | Controller::Hugetlb | Controller::Freezer | Controller::Cpuacct, _) => Vec::new(),
    }
}

/// Microseconds of each 100 ms.
fn quota(millis: u64) -> u64 {
    millis * 100
}

/// The limit with swap can never be below the one without: raised, it goes first, lowered, last.
fn memory_v1(limits: &Limits, now: Option<u64>) -> Vec<Knob> {
    let memory = limits.memory.map(whole_pages);
    let both = limits.memory.map(|memory| whole_pages(memory.saturating_add(limits.swap)));
    let v1 = |file, value| Knob::limit(Version::V1, file, value);
    let mut knobs = vec![
        v1("memory.limit_in_bytes", memory),
        // Without swap accounting there is no such file; then there is no swap to give, but none to take either.
        v1("memory.memsw.limit_in_bytes", both).optional(limits.swap == 0),
    ];
    if both.unwrap_or(u64::MAX) >= now.unwrap_or(u64::MAX) {
        knobs.swap(0, 1);
    }
    knobs.push(v1("memory.soft_limit_in_bytes", limits.memory_high.map(whole_pages)));
    knobs
}

fn whole_pages(bytes: u64) -> u64 {
    let page = rustix::param::page_size() as u64;
    bytes / page * page
}

/// Lists of CPUs and memory nodes; an absent one is that of the group above.
pub(super) fn cpuset(version: Version, limits: &Limits, above: impl Fn(&str) -> Result<String>) -> Result<Vec<Knob>> {
    let mut knobs = Vec::new();
    for (file, list) in [("cpuset.cpus", &limits.cpus), ("cpuset.mems", &limits.memory_nodes)] {
        let value = match (list, version) {
            (Some(list), _) => list.clone(),
            (None, Version::V1) => above(file)?.trim().to_owned(),
            (None, Version::V2) => "\n".to_owned(),
        };
        knobs.push(Knob { file: file.to_owned(), reads: Reads::List(list_of(&value)), value, optional: false });
        if let (Some(list), Version::V2) = (list, version) {
            // v2 takes any list and uses what there is of it, or all when there is none.
            knobs.push(Knob { file: format!("{file}.effective"), value: String::new(), reads: Reads::List(list_of(list)), optional: false });
        }
    }
    Ok(knobs)
}

/// Ceilings of the disks that are named, and none for those in `others`.
pub(super) fn disks(version: Version, limits: &[IoLimit], others: &[String]) -> Vec<Knob> {
    let none = |device: &String| IoLimit { device: device.clone(), ..IoLimit::default() };
    let lifted = others.iter().filter(|device| limits.iter().all(|l| l.device != **device)).map(none);
    limits.iter().cloned().chain(lifted).flat_map(|limit| disk(version, &limit)).collect()
}

fn disk(version: Version, limit: &IoLimit) -> Vec<Knob> {
    let device = &limit.device;
    let knob = |file: &str, value, fields| Knob { file: file.into(), value, reads: Reads::Device(device.clone(), fields), optional: false };
    let values = [("rbps", limit.read_bytes), ("wbps", limit.write_bytes), ("riops", limit.reads), ("wiops", limit.writes)];
    if version == Version::V2 {
        let words: Vec<String> = values.iter().map(|(key, value)| format!("{key}={}", value.map_or("max".to_owned(), |v| v.to_string()))).collect();
        return vec![knob("io.max", format!("{device} {}", words.join(" ")), values.to_vec())];
    }
    let files = ["read_bps", "write_bps", "read_iops", "write_iops"].map(|name| format!("blkio.throttle.{name}_device"));
    // On v1 0 takes the ceiling off.
    files.iter().zip(values).map(|(file, (_, value))| knob(file, format!("{device} {}", value.unwrap_or(0)), vec![("", value)])).collect()
}

/// BFQ's weights end at 1000; the upper part is compressed.
pub(super) fn bfq_weight(weight: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * 900 / 9900 }
}

/// Bytes of huge pages of the sizes that are named, and no limit for those in `others`.
pub(super) fn huge_pages(version: Version, limits: &Limits, others: &[String]) -> Vec<Knob> {
    let file = |size: &str| format!("hugetlb.{size}.{}", if version == Version::V1 { "limit_in_bytes" } else { "max" });
    let lifted = others.iter().filter(|size| !limits.hugetlb.contains_key(*size)).map(|size| Knob::limit(version, file(size), None));
    let set = limits.hugetlb.iter().map(|(size, bytes)| {
        let page = page_bytes(size).max(1);
        Knob::number(file(size), bytes / page * page)
    });
    set.chain(lifted).collect()
}

/// `2MB` as the kernel writes it.
fn page_bytes(size: &str) -> u64 {
    let shift = [("KB", 10), ("MB", 20), ("GB", 30)].into_iter().find_map(|(unit, shift)| Some((size.strip_suffix(unit)?, shift)));
    shift.and_then(|(digits, shift)| digits.parse::<u64>().ok()?.checked_mul(1 << shift)).unwrap_or(0)
}

impl Group {
    /// Sets the limits of a new group.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] when the kernel refuses or reads back another value.
    pub(super) fn limit(&self, limits: &Limits) -> Result<()> {
        for controller in Controller::REQUIRED.into_iter().chain(Controller::asked_for(limits)) {
            let Some(part) = self.part(controller) else { continue };
            let knobs = part.knobs(controller, limits, true)?;
            knobs.iter().filter(|knob| !knob.is_no_limit()).try_for_each(|knob| part.turn(knob))?;
        }
        Ok(())
    }
}

impl Part {
    /// All that `limits` say about `controller`, unlimited things too. In a `fresh` group nothing is limited yet.
    pub fn knobs(&self, controller: Controller, limits: &Limits, fresh: bool) -> Result<Vec<Knob>> {
        match controller {
            Controller::Cpuset => cpuset(self.version, limits, |file| self.above(file)),
            Controller::Io => {
                let mut knobs = disks(self.version, &limits.io, &self.limited_disks());
                knobs.extend(self.disk_weight(limits.io_weight)?);
                Ok(knobs)
            }
            Controller::Hugetlb => {
                let sizes = self.huge_page_sizes()?;
                if let Some(size) = limits.hugetlb.keys().find(|size| !sizes.contains(size)) {
                    return Err(Error::refused(ErrorKind::Wall, format!("limits.hugetlb: this host has no huge pages of {size} (it has {})", sizes.join(", "))));
                }
                Ok(huge_pages(self.version, limits, &sizes))
            }
            _ => {
                let both = if fresh { None } else { read_file(&self.dir, "memory.memsw.limit_in_bytes").ok() };
                Ok(required(controller, self.version, limits, both.and_then(|text| limit_of(&text))))
            }
        }
    }

    /// Writes a value and reads it back.
    pub fn turn(&self, knob: &Knob) -> Result<()> {
        let (path, file) = (&self.path, &knob.file);
        let flags = if knob.value.is_empty() { OFlags::RDONLY } else { OFlags::RDWR };
        let open = match openat(&self.dir, file.as_str(), flags | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if knob.optional => return Ok(()),
            other => other.wall(|| format!("cgroup: open({path}/{file})"))?,
        };
        if !knob.value.is_empty() {
            rustix::io::write(&open, knob.value.as_bytes()).wall(|| format!("cgroup: write {:?} to {path}/{file}", knob.value))?;
        }
        let is = read_from_start(&open).wall(|| format!("cgroup: read {path}/{file}"))?;
        if knob.reads.holds(&is) {
            return Ok(());
        }
        Err(Error::refused(ErrorKind::Wall, format!("cgroup: {path}/{file} is {:?} after writing {:?}", is.trim(), knob.value)))
    }

    /// Disks that have a ceiling now.
    fn limited_disks(&self) -> Vec<String> {
        let files: &[&str] = match self.version {
            Version::V1 => &["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"],
            Version::V2 => &["io.max"],
        };
        let mut devices: Vec<String> = Vec::new();
        for text in files.iter().filter_map(|file| read_file(&self.dir, file).ok()) {
            devices.extend(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned));
        }
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// The file that holds the weight of a group among others at the disks, if a disk heeds it.
    fn disk_weight(&self, weight: Option<u64>) -> Result<Option<Knob>> {
        let there = |file: &&str| read_file(&self.dir, file).is_ok();
        let bfq = ["io.bfq.weight", "blkio.bfq.weight"].into_iter().find(there);
        let iocost = ["io.weight"].into_iter().find(there);
        let knob = |file: &str, weight| Knob { file: file.to_owned(), value: format!("{weight}"), reads: Reads::Default(weight), optional: false };
        let Some(weight) = weight else {
            // Only if it was changed before.
            return Ok(bfq.or(iocost).map(|file| knob(file, 100)));
        };
        match (iocost, bfq) {
            (Some(file), _) if uses_iocost() => Ok(Some(knob(file, weight))),
            (_, Some(file)) if uses_bfq() => Ok(Some(knob(file, bfq_weight(weight)))),
            _ => Err(Error::refused(
                ErrorKind::Wall,
                "limits.io_weight: no disk of this host heeds weights; choose BFQ (echo bfq > /sys/block/DISK/queue/scheduler) or enable iocost (io.cost.qos)",
            )),
        }
    }

    /// As the names of the files say.
    pub fn huge_page_sizes(&self) -> Result<Vec<String>> {
        let mut sizes = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).io(|| format!("list {}", self.path))? {
            let entry = entry.io(|| format!("list {}", self.path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".max").or(rest.strip_suffix(".limit_in_bytes")));
            sizes.extend(size.filter(|size| !size.contains('.')).map(str::to_owned));
        }
        sizes.sort_unstable();
        Ok(sizes)
    }
}

/// Any disk whose scheduler is BFQ: the kernel shows the one in use in brackets.
fn uses_bfq() -> bool {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    disks.map(|disk| disk.path().join("queue/scheduler")).any(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("[bfq]")))
}

/// Any disk for which iocost is enabled: a file of the top of the v2 tree only.
fn uses_iocost() -> bool {
    std::fs::read_to_string("/sys/fs/cgroup/io.cost.qos").is_ok_and(|text| text.contains("enable=1"))
}
