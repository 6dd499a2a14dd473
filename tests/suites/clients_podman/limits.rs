//! What the control groups say: limits, changes of limits, statistics.

use std::fs;

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    clients::{Group, Outcome, Sayings, group},
    until,
};

use super::Podman;

/// Bytes that a group may use.
fn memory(group: &Group) -> Result<String> {
    group.read(&["memory.limit_in_bytes", "memory.max"])
}

pub fn limits(podman: &Podman) -> Result<Outcome> {
    let options = ["--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "21", "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0"];
    podman.with("limited", &options, &["sleep", "1000"], |pid| {
        let group = group(pid)?;
        ensure!(memory(&group)? == "67108864", "{group:?}");
        ensure!(group.read(&["memory.soft_limit_in_bytes", "memory.low"])? == "33554432");
        ensure!(group.read(&["pids.max"])? == "21");
        ensure!(group.read(&["cpuset.cpus"])? == "0");
        let quota = group.read(&["cpu.cfs_quota_us", "cpu.max"])?;
        ensure!(quota == "50000" || quota == "50000 100000", "{quota}");
        let shares = group.read(&["cpu.shares", "cpu.weight"])?;
        ensure!(shares == "512" || shares == "20", "{shares}");
        let told = podman.ok(&["exec", "limited", "sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 100 > /dev/null 2>&1 & i=$((i + 1)); done 2>&1 | grep -c fork"])?;
        ensure!(told.parse::<u32>()? >= 1, "more processes than allowed: {told}");
        Ok(())
    })?;
    // A group on a path of its own is there while the container is, and is gone with it.
    let left = podman.with("brief", &["--memory", "32m"], &["sleep", "1000"], group)?;
    ensure!(left.left().is_empty(), "{left:?}");
    Ok(Outcome::Seen)
}

pub fn updated(podman: &Podman) -> Result<Outcome> {
    podman.with("changed", &["--memory", "64m"], &["sleep", "1000"], |pid| {
        podman.ok(&["update", "--memory", "96m", "--cpus", "0.25", "changed"])?;
        let group = group(pid)?;
        let quota = group.read(&["cpu.cfs_quota_us", "cpu.max"])?;
        ensure!(memory(&group)? == "100663296" && (quota == "25000" || quota == "25000 100000"), "{quota} {}", memory(&group)?);
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn statistics(podman: &Podman) -> Result<Outcome> {
    podman.with("busy", &["--memory", "64m"], &["sh", "-c", "sleep 1000 & sleep 1000 & wait"], |pid| {
        until(10, "three processes run", || Ok((group(pid)?.read(&["pids.current"])? == "3").then_some(())))?;
        let stats: serde_json::Value = serde_json::from_str(&podman.ok(&["stats", "--no-stream", "--format", "json", "busy"])?)?;
        let one = stats.get(0).context("one container")?;
        let used = one["mem_usage"].as_str().unwrap_or_default();
        ensure!(one["pids"] == "3" && used.ends_with("/ 67.11MB") && !used.starts_with("0B"), "{stats:#}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn out_of_memory(podman: &Podman) -> Result<Outcome> {
    let eat = "x=x; while :; do x=$x$x; done";
    podman.ok(&podman.arguments("create", &["--name", "hungry", "--memory", "16m", "--memory-swap", "16m"], &["sh", "-c", eat]))?;
    podman.ok(&["start", "hungry"])?;
    let status = podman.ok(&["wait", "hungry"])?;
    podman.ok(&["rm", "hungry"])?;
    // That it was for want of memory is conmon's to tell; on cgroup v1 and kernels since 6.10 it does not, with any runtime.
    ensure!(status == "137", "{status}");
    Ok(Outcome::Seen)
}

pub fn rlimits(podman: &Podman) -> Result<Outcome> {
    let told = podman.shell(&["--ulimit", "nofile=300:400", "--ulimit", "nproc=1000:1000", "--ulimit", "core=0:0"], "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj")?;
    let adjusted = fs::read_to_string("/proc/self/oom_score_adj")?;
    ensure!(told == format!("300\n400\n0\n{adjusted}"), "{told}");
    let told = podman.shell(&["--oom-score-adj", "700"], "cat /proc/self/oom_score_adj")?;
    ensure!(told == "700\n", "{told}");
    Ok(Outcome::Seen)
}
