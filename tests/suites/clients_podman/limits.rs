//! Changes of limits, and statistics.

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    clients::{Engine, Outcome, Sayings, group},
    until,
};

use super::Podman;

pub fn updated(podman: &Podman) -> Result<Outcome> {
    podman.with("changed", &["--memory", "64m"], &["sleep", "1000"], |pid| {
        podman.ok(&["update", "--memory", "96m", "--cpus", "0.25", "changed"])?;
        let group = group(pid)?;
        ensure!(group.memory()? == 96 << 20 && group.processor()? == 250, "{group:?}");
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
