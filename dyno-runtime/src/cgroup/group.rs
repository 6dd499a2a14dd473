//! The group of one dyno: its limits, what it used, its end.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, mkdirat, openat},
    io::Errno,
};

use super::{
    Cgroups, Controller,
    detect::{Hierarchy, open_dir, remove_dir},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::Limits,
};

/// What a group used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Highest memory use in bytes (v1 `max_usage_in_bytes`; v2 `memory.peak`, Linux 5.19).
    pub memory_peak: Option<u64>,
    /// Memory in use now, bytes.
    pub memory: Option<u64>,
    /// Processes killed at the memory limit.
    pub oom_kills: u64,
    /// Times that a fork failed at the pids limit.
    pub pids_refused: u64,
    /// Bytes read from disks.
    pub io_read: Option<u64>,
    /// Bytes written to disks.
    pub io_written: Option<u64>,
    /// Whether the writable layer had no room left. Only the process that started it can tell.
    pub disk_full: bool,
}

#[derive(Debug)]
struct Part {
    dir: OwnedFd,
    parent: Arc<OwnedFd>,
    path: String,
    controllers: Vec<Controller>,
    unified: bool,
}

/// The group of one dyno, in every hierarchy that matters.
#[derive(Debug)]
pub struct Group {
    name: String,
    parts: Vec<Part>,
}

impl Group {
    /// Makes the group and writes its limits, each read back from the kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] with the file and value that the kernel refused, or when a group of that name is left from before;
    /// nothing is left behind then.
    pub fn create(cgroups: &Cgroups, name: &str, limits: &Limits) -> Result<Self> {
        let mut group = Self { name: name.to_owned(), parts: Vec::with_capacity(cgroups.hierarchies.len()) };
        let made = cgroups.hierarchies.iter().try_for_each(|h| {
            mkdirat(&h.dir, name, Mode::from_raw_mode(0o755)).wall(|| format!("cgroup: mkdir({}/{name})", h.path))?;
            let part = Part::open(h, name).wall(|| format!("cgroup: open({}/{name})", h.path));
            group.parts.push(part.inspect_err(|_| remove_dir(&h.dir, name).unwrap_or_default())?);
            Ok(())
        });
        if let Err(e) = made.and_then(|()| group.limit(limits)) {
            group.remove()?;
            return Err(e);
        }
        Ok(group)
    }

    pub(super) fn open(cgroups: &Cgroups, name: &str) -> Result<Option<Self>> {
        let mut parts = Vec::with_capacity(cgroups.hierarchies.len());
        for h in &cgroups.hierarchies {
            match Part::open(h, name) {
                Ok(part) => parts.push(part),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e).wall(|| format!("cgroup: open({}/{name})", h.path)),
            }
        }
        Ok((!parts.is_empty()).then(|| Self { name: name.to_owned(), parts }))
    }

    /// The v2 directory in which the dyno is born, if the host has one for us.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.parts.iter().find(|p| p.unified).map(|p| p.dir.as_fd())
    }

    /// The `tasks` files of the v1 hierarchies; the child writes `0` to each.
    ///
    /// # Errors
    /// Of opening them.
    pub fn task_files(&self) -> Result<Vec<OwnedFd>> {
        let open = |p: &Part| {
            openat(&p.dir, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("cgroup: open({}/tasks)", p.path))
        };
        self.parts.iter().filter(|p| !p.unified).map(open).collect()
    }

    /// The file that tells the processor time used: v2 `cpu.stat`, v1 `cpuacct.usage`.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] on a host that counts it nowhere.
    pub fn cpu_time_file(&self) -> Result<OwnedFd> {
        let files = self.parts.iter().map(|p| (p, if p.unified { "cpu.stat" } else { "cpuacct.usage" }));
        for (part, file) in files {
            match openat(&part.dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Err(Errno::NOENT) => {}
                other => return other.wall(|| format!("cgroup: open({}/{file})", part.path)),
            }
        }
        Err(Error::refused(ErrorKind::Wall, "cgroup: limits.cpu_ms needs cpu.stat (v2) or cpuacct.usage (v1), which this host has not"))
    }

    /// Sets limits, at the start or live.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] when the kernel refuses or reads back another value.
    pub fn limit(&self, limits: &Limits) -> Result<()> {
        for part in &self.parts {
            for controller in &part.controllers {
                part.limit(*controller, limits)?;
            }
        }
        Ok(())
    }

    /// What was used up to now. Files that this host lacks leave their field empty.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for part in &self.parts {
            let number = |file: &str| read_file(&part.dir, file).ok()?.trim().parse().ok();
            let keyed = |file: &str, key: &str| read_file(&part.dir, file).ok().and_then(|text| value_of(&text, key)).unwrap_or(0);
            if part.controllers.contains(&Controller::Memory) {
                let files = if part.unified {
                    ["memory.peak", "memory.current", "memory.events"]
                } else {
                    ["memory.max_usage_in_bytes", "memory.usage_in_bytes", "memory.oom_control"]
                };
                usage.memory_peak = number(files[0]);
                usage.memory = number(files[1]);
                usage.oom_kills = keyed(files[2], "oom_kill");
            }
            if part.controllers.contains(&Controller::Pids) {
                usage.pids_refused = keyed("pids.events", "max");
            }
        }
        usage
    }

    /// Host pids in the group (threads of v1 `tasks` are left out). One that was killed on its way in may be in some
    /// hierarchies only.
    ///
    /// # Errors
    /// Of reading `cgroup.procs`.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for part in &self.parts {
            let text = read_file(&part.dir, "cgroup.procs").io(|| format!("cgroup: read {}/cgroup.procs", part.path))?;
            pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes the group. The kernel empties it some moments after the last process has been seen to end, and tells
    /// of it only on v2, so EBUSY is tried again for two seconds.
    ///
    /// # Errors
    /// EBUSY when processes are left. What can be removed is removed all the same.
    pub fn remove(&self) -> Result<()> {
        self.remove_after(|| Ok(()))
    }

    /// [`Self::remove`] that calls `empty` before each try.
    pub(crate) fn remove_after(&self, empty: impl Fn() -> Result<()>) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(2);
        let mut result = empty();
        for part in &self.parts {
            loop {
                match remove_dir(&part.parent, &self.name) {
                    Ok(()) => break,
                    Err(Errno::BUSY) if Instant::now() < end => {
                        std::thread::sleep(Duration::from_millis(1));
                        result = result.and(empty());
                    }
                    Err(e) => {
                        result = result.and(Err(Error::call(ErrorKind::Io, format!("cgroup: rmdir({})", part.path), e)));
                        break;
                    }
                }
            }
        }
        result
    }
}

