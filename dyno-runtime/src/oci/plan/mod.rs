//! [`Container`]: what a `config.json` comes to. Worked out by [`Container::new`] without any change to the host, so that whatever can
//! be refused is refused before anything is created. `create`, `run` and (for [`Process`]) `exec` carry it out.

mod container;
mod devices;
mod hooks;
pub mod known;
mod list;
mod member;
mod mount_options;
mod mounts;
mod namespaces;
mod process;
#[cfg(test)]
mod properties;
pub mod resources;
mod schedule;
mod sysctls;
#[cfg(test)]
mod tests;
mod version;

use std::{collections::BTreeMap, ffi::CString, path::PathBuf};

use super::{
    filter::Filter,
    spec::{self, IdMapping},
};

/// A container as it will be made.
#[derive(Debug)]
pub struct Container {
    /// Of the specification, as the configuration names it.
    pub oci_version: String,
    /// Absolute, on the host.
    pub rootfs: PathBuf,
    /// Whether the root is read-only inside.
    pub readonly_root: bool,
    /// Propagation of the root mount, MS_SHARED and friends, with MS_REC if the option's name begins with `r`.
    pub root_propagation: Option<u64>,
    /// Host name inside; only with a UTS namespace of its own.
    pub hostname: Option<String>,
    /// NIS domain name inside; only with a UTS namespace of its own.
    pub domainname: Option<String>,
    /// One for each kind.
    pub namespaces: Namespaces,
    /// Lines of `/proc/PID/timens_offsets`: clock, seconds, nanoseconds.
    pub time_offsets: Vec<(&'static str, i64, u32)>,
    /// Of a new user namespace.
    pub uid_map: Vec<IdMapping>,
    /// Of a new user namespace.
    pub gid_map: Vec<IdMapping>,
    /// In this order.
    pub mounts: Vec<Mount>,
    /// Those of the configuration and the six that the specification supplies always.
    pub devices: Vec<Device>,
    /// Absolute paths inside that nobody can read.
    pub masked: Vec<PathBuf>,
    /// Absolute paths inside that nobody can write.
    pub readonly: Vec<PathBuf>,
    /// Paths below `/proc/sys`, without `..`, and values.
    pub sysctls: Vec<(String, String)>,
    /// Names of interfaces outside and inside.
    pub net_devices: Vec<(String, String)>,
    /// What is run; `start` refuses a container without one.
    pub process: Option<Process>,
    /// As they stand, each checked.
    pub hooks: spec::Hooks,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// As they stand, each checked; [`super::cgroup`] carries them out.
    pub resources: spec::Resources,
    /// Of the container and of what `exec` starts in it.
    pub filter: Option<Filter>,
    /// For personality(2).
    pub personality: Option<u64>,
    /// For set_mempolicy(2).
    pub memory_policy: Option<MemoryPolicy>,
    /// As it stands.
    pub intel_rdt: Option<spec::IntelRdt>,
    /// SELinux context of the mounts.
    pub mount_label: Option<String>,
    /// As they stand.
    pub annotations: BTreeMap<String, String>,
    /// What was left out, in words for the log: unknown capabilities.
    pub warnings: Vec<String>,
    /// The same of what nobody misses: system calls that only another architecture or another age has. Every profile in use names some, and
    /// where an engine has given no log, a warning ends among what the container says.
    pub notes: Vec<String>,
}

/// Where one kind of namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespace {
    /// The runtime's own.
    #[default]
    Host,
    /// Made for the container.
    New,
    /// One that exists.
    Join(PathBuf),
}

/// One for each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Mounts.
    pub mount: Namespace,
    /// Processes.
    pub pid: Namespace,
    /// Network.
    pub network: Namespace,
    /// System V IPC, POSIX message queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Ids and capabilities.
    pub user: Namespace,
    /// Control groups.
    pub cgroup: Namespace,
    /// Clocks.
    pub time: Namespace,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, without `.` and `..`.
    pub destination: PathBuf,
    /// What is mounted.
    pub source: Source,
    /// MOUNT_ATTR_… to set on this mount.
    pub set: u64,
    /// MOUNT_ATTR_… to clear on this mount (a bind mount has those of its source).
    pub clear: u64,
    /// MOUNT_ATTR_… to set on this and all below (`rro` and so on).
    pub set_recursive: u64,
    /// MOUNT_ATTR_… to clear on this and all below (`rrw` and so on).
    pub clear_recursive: u64,
    /// MS_PRIVATE and so on, each with MS_REC or without, in the order given.
    pub propagation: Vec<u64>,
    /// What is left of the options: keys and values for the file system.
    pub data: Vec<(String, Option<String>)>,
    /// `tmpcopyup`: what is below the destination is copied into the new tmpfs.
    pub copy_up: bool,
    /// Shifted ids.
    pub idmap: Option<IdMap>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A tree of the host's.
    Bind {
        /// Absolute, on the host.
        path: PathBuf,
        /// With the mounts below (`rbind`).
        recursive: bool,
    },
    /// A file system of this type, from this source.
    FileSystem {
        /// `proc`, `tmpfs`, `overlay` and so on.
        kind: String,
        /// Its source.
        source: String,
    },
    /// The container's control groups: `cgroup` and `cgroup2`, whichever the host has.
    Cgroup,
}

/// Shifted ids of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// Empty: those of the container's user namespace.
    pub uids: Vec<IdMapping>,
    /// Empty: those of the container's user namespace.
    pub gids: Vec<IdMapping>,
    /// `ridmap`: with the mounts below.
    pub recursive: bool,
}

/// A device file (or, of kind FIFO, a named pipe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Absolute, inside.
    pub path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    /// Of the device.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Owner inside.
    pub gid: u32,
}

/// A process of a container: its first one, or one of `exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Whether its streams are a terminal.
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Id inside.
    pub uid: u32,
    /// Id inside.
    pub gid: u32,
    /// Ids inside.
    pub groups: Vec<u32>,
    /// umask(2); 0022 if it is not given.
    pub umask: u32,
    /// Program and arguments; not empty.
    pub args: Vec<CString>,
    /// `NAME=value`.
    pub env: Vec<CString>,
    /// Absolute, inside.
    pub cwd: PathBuf,
    /// The five sets.
    pub capabilities: CapabilitySets,
    /// Resource (RLIMIT_…), soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// prctl(2), PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// Written to `attr/apparmor/exec` or `attr/exec`.
    pub apparmor: Option<String>,
    /// Written to `attr/exec`.
    pub selinux: Option<String>,
    /// Absent: as the runtime's.
    pub oom_score_adj: Option<i32>,
    /// For sched_setattr(2).
    pub scheduler: Option<Scheduler>,
    /// For ioprio_set(2).
    pub io_priority: Option<u16>,
    /// Processors, as bits, before the control group is entered (`exec` only).
    pub affinity_initial: Option<Vec<u64>>,
    /// Processors, as bits, after that (`exec` only).
    pub affinity_final: Option<Vec<u64>>,
}

/// Bits by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// What exec can ever give.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept by exec for files that ask.
    pub inheritable: u64,
    /// Can be put in force.
    pub permitted: u64,
    /// Kept by exec.
    pub ambient: u64,
}

/// `struct sched_attr`, without its sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// SCHED_….
    pub policy: u32,
    /// SCHED_FLAG_….
    pub flags: u64,
    /// SCHED_OTHER, SCHED_BATCH.
    pub nice: i32,
    /// SCHED_FIFO, SCHED_RR.
    pub priority: u32,
    /// SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// MPOL_…, with MPOL_F_….
    pub mode: u32,
    /// As bits.
    pub nodes: Vec<u64>,
}
