//! `Sandbox` → [`Plan`]: validation and every decision, without any IO. What the plan says is what is carried out.

use std::{collections::BTreeMap, ffi::CString, path::Path};

use serde::Serialize;

use crate::{
    error::{Error, ErrorKind, Result},
    spec::{Identity, Layer, Limits, Network, Profile, Sandbox, Upper, Volume},
};

/// The least memory limit: below it the kernel's errors turn odd (socket: ENFILE, execve: E2BIG, SIGKILL without report).
pub const MIN_MEMORY: u64 = 4 << 20;

/// Namespaces that every sandbox has of its own. There is no way to ask for fewer.
pub const NAMESPACES: [&str; 7] = ["user", "mount", "pid", "net", "ipc", "uts", "cgroup"];

/// A validated sandbox, printable as JSON (`--dry-run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Namespaces of its own.
    pub namespaces: [&'static str; 7],
    /// Layers, the topmost first.
    pub layers: Vec<Layer>,
    /// Writable layer.
    pub upper: Upper,
    /// Mounts in order, after the root.
    pub mounts: Vec<Mount>,
    /// Ids inside; the capability sets are empty and no_new_privs is set, always.
    pub identity: Identity,
    /// cgroup and rlimits.
    pub limits: Limits,
    /// Filter by name.
    pub seccomp: Profile,
    /// Reach.
    pub network: Network,
    /// Host name.
    pub hostname: String,
    /// What is executed by pid 1.
    pub process: Process,
}

/// What pid 1 executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Arguments; the first is the program.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
}

/// One mount on top of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A private procfs at /proc, nosuid,nodev,noexec.
    Proc,
    /// Our own six device nodes at /dev, read-only.
    Dev,
    /// A private devpts at /dev/pts with at most this many terminals (pty.max is global to the host).
    Pts {
        /// `max=`.
        max: u32,
    },
    /// A tmpfs at /dev/shm.
    Shm {
        /// Size.
        bytes: u64,
    },
    /// An empty thing hides this path, where the kernel has it.
    Masked(&'static str),
    /// This path becomes read-only, where the kernel has it.
    ReadOnly(&'static str),
    /// A volume.
    Volume(Volume),
}

/// Paths of procfs that tell of the host: Docker's list and what else a dyno has no use for.
const MASKED: [&str; 18] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/proc/config.gz", "/proc/kallsyms", "/proc/kmsg", "/proc/key-users",
    "/proc/modules", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/cmdline",
];

/// Paths of procfs that nobody inside may write, whatever their mode says.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Plan {
    /// Validates `sandbox`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] naming the field, the value and the rule.
    pub fn new(sandbox: &Sandbox) -> Result<Self> {
        check_root(sandbox)?;
        check_process(sandbox)?;
        check_limits(&sandbox.limits)?;
        for volume in &sandbox.volumes {
            check_path("volume source", &volume.source)?;
            check_path("volume target", &volume.target)?;
            check(!volume.target.starts_with("/proc") && volume.target != Path::new("/"), "volume target", &volume.target.display(), "must not be / or under /proc")?;
        }
        let ids = [("uid", sandbox.identity.uid), ("gid", sandbox.identity.gid)];
        for (field, id) in ids {
            check(id < 65536, field, &id, "must be below 65536, the size of a dyno's id range")?;
        }
        let hostname = &sandbox.hostname;
        let clean = hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
        check(!hostname.is_empty() && hostname.len() <= 64 && clean, "hostname", hostname, "must be 1 to 64 letters, digits, dots or dashes")?;
        let mut mounts = vec![Mount::Dev, Mount::Pts { max: 64 }, Mount::Shm { bytes: 64 << 20 }, Mount::Proc];
        mounts.extend(MASKED.map(Mount::Masked));
        mounts.extend(READ_ONLY.map(Mount::ReadOnly));
        mounts.extend(sandbox.volumes.iter().cloned().map(Mount::Volume));
        Ok(Self {
            namespaces: NAMESPACES,
            layers: sandbox.root.layers.clone(),
            upper: sandbox.root.upper.clone(),
            mounts,
            identity: sandbox.identity.clone(),
            limits: sandbox.limits.clone(),
            seccomp: sandbox.seccomp,
            network: sandbox.network.clone(),
            hostname: hostname.clone(),
            process: Process {
                argv: sandbox.argv.clone(),
                env: sandbox.env.clone(),
                cwd: sandbox.cwd.to_string_lossy().into_owned(),
            },
        })
    }

    /// `argv` as C strings.
    pub(crate) fn c_argv(&self) -> Vec<CString> {
        self.process.argv.iter().map(|a| c_string(a)).collect()
    }

    /// The environment as C strings `NAME=value`.
    pub(crate) fn c_env(&self) -> Vec<CString> {
        self.process.env.iter().map(|(k, v)| c_string(&format!("{k}={v}"))).collect()
    }
}

