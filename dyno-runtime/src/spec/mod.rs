//! The public description of a sandbox: plain data, validated later by [`crate::plan`].
//!
//! Every field has a safe default: no network but a private loopback, no capabilities, the
//! `dyno` system-call profile, a private writable layer that vanishes at the end.

mod capability;
mod limits;
mod network;
mod root;
mod wall;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    capability::Capability,
    limits::{IoLimit, Limits},
    network::{Allow, Egress, Network, Policy, Protocol, Publish},
    root::{Layer, Root, Upper, Volume},
    wall::{Missing, Wall},
};
use crate::seccomp::ProfileData;

/// One sandboxed process tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// The root file system.
    pub root: Root,
    /// Program and arguments; the program is looked up in `PATH` of `env` when it has no slash.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory inside the sandbox; absolute.
    #[serde(default = "Sandbox::default_cwd")]
    pub cwd: PathBuf,
    /// Host name inside the sandbox, 1 to 64 bytes.
    #[serde(default = "Sandbox::default_hostname")]
    pub hostname: String,
    /// User, groups and capabilities inside the sandbox (ids are mapped to a host range that no other dyno shares).
    #[serde(default)]
    pub identity: Identity,
    /// Resource limits, enforced by cgroups, rlimits and the init.
    #[serde(default)]
    pub limits: Limits,
    /// System-call profile.
    #[serde(default)]
    pub seccomp: Profile,
    /// What is reachable.
    #[serde(default)]
    pub network: Network,
    /// Extra mounts, attached in order after the root.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Devices of the host beside the six that every sandbox has, by name below /dev: `fuse`, `net/tun`, `dri/renderD128`.
    /// Whoever runs inside may read and write them.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Paths inside that are hidden, beside those of procfs that always are; absolute. What does not exist needs no hiding.
    #[serde(default)]
    pub masked: Vec<PathBuf>,
    /// Paths inside that are made read-only, beside those of procfs that always are; absolute.
    #[serde(default)]
    pub read_only: Vec<PathBuf>,
}

impl Sandbox {
    /// A sandbox that runs `argv` on `layers` with every default.
    pub fn new(layers: Vec<Layer>, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            root: Root { layers, upper: Upper::default() },
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            cwd: Self::default_cwd(),
            hostname: Self::default_hostname(),
            identity: Identity::default(),
            limits: Limits::default(),
            seccomp: Profile::default(),
            network: Network::default(),
            volumes: Vec::new(),
            devices: Vec::new(),
            masked: Vec::new(),
            read_only: Vec::new(),
        }
    }

    fn default_cwd() -> PathBuf {
        PathBuf::from("/")
    }

    fn default_hostname() -> String {
        "dyno".to_owned()
    }
}

/// Ids inside the sandbox, 0 to 65535, and what its processes may do beyond an ordinary user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, at most 64.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// Capabilities, held in all five sets so that they survive exec. None by default.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
}

impl Default for Identity {
    fn default() -> Self {
        Self { uid: 1000, gid: 1000, groups: Vec::new(), capabilities: Vec::new() }
    }
}

/// A system-call profile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Default-deny list for apps.
    #[default]
    Dyno,
    /// `Dyno`, and in addition no setuid or setgid bits can be set.
    Build,
    /// What Docker's default profile allows, depending on the capabilities asked for. Wider than `Dyno`.
    Docker,
    /// No filter of ours. The other walls stand.
    Unconfined,
    /// Your own, in the format of the shipped ones (see [`crate::seccomp`]).
    Custom(Box<ProfileData>),
}
