//! The document that `features` prints: what this runtime knows, whatever the host can do (OCI runtime specification, features.md).

use serde_json::{Value, json};

use super::plan::known;
use crate::spec::Capability;

/// The document.
pub fn document() -> Value {
    let capabilities: Vec<String> = Capability::all().map(|capability| format!("CAP_{capability}")).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": known::NEWEST_VERSION,
        "hooks": known::HOOKS,
        "mountOptions": known::MOUNT_OPTIONS,
        "linux": {
            "namespaces": known::NAMESPACES,
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": known::memory_modes(), "flags": known::memory_flags() },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "run.oci.crun.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    })
}

/// [`document`] as text.
pub fn text() -> String {
    // `Display` of a value cannot fail; `#` is for humans.
    format!("{:#}\n", document())
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

const ARCHITECTURES: [&str; 5] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

const FLAGS: [&str; 4] =
    ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];
