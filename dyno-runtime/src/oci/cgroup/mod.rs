//! The control groups of a container: where `linux.cgroupsPath` says, limited as `linux.resources` says.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a container's groups are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Directory of each hierarchy, with the controllers that it has there (`systemd` for the named one; none for the v2 tree's alone).
    pub groups: Vec<(PathBuf, Vec<String>)>,
    /// The scope, where systemd made it.
    pub unit: Option<String>,
}

/// Who makes the groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// The runtime, by directories.
    #[default]
    Files,
    /// systemd, as a scope.
    Systemd,
    /// Nobody.
    Disabled,
}

/// A container's groups.
#[derive(Debug)]
pub struct Cgroup;

use crate::{Error, ErrorKind, Result};

#[allow(missing_docs, clippy::missing_errors_doc, reason = "stub")]
impl Cgroup {
    pub fn open(_: &Record) -> Result<Self> {
        Ok(Self)
    }
    pub fn update(&self, _: &super::spec::Resources) -> Result<()> {
        Err(Error::refused(ErrorKind::Io, "cgroup: not there yet"))
    }
    pub fn freeze(&self) -> Result<()> {
        Err(Error::refused(ErrorKind::Io, "cgroup: not there yet"))
    }
    pub fn thaw(&self) -> Result<()> {
        Ok(())
    }
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(false)
    }
    pub fn pids(&self, _below: bool) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }
    pub fn kill(&self, _: rustix::process::Signal) -> Result<()> {
        Ok(())
    }
    pub fn remove(self) -> Result<()> {
        Ok(())
    }
    pub fn stats(&self) -> Result<serde_json::Value> {
        Err(Error::refused(ErrorKind::Io, "cgroup: not there yet"))
    }
}
