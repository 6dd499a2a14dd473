//! `Sandbox` → [`Plan`]: validation and every decision, without any IO. What the plan says is what is carried out.

pub(crate) mod check;
pub(crate) mod check_limits;

use std::{collections::BTreeMap, ffi::CString};

use serde::Serialize;

pub(crate) use self::check::check_id;
use crate::{
    broken,
    error::Result,
    spec::{Capability, Identity, Layer, Limits, Missing, Network, Policy, Profile, Sandbox, Upper, Volume},
};

/// The least memory limit: below it the kernel's errors turn odd (socket: ENFILE, execve: E2BIG, SIGKILL without report).
pub const MIN_MEMORY: u64 = 4 << 20;

/// Namespaces that a sandbox has of its own. Only its network can be another's, if that is asked for.
pub const NAMESPACES: [&str; 7] = ["user", "mount", "pid", "net", "ipc", "uts", "cgroup"];

/// A validated sandbox, printable as JSON (`--dry-run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Namespaces of its own.
    pub namespaces: Vec<&'static str>,
    /// Those of them that the sandbox's own user namespace owns, so that its capabilities hold there. The host owns the others.
    pub owned: Vec<&'static str>,
    /// Layers, the topmost first.
    pub layers: Vec<Layer>,
    /// Writable layer.
    pub upper: Upper,
    /// Mounts in order, after the root.
    pub mounts: Vec<Mount>,
    /// Ids and capabilities inside; no_new_privs is set, always.
    pub identity: Identity,
    /// cgroup, rlimits, and what the init watches.
    pub limits: Limits,
    /// Filter by name.
    pub seccomp: Profile,
    /// The second wall, where the kernel has it (Linux 5.19). None with SYS_ADMIN, whose holder wants to mount: nobody behind
    /// Landlock can.
    pub landlock: Option<Landlock>,
    /// Reach.
    pub network: Network,
    /// Host name.
    pub hostname: String,
    /// What is executed by pid 1.
    pub process: Process,
    /// An unprivileged user's: the walls that it does without here ([`crate::Host::plan`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
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

/// What Landlock keeps out even if a wall of another kind has a hole. Device files cannot be made anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Landlock {
    /// Hierarchies in which files may be made and written; everything can be read.
    pub writable: Vec<String>,
    /// Abstract unix sockets that others made cannot be connected to (Linux 6.12). Namespaces do that unless the network is the host's.
    pub no_foreign_abstract_sockets: bool,
}

/// One mount on top of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A private procfs at /proc, nosuid,nodev,noexec.
    Proc,
    /// Our own six device nodes at /dev, read-only, and these of the host.
    Dev {
        /// Names below /dev.
        devices: Vec<String>,
    },
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
    /// An empty thing hides this path, where it exists.
    Masked(String),
    /// This path becomes read-only, where it exists.
    ReadOnly(String),
    /// A volume.
    Volume(Volume),
    /// A file that names the name servers, read-only, at /etc/resolv.conf; made there if the root can be written and has none.
    NameServers,
}

/// Paths of procfs that tell of the host: Docker's list and what else a dyno has no use for.
const MASKED: [&str; 18] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/key-users",
    "/proc/modules",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/proc/cmdline",
];

