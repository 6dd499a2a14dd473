//! What is written to which file for a limit, and what the file must say then: from values to values, without any IO.

use super::{
    Controller, Version,
    file::{field, limit_of, list_of, value_of},
};
use crate::{
    error::Result,
    spec::{IoLimit, Limits},
};

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Knob {
    pub file: String,
    pub value: String,
    pub reads: Reads,
    /// A kernel without this file has nothing to limit.
    pub optional: bool,
}

/// What the file must say afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reads {
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
    pub fn holds(&self, text: &str) -> bool {
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

    /// CPUs or memory nodes.
    pub fn list(file: &str, value: &str) -> Self {
        Self { file: file.to_owned(), value: value.to_owned(), reads: Reads::List(list_of(value)), optional: false }
    }

    fn optional(self, optional: bool) -> Self {
        Self { optional, ..self }
    }

    /// What a new group has anyway.
    pub fn is_no_limit(&self) -> bool {
        match &self.reads {
            Reads::Unlimited => true,
            Reads::Words(words) => words.starts_with("max"),
            Reads::Device(_, fields) => fields.iter().all(|(_, value)| value.is_none()),
            // The kernel's own weights, what it does at an OOM, and its period: whatever is written there, it goes through all groups of the
            // host (tg_set_cfs_bandwidth).
            Reads::Number(n) => {
                let file = self.file.as_str();
                matches!((file, n), ("cpu.shares", 1024) | ("cpu.weight", 100) | ("memory.oom.group", 0) | ("cpu.cfs_period_us", 100_000))
            }
            Reads::List(_) | Reads::Default(_) => false,
        }
    }

    /// The value that makes the file say again what it says in `text`.
    pub fn undo(&self, text: &str) -> String {
        self.reads.undo(text)
    }
}

