//! The control groups of a container: where `linux.cgroupsPath` says, limited as `linux.resources` says.
//!
//! Each controller is taken from wherever the host has it: its own v1 hierarchy, or the v2 tree. A container has a group in every v1
//! hierarchy that is mounted, systemd's named one too, and in the v2 tree: that is where engines look for its figures.
//!
//! ```text
//! place       config -> Record: which directories they will be                     (text in, values out)
//! group       one directory: made with those above it, entered, removed
//! ask         one value for one file: written, read back, undone
//! memory, cpu, disks, other   linux.resources -> such values, by v1's rules and v2's   (values in, values out)
//! devices     which devices may be used: v1's two files, v2's BPF
//! members     who is in them: frozen, thawed, killed
//! systemd     a scope instead of directories of our own; bus: how systemd is asked
//! stats       what was used, in the shape of runc's `events --stats`; oom: when memory ran out
//! ```
//!
//! The first process is born in the v2 group (CLONE_INTO_CGROUP) and enters those of v1 by writing `0` to `tasks`, which moves one thread
//! and waits for no RCU grace period; `cgroup.procs` does, for 10 ms and more on an idle host. Under systemd it is born outside, and
//! [`Cgroup::adopt`] has it moved.

mod ask;
mod bus;
mod cpu;
mod devices;
mod disks;
mod group;
mod members;
mod memory;
mod oom;
mod other;
mod place;
mod stats;
mod systemd;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use self::{ask::Ask, group::Group};
use super::spec::Resources;
use crate::{
    cgroup::Version,
    error::{Error, ErrorKind, Result},
};

pub use self::oom::{Oom, Seen};

/// What must hold of whatever a bus answers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_bus(bytes: &[u8]) {
    bus::fuzz(bytes);
}

/// Who makes the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// The runtime itself.
    #[default]
    Files,
    /// systemd makes a scope (`--systemd-cgroup`).
    Systemd,
    /// Nobody: the container stays in the groups of whoever calls.
    Disabled,
}

/// Where a container's groups are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Directory of each hierarchy, with the controllers that it has there (`systemd` for the named one; none for the v2 tree).
    pub groups: Vec<(PathBuf, Vec<String>)>,
    /// The scope, where systemd made it.
    pub unit: Option<String>,
    /// The slice that the scope is in.
    #[serde(default)]
    pub slice: Option<String>,
    /// Whether the configuration names the place. Where it does not, a user without rights to a hierarchy does without it.
    #[serde(default)]
    pub named: bool,
}

/// The groups of a container.
#[derive(Debug)]
pub struct Cgroup {
    groups: Vec<Group>,
    record: Record,
    /// What [`Cgroup::adopt`] has still to do.
    pending: Option<(Resources, Option<(u32, u32)>)>,
}

/// Settings of one controller.
struct Part {
    v1: &'static str,
    v2: &'static str,
    /// The member of `linux.resources`, for messages.
    member: &'static str,
    asks: fn(&Resources, Version, Now<'_>) -> Result<Vec<Ask>>,
}

/// What a file of the group says now, where it matters.
type Now<'n> = &'n dyn Fn(&str) -> Option<String>;

/// In the order of writing.
const PARTS: [Part; 9] = [
    Part { v1: "memory", v2: "memory", member: "memory", asks: memory::asks },
    Part { v1: "cpu", v2: "cpu", member: "cpu", asks: cpu::asks },
    Part { v1: "cpuset", v2: "cpuset", member: "cpu", asks: cpu::sets },
    Part { v1: "pids", v2: "pids", member: "pids", asks: other::pids },
    Part { v1: "blkio", v2: "io", member: "blockIO", asks: disks::asks },
    Part { v1: "hugetlb", v2: "hugetlb", member: "hugepageLimits", asks: other::huge_pages },
    Part { v1: "rdma", v2: "rdma", member: "rdma", asks: other::rdma },
    Part { v1: "net_cls", v2: "net_cls", member: "network.classID", asks: other::packet_mark },
    Part { v1: "net_prio", v2: "net_prio", member: "network.priorities", asks: other::packet_priorities },
];

impl Cgroup {
    /// Makes the groups and limits them. Under systemd nothing is done yet ([`Cgroup::adopt`]). With an owner (host ids), the v2 group is
    /// his to divide.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] when a group is in use or frozen, when this host lacks something that is asked for, or the kernel refuses a
    /// value; what was made is gone again then.
    pub fn create(record: &Record, resources: &Resources, owner: Option<(u32, u32)>) -> Result<Self> {
        let mut this = Self { groups: Vec::with_capacity(record.groups.len()), record: record.clone(), pending: None };
        if record.unit.is_some() {
            this.pending = Some((resources.clone(), owner));
            return Ok(this);
        }
        let unused = |this: &Self| this.groups.iter().try_for_each(Group::must_be_unused);
        let made = this.make().and_then(|()| unused(&this)).and_then(|()| this.prepare(resources, owner));
        if let Err(e) = made {
            this.abandon();
            return Err(e);
        }
        Ok(this)
    }

    /// Opens the groups that [`Cgroup::create`] made, as far as they are there.
    ///
    /// # Errors
    /// Of opening them. That is not "gone": the container may be running in them.
    pub fn open(record: &Record) -> Result<Self> {
        let mut groups = Vec::with_capacity(record.groups.len());
        for (path, controllers) in &record.groups {
            groups.extend(Group::open(path, controllers)?);
        }
        Ok(Self { groups, record: record.clone(), pending: None })
    }

