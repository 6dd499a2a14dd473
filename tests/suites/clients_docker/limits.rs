//! Changes of limits, and statistics.

use anyhow::{Result, ensure};
use dyno_tests::{
    clients::{Engine, Outcome, Sayings, group},
    until,
};

use super::Docker;

pub fn updated(docker: &Docker) -> Result<Outcome> {
    docker.with("changed", &["--memory", "64m"], &["sleep", "1000"], |pid| {
        docker.ok(&["update", "--memory", "96m", "--memory-swap", "96m", "--pids-limit", "33", "--cpus", "0.25", "changed"])?;
        let group = group(pid)?;
        ensure!(group.memory()? == 96 << 20 && group.processor()? == 250, "{group:?}");
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
