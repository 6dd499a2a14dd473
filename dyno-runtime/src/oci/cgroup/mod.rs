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
