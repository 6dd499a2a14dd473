//! What peers leave below /sys/fs/cgroup: groups, which only rmdir(2) removes, one after the other; and plain directories, where a tree would be
//! and is hidden. What the file system is decides, so that neither is taken for the other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const TOP: &str = "/sys/fs/cgroup";

/// statfs(2): control groups, v1 and v2.
const TREES: [u64; 2] = [0x27e0eb, 0x6367_7270];

/// statfs(2).
const TMPFS: u64 = 0x0102_1994;

fn is_on(path: &Path, kinds: &[u64]) -> bool {
    rustix::fs::statfs(path).is_ok_and(|about| kinds.contains(&(about.f_type as u64)))
}

/// Removes control groups of that name, in whatever tree, with those below. What is none (the place of a tree that is hidden) stays.
pub fn remove(name: &str) -> Result<()> {
    let trees = fs::read_dir(TOP)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir());
    let is_group = |path: &PathBuf| path.join("cgroup.procs").exists() && is_on(path, &TREES);
    trees.map(|tree| tree.join(name)).chain([Path::new(TOP).join(name)]).filter(is_group).try_for_each(|group| remove_group(&group))
}

fn remove_group(group: &Path) -> Result<()> {
    for inner in fs::read_dir(group)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()) {
        remove_group(&inner)?;
    }
    fs::remove_dir(group).with_context(|| format!("rmdir {}", group.display()))
}

/// Where `cargo xtask bench` hides the v2 tree, because crun refuses it, some peers take the empty place for a tree and make directories:
/// removes those of this run.
pub fn remove_plain_directories() -> Result<()> {
    let place = Path::new(TOP).join("unified");
    let ours = format!("dyno-bench-{}", std::process::id());
    if !is_on(&place, &[TMPFS]) {
        return Ok(());
    }
    let entries = fs::read_dir(place)?.filter_map(|entry| entry.ok());
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours))
        .try_for_each(|entry| fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display())))
}
