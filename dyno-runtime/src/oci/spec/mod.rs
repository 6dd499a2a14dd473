//! `config.json` as it stands: the OCI runtime specification's own shapes (1.0 to 1.3), nothing checked but their types.
//!
//! Unknown members are ignored, as the specification asks; a member given twice is an error, and so is a number that does not fit.
//! `null` stands for absent, because Go programs write it for empty lists. What the values mean, and which of them go together, is
//! [`super::plan`]'s to say.

mod example;
mod linux;
#[cfg(test)]
mod oracle;
mod process;
mod read;
mod resources;
mod seccomp;
mod strict;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

pub use self::{example::*, linux::*, process::*, read::*, resources::*, seccomp::*};

/// Absent and `null` are the empty value.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// The whole of `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification, SemVer.
    #[serde(default, deserialize_with = "nullable")]
    pub oci_version: String,
    /// The process that the container runs. `create` does without, `start` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts, in this order.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Programs to run at turns of the container's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free text of the caller's.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is Linux's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

/// `root`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: PathBuf,
    /// Whether it is read-only inside.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

/// One of `mounts`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Absolute path inside.
    pub destination: PathBuf,
    /// File system; `bind` (or an option `bind` or `rbind`) for a tree of the host's.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A path of the host's (absolute, or relative to the bundle), or a name for file systems that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// As in fstab, with the specification's recursive ones.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// For options `idmap` and `ridmap`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// For options `idmap` and `ridmap`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// A run of ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// `hooks`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Deprecated twin of `createRuntime`, and before it.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// After the namespaces were made, before the root is changed; in the runtime's namespaces.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// After the mounts, before the root is changed; in the container's namespaces, found in the runtime's.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// At `start`, before the program; in the container's namespaces and found there.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// At `start`, after the program has begun; in the runtime's namespaces.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// At `delete`, after everything is gone; in the runtime's namespaces.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// A program to run; it gets the state of the container as JSON on its stdin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// Its arguments, its name first; the path alone if there are none.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its whole environment.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds until it is killed, which is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
