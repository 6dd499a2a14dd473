//! The leak check of the OCI tests: what containers of one test could have left on the host.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, ensure};

/// Mounts below `work`, control groups and processes that bear `name`, and what lies in the state directories.
pub fn left(work: &Path, name: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4));
    found.extend(points.filter(|p| Path::new(p).starts_with(work)).map(|p| format!("mount {p}")));
    groups(Path::new("/sys/fs/cgroup"), name, 0, &mut found);
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let told = |file| String::from_utf8_lossy(&read(file)).replace('\0', " ");
        if entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|pid| pid != std::process::id()) && told("cgroup").contains(name) {
            found.insert(format!("process {} {}", entry.file_name().display(), told("cmdline")));
        }
    }
    for state in fs::read_dir(work)?.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|e| e == "state")) {
        found.extend(fs::read_dir(state.path())?.filter_map(Result::ok).map(|e| format!("state {}", e.path().display())));
    }
    Ok(found)
}

fn groups(dir: &Path, name: &str, depth: u32, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        if entry.file_name().to_string_lossy().contains(name) {
            found.insert(format!("group {}", entry.path().display()));
        }
        if depth < 3 {
            groups(&entry.path(), name, depth + 1, found);
        }
    }
}

/// Fails if there is anything.
pub fn nothing_left(work: &Path, name: &str) -> Result<()> {
    let null = fs::metadata("/dev/null")?;
    ensure!(
        (std::os::unix::fs::MetadataExt::uid(&null), std::os::unix::fs::MetadataExt::gid(&null)) == (0, 0),
        "/dev/null of the host was given away: {null:?}"
    );
    let found = left(work, name)?;
    ensure!(found.is_empty(), "left behind: {found:#?}");
    Ok(())
}
