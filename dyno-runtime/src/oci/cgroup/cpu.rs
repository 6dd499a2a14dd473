//! `linux.resources.cpu`.

use super::{Now, ask::Ask, refused};
use crate::{
    cgroup::{Version, file::list_of, knob::Reads},
    error::Result,
    oci::spec::{Cpu, Resources},
};

pub(super) fn asks(resources: &Resources, version: Version, now: Now<'_>) -> Result<Vec<Ask>> {
    let Some(cpu) = &resources.cpu else { return Ok(Vec::new()) };
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    let shares = cpu.shares.filter(|shares| *shares != 0);
    let idle = cpu.idle.map(|idle| Ask { reads: u64::try_from(idle).ok().map(Reads::Number), ..Ask::new("cpu.idle", "cpu.idle", idle) });
    let mut asks = Vec::new();
    if version == Version::V2 {
        if cpu.realtime_period.is_some_and(|p| p != 0) || cpu.realtime_runtime.is_some_and(|r| r != 0) {
            return Err(refused("linux.resources.cpu.realtimeRuntime: only v1 control groups can do that, and this host's cpu controller is on v2"));
        }
        // A group that is idle takes no weight (sched_group_set_shares).
        asks.extend(shares.map(|shares| Ask::number("cpu.shares", "cpu.weight", weight(shares))));
        asks.extend(idle);
        asks.extend(cpu.burst.map(|burst| Ask::number("cpu.burst", "cpu.max.burst", burst)));
        asks.extend(max(quota, period, now));
        return Ok(asks);
    }
    // The kernel takes a share outside of 2 to 262144 for the nearest one; then it reads back another one, which is an error.
    asks.extend(shares.map(|shares| Ask::number("cpu.shares", "cpu.shares", shares)));
    asks.extend(period.map(|period| Ask::number("cpu.period", "cpu.cfs_period_us", period)));
    asks.extend(cpu.burst.map(|burst| Ask::number("cpu.burst", "cpu.cfs_burst_us", burst)));
    asks.extend(quota.map(|quota| signed("cpu.quota", "cpu.cfs_quota_us", quota)));
    asks.extend(idle);
    asks.extend(real_time(cpu));
    Ok(asks)
}

fn real_time(cpu: &Cpu) -> Vec<Ask> {
    let period = cpu.realtime_period.filter(|period| *period != 0).map(|period| Ask::number("cpu.realtimePeriod", "cpu.rt_period_us", period));
    let runtime = cpu.realtime_runtime.filter(|runtime| *runtime != 0).map(|runtime| signed("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime));
    period.into_iter().chain(runtime).collect()
}

/// Microseconds; what is below 0 is without limit.
fn signed(member: &str, file: &str, value: i64) -> Ask {
    let reads = u64::try_from(value).map_or(Reads::Words("-1".into()), Reads::Number);
    Ask::new(member, file, value.max(-1)).reads(reads)
}

/// `cpu.max` holds quota and period. A quota alone leaves the period as it is; a period needs the quota beside it.
fn max(quota: Option<i64>, period: Option<u64>, now: Now<'_>) -> Option<Ask> {
    let text = now("cpu.max").unwrap_or_default();
    let mut words = text.split_whitespace();
    let (is_quota, is_period) = (words.next().unwrap_or("max"), words.next().unwrap_or("100000"));
    let quota = quota.map(|quota| if quota < 0 { "max".to_owned() } else { quota.to_string() });
    if quota.is_none() && period.is_none() {
        return None;
    }
    let member = if quota.is_some() { "cpu.quota" } else { "cpu.period" };
    let value = format!("{} {}", quota.unwrap_or_else(|| is_quota.to_owned()), period.map_or_else(|| is_period.to_owned(), |p| p.to_string()));
    Some(Ask::new(member, "cpu.max", &value).reads(Reads::Words(value)))
}

/// Shares, 2 to 262144, as weights, 1 to 10000, such that both defaults, 1024 and 100, meet: the quadratic curve in the logarithms that
/// runc and crun have used since 2025 (opencontainers/cgroups #20).
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight.clamp(1, 10_000)
        }
    }
}

