//! Where the kernel has a process's control groups, found without the library.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The directory of a process's group.
pub fn group_of(pid: u32, controller: &str) -> Result<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let serves = |names: &str| names.split(',').any(|n| n == controller);
    let v1 = table.lines().find_map(|l| l.split_once(':')?.1.split_once(':').filter(|(names, _)| serves(names)));
    let v2 = table.lines().find_map(|l| l.strip_prefix("0::"));
    let mounts = mounts_with_source(&fs::read_to_string("/proc/self/mountinfo")?);
    let (point, path) = match v1 {
        Some((_, path)) => (mounts.iter().find(|m| m.0 == "cgroup" && serves(&m.2)), path),
        None => (mounts.iter().find(|m| m.0 == "cgroup2"), v2.context("no group")?),
    };
    let point = &point.with_context(|| format!("{controller} is not mounted"))?.1;
    Ok(PathBuf::from(format!("{point}{path}")))
}

/// File system type, mount point, super-block options.
fn mounts_with_source(text: &str) -> Vec<(String, String, String)> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some((after.next()?.to_owned(), before.split(' ').nth(4)?.to_owned(), after.nth(1)?.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

/// What the first of these files of a group says that is there: v2's name and v1's.
pub fn says(group: &Path, names: [&str; 2]) -> Option<String> {
    names.iter().find_map(|name| fs::read_to_string(group.join(name)).ok()).map(|text| text.trim().to_owned())
}

/// Where the v2 tree is mounted.
pub fn tree() -> Option<PathBuf> {
    mounts_with_source(&fs::read_to_string("/proc/self/mountinfo").ok()?).into_iter().find(|m| m.0 == "cgroup2").map(|m| m.1.into())
}

/// The whole disk, `MAJOR:MINOR`, that holds a file, if one does.
pub fn disk_of(file: &Path) -> Option<String> {
    let dev = rustix::fs::stat(file).ok()?.st_dev;
    let link = fs::canonicalize(format!("/sys/dev/block/{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev))).ok()?;
    let whole = if link.join("partition").exists() { link.parent()? } else { &link };
    Some(fs::read_to_string(whole.join("dev")).ok()?.trim().to_owned())
}