/// A string that validation has found free of NUL.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

fn check(ok: bool, field: &str, value: &dyn std::fmt::Display, rule: &str) -> Result<()> {
    if ok {
        return Ok(());
    }
    let mut value = value.to_string();
    if value.chars().count() > 80 {
        value = value.chars().take(77).collect::<String>() + "...";
    }
    Err(Error::refused(ErrorKind::Invalid, format!("{field} {value:?} {rule}")))
}

fn check_path(field: &str, path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let plain = !path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    check(path.is_absolute() && plain && !text.contains('\0') && text.len() < 4096, field, &text, "must be absolute, without .. or NUL")
}

fn check_root(sandbox: &Sandbox) -> Result<()> {
    let layers = &sandbox.root.layers;
    check((1..=32).contains(&layers.len()), "root.layers", &layers.len(), "must be 1 to 32 layers")?;
    for layer in layers {
        match layer {
            Layer::Image { path, sha256 } => {
                check_path("image path", path)?;
                let hex = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                check(hex, "image sha256", sha256, "must be 64 lowercase hexadecimal digits")?;
            }
            Layer::Directory(path) => check_path("layer directory", path)?,
            Layer::UpperOf(id) => check_id(id)?,
        }
    }
    if let Upper::Tmpfs { bytes, inodes } = sandbox.root.upper {
        check(bytes >= 64 << 10, "root.upper.bytes", &bytes, "must be at least 64 KiB")?;
        check(inodes >= 16, "root.upper.inodes", &inodes, "must be at least 16")?;
    }
    Ok(())
}

/// Dyno ids become file and cgroup names.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let clean = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    check(!id.is_empty() && id.len() <= 64 && clean && !id.starts_with('.'), "dyno id", &id, "must be 1 to 64 letters, digits, dots, dashes or underscores")
}

fn check_process(sandbox: &Sandbox) -> Result<()> {
    check(sandbox.argv.first().is_some_and(|a| !a.is_empty()), "argv", &sandbox.argv.len(), "must start with a program")?;
    for argument in &sandbox.argv {
        check(!argument.contains('\0'), "argv", argument, "must not hold a NUL byte")?;
    }
    for (name, value) in &sandbox.env {
        check(!name.is_empty() && !name.contains(['=', '\0']), "env", name, "must be a name without = or NUL")?;
        check(!value.contains('\0'), "env", name, "must not have a value with a NUL byte")?;
        // execve(2): one string may have 128 KiB (MAX_ARG_STRLEN).
        check(name.len() + value.len() + 2 <= 131_072, "env", name, "must not be longer than 128 KiB (execve)")?;
    }
    check_path("cwd", &sandbox.cwd)?;
    check(!sandbox.cwd.starts_with("/proc"), "cwd", &sandbox.cwd.display(), "must not be under /proc (CVE-2024-21626)")
}

