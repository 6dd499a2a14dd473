//! `linux.seccomp`: the filter of system calls.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::nullable;

/// `linux.seccomp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// `SCMP_ACT_…`, for calls that no entry names.
    pub default_action: String,
    /// For SCMP_ACT_ERRNO and SCMP_ACT_TRACE; EPERM if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`; the native one is always among them.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`. Absent is not the same as none: it leaves them to the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// Unix socket of whoever answers SCMP_ACT_NOTIFY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<PathBuf>,
    /// Passed on to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// Entries.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<SeccompCalls>,
}

/// What is done about some calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompCalls {
    /// At least one.
    #[serde(default, deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// `SCMP_ACT_…`.
    pub action: String,
    /// For SCMP_ACT_ERRNO and SCMP_ACT_TRACE; EPERM if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// All of these must hold (two about the same argument: one of them).
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<SeccompArg>,
}

/// A condition on an argument.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompArg {
    /// 0 to 5.
    pub index: u32,
    /// Compared with; the mask of SCMP_CMP_MASKED_EQ.
    pub value: u64,
    /// What the masked argument must be.
    #[serde(default)]
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    pub op: String,
}
