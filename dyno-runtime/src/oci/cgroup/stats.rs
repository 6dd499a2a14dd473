//! What a container has used, in the shape of runc's `events --stats` (runc, types/events.go): engines read it from there.
//!
//! Zero members are left out where runc leaves them out. What a hierarchy lacks is left out as well: statistics are never a reason to fail.

mod disks;

use serde_json::{Map, Value, json};

use super::{Cgroup, group::Group};
use crate::{
    cgroup::{
        Version,
        file::{field, list_of, read_file, value_of},
    },
    error::Result,
};

/// Members of an object, those that are not zero.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn number(mut self, name: &str, value: u64) -> Self {
        if value != 0 {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    fn always(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Unless it is empty.
    fn value(mut self, name: &str, value: Value) -> Self {
        let empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::Object(members) => members.is_empty(),
            other => other.is_null(),
        };
        if !empty {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn end(self) -> Value {
        Value::Object(self.0)
    }
}

impl Group {
    fn text(&self, file: &str) -> String {
        read_file(&self.dir, file).unwrap_or_default()
    }

    fn number(&self, file: &str) -> u64 {
        number_of(&self.text(file))
    }

    /// Pressure stall information (accounting/psi.rst), where the kernel keeps it.
    fn pressure(&self, file: &str) -> Value {
        let text = self.text(file);
        let line = |kind: &str| text.lines().find(|line| line.starts_with(kind)).map_or(Value::Null, pressure_line);
        Object::default().value("some", line("some")).value("full", line("full")).end()
    }
}

/// `max` is all there is, as Go has it.
fn number_of(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

fn pressure_line(line: &str) -> Value {
    let average = |key| field(line, key).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let total = field(line, "total").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    json!({"avg10": average("avg10"), "avg60": average("avg60"), "avg300": average("avg300"), "total": total})
}

impl Cgroup {
    /// The `data` of an event of type `stats`.
    ///
    /// # Errors
    /// When the container has no groups any more.
    pub fn stats(&self) -> Result<Value> {
        if self.groups.is_empty() {
            return Err(super::refused("the container has no control groups"));
        }
        let site = |v1, v2| self.part(v1).or_else(|| self.tree().filter(|tree| tree.text("cgroup.controllers").split_whitespace().any(|c| c == v2)));
        // The v2 tree tells of these without any controller.
        let time = self.part("cpuacct").or_else(|| self.tree());
        Ok(json!({
            "cpu": cpu(time, self.part("cpu")),
            "cpuset": self.part("cpuset").map_or_else(no_cpuset, cpuset),
            "memory": site("memory", "memory").map_or_else(|| json!({}), memory),
            "pids": site("pids", "pids").or_else(|| self.tree()).map_or_else(|| json!({}), pids),
            "blkio": site("blkio", "io").map_or_else(|| json!({}), disks::used),
            "hugetlb": site("hugetlb", "hugetlb").map_or_else(|| json!({}), huge_pages),
            "intel_rdt": {},
            "network_interfaces": null,
        }))
    }
}

fn cpu(time: Option<&Group>, quota: Option<&Group>) -> Value {
    let usage = time.map_or_else(|| Object::default().always("kernel", 0).always("user", 0).end(), cpu_time);
    let throttled = quota.or(time.filter(|group| group.version == Version::V2));
    let throttling = throttled.map_or_else(|| json!({}), |group| throttling(&group.text("cpu.stat"), group.version));
    let pressure = time.filter(|group| group.version == Version::V2).map_or(Value::Null, |group| group.pressure("cpu.pressure"));
    Object::default().value("usage", usage).value("throttling", throttling).value("psi", pressure).end()
}

/// Nanoseconds.
fn cpu_time(group: &Group) -> Value {
    if group.version == Version::V2 {
        let text = group.text("cpu.stat");
        let of = |key| value_of(&text, key).unwrap_or(0) * 1000;
        return Object::default().number("total", of("usage_usec")).always("kernel", of("system_usec")).always("user", of("user_usec")).end();
    }
    let each: Value = group.text("cpuacct.usage_percpu").split_whitespace().filter_map(|n| n.parse::<u64>().ok()).collect();
    let all = group.text("cpuacct.usage_all");
    // `cpu user system`, then a line for each processor.
    let column = |n: usize| -> Value { all.lines().skip(1).filter_map(|line| line.split_whitespace().nth(n)?.parse::<u64>().ok()).collect() };
    let usage = Object::default().number("total", group.number("cpuacct.usage"));
    let usage = usage.value("percpu", each).value("percpu_kernel", column(2)).value("percpu_user", column(1));
    usage.always("kernel", group.number("cpuacct.usage_sys")).always("user", group.number("cpuacct.usage_user")).end()
}

fn throttling(stat: &str, version: Version) -> Value {
    let of = |key| value_of(stat, key).unwrap_or(0);
    let nanoseconds = if version == Version::V1 { of("throttled_time") } else { of("throttled_usec") * 1000 };
    Object::default().number("periods", of("nr_periods")).number("throttledPeriods", of("nr_throttled")).number("throttledTime", nanoseconds).end()
}

/// Files of v1 and their members here.
const CPUSET: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

fn cpuset(group: &Group) -> Value {
    let list = |file| Value::from(list_of(&group.text(file)));
    let flag = |name: &str| group.text(&format!("cpuset.{name}")).trim().parse::<i64>().unwrap_or(0);
    let object = Object::default().value("cpus", list("cpuset.cpus")).value("mems", list("cpuset.mems"));
    CPUSET.iter().fold(object, |object, name| object.always(name, flag(name))).end()
}

/// runc says nothing of v2's.
fn no_cpuset() -> Value {
    CPUSET.iter().fold(Object::default(), |object, name| object.always(name, 0)).end()
}

fn memory(group: &Group) -> Value {
    let stat = group.text("memory.stat");
    let raw: Map<String, Value> =
        stat.lines().filter_map(|line| line.split_once(' ')).filter_map(|(key, n)| Some((key.to_owned(), n.parse::<u64>().ok()?.into()))).collect();
    let of = |key| value_of(&stat, key).unwrap_or(0);
    let object = match group.version {
        Version::V1 => {
            let entry = |name: &str| memory_v1(group, name);
            let object = Object::default().number("cache", of("cache")).value("usage", entry("memory")).value("swap", entry("memory.memsw"));
            object.value("kernel", entry("memory.kmem")).value("kernelTCP", entry("memory.kmem.tcp"))
        }
        Version::V2 => {
            let now = group.number("memory.current");
            let limit = group.number("memory.max");
            let usage = memory_entry(limit, now, group.number("memory.peak"), 0);
            let swap = match group.text("memory.swap.max").as_str() {
                "" => Value::Null,
                // Both together, as v1 has it.
                text => memory_entry(number_of(text).saturating_add(limit), group.number("memory.swap.current") + now, 0, 0),
            };
            Object::default().number("cache", of("file")).value("usage", usage).value("swap", swap).value("psi", group.pressure("memory.pressure"))
        }
    };
    object.value("raw", raw.into()).end()
}

fn memory_v1(group: &Group, name: &str) -> Value {
    let of = |what: &str| group.number(&format!("{name}.{what}"));
    memory_entry(of("limit_in_bytes"), of("usage_in_bytes"), of("max_usage_in_bytes"), of("failcnt"))
}

fn memory_entry(limit: u64, usage: u64, max: u64, failures: u64) -> Value {
    if limit == 0 && usage == 0 && max == 0 && failures == 0 {
        return Value::Null;
    }
    Object::default().always("limit", limit).number("usage", usage).number("max", max).always("failcnt", failures).end()
}

fn pids(group: &Group) -> Value {
    let text = group.text("pids.current");
    let current = if text.is_empty() { group.procs().map_or(0, |pids| pids.len() as u64) } else { number_of(&text) };
    // No limit is 0 here.
    let limit = Some(group.number("pids.max")).filter(|limit| *limit != u64::MAX).unwrap_or(0);
    Object::default().number("current", current).number("limit", limit).end()
}

/// What is reserved, where the kernel counts that, otherwise what is used.
fn huge_pages(group: &Group) -> Value {
    let (now, most) = if group.version == Version::V1 { ("usage_in_bytes", "max_usage_in_bytes") } else { ("current", "peak") };
    let mut sizes = Map::new();
    for size in page_sizes() {
        let names = [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")];
        let Some(name) = names.iter().find(|name| !group.text(&format!("{name}.{now}")).is_empty()) else { continue };
        let failures = match group.version {
            Version::V1 => group.number(&format!("{name}.failcnt")),
            Version::V2 => value_of(&group.text(&format!("hugetlb.{size}.events")), "max").unwrap_or(0),
        };
        let of = |what: &str| group.number(&format!("{name}.{what}"));
        sizes.insert(size, Object::default().number("usage", of(now)).number("max", of(most)).always("failcnt", failures).end());
    }
    Value::Object(sizes)
}

/// Of this host: directories like `hugepages-2048kB`.
fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kilobytes = entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok());
    kilobytes
        .map(|kb| match kb {
            kb if kb >= 1 << 20 => format!("{}GB", kb >> 20),
            kb if kb >= 1 << 10 => format!("{}MB", kb >> 10),
            kb => format!("{kb}KB"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// A directory of plain files.
    fn group(dir: &Path, version: Version, files: &[(&str, &str)]) -> Group {
        for (file, text) in files {
            fs::write(dir.join(file), text).unwrap();
        }
        Group { dir: fs::File::open(dir).unwrap().into(), path: dir.to_str().unwrap().to_owned(), controllers: Vec::new(), version, fresh: false }
    }

    #[test]
    fn v2_in_the_shape_of_v1() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "8192\n"),
            ("memory.swap.current", "100\n"),
            ("memory.swap.max", "5\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
        ];
        let group = group(dir.path(), Version::V2, &files);
        let usage = json!({"total": 30_000, "kernel": 10_000, "user": 20_000});
        let some = json!({"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 12});
        let full = json!({"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 3});
        let throttling = json!({"periods": 4, "throttledPeriods": 2, "throttledTime": 7000});
        assert_eq!(cpu(Some(&group), None), json!({"usage": usage, "throttling": throttling, "psi": {"some": some, "full": full}}));
        let entry = |limit: u64, usage: u64| json!({"limit": limit, "usage": usage, "failcnt": 0});
        let mut most = entry(u64::MAX, 4096);
        most["max"] = 8192.into();
        assert_eq!(memory(&group), json!({"cache": 2, "usage": most, "swap": entry(u64::MAX, 4196), "raw": {"anon": 1, "file": 2}}));
        assert_eq!(pids(&group), json!({"current": 3}));
    }

    #[test]
    fn v1_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("cpuacct.usage", "30\n"),
            ("cpuacct.usage_sys", "10\n"),
            ("cpuacct.usage_user", "20\n"),
            ("cpuacct.usage_percpu", "12 18 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 8 4\n1 12 6\n"),
            ("cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"),
            ("cpuset.cpus", "0-1\n"),
            ("cpuset.mems", "0\n"),
            ("cpuset.sched_relax_domain_level", "-1\n"),
            ("memory.usage_in_bytes", "5\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.failcnt", "1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "7\n"),
        ];
        let group = group(dir.path(), Version::V1, &files);
        let usage = json!({"total": 30, "percpu": [12, 18], "percpu_kernel": [4, 6], "percpu_user": [8, 12], "kernel": 10, "user": 20});
        assert_eq!(cpu(Some(&group), Some(&group)), json!({"usage": usage}));
        let set = cpuset(&group);
        assert_eq!((&set["cpus"], &set["sched_relax_domain_level"], &set["cpu_exclusive"]), (&json!([0, 1]), &json!(-1), &json!(0)));
        assert_eq!(memory(&group), json!({"usage": {"limit": 9_223_372_036_854_771_712u64, "usage": 5, "failcnt": 1}}));
        assert_eq!(pids(&group), json!({"current": 3, "limit": 7}));
        assert_eq!(no_cpuset()["memory_pressure"], json!(0));
    }
}
