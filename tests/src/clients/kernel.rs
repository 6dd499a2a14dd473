//! What the kernel says of a container's process: asked of the host's /proc and control groups, not of the client.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

/// The control groups of a process.
#[derive(Debug, Clone)]
pub struct Group {
    dirs: Vec<PathBuf>,
}

/// The control groups that a process is in, as directories of this host.
///
/// # Errors
/// When there is no such process.
pub fn group(pid: u32) -> Result<Group> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).with_context(|| format!("process {pid}"))?;
    let mut dirs = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            dirs.extend(["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|root| PathBuf::from(root).join(path)));
        } else {
            dirs.push(PathBuf::from("/sys/fs/cgroup").join(controllers.trim_start_matches("name=")).join(path));
        }
    }
    dirs.retain(|dir| dir.is_dir());
    Ok(Group { dirs })
}

impl Group {
    /// The first of `files` that there is: the names of both versions are given.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(&self, files: &[&str]) -> Result<String> {
        let mut paths = files.iter().flat_map(|file| self.dirs.iter().map(move |dir| dir.join(file)));
        let path = paths.find(|path| path.is_file()).with_context(|| format!("none of {files:?} in {:?}", self.dirs))?;
        Ok(fs::read_to_string(path)?.trim().to_owned())
    }

    /// Bytes that it may use.
    ///
    /// # Errors
    /// When nothing says so.
    pub fn memory(&self) -> Result<u64> {
        Ok(self.read(&["memory.limit_in_bytes", "memory.max"])?.parse()?)
    }

    /// The part of a processor that it may use, in thousandths.
    ///
    /// # Errors
    /// When it is not limited.
    pub fn processor(&self) -> Result<u64> {
        let text = self
            .read(&["cpu.max"])
            .or_else(|_| Ok::<_, anyhow::Error>(format!("{} {}", self.read(&["cpu.cfs_quota_us"])?, self.read(&["cpu.cfs_period_us"])?)))?;
        let (quota, period) = text.split_once(' ').context("two numbers")?;
        Ok(quota.parse::<u64>().with_context(|| text.clone())? * 1000 / period.parse::<u64>()?)
    }

    /// Whether its processes stand still: by v1's freezer or, also beside v1 controllers, by that of v2.
    pub fn is_frozen(&self) -> bool {
        let frozen =
            |(file, value): (&str, &str)| self.dirs.iter().any(|dir| fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == value));
        [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")].into_iter().any(frozen)
    }

    /// Those directories that are still there.
    pub fn left(&self) -> Vec<&PathBuf> {
        self.dirs.iter().filter(|dir| dir.is_dir()).collect()
    }

    /// Whether all its paths hold `text`.
    pub fn is_below(&self, text: &str) -> bool {
        self.dirs.iter().all(|dir| dir.to_string_lossy().contains(text))
    }
}

/// `/proc/PID/status`.
///
/// # Errors
/// When there is no such process.
pub fn status(pid: u32) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))
}

/// A field of such a text.
///
/// # Errors
/// When it is not there.
pub fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).with_context(|| format!("no {name} in {status}"))
}

/// The options of the uppermost mount at `at` in a `/proc/mounts`, with its type first.
///
/// # Errors
/// When nothing is mounted there.
pub fn mount_options<'a>(mounts: &'a str, at: &str) -> Result<Vec<&'a str>> {
    let found = mounts.lines().rev().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words.get(1) == Some(&at));
    let words = found.with_context(|| format!("nothing is mounted at {at}:\n{mounts}"))?;
    Ok(words[2..=2].iter().copied().chain(words[3].split(',')).collect())
}