/// Paths of procfs that nobody inside may write, whatever their mode says.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Plan {
    /// Validates `sandbox`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field, the value and the rule.
    pub fn new(sandbox: &Sandbox) -> Result<Self> {
        let plan = Self::without_filter(sandbox)?;
        if let Profile::Custom(_) = plan.seccomp {
            crate::seccomp::check(&sandbox.seccomp, &sandbox.identity.capabilities)?;
        }
        Ok(plan)
    }

    /// [`Self::new`] for who takes the filter from the host's compiled ones, which were checked when they were made.
    pub(crate) fn without_filter(sandbox: &Sandbox) -> Result<Self> {
        check::sandbox(sandbox)?;
        Ok(Self {
            namespaces: namespaces(&sandbox.network),
            owned: owned(&sandbox.identity, &sandbox.network),
            layers: sandbox.root.layers.clone(),
            upper: sandbox.root.upper.clone(),
            mounts: mounts(sandbox),
            identity: sandbox.identity.clone(),
            limits: sandbox.limits.clone(),
            seccomp: sandbox.seccomp.clone(),
            landlock: landlock(sandbox),
            network: sandbox.network.clone(),
            hostname: sandbox.hostname.clone(),
            process: Process { argv: sandbox.argv.clone(), env: sandbox.env.clone(), cwd: sandbox.cwd.to_string_lossy().into_owned() },
            missing: Vec::new(),
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

    /// The bits of the capabilities asked for.
    pub(crate) fn capability_bits(&self) -> u64 {
        self.identity.capabilities.iter().fold(0, |bits, c| bits | c.bit())
    }

    /// Whether the sandbox's own user namespace is to own that one of its namespaces.
    pub(crate) fn owns(&self, namespace: &str) -> bool {
        self.owned.contains(&namespace)
    }
}

/// A network of another is none of its own.
fn namespaces(network: &Network) -> Vec<&'static str> {
    let private = matches!(network, Network::Private | Network::Egress(_));
    NAMESPACES.into_iter().filter(|n| private || *n != "net").collect()
}

/// A capability holds over what its user namespace owns, so only those who ask for one get what it is for.
fn owned(identity: &Identity, network: &Network) -> Vec<&'static str> {
    let has = |name: &str| identity.capabilities.iter().any(|c| c.name() == name);
    let own_network = *network == Network::Private && identity.capabilities.iter().any(|c| c.is_of_network());
    let wants = [
        ("mount", has("SYS_ADMIN")),
        ("net", own_network),
        ("ipc", has("SYS_ADMIN") || has("IPC_OWNER") || has("SYS_RESOURCE")),
        ("uts", has("SYS_ADMIN")),
    ];
    wants.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
}

fn mounts(sandbox: &Sandbox) -> Vec<Mount> {
    let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut mounts = vec![Mount::Dev { devices: sandbox.devices.clone() }, Mount::Pts { max: 64 }, Mount::Shm { bytes: 64 << 20 }, Mount::Proc];
    let covered = |path: &&str| !broken::uncovers(path);
    mounts.extend(MASKED.into_iter().filter(covered).map(|path| Mount::Masked(path.to_owned())));
    mounts.extend(READ_ONLY.into_iter().filter(covered).map(|path| Mount::ReadOnly(path.to_owned())));
    mounts.extend(sandbox.volumes.iter().cloned().map(Mount::Volume));
    mounts.extend(name_servers(sandbox).then_some(Mount::NameServers));
    mounts.extend(sandbox.read_only.iter().map(text).map(Mount::ReadOnly));
    mounts.extend(sandbox.masked.iter().map(text).map(Mount::Masked));
    mounts
}

/// A sandbox that may reach none needs none, and a volume at that place is a file that somebody chose.
fn name_servers(sandbox: &Sandbox) -> bool {
    let reaches = matches!(&sandbox.network, Network::Egress(egress) if egress.policy != Policy::Nothing);
    reaches && !sandbox.volumes.iter().any(|v| v.target() == std::path::Path::new(crate::net::resolver::TARGET))
}

/// Landlock knows only what is allowed below a directory, so a writable root is writable everywhere.
fn landlock(sandbox: &Sandbox) -> Option<Landlock> {
    if sandbox.identity.capabilities.contains(&Capability::SYS_ADMIN) {
        return None;
    }
    let mut writable = vec!["/".to_owned()];
    if sandbox.root.upper == Upper::ReadOnly {
        writable = ["/dev", "/proc"].map(str::to_owned).to_vec();
        let open = |v: &&Volume| matches!(v, Volume::Bind { writable: true, .. } | Volume::Tmpfs { .. });
        writable.extend(sandbox.volumes.iter().filter(open).map(|v| v.target().to_string_lossy().into_owned()));
    }
    Some(Landlock { writable, no_foreign_abstract_sockets: sandbox.network == Network::Host })
}

