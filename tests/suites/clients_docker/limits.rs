//! What the control groups say: limits, changes of limits, statistics.

use std::fs;

use anyhow::{Result, ensure};
use dyno_tests::{
    clients::{Group, Outcome, Sayings, group},
    until,
};

use super::{Docker, arguments};

/// Bytes that a group may use.
fn memory(group: &Group) -> Result<String> {
    group.read(&["memory.limit_in_bytes", "memory.max"])
}

pub fn limits(docker: &Docker) -> Result<Outcome> {
    let options = ["--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "21", "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0"];
    docker.with("limited", &options, &["sleep", "1000"], |pid| {
        let group = group(pid)?;
        ensure!(memory(&group)? == "67108864", "{group:?}");
        ensure!(group.read(&["memory.soft_limit_in_bytes", "memory.low"])? == "33554432");
        ensure!(group.read(&["pids.max"])? == "21");
        ensure!(group.read(&["cpuset.cpus"])? == "0");
        let quota = group.read(&["cpu.cfs_quota_us", "cpu.max"])?;
        ensure!(quota == "50000" || quota == "50000 100000", "{quota}");
        let shares = group.read(&["cpu.shares", "cpu.weight"])?;
        ensure!(shares == "512" || shares == "20", "{shares}");
        let told = docker.ok(&["exec", "limited", "sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 100 > /dev/null 2>&1 & i=$((i + 1)); done 2>&1 | grep -c fork"])?;
        ensure!(told.parse::<u32>()? >= 1, "more processes than allowed: {told}");
        Ok(())
    })?;
    // A group on a path of its own is there while the container is, and is gone with it.
    let left = docker.with("brief", &["--memory", "32m"], &["sleep", "1000"], group)?;
    ensure!(left.left().is_empty(), "{left:?}");
    Ok(Outcome::Seen)
}

pub fn updated(docker: &Docker) -> Result<Outcome> {
    docker.with("changed", &["--memory", "64m"], &["sleep", "1000"], |pid| {
        docker.ok(&["update", "--memory", "96m", "--memory-swap", "96m", "--pids-limit", "33", "--cpus", "0.25", "changed"])?;
        let group = group(pid)?;
        let quota = group.read(&["cpu.cfs_quota_us", "cpu.max"])?;
        ensure!(memory(&group)? == "100663296" && (quota == "25000" || quota == "25000 100000"), "{quota} {}", memory(&group)?);
        ensure!(group.read(&["pids.max"])? == "33");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn statistics(docker: &Docker) -> Result<Outcome> {
    docker.with("busy", &["--memory", "64m"], &["sh", "-c", "sleep 1000 & sleep 1000 & wait"], |pid| {
        until(10, "three processes run", || Ok((group(pid)?.read(&["pids.current"])? == "3").then_some(())))?;
        let stats = docker.ok(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "busy"])?;
        ensure!(stats.starts_with("3 ") && stats.ends_with("/ 64MiB") && !stats.starts_with("3 0B"), "{stats}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn out_of_memory(docker: &Docker) -> Result<Outcome> {
    let eat = "x=x; while :; do x=$x$x; done";
    docker.ok(&arguments(&["--detach", "--name", "hungry", "--memory", "16m", "--memory-swap", "16m"], &["sh", "-c", eat]))?;
    let status = docker.ok(&["wait", "hungry"])?;
    docker.ok(&["rm", "hungry"])?;
    ensure!(status == "137", "{status}");
    Ok(Outcome::Seen)
}

pub fn rlimits(docker: &Docker) -> Result<Outcome> {
    let told = docker.shell(&["--ulimit", "nofile=300:400", "--ulimit", "nproc=1000:1000", "--ulimit", "core=0:0"], "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj")?;
    let adjusted = fs::read_to_string("/proc/self/oom_score_adj")?;
    ensure!(told == format!("300\n400\n0\n{adjusted}"), "{told}");
    let told = docker.shell(&["--oom-score-adj", "700"], "cat /proc/self/oom_score_adj")?;
    ensure!(told == "700\n", "{told}");
    Ok(Outcome::Seen)
}
