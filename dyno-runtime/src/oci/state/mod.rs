//! What is known of a container: a directory below `--root` that holds what does not change, and the kernel, which is asked for the rest.
//!
//! ```text
//! ROOT/ID/            mode 0700; it appears by rename(2), locked and not empty, so that an id is taken by one alone
//!   lock              flock(2): exclusive while a container is made, started, updated or deleted; whoever dies lets go of it
//!   making.json       Record of what is going to be made, written before any of it is; gone when all is made
//!   state.json        Record with the first process, written as soon as that is born
//!   config.json       the configuration as it was at `create`, for `exec`
//!   start             FIFO on which the container's first process waits for `start`, and tells it of a failure
//! ROOT/@…             on its way in or out; nobody's once nobody holds its lock
//! ```
//!
//! Status is read, never stored:
//!
//! ```text
//!              lock held, and no pid yet or making.json still there    creating
//! the process of the record lives (pidfd, start time of /proc/PID/stat):
//!   and the FIFO has a reader (open with O_WRONLY | O_NONBLOCK)        created      exec closes it
//!   and the freezer holds it                                           paused
//!   and neither                                                        running
//! none of these                                                        stopped
//! ```
//!
//! The FIFO, seen from the first process: it is opened O_RDWR before the fork, so that a writer that goes away is no end of file. One
//! byte, [`GO`], is `start`. What fails from then on is written to it as text; the starter keeps the pipe alive by its own end, and reads
//! the text when there is no other reader any more, which is exec or death.

mod dir;
mod ground;
mod held;
mod identity;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    dir::{StateDir, missing, valid_id},
    held::Held,
    identity::First,
};
use super::{cgroup, spec::Hooks};

/// The byte of `start`.
pub const GO: u8 = 1;

/// The state of a container, as hooks, listeners and `state` see it (OCI runtime specification, State).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Of the specification.
    pub oci_version: String,
    /// Of the container.
    pub id: String,
    /// What it does.
    pub status: Status,
    /// Of its first process, in the pid namespace of whoever looks; 0 once it has ended.
    #[serde(default)]
    pub pid: u32,
    /// Absolute.
    pub bundle: PathBuf,
    /// As configured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes stand still.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// As the specification writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is kept of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// Of the container.
    pub id: String,
    /// Of the specification.
    pub oci_version: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute.
    pub rootfs: PathBuf,
    /// Of the first process; 0 until there is one.
    pub pid: u32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Uid of whoever made it.
    pub owner: u32,
    /// Where its control groups are; written before they are made.
    pub cgroup: cgroup::Record,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
    /// Those still to come.
    pub hooks: Hooks,
    /// Whether it has a user namespace of its own or a joined one.
    pub user_namespace: bool,
    /// Whether its first process has a terminal.
    pub terminal: bool,
    /// Whether there is a program to run; `start` refuses otherwise.
    pub program: bool,
    /// Class of service of Resource Director Technology that was made for it.
    #[serde(default)]
    pub intel_rdt: Option<PathBuf>,
    /// Without a mount namespace of its own its mounts are the host's too, and come off at `delete`: the mount that the root was on before.
    #[serde(default)]
    pub mount_below: Option<u64>,
}

impl Record {
    /// What hooks and listeners are told.
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
