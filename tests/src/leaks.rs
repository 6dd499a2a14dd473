//! The leak check: what a host shows before and after must be the same.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, ensure};

/// Everything that the platform makes on a host and could forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Mounts of this mount namespace: point and type.
    pub mounts: Vec<String>,
    /// Loop devices with a file behind them.
    pub loops: BTreeSet<String>,
    /// Control groups named `dyno*`.
    pub cgroups: BTreeSet<String>,
    /// Network interfaces.
    pub interfaces: BTreeSet<String>,
    /// Processes with an id of a dyno's range, daemons of ours, and what clients of the runtime start.
    pub processes: BTreeSet<String>,
    /// Network, pid and user namespaces that some process is in.
    pub namespaces: BTreeSet<String>,
    /// `/run/dyno*`.
    pub run: BTreeSet<String>,
    /// What podman, containerd, the docker engine and other runtimes keep at places of their own, and containers in there; whether packets are
    /// passed on, which an engine switches on if it is not told otherwise.
    pub clients: BTreeSet<String>,
}

/// Where clients of the runtime keep something, if nobody tells them otherwise.
const CLIENTS: [&str; 12] = [
    "/run/containerd",
    "/run/docker",
    "/run/libpod",
    "/run/containers",
    "/run/netns",
    "/run/runc",
    "/run/crun",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/cni",
    "/dev/shm/libpod_lock",
];

/// Processes of theirs, as `/proc/PID/status` cuts the names.
const THEIR_PROCESSES: [&str; 9] =
    ["dockerd", "docker-proxy", "containerd", "containerd-shim", "conmon", "podman", "catatonit", "runc", "dyno-runtime"];

/// Looks at the host.
///
/// # Errors
/// When /proc or /sys cannot be read.
pub fn snapshot() -> Result<Snapshot> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let (processes, namespaces) = processes()?;
    Ok(Snapshot {
        mounts: mounts.lines().filter_map(mount).collect(),
        loops: list("/sys/block", |p| p.join("loop/backing_file").exists())?,
        cgroups: cgroups()?,
        interfaces: list("/sys/class/net", |_| true)?,
        processes,
        namespaces,
        run: list("/run", |p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("dyno")))?,
        clients: clients()?,
    })
}

/// Fails with what is new and what is missing.
///
/// # Errors
/// When something is left or missing.
pub fn compare(before: &Snapshot, after: &Snapshot) -> Result<()> {
    let kinds = |of: &Snapshot| {
        let mounts = of.mounts.iter().cloned().collect();
        let sets = [&of.loops, &of.cgroups, &of.interfaces, &of.processes, &of.namespaces, &of.run, &of.clients];
        [vec![mounts], sets.map(BTreeSet::clone).to_vec()].concat()
    };
    let mut text = String::new();
    for (before, after) in kinds(before).iter().zip(&kinds(after)) {
        text.extend(after.difference(before).map(|left| format!("\nleft: {left}")));
        text.extend(before.difference(after).map(|gone| format!("\ngone: {gone}")));
    }
    // The same mounts in another order, or one of them twice, are told as they are.
    let mounts = if before.mounts == after.mounts { String::new() } else { format!("\nbefore: {:#?}\nafter: {:#?}", before.mounts, after.mounts) };
    ensure!(before == after, "the host is not as it was{text}{}", if text.is_empty() { &mounts } else { "" });
    Ok(())
}

/// Point and type of a line of mountinfo (proc_pid_mountinfo(5)).
fn mount(line: &str) -> Option<String> {
    let (place, rest) = line.split_once(" - ")?;
    Some(format!("{} {}", place.split(' ').nth(4)?, rest.split(' ').next()?))
}

fn clients() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for place in CLIENTS {
        if fs::symlink_metadata(place).is_ok() {
            found.insert(place.to_owned());
        }
        if Path::new(place).is_dir() {
            found.extend(list(place, |_| true)?);
        }
    }
    for setting in ["ip_forward", "conf/all/forwarding"] {
        let value = fs::read_to_string(format!("/proc/sys/net/ipv4/{setting}"))?;
        found.insert(format!("{setting} = {}", value.trim()));
    }
    Ok(found)
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
        if uid >= 1 << 20 || name == "dynod" || name == "dyno-init" || THEIR_PROCESSES.contains(&name.as_str()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_and_what_is_gone_is_named() -> Result<()> {
        let before = snapshot()?;
        compare(&before, &before)?;
        let mut after = before.clone();
        after.clients.insert("/run/left-behind".into());
        after.mounts.retain(|mount| !mount.starts_with("/proc "));
        let error = compare(&before, &after).unwrap_err().to_string();
        assert!(error.contains("\nleft: /run/left-behind") && error.contains("\ngone: /proc proc"), "{error}");
        let mut twice = before.clone();
        twice.mounts.extend(before.mounts.first().cloned());
        assert!(compare(&before, &twice).is_err());
        Ok(())
    }
}
