//! The leak check: what a host shows before and after must be the same.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, ensure};

/// Everything that the platform makes on a host and could forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Mount points of this mount namespace.
    pub mounts: Vec<String>,
    /// Loop devices with a file behind them.
    pub loops: BTreeSet<String>,
    /// Control groups named `dyno*`.
    pub cgroups: BTreeSet<String>,
    /// Network interfaces.
    pub interfaces: BTreeSet<String>,
    /// Processes with an id of a dyno's range, and daemons of ours.
    pub processes: BTreeSet<String>,
    /// Network, pid and user namespaces that some process is in.
    pub namespaces: BTreeSet<String>,
    /// `/run/dyno*`.
    pub run: BTreeSet<String>,
}

/// Looks at the host.
///
/// # Errors
/// When /proc or /sys cannot be read.
pub fn snapshot() -> Result<Snapshot> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let (processes, namespaces) = processes()?;
    Ok(Snapshot {
        mounts: mounts.lines().filter_map(|l| l.split(' ').nth(4)).map(str::to_owned).collect(),
        loops: list("/sys/block", |p| p.join("loop/backing_file").exists())?,
        cgroups: cgroups()?,
        interfaces: list("/sys/class/net", |_| true)?,
        processes,
        namespaces,
        run: list("/run", |p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("dyno")))?,
    })
}

/// Fails with both sides of every difference.
///
/// # Errors
/// When something is left or missing.
pub fn compare(before: &Snapshot, after: &Snapshot) -> Result<()> {
    ensure!(before == after, "the host is not as it was\nbefore: {before:#?}\nafter: {after:#?}");
    Ok(())
}

fn list(dir: &str, keep: impl Fn(&Path) -> bool) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(dir)?.filter_map(|e| Some(e.ok()?.path()));
    Ok(entries.filter(|p| keep(p)).map(|p| p.display().to_string()).collect())
}

fn cgroups() -> Result<BTreeSet<String>> {
    let ours = |p: &Path| p.is_dir() && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("dyno"));
    let mut found = list("/sys/fs/cgroup", ours)?;
    for hierarchy in list("/sys/fs/cgroup", Path::is_dir)? {
        found.extend(list(&hierarchy, ours)?);
    }
    Ok(found)
}

fn processes() -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut processes, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        // Ended, and left to the host's pid 1, which reaps when it pleases: that is no longer ours.
        if field("State:").starts_with('Z') && field("PPid:") == "1" {
            continue;
        }
        let uid: u32 = field("Uid:").split_whitespace().next().and_then(|u| u.parse().ok()).unwrap_or(0);
        let name = field("Name:");
        if uid >= 1 << 20 || name == "dynod" || name == "dyno-init" {
            processes.insert(format!("{name} {}", entry.file_name().to_string_lossy()));
        }
        for kind in ["net", "pid", "user"] {
            if let Ok(target) = fs::read_link(entry.path().join("ns").join(kind)) {
                namespaces.insert(target.display().to_string());
            }
        }
    }
    Ok((processes, namespaces))
}
