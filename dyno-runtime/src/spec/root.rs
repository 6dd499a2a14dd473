//! What a sandbox sees of files: layers, a writable layer, volumes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Read-only layers, the topmost first, under one writable layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// On disk: a file system of its own (ext4) in a sparse file without a name, capped by its size, gone with the sandbox. Takes no
    /// memory but page cache, and about 1 ms more to start; the first of each size some ms more, because mkfs.ext4 makes it (package
    /// e2fsprogs). What is deleted inside is given back to the host at once. It is not allocated ahead: when the host's
    /// disk is full, what was written last is lost inside, and the layer may become read-only.
    Disk {
        /// Directory of the host in which the file is made, absolute; it belongs to root, and others must not write it.
        directory: PathBuf,
        /// Size in bytes, 4 MiB to 16 TiB; 256 of each inode and about a 50th are its own.
        bytes: u64,
        /// Files and directories, at least 64; ext4 rounds up to 16 per 128 MiB, and 11 are its own.
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

/// A mount beside the root. Its target is absolute and exists there, without symlinks on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Volume {
    /// A directory or file of the host, with the sandbox's ids.
    Bind {
        /// Host path, absolute.
        source: PathBuf,
        /// Path inside.
        target: PathBuf,
        /// Mounted read-only unless set.
        #[serde(default)]
        writable: bool,
    },
    /// An empty directory in memory, charged to the sandbox's memory limit, mode 1777.
    Tmpfs {
        /// Path inside.
        target: PathBuf,
        /// Size in bytes, at least 4096.
        bytes: u64,
        /// Files and directories, at least 2.
        inodes: u64,
    },
}

impl Volume {
    /// Path inside.
    pub fn target(&self) -> &std::path::Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}
