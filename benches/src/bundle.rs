//! The bundles that runtimes get: a static program that does nothing, and runc's default configuration around it, or that with every wall.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use dyno_runtime::{Profile, seccomp};
use serde_json::{Value, json};

use crate::stage;

/// Makes the bundle `dir`; its process is `/stay` or `/true`.
///
/// # Errors
/// Of the C compiler, of writing.
pub fn make(dir: &Path, program: &str) -> Result<()> {
    let root = dir.join("rootfs");
    for name in ["proc", "dev", "sys", "etc", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    stage::payload(&dir.join("payload.c"), &root)?;
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config(program))?)?;
    Ok(())
}

/// What a bundle asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walls {
    /// What `runc spec` writes, and limits.
    Usual,
    /// Also a user namespace and a system-call filter, and no capabilities.
    All,
}

/// Writes the bundle `dir` around `root`, whose program is run; memory, processes and processor are limited.
///
/// # Errors
/// Of writing.
pub fn write(dir: &Path, root: &Path, program: &str, walls: Walls) -> Result<()> {
    let mut config = config(program);
    config["root"]["path"] = json!(root);
    config["linux"]["resources"]["memory"] = json!({ "limit": 256 << 20 });
    config["linux"]["resources"]["pids"] = json!({ "limit": 64 });
    config["linux"]["resources"]["cpu"] = json!({ "quota": 100_000, "period": 100_000 });
    if walls == Walls::All {
        let ids = json!([{ "containerID": 0, "hostID": 300_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = ids.clone();
        config["linux"]["gidMappings"] = ids;
        config["linux"]["namespaces"].as_array_mut().context("namespaces")?.push(json!({ "type": "user" }));
        config["process"]["capabilities"] = json!({});
        config["linux"]["seccomp"] = filter()?;
    }
    fs::create_dir_all(dir)?;
    Ok(fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?)
}

/// The calls that our own filter lets through whatever their arguments, as an OCI filter.
fn filter() -> Result<Value> {
    let all = seccomp::explain_all(&Profile::Dyno, &[])?;
    let allowed: Vec<&str> = all.iter().filter(|e| e.action == "allow").map(|e| e.call.as_str()).collect();
    Ok(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": allowed, "action": "SCMP_ACT_ALLOW" }] }))
}

/// What `runc spec` writes, without a terminal and the mount of control groups, and without a limit of open files (raising one takes CAP_SYS_RESOURCE, which
/// not every host's root has).
fn config(program: &str) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": [format!("/{program}")], "env": ["PATH=/"], "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps }, "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
