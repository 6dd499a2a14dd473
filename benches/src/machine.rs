//! The host that figures come from: a number without it says nothing.

use std::{fs, process::Command};

use serde::{Deserialize, Serialize};

/// Host, kernel, versions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Day, UTC.
    pub date: String,
    /// Of the kernel.
    pub kernel: String,
    /// Name of the processor.
    pub processor: String,
    /// How many.
    pub processors: usize,
    /// GiB.
    pub memory: u64,
    /// Where the controllers are.
    pub cgroups: String,
    /// Runnable processes in the last minute before the run.
    pub load: f64,
    /// What others on the same hardware took of the processors during the run, per cent of all their time.
    #[serde(default)]
    pub stolen: f64,
    /// Mounts that a process sees.
    pub mounts: usize,
    /// What the peers say of themselves.
    pub versions: Vec<(String, String)>,
}

/// Programs whose version is told, and how they are asked.
const ASKED: [(&str, &[&str]); 9] = [
    ("crun", &["--version"]),
    ("runc", &["--version"]),
    ("youki", &["--version"]),
    ("bwrap", &["--version"]),
    ("systemd-nspawn", &["--version"]),
    ("lxc-start", &["--version"]),
    ("podman", &["--version"]),
    ("docker", &["--version"]),
    ("rustc", &["--version"]),
];

impl Machine {
    /// Looks.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field =
            |text: &str, name: &str| text.lines().find(|l| l.starts_with(name)).and_then(|l| l.split(':').nth(1)).unwrap_or("?").trim().to_owned();
        let processor = read("/proc/cpuinfo");
        let memory: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let v2 = read("/sys/fs/cgroup/cgroup.controllers");
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processors: processor.lines().filter(|l| l.starts_with("processor")).count(),
            processor: field(&processor, "model name"),
            memory: memory >> 20,
            cgroups: if v2.contains("memory") { "v2" } else { "v1" }.to_owned(),
            load: read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(0.0),
            stolen: 0.0,
            mounts: read("/proc/self/mountinfo").lines().count(),
            versions: ASKED.iter().filter_map(|(name, args)| Some(((*name).to_owned(), version(name, args)?))).collect(),
        }
    }
}

/// Ticks of all processors that were stolen, and all (proc_stat(5)).
pub fn stolen() -> (u64, u64) {
    stolen_in(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn stolen_in(stat: &str) -> (u64, u64) {
    (ticks(stat).nth(7).unwrap_or(0), ticks(stat).sum())
}

/// Of all processors together, by what they did: the last of the eight are stolen; guests' are in others.
pub fn ticks(stat: &str) -> impl Iterator<Item = u64> {
    stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).map(|field| field.parse().unwrap_or(0))
}

fn version(name: &str, args: &[&str]) -> Option<String> {
    let program = crate::peers::program(name).unwrap_or_else(|_| name.to_owned());
    // crun makes its state directory whatever it is asked: not in /run, where it would be left.
    let state = tempfile::tempdir().ok()?;
    let output = Command::new(program).args(args).env("XDG_RUNTIME_DIR", state.path()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_field_is_what_was_stolen() {
        assert_eq!(stolen_in("cpu  1 2 4 1000 2000 8 16 32 64 64\ncpu0 1 1"), (32, 3063));
        assert_eq!(stolen_in(""), (0, 0));
    }
}
