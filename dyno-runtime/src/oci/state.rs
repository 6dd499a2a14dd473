//! What is known of a container: a directory below `--root` that holds what does not change, and the kernel, which is asked for the rest.
//!
//! ```text
//! ROOT/ID/            mode 0700, made by mkdir: an id is taken by whoever made it
//!   lock              flock(2): exclusive while a container is made, started or deleted; whoever dies lets go of it
//!   state.json        Record, replaced by rename(2)
//!   config.json       the configuration as it was at `create`, for `exec`
//!   start             FIFO on whose read end the container's first process waits for `start`
//! ```
//!
//! Status is read, never stored. The process is the one of the record if its start time is (`/proc/PID/stat`); it waits for `start` as long as
//! the FIFO has a reader (open with O_WRONLY | O_NONBLOCK says ENXIO otherwise), because exec closes that; paused is what the freezer says.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{cgroup, spec::Hooks};

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

/// What is kept of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Class of service of Resource Director Technology that was made for it.
    #[serde(default)]
    pub intel_rdt: Option<PathBuf>,
}