    fn make(&mut self) -> Result<()> {
        for (path, controllers) in &self.record.groups {
            match Group::make(path, controllers) {
                Ok(group) => self.groups.push(group),
                Err(e) if !self.record.named && place::is_withheld(&e) => tracing::debug!(%e, "not ours to use"),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn prepare(&self, resources: &Resources, owner: Option<(u32, u32)>) -> Result<()> {
        let pure = self.groups.iter().all(|group| group.version == Version::V2);
        if let Some(tree) = self.tree().filter(|_| pure) {
            tree.offer_all()?;
        }
        self.limit(resources, None)?;
        self.set_devices(resources)?;
        match (self.tree(), owner) {
            (Some(tree), Some((uid, gid))) => tree.give_to(uid, gid),
            _ => Ok(()),
        }
    }

    /// Other limits for a container that lives: all of them or none. Device rules are left alone when none are given.
    ///
    /// # Errors
    /// As of [`Cgroup::create`]; what was written before has its former value again.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        let mut former = Vec::new();
        let done = self
            .update_unit(resources)
            .and_then(|()| self.limit(resources, Some(&mut former)))
            .and_then(|()| if resources.devices.is_empty() { Ok(()) } else { self.set_devices(resources) });
        if done.is_err() {
            former.into_iter().rev().for_each(ask::Former::put_back);
        }
        done
    }

    fn limit<'c>(&'c self, resources: &Resources, mut former: Option<&mut Vec<ask::Former<'c>>>) -> Result<()> {
        for part in &PARTS {
            // What is asked for is found out without touching anything: most configurations ask for little.
            if (part.asks)(resources, Version::V1, &|_| None).is_ok_and(|asks| asks.is_empty()) {
                continue;
            }
            let Some(group) = self.site(part.v1, part.v2)? else { return Err(self.missing(part)) };
            let now = |file: &str| group.read(file).ok();
            group.set((part.asks)(resources, group.version, &now)?, former.as_deref_mut())?;
        }
        if resources.unified.is_empty() {
            return Ok(());
        }
        let tree = self.tree().ok_or_else(|| refused("linux.resources.unified: this host has no v2 tree, or the container no group in it"))?;
        tree.set(other::unified(&resources.unified, |controller| tree.offer(controller))?, former)
    }

    /// The group whose controller this is.
    fn site(&self, v1: &str, v2: &str) -> Result<Option<&Group>> {
        if let Some(group) = self.groups.iter().find(|group| group.controllers.iter().any(|c| c == v1)) {
            return Ok(Some(group));
        }
        match self.tree() {
            Some(tree) if tree.offer(v2)? => Ok(Some(tree)),
            _ => Ok(None),
        }
    }

    fn missing(&self, part: &Part) -> Error {
        let place = self.tree().map_or_else(|| "no v2 tree has it".to_owned(), |tree| format!("{}/cgroup.controllers does not list it", tree.path));
        refused(format!(
            "linux.resources.{}: no {} controller: it is not mounted (v1) where the container has a group, and {place}",
            part.member, part.v2
        ))
    }

    /// Its part of the v2 tree.
    fn tree(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.version == Version::V2)
    }

    /// Its part of a v1 hierarchy.
    fn part(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.controllers.iter().any(|c| c == controller))
    }

    /// The v2 directory in which the first process is born.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.tree().map(|tree| tree.dir.as_fd())
    }

    /// The `tasks` files of the v1 hierarchies; who enters writes `0` to each.
    ///
    /// # Errors
    /// Of opening them.
    pub fn entrances(&self) -> Result<Vec<OwnedFd>> {
        self.groups.iter().filter(|group| group.version == Version::V1).map(Group::entrance).collect()
    }

    /// Has systemd make the scope around `pid`, and does there what [`Cgroup::create`] does elsewhere. Nothing without systemd.
    ///
    /// # Errors
    /// As of [`Cgroup::create`], and what systemd answers.
    pub fn adopt(&mut self, pid: u32) -> Result<()> {
        let Some((resources, owner)) = self.pending.take() else { return Ok(()) };
        let unit = self.record.unit.clone().unwrap_or_default();
        let v1_devices = self.record.groups.iter().any(|(_, controllers)| controllers.iter().any(|c| c == "devices"));
        let devices = if v1_devices { devices::for_systemd(&resources.devices)? } else { Vec::new() };
        systemd::start(&unit, self.record.slice.as_deref().unwrap_or_default(), pid, &resources, devices)?;
        // What fails from here on is taken down by `remove`, once the process has ended.
        self.make()?;
        if let Some(elsewhere) = self.groups.iter().find(|group| group.fresh && (group.version == Version::V2 || group.controllers == ["systemd"])) {
            return Err(refused(format!("systemd made {unit} elsewhere than in {}", elsewhere.path)));
        }
        self.prepare(&resources, owner)?;
        self.groups.iter().try_for_each(|group| group.take_in(pid))
    }

    /// Removes what was made for a start that failed. What was there before stays.
    fn abandon(&mut self) {
        for group in self.groups.drain(..).filter(|group| group.fresh) {
            if let Err(e) = group.remove_dir() {
                tracing::warn!(%e, "a control group of a failed start stays");
            }
        }
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::refused(ErrorKind::Wall, message)
}