impl Part {
    fn open(h: &Hierarchy, name: &str) -> std::result::Result<Self, Errno> {
        let dir = open_dir(&h.dir, name)?;
        Ok(Self { dir, parent: h.dir.clone(), path: format!("{}/{name}", h.path), controllers: h.controllers.clone(), unified: h.unified })
    }

    fn limit(&self, controller: Controller, limits: &Limits) -> Result<()> {
        match controller {
            Controller::Memory => {
                let Some(bytes) = limits.memory else { return Ok(()) };
                let pages = bytes / 4096 * 4096;
                if self.unified {
                    self.set("memory.max", pages)?;
                    // Killing one process of an app leaves a broken rest; the whole dyno ends instead.
                    self.write("memory.oom.group", "1")?;
                    self.write_if_there("memory.swap.max", "0")
                } else {
                    // The limit with swap can never be below the one without: lower first, raise last.
                    self.write_if_there("memory.memsw.limit_in_bytes", "-1")?;
                    self.set("memory.limit_in_bytes", pages)?;
                    self.write_if_there("memory.memsw.limit_in_bytes", &pages.to_string())
                }
            }
            Controller::Pids => limits.pids.map_or(Ok(()), |n| self.set("pids.max", n)),
            Controller::Cpu => {
                if let Some(weight) = limits.cpu_weight {
                    // cgroup v1 counts in shares, 1024 to one; v2 in weights, 100 to one.
                    let shares = (weight * 1024 / 100).clamp(2, 262_144);
                    if self.unified { self.set("cpu.weight", weight)? } else { self.set("cpu.shares", shares)? }
                }
                let Some(millis) = limits.cpu_millis else { return Ok(()) };
                let quota = millis * 100; // microseconds of each 100 ms
                if self.unified {
                    return self.write("cpu.max", &format!("{quota} 100000"));
                }
                self.set("cpu.cfs_period_us", 100_000)?;
                self.set("cpu.cfs_quota_us", quota)
            }
        }
    }

    /// Writes a number and reads it back.
    fn set(&self, file: &str, value: u64) -> Result<()> {
        self.write(file, &value.to_string())?;
        let is = read_file(&self.dir, file).wall(|| format!("cgroup: read {}/{file}", self.path))?;
        if is.trim().parse() == Ok(value) {
            return Ok(());
        }
        let text = format!("cgroup: {}/{file} is {} after writing {value}", self.path, is.trim());
        Err(Error::refused(ErrorKind::Wall, text))
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        write_file(&self.dir, file, value).wall(|| format!("cgroup: write {value:?} to {}/{file}", self.path))
    }

    fn write_if_there(&self, file: &str, value: &str) -> Result<()> {
        match write_file(&self.dir, file, value) {
            Err(Errno::NOENT) => Ok(()), // a kernel without swap accounting
            other => other.wall(|| format!("cgroup: write {value:?} to {}/{file}", self.path)),
        }
    }
}

/// The value of `key` in a file of `key value` lines.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

pub(super) fn write_file(dir: &OwnedFd, name: &str, value: &str) -> std::result::Result<(), Errno> {
    let file = openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

pub(super) fn read_file(dir: &OwnedFd, name: &str) -> std::result::Result<String, Errno> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        match rustix::io::read(&file, &mut chunk)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            n => text.extend_from_slice(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(value_of(text, "oom_kill"), Some(3));
        assert_eq!(value_of(text, "oom"), None);
    }
}