fn check_limits(limits: &Limits) -> Result<()> {
    if let Some(memory) = limits.memory {
        check(memory >= MIN_MEMORY, "limits.memory", &memory, "must be at least 4 MiB")?;
        check(memory < 1 << 60, "limits.memory", &memory, "must be below 2^60 bytes")?;
    }
    if let Some(pids) = limits.pids {
        check((2..=4_194_304).contains(&pids), "limits.pids", &pids, "must be 2 to 4194304 (pid 1 is the sandbox's own)")?;
    }
    if let Some(weight) = limits.cpu_weight {
        check((1..=10_000).contains(&weight), "limits.cpu_weight", &weight, "must be 1 to 10000")?;
    }
    if let Some(millis) = limits.cpu_millis {
        check((10..=1_000_000).contains(&millis), "limits.cpu_millis", &millis, "must be 10 to 1000000")?;
    }
    check((16..=1_048_576).contains(&limits.open_files), "limits.open_files", &limits.open_files, "must be 16 to 1048576")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Sandbox {
        Sandbox::new(vec![Layer::Directory("/srv/root".into())], ["/bin/true"])
    }

    #[test]
    fn defaults_are_the_safe_ones() {
        let plan = Plan::new(&base()).unwrap();
        assert_eq!(plan.namespaces.len(), 7);
        assert_eq!(plan.identity.uid, 1000);
        assert_eq!(plan.limits.pids, Some(256));
        assert!(plan.mounts.contains(&Mount::Masked("/proc/kcore")));
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(json["process"]["argv"][0], "/bin/true");
    }

    #[test]
    fn every_bad_field_is_named() {
        type Break = fn(&mut Sandbox);
        let cases: &[(&str, Break)] = &[
            ("root.layers", |s| s.root.layers.clear()),
            ("layer directory", |s| s.root.layers = vec![Layer::Directory("x/../y".into())]),
            ("image sha256", |s| s.root.layers = vec![Layer::Image { path: "/x".into(), sha256: "ABC".into() }]),
            ("dyno id", |s| s.root.layers = vec![Layer::UpperOf("../x".into())]),
            ("root.upper.bytes", |s| s.root.upper = Upper::Tmpfs { bytes: 1, inodes: 100 }),
            ("root.upper.inodes", |s| s.root.upper = Upper::Tmpfs { bytes: 1 << 20, inodes: 0 }),
            ("argv", |s| s.argv.clear()),
            ("argv", |s| s.argv = vec![String::new()]),
            ("argv", |s| s.argv.push("a\0b".into())),
            ("env", |s| drop(s.env.insert("A=B".into(), String::new()))),
            ("env", |s| drop(s.env.insert("A".into(), "\0".into()))),
            ("env", |s| drop(s.env.insert("A".into(), "x".repeat(131_072)))),
            ("cwd", |s| s.cwd = "tmp".into()),
            ("cwd", |s| s.cwd = "/tmp/..".into()),
            ("cwd", |s| s.cwd = "/proc/self/fd/7".into()),
            ("hostname", |s| s.hostname = "a b".into()),
            ("hostname", |s| s.hostname = "x".repeat(65)),
            ("uid", |s| s.identity.uid = 65536),
            ("gid", |s| s.identity.gid = u32::MAX),
            ("limits.memory", |s| s.limits.memory = Some(4096)),
            ("limits.pids", |s| s.limits.pids = Some(1)),
            ("limits.cpu_weight", |s| s.limits.cpu_weight = Some(0)),
            ("limits.cpu_millis", |s| s.limits.cpu_millis = Some(0)),
            ("limits.open_files", |s| s.limits.open_files = 0),
            ("volume target", |s| s.volumes = vec![Volume { source: "/x".into(), target: "/proc/sys".into(), writable: false }]),
        ];
        for (field, damage) in cases {
            let mut sandbox = base();
            damage(&mut sandbox);
            let error = Plan::new(&sandbox).expect_err(field);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().starts_with(field), "{field}: {error}");
        }
    }
}
