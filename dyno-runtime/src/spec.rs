//! The public description of a sandbox: plain data, validated later by [`crate::plan`].
//!
//! Every field has a safe default: no network but a private loopback, no capabilities, the
//! `dyno` system-call profile, a private writable layer that vanishes at the end.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One sandboxed process tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// User and group inside the sandbox (mapped to a host range that no other dyno shares).
    #[serde(default)]
    pub identity: Identity,
    /// Resource limits, enforced by cgroups and rlimits.
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
        }
    }

    fn default_cwd() -> PathBuf {
        PathBuf::from("/")
    }

    fn default_hostname() -> String {
        "dyno".to_owned()
    }
}

/// Read-only layers, the topmost first, under one writable layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// 1 to 32 layers; the first hides the later ones.
    pub layers: Vec<Layer>,
    /// What is written goes here.
    #[serde(default)]
    pub upper: Upper,
}

/// One read-only layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// A squashfs image, mounted once per host and shared. It must be one that the platform made.
    Image {
        /// The image file, absolute.
        path: PathBuf,
        /// Lowercase hex sha256 of the file; checked on the open file before the first mount.
        sha256: String,
    },
    /// A directory of the host, absolute; owned by the sandbox's ids as an image would be.
    Directory(PathBuf),
    /// The writable layer that another, ended sandbox of the same owner left behind.
    UpperOf(String),
}

/// The writable layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upper {
    /// In memory, charged to the sandbox's memory limit.
    Tmpfs {
        /// Size in bytes, at least 64 KiB.
        bytes: u64,
        /// Files and directories, at least 16.
        inodes: u64,
    },
    /// None: the root is read-only.
    ReadOnly,
}

impl Default for Upper {
    fn default() -> Self {
        Self::Tmpfs { bytes: 64 << 20, inodes: 16384 }
    }
}

/// Ids inside the sandbox, 0 to 65535. Capabilities are always empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Default for Identity {
    fn default() -> Self {
        Self { uid: 1000, gid: 1000 }
    }
}

/// Limits of the whole process tree. `None` leaves that resource to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory incl. the writable layer; at least 4 MiB (below, the kernel's errors turn odd).
    pub memory: Option<u64>,
    /// Processes and threads, at least 2 (ours is one).
    pub pids: Option<u64>,
    /// Share of the CPU under contention: 1 to 10000, 100 is one share (cgroup v2's `cpu.weight`).
    pub cpu_weight: Option<u64>,
    /// Hard ceiling in thousandths of one CPU (1500 = one and a half).
    pub cpu_millis: Option<u64>,
    /// Open files per process (RLIMIT_NOFILE).
    pub open_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: Some(512 << 20), pids: Some(256), cpu_weight: Some(100), cpu_millis: None, open_files: 16384 }
    }
}

/// A system-call profile by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Default-deny list for apps.
    #[default]
    Dyno,
    /// `Dyno`, and in addition no setuid or setgid bits can be set.
    Build,
}

/// What a sandbox reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A private network namespace with loopback up; the host reaches in by sockets made inside it.
    #[default]
    Private,
}

/// A mount of a host directory or file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Host path, absolute.
    pub source: PathBuf,
    /// Path inside, absolute; it must exist there (no symlinks on the way).
    pub target: PathBuf,
    /// Mounted read-only unless set.
    #[serde(default)]
    pub writable: bool,
}