impl Reads {
    /// The value that makes a file say again what it says in `text`.
    pub fn undo(&self, text: &str) -> String {
        match self {
            // v2, nothing asked for: an empty write would do nothing.
            Self::List(_) if text.trim().is_empty() => "\n".to_owned(),
            Self::Device(device, fields) => match line_of(text, device) {
                Some(line) => line.to_owned(),
                None if fields.iter().any(|(key, _)| key.is_empty()) => format!("{device} 0"),
                None => format!("{device} {}", fields.iter().map(|(key, _)| format!("{key}=max")).collect::<Vec<_>>().join(" ")),
            },
            Self::Unlimited | Self::Number(_) | Self::List(_) | Self::Words(_) | Self::Default(_) => text.trim().to_owned(),
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
        (Controller::Pids, _) => {
            vec![Knob { value: limits.pids.map_or("max".into(), |n| n.to_string()), ..Knob::limit(version, "pids.max", limits.pids) }]
        }
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

/// The files that nearly every new dyno has something written to.
pub(super) fn first_files(version: Version, controllers: &[Controller]) -> impl Iterator<Item = &'static str> {
    let files = move |controller: &Controller| -> &'static [&'static str] {
        match (controller, version) {
            (Controller::Memory, Version::V1) => &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
            (Controller::Memory, Version::V2) => &["memory.max", "memory.swap.max", "memory.oom.group"],
            (Controller::Pids, _) => &["pids.max"],
            (Controller::Cpu, Version::V1) => &["cpu.cfs_period_us", "cpu.cfs_quota_us"],
            (Controller::Cpu, Version::V2) => &["cpu.max"],
            (Controller::Cpuset | Controller::Io | Controller::Hugetlb | Controller::Freezer | Controller::Cpuacct, _) => &[],
        }
    };
    controllers.iter().flat_map(files).copied()
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

pub(crate) fn whole_pages(bytes: u64) -> u64 {
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
        knobs.push(Knob::list(file, &value));
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
pub(crate) fn bfq_weight(weight: u64) -> u64 {
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
pub(crate) fn page_bytes(size: &str) -> u64 {
    let shift = [("KB", 10), ("MB", 20), ("GB", 30)].into_iter().find_map(|(unit, shift)| Some((size.strip_suffix(unit)?, shift)));
    shift.and_then(|(digits, shift)| digits.parse::<u64>().ok()?.checked_mul(1 << shift)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(knobs: &[Knob]) -> Vec<(&str, &str)> {
        knobs.iter().map(|k| (k.file.as_str(), k.value.as_str())).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_every_dyno_is_limited_in() {
        let limits = Limits {
            memory: Some(64 * MIB),
            memory_high: Some(32 * MIB),
            swap: 16 * MIB,
            pids: Some(9),
            cpu_weight: Some(250),
            cpu_millis: Some(1500),
            ..Limits::default()
        };
        let none = Limits { memory: None, pids: None, cpu_weight: None, ..Limits::default() };
        let check = |limits: &Limits, controller, version, now, want: &[(&str, &str)]| {
            assert_eq!(pairs(&required(controller, version, limits, now)), want, "{controller:?} {version:?} {now:?}");
        };
        use Controller::{Cpu, Memory, Pids};
        use Version::{V1, V2};
        let limit = ("memory.limit_in_bytes", "67108864");
        let both = ("memory.memsw.limit_in_bytes", "83886080");
        let soft = ("memory.soft_limit_in_bytes", "33554432");
        // Without a limit yet, lowered, raised: memory alone never exceeds both together.
        check(&limits, Memory, V1, None, &[limit, both, soft]);
        check(&limits, Memory, V1, Some(128 * MIB), &[limit, both, soft]);
        check(&limits, Memory, V1, Some(32 * MIB), &[both, limit, soft]);
        check(
            &none,
            Memory,
            V1,
            Some(32 * MIB),
            &[("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1"), ("memory.soft_limit_in_bytes", "-1")],
        );
        check(
            &limits,
            Memory,
            V2,
            None,
            &[("memory.high", "33554432"), ("memory.max", "67108864"), ("memory.swap.max", "16777216"), ("memory.oom.group", "1")],
        );
        check(&none, Memory, V2, None, &[("memory.high", "max"), ("memory.max", "max"), ("memory.swap.max", "max"), ("memory.oom.group", "0")]);
        check(&limits, Pids, V1, None, &[("pids.max", "9")]);
        check(&none, Pids, V1, None, &[("pids.max", "max")]);
        check(&limits, Cpu, V1, None, &[("cpu.shares", "2560"), ("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")]);
        check(&none, Cpu, V1, None, &[("cpu.shares", "1024"), ("cpu.cfs_quota_us", "-1")]);
        check(&limits, Cpu, V2, None, &[("cpu.weight", "250"), ("cpu.max", "150000 100000")]);
        check(&none, Cpu, V2, None, &[("cpu.weight", "100"), ("cpu.max", "max 100000")]);
    }

    #[test]
    fn cpus_and_nodes() {
        let limits = Limits { cpus: Some("1,0".into()), ..Limits::default() };
        let knobs =
            |version, limits: &Limits| cpuset(version, limits, |file| Ok(format!("{}\n", if file == "cpuset.cpus" { "0-7" } else { "0" }))).unwrap();
        assert_eq!(pairs(&knobs(Version::V1, &limits)), [("cpuset.cpus", "1,0"), ("cpuset.mems", "0")]);
        assert_eq!(pairs(&knobs(Version::V1, &Limits::default())), [("cpuset.cpus", "0-7"), ("cpuset.mems", "0")]);
        let v2 = knobs(Version::V2, &limits);
        assert_eq!(pairs(&v2), [("cpuset.cpus", "1,0"), ("cpuset.cpus.effective", ""), ("cpuset.mems", "\n")]);
        assert!(v2[1].reads.holds("0-1\n") && !v2[1].reads.holds("0-7\n") && !v2[1].reads.holds("0\n"));
        assert!(v2[2].reads.holds("\n") && !v2[2].reads.holds("0\n"));
    }

    #[test]
    fn ceilings_of_disks() {
        let limit = IoLimit { device: "8:0".into(), read_bytes: Some(MIB), writes: Some(50), ..IoLimit::default() };
        let v2 = disks(Version::V2, std::slice::from_ref(&limit), &["8:0".into(), "8:16".into()]);
        assert_eq!(
            pairs(&v2),
            [("io.max", "8:0 rbps=1048576 wbps=max riops=max wiops=50"), ("io.max", "8:16 rbps=max wbps=max riops=max wiops=max")]
        );
        let now = "8:16 rbps=5 wbps=max riops=max wiops=max\n8:0 rbps=1048576 wbps=max riops=max wiops=50\n";
        assert!(v2[0].reads.holds(now) && !v2[1].reads.holds(now) && v2[1].reads.holds("") && !v2[0].reads.holds(""));
        assert_eq!(
            (v2[1].undo(now).as_str(), v2[0].undo("").as_str()),
            ("8:16 rbps=5 wbps=max riops=max wiops=max", "8:0 rbps=max wbps=max riops=max wiops=max")
        );
        let v1 = disks(Version::V1, &[limit], &[]);
        let file = |name: &str| format!("blkio.throttle.{name}_device");
        let want = [(file("read_bps"), "8:0 1048576"), (file("write_bps"), "8:0 0"), (file("read_iops"), "8:0 0"), (file("write_iops"), "8:0 50")];
        assert_eq!(pairs(&v1), want.iter().map(|(file, value)| (file.as_str(), *value)).collect::<Vec<_>>());
        assert!(v1[0].reads.holds("8:16 1\n8:0 1048576\n") && v1[1].reads.holds("") && !v1[1].reads.holds("8:0 7\n"));
        assert_eq!((v1[0].undo("8:0 9\n").as_str(), v1[0].undo("").as_str()), ("8:0 9", "8:0 0"));
    }

    #[test]
    fn huge_pages_by_size() {
        let limits = Limits { hugetlb: [("2MB".into(), 5 * MIB)].into(), ..Limits::default() };
        let sizes = ["1GB".to_owned(), "2MB".to_owned()];
        assert_eq!(pairs(&huge_pages(Version::V2, &limits, &sizes)), [("hugetlb.2MB.max", "4194304"), ("hugetlb.1GB.max", "max")]);
        assert_eq!(pairs(&huge_pages(Version::V1, &limits, &sizes[1..])), [("hugetlb.2MB.limit_in_bytes", "4194304")]);
        assert_eq!(["64KB", "2MB", "1GB", "x"].map(page_bytes), [65536, 2 << 20, 1 << 30, 0]);
    }

    #[test]
    fn what_a_file_says() {
        let check = |reads: Reads, yes: &[&str], no: &[&str]| {
            assert!(yes.iter().all(|text| reads.holds(text)), "{reads:?} {yes:?}");
            assert!(!no.iter().any(|text| reads.holds(text)), "{reads:?} {no:?}");
        };
        check(Reads::Number(5), &["5\n", "5"], &["50\n", "max\n", ""]);
        check(Reads::Unlimited, &["max\n", "-1\n", "9223372036854771712\n"], &["5\n", ""]);
        check(Reads::Words("max 100000".into()), &["max 100000\n"], &["50000 100000\n", ""]);
        check(Reads::Default(100), &["100\n", "default 100\n", "default 100\n8:0 50\n"], &["default 50\n", "8:0 100\n"]);
    }

    #[test]
    fn bfq_has_a_shorter_scale() {
        assert_eq!([1, 100, 101, 5050, 10_000].map(bfq_weight), [1, 100, 100, 550, 1000]);
    }
}
