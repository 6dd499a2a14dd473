//! Limits that any engine asks for, in control groups and for processes.

use std::fs;

use anyhow::{Result, ensure};
use dyno_tests::clients::{Engine, Outcome, group};

pub fn limits<E: Engine>(engine: &E) -> Result<Outcome> {
    let options =
        ["--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "21", "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0"];
    engine.with("limited", &options, &["sleep", "1000"], |pid| {
        let group = group(pid)?;
        ensure!(group.memory()? == 64 << 20, "{group:?}");
        ensure!(group.read(&["memory.soft_limit_in_bytes", "memory.low"])? == "33554432");
        ensure!(group.read(&["pids.max"])? == "21");
        ensure!(group.read(&["cpuset.cpus"])? == "0");
        ensure!(group.processor()? == 500, "{group:?}");
        let shares = group.read(&["cpu.shares", "cpu.weight"])?;
        ensure!(shares == "512" || shares == "20", "{shares}");
        let told = engine.ok(&[
            "exec",
            "limited",
            "sh",
            "-c",
            "i=0; while [ $i -lt 40 ]; do sleep 100 > /dev/null 2>&1 & i=$((i + 1)); done 2>&1 | grep -c fork",
        ])?;
        ensure!(told.parse::<u32>()? >= 1, "more processes than allowed: {told}");
        Ok(())
    })?;
    // A group on a path of its own is there while the container is, and is gone with it.
    let left = engine.with("brief", &["--memory", "32m"], &["sleep", "1000"], group)?;
    ensure!(left.left().is_empty(), "{left:?}");
    Ok(Outcome::Seen)
}

pub fn rlimits<E: Engine>(engine: &E) -> Result<Outcome> {
    let told = engine.shell(
        &["--ulimit", "nofile=300:400", "--ulimit", "nproc=1000:1000", "--ulimit", "core=0:0"],
        "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj",
    )?;
    let adjusted = fs::read_to_string("/proc/self/oom_score_adj")?;
    ensure!(told == format!("300\n400\n0\n{adjusted}"), "{told}");
    let told = engine.shell(&["--oom-score-adj", "700"], "cat /proc/self/oom_score_adj")?;
    ensure!(told == "700\n", "{told}");
    Ok(Outcome::Seen)
}

pub fn out_of_memory<E: Engine>(engine: &E) -> Result<Outcome> {
    let eat = "x=x; while :; do x=$x$x; done";
    engine.ok(&engine.arguments("run", &["--detach", "--name", "hungry", "--memory", "16m", "--memory-swap", "16m"], &["sh", "-c", eat]))?;
    let status = engine.ok(&["wait", "hungry"])?;
    engine.ok(&["rm", "hungry"])?;
    // That it was for want of memory is conmon's to tell podman; on cgroup v1 and Linux 6.18 it does not, with any runtime.
    ensure!(status == "137", "{status}");
    Ok(Outcome::Seen)
}