/// A string that validation has found free of NUL.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorKind, spec::*};

    fn base() -> Sandbox {
        Sandbox::new(vec![Layer::Directory("/srv/root".into())], ["/bin/true"])
    }

    #[test]
    fn defaults_are_the_safe_ones() {
        let plan = Plan::new(&base()).unwrap();
        assert_eq!(plan.namespaces.len(), 7);
        assert!(plan.owned.is_empty());
        assert_eq!((plan.identity.uid, plan.capability_bits()), (1000, 0));
        assert_eq!((plan.limits.pids, plan.limits.swap), (Some(256), 0));
        assert!(plan.mounts.contains(&Mount::Masked("/proc/kcore".into())));
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(json["process"]["argv"][0], "/bin/true");
    }

    #[test]
    fn a_capability_brings_what_it_holds_over() {
        let check = |names: &[&str], network: Network, owned: &[&str]| {
            let mut sandbox = base();
            sandbox.identity.capabilities = names.iter().map(|n| n.parse().unwrap()).collect();
            sandbox.network = network;
            assert_eq!(Plan::new(&sandbox).unwrap().owned, owned, "{names:?}");
        };
        check(&["CHOWN", "SETUID"], Network::Private, &[]);
        check(&["NET_BIND_SERVICE"], Network::Private, &["net"]);
        check(&["NET_RAW"], Network::Host, &[]);
        check(&["SYS_ADMIN"], Network::Private, &["mount", "ipc", "uts"]);
    }

    #[test]
    fn landlock_follows_the_root() {
        let mut sandbox = base();
        let writable = |sandbox: &Sandbox| Plan::new(sandbox).unwrap().landlock.map(|l| l.writable);
        assert_eq!(writable(&sandbox), Some(vec!["/".into()]));
        sandbox.root.upper = Upper::ReadOnly;
        sandbox.volumes = vec![
            Volume::Bind { source: "/a".into(), target: "/a".into(), writable: true },
            Volume::Bind { source: "/b".into(), target: "/b".into(), writable: false },
            Volume::Tmpfs { target: "/tmp".into(), bytes: 4096, inodes: 10 },
        ];
        assert_eq!(writable(&sandbox).unwrap(), ["/dev", "/proc", "/a", "/tmp"]);
        sandbox.identity.capabilities = vec![Capability::SYS_ADMIN];
        assert_eq!(writable(&sandbox), None);
    }

    fn egress(policy: Policy) -> Network {
        Network::Egress(Egress { policy, ..Egress::default() })
    }

    fn allow(net: &str, ports: Option<std::ops::RangeInclusive<u16>>) -> Network {
        egress(Policy::List(vec![Allow { net: net.into(), ports, protocol: None }]))
    }

    fn publish(host_port: u16, port: u16) -> Publish {
        Publish { address: std::net::Ipv4Addr::LOCALHOST, host_port, port, protocol: Protocol::Tcp }
    }

    fn disk(directory: &str, bytes: u64, inodes: u64) -> Upper {
        Upper::Disk { directory: directory.into(), bytes, inodes }
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
            ("root.upper.directory", |s| s.root.upper = disk("tmp", 64 << 20, 1000)),
            ("root.upper.bytes", |s| s.root.upper = disk("/tmp", 1 << 20, 1000)),
            ("root.upper.bytes", |s| s.root.upper = disk("/tmp", u64::MAX, 1000)),
            ("root.upper.inodes", |s| s.root.upper = disk("/tmp", 64 << 20, 1)),
            ("root.upper.inodes", |s| s.root.upper = disk("/tmp", 4 << 20, 1 << 31)),
            ("root.upper.inodes", |s| s.root.upper = disk("/tmp", 1 << 44, 1 << 32)),
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
            ("groups", |s| s.identity.groups = vec![70_000]),
            ("groups", |s| s.identity.groups = (0..65).collect()),
            ("limits.memory", |s| s.limits.memory = Some(4096)),
            ("limits.memory_high", |s| s.limits.memory_high = Some(1)),
            ("limits.memory_high", |s| s.limits.memory_high = Some(1 << 40)),
            ("limits.swap", |s| s.limits.swap = 1 << 61),
            ("limits.swap", |s| (s.limits.swap, s.limits.memory) = (1, None)),
            ("limits.pids", |s| s.limits.pids = Some(1)),
            ("limits.cpu_weight", |s| s.limits.cpu_weight = Some(0)),
            ("limits.cpu_millis", |s| s.limits.cpu_millis = Some(0)),
            ("limits.cpus", |s| s.limits.cpus = Some("0-".into())),
            ("limits.cpus", |s| s.limits.cpus = Some("3-1".into())),
            ("limits.cpus", |s| s.limits.cpus = Some(String::new())),
            ("limits.memory_nodes", |s| s.limits.memory_nodes = Some("a".into())),
            ("limits.io_weight", |s| s.limits.io_weight = Some(10_001)),
            ("limits.io.device", |s| s.limits.io = vec![IoLimit { device: "sda".into(), reads: Some(1), ..IoLimit::default() }]),
            ("limits.io", |s| s.limits.io = vec![IoLimit { device: "8:0".into(), ..IoLimit::default() }]),
            ("limits.io", |s| s.limits.io = vec![IoLimit { device: "8:0".into(), reads: Some(0), ..IoLimit::default() }]),
            ("limits.hugetlb", |s| s.limits.hugetlb = [("2 megs".into(), 1)].into()),
            ("limits.hugetlb", |s| s.limits.hugetlb = [("../2MB".into(), 1)].into()),
            ("limits.open_files", |s| s.limits.open_files = 0),
            ("limits.file_size", |s| s.limits.file_size = Some(0)),
            ("limits.wall_ms", |s| s.limits.wall_ms = Some(0)),
            ("limits.cpu_ms", |s| s.limits.cpu_ms = Some(u64::MAX)),
            ("limits.output", |s| s.limits.output = Some(0)),
            ("volume source", |s| s.volumes = vec![Volume::Bind { source: "x".into(), target: "/x".into(), writable: false }]),
            ("volume target", |s| s.volumes = vec![Volume::Bind { source: "/x".into(), target: "/proc/sys".into(), writable: false }]),
            ("volume target", |s| s.volumes = vec![Volume::Bind { source: "/x".into(), target: "/".into(), writable: false }]),
            ("volume bytes", |s| s.volumes = vec![Volume::Tmpfs { target: "/t".into(), bytes: 1, inodes: 100 }]),
            ("volume inodes", |s| s.volumes = vec![Volume::Tmpfs { target: "/t".into(), bytes: 4096, inodes: 1 }]),
            ("devices", |s| s.devices = vec!["../sda".into()]),
            ("devices", |s| s.devices = vec!["/dev/fuse".into()]),
            ("devices", |s| s.devices = vec![String::new()]),
            ("devices", |s| s.devices = vec!["null".into()]),
            ("devices", |s| s.devices = vec!["pts/0".into()]),
            ("masked", |s| s.masked = vec!["tmp".into()]),
            ("masked", |s| s.masked = vec!["/".into()]),
            ("read_only", |s| s.read_only = vec!["/tmp/..".into()]),
            ("dyno id", |s| s.network = Network::Joined("../x".into())),
            ("network.egress.policy", |s| s.network = egress(Policy::List(Vec::new()))),
            ("network.egress.net", |s| s.network = allow("10.0.0.0/33", None)),
            ("network.egress.net", |s| s.network = allow("example.com", None)),
            ("network.egress.net", |s| s.network = allow("10.0.0.1/8", None)),
            ("network.egress.ports", |s| s.network = allow("10.0.0.0/8", Some(std::ops::RangeInclusive::new(2, 1)))),
            ("network.egress.ports", |s| s.network = allow("10.0.0.0/8", Some(0..=1))),
            ("network.egress.dns", |s| s.network = Network::Egress(Egress { dns: vec![std::net::Ipv4Addr::LOCALHOST], ..Egress::default() })),
            ("network.egress.publish", |s| s.network = Network::Egress(Egress { publish: vec![publish(0, 80)], ..Egress::default() })),
            ("network.egress.publish", |s| s.network = Network::Egress(Egress { publish: vec![publish(80, 0)], ..Egress::default() })),
            ("network.egress.publish", |s| {
                s.network = Network::Egress(Egress { publish: vec![publish(80, 80), publish(80, 81)], ..Egress::default() })
            }),
            ("identity.capabilities", |s| {
                s.network = Network::Egress(Egress::default());
                s.identity.capabilities = vec![Capability::NET_ADMIN];
            }),
            ("seccomp", |s| s.seccomp = Profile::Custom(Box::new(crate::seccomp::ProfileData::parse(r#"{"answers": {"read": "EWHAT"}}"#).unwrap()))),
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