/// Processors and memory nodes.
pub(super) fn sets(resources: &Resources, version: Version, _: Now<'_>) -> Result<Vec<Ask>> {
    let Some(cpu) = &resources.cpu else { return Ok(Vec::new()) };
    let mut asks = Vec::new();
    for (member, file, list) in [("cpu.cpus", "cpuset.cpus", &cpu.cpus), ("cpu.mems", "cpuset.mems", &cpu.mems)] {
        let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { continue };
        if !list.bytes().all(|b| b.is_ascii_digit() || b"-,:/ ".contains(&b)) {
            return Err(refused(format!("linux.resources.{member}: {list:?} is no list of numbers")));
        }
        // Strides (`0-7:2/4`) are the kernel's to read.
        let reads = (!list.contains([':', '/', ' '])).then(|| Reads::List(list_of(list)));
        let ask = Ask { reads, ..Ask::new(member, file, list) };
        // A v1 hierarchy mounted with noprefix.
        asks.push(if version == Version::V1 { ask.or(file.trim_start_matches("cpuset.")) } else { ask });
    }
    Ok(asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(cpu: Cpu, version: Version, now: Option<&str>) -> Vec<(String, String)> {
        let resources = Resources { cpu: Some(cpu), ..Resources::default() };
        let mut all = asks(&resources, version, &|_| now.map(str::to_owned)).unwrap();
        all.extend(sets(&resources, version, &|_| None).unwrap());
        all.into_iter().map(|ask| (ask.files[0].clone(), ask.value)).collect()
    }

    fn check(cpu: Cpu, version: Version, now: Option<&str>, want: &[(&str, &str)]) {
        let is = pairs(cpu.clone(), version, now);
        assert_eq!(is, want.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect::<Vec<_>>(), "{cpu:?} {version:?}");
    }

    /// The table of github.com/opencontainers/cgroups (utils_test.go), and the ends.
    #[test]
    fn shares_become_weights() {
        let table = [(0, 1), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (262_145, 10_000), (u64::MAX, 10_000)];
        assert_eq!(table.map(|(shares, _)| weight(shares)), table.map(|(_, weight)| weight));
        assert!((2..262_144).step_by(97).all(|shares| weight(shares) <= weight(shares + 97)));
    }

    #[test]
    fn both_versions() {
        let cpu = Cpu {
            shares: Some(1024),
            quota: Some(5000),
            period: Some(10_000),
            burst: Some(0),
            cpus: Some("0-1".into()),
            idle: Some(1),
            ..Cpu::default()
        };
        let v1 = [
            ("cpu.shares", "1024"),
            ("cpu.cfs_period_us", "10000"),
            ("cpu.cfs_burst_us", "0"),
            ("cpu.cfs_quota_us", "5000"),
            ("cpu.idle", "1"),
            ("cpuset.cpus", "0-1"),
        ];
        check(cpu.clone(), Version::V1, None, &v1);
        check(
            cpu,
            Version::V2,
            None,
            &[("cpu.weight", "100"), ("cpu.idle", "1"), ("cpu.max.burst", "0"), ("cpu.max", "5000 10000"), ("cpuset.cpus", "0-1")],
        );
        let zero = Cpu {
            shares: Some(0),
            quota: Some(0),
            period: Some(0),
            cpus: Some(String::new()),
            realtime_period: Some(0),
            realtime_runtime: Some(0),
            ..Cpu::default()
        };
        check(zero.clone(), Version::V1, None, &[]);
        check(zero, Version::V2, None, &[]);
        let real = Cpu { realtime_period: Some(1_000_000), realtime_runtime: Some(-1), ..Cpu::default() };
        check(real, Version::V1, None, &[("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "-1")]);
    }

    #[test]
    fn quota_and_period_share_a_file() {
        let now = Some("70000 200000\n");
        check(Cpu { quota: Some(5000), ..Cpu::default() }, Version::V2, now, &[("cpu.max", "5000 200000")]);
        check(Cpu { quota: Some(-1), ..Cpu::default() }, Version::V2, None, &[("cpu.max", "max 100000")]);
        check(Cpu { period: Some(50_000), ..Cpu::default() }, Version::V2, now, &[("cpu.max", "70000 50000")]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |cpu: Cpu, version| {
            let resources = Resources { cpu: Some(cpu), ..Resources::default() };
            asks(&resources, version, &|_| None).is_err() || sets(&resources, version, &|_| None).is_err()
        };
        assert!(check(Cpu { realtime_runtime: Some(5), ..Cpu::default() }, Version::V2));
        assert!(check(Cpu { cpus: Some("0-1\n".into()), ..Cpu::default() }, Version::V1));
        assert!(check(Cpu { mems: Some("all".into()), ..Cpu::default() }, Version::V2));
    }
}
