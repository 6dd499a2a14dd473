//! Limits of a group: written to its files, each read back.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use super::{
    Controller, Group, Version,
    file::{limit_of, read_file, read_from_start},
    knob::{Knob, Reads, bfq_weight, cpuset, disks, huge_pages, required},
    part::Part,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    spec::Limits,
};

impl Group {
    /// Sets the limits of a new group.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] when the kernel refuses or reads back another value.
    pub(super) fn limit(&self, limits: &Limits) -> Result<()> {
        for controller in Controller::REQUIRED.into_iter().chain(Controller::asked_for(limits)) {
            let Some(part) = self.part(controller) else { continue };
            let knobs = part.knobs(controller, limits, true)?;
            knobs.iter().filter(|knob| !knob.is_no_limit()).try_for_each(|knob| part.turn(knob))?;
        }
        Ok(())
    }
}

impl Part {
    /// All that `limits` say about `controller`, unlimited things too. In a `fresh` group nothing is limited yet.
    pub fn knobs(&self, controller: Controller, limits: &Limits, fresh: bool) -> Result<Vec<Knob>> {
        match controller {
            Controller::Cpuset => cpuset(self.version(), limits, |file| self.above(file)),
            Controller::Io => {
                let mut knobs = disks(self.version(), &limits.io, &self.limited_disks());
                knobs.extend(self.disk_weight(limits.io_weight)?);
                Ok(knobs)
            }
            Controller::Hugetlb => {
                let sizes = self.huge_page_sizes()?;
                if let Some(size) = limits.hugetlb.keys().find(|size| !sizes.contains(size)) {
                    return Err(Error::refused(
                        ErrorKind::Wall,
                        format!("limits.hugetlb: this host has no huge pages of {size} (it has {})", sizes.join(", ")),
                    ));
                }
                Ok(huge_pages(self.version(), limits, &sizes))
            }
            _ => {
                let both = if fresh { None } else { read_file(&self.dir, "memory.memsw.limit_in_bytes").ok() };
                Ok(required(controller, self.version(), limits, both.and_then(|text| limit_of(&text))))
            }
        }
    }

    /// Writes a value and reads it back.
    pub fn turn(&self, knob: &Knob) -> Result<()> {
        let (path, file) = (|| self.path(), &knob.file);
        if let Some((_, ready)) = self.ready.iter().find(|(name, _)| name == file) {
            return self.turn_open(knob, ready);
        }
        let flags = if knob.value.is_empty() { OFlags::RDONLY } else { OFlags::RDWR };
        match openat(&self.dir, file.as_str(), flags | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if knob.optional => Ok(()),
            other => self.turn_open(knob, &other.wall(|| format!("cgroup: open({}/{file})", path()))?),
        }
    }

    fn turn_open(&self, knob: &Knob, open: &OwnedFd) -> Result<()> {
        let (path, file) = (|| self.path(), &knob.file);
        if !knob.value.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(open, knob.value.as_bytes())) {
                // Linux 6.1: what has processes in it cannot give its list up again. All that the group above has does the same.
                Err(Errno::NOSPC) if knob.value == "\n" => {
                    return self.turn(&Knob::list(file, self.above(&format!("{file}.effective"))?.trim()));
                }
                other => other.wall(|| format!("cgroup: write {:?} to {}/{file}", knob.value, path()))?,
            };
        }
        let is = read_from_start(open).wall(|| format!("cgroup: read {}/{file}", path()))?;
        if knob.reads.holds(&is) {
            return Ok(());
        }
        Err(Error::refused(ErrorKind::Wall, format!("cgroup: {}/{file} is {:?} after writing {:?}", path(), is.trim(), knob.value)))
    }

    /// Disks that have a ceiling now.
    fn limited_disks(&self) -> Vec<String> {
        let files: &[&str] = match self.version() {
            Version::V1 => &[
                "blkio.throttle.read_bps_device",
                "blkio.throttle.write_bps_device",
                "blkio.throttle.read_iops_device",
                "blkio.throttle.write_iops_device",
            ],
            Version::V2 => &["io.max"],
        };
        let mut devices: Vec<String> = Vec::new();
        for text in files.iter().filter_map(|file| read_file(&self.dir, file).ok()) {
            devices.extend(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned));
        }
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// The file that holds the weight of a group among others at the disks, if a disk heeds it.
    fn disk_weight(&self, weight: Option<u64>) -> Result<Option<Knob>> {
        let there = |file: &&str| read_file(&self.dir, file).is_ok();
        let bfq = ["io.bfq.weight", "blkio.bfq.weight"].into_iter().find(there);
        let iocost = ["io.weight"].into_iter().find(there);
        let knob = |file: &str, weight| Knob { file: file.to_owned(), value: format!("{weight}"), reads: Reads::Default(weight), optional: false };
        let Some(weight) = weight else {
            // Only if it was changed before.
            return Ok(bfq.or(iocost).map(|file| knob(file, 100)));
        };
        match (iocost, bfq) {
            (Some(file), _) if uses_iocost() => Ok(Some(knob(file, weight))),
            (_, Some(file)) if uses_bfq() => Ok(Some(knob(file, bfq_weight(weight)))),
            _ => Err(Error::refused(
                ErrorKind::Wall,
                "limits.io_weight: no disk of this host heeds weights; choose BFQ (echo bfq > /sys/block/DISK/queue/scheduler) or enable iocost (io.cost.qos)",
            )),
        }
    }

    /// As the names of the files say.
    pub fn huge_page_sizes(&self) -> Result<Vec<String>> {
        let mut sizes = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).io(|| format!("list {}", self.path()))? {
            let entry = entry.io(|| format!("list {}", self.path()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".max").or(rest.strip_suffix(".limit_in_bytes")));
            sizes.extend(size.filter(|size| !size.contains('.')).map(str::to_owned));
        }
        sizes.sort_unstable();
        Ok(sizes)
    }
}

/// Any disk whose scheduler is BFQ: the kernel shows the one in use in brackets.
fn uses_bfq() -> bool {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    disks.map(|disk| disk.path().join("queue/scheduler")).any(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("[bfq]")))
}

/// Any disk for which iocost is enabled: a file of the top of the v2 tree only.
fn uses_iocost() -> bool {
    std::fs::read_to_string("/sys/fs/cgroup/io.cost.qos").is_ok_and(|text| text.contains("enable=1"))
}
