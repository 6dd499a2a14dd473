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
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": false },
            "memoryPolicy": { "modes": known::memory_modes(), "flags": known::memory_flags() },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "run.oci.crun.checkpoint.enabled": "true",
        },
        // No annotation changes what a container may do.
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

/// [`document`] as text.
pub fn text() -> String {
    // `Display` of a value cannot fail; `#` is for humans.
    format!("{:#}\n", document())
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] = ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Those of this machine's byte order, which libseccomp wants too.
const ARCHITECTURES: [&str; 11] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

const FLAGS: [&str; 4] =
    ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{
        filter::compile,
        spec::{Seccomp, SeccompArg, SeccompCalls},
    };

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The filter takes every word that is claimed, and none beside them.
    #[test]
    fn the_words_of_filters_are_known() {
        let check = |action: &str, op: &str, arch: &str, flag: &str| {
            let arg = SeccompArg { index: 0, value: 1, value_two: 1, op: op.to_owned() };
            let calls = SeccompCalls { names: strings(&["personality"]), action: action.to_owned(), errno_ret: None, args: vec![arg] };
            let config = Seccomp {
                default_action: "SCMP_ACT_ERRNO".to_owned(),
                architectures: strings(&[arch]),
                flags: Some(strings(&[flag])),
                listener_path: Some("/run/agent".into()),
                syscalls: vec![calls],
                ..Seccomp::default()
            };
            compile(&config, &mut Vec::new()).is_ok()
        };
        let (action, op, arch, flag) = ("SCMP_ACT_ALLOW", "SCMP_CMP_EQ", "SCMP_ARCH_X86_64", "SECCOMP_FILTER_FLAG_LOG");
        assert!(ACTIONS.iter().all(|action| check(action, op, arch, flag)) && !check("SCMP_ACT_X", op, arch, flag));
        assert!(OPERATORS.iter().all(|op| check(action, op, arch, flag)) && !check(action, "SCMP_CMP_X", arch, flag));
        assert!(ARCHITECTURES.iter().all(|arch| check(action, op, arch, flag)) && !check(action, op, "SCMP_ARCH_X", flag));
        assert!(FLAGS.iter().all(|flag| check(action, op, arch, flag)) && !check(action, op, arch, "SECCOMP_FILTER_FLAG_X"));
    }

    #[test]
    fn text_and_document_are_one() {
        assert_eq!(serde_json::from_str::<Value>(&text()).unwrap(), document());
        assert_eq!(document()["linux"]["capabilities"][0], "CAP_CHOWN");
    }
}
