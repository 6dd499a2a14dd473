//! The kernel itself: its calls, what came with which version, its namespaces.

use super::{Finding, Severity, ground::Ground};
use crate::sys::Answer;

/// Call, version that brought it, whether a sandbox can do without, what its absence costs.
const CALLS: &[(&str, (u32, u32), bool, &str)] = &[
    ("clone3", (5, 7), false, "no sandbox starts: their processes are made with it"),
    ("CLONE_INTO_CGROUP", (5, 7), true, "on cgroup v2 processes cannot be born in their group"),
    ("pidfd_open", (5, 3), false, "processes could only be told by numbers, which are used again"),
    ("pidfd_send_signal", (5, 1), false, "processes could only be signalled by numbers"),
    ("pidfd_getfd", (5, 6), true, "descriptors of running sandboxes cannot be fetched"),
    ("openat2", (5, 6), false, "mount points cannot be found without following symlinks"),
    ("close_range", (5, 9), false, "inherited descriptors cannot be closed for sure"),
    ("fsopen", (5, 2), false, "file systems cannot be made before they are seen"),
    ("open_tree", (5, 2), false, "layers cannot be cloned"),
    ("move_mount", (5, 2), false, "mounts cannot be attached by descriptor"),
    ("mount_setattr", (5, 12), false, "layers cannot be given the sandbox's ids (idmapped mounts)"),
    ("seccomp user notification", (5, 0), true, "denied calls cannot be told (log_denied)"),
];

pub(super) fn calls(ground: &Ground) -> Vec<Finding> {
    let find = |(name, version, optional, costs): &(&str, (u32, u32), bool, &str)| {
        let answer = ground.calls.iter().find(|(n, _)| n == name).map_or(Answer::Absent, |(_, answer)| *answer);
        let new_enough = ground.is_linux(version.0, version.1);
        let found = match answer {
            Answer::There => "there",
            Answer::Refused if new_enough => "there by the kernel's version; it answers EPERM to this user",
            Answer::Refused => "EPERM",
            Answer::Absent if new_enough => "ENOSYS, though the kernel is new enough: is there a seccomp filter around this process?",
            Answer::Absent => "not in this kernel",
        };
        let ok = answer == Answer::There || (answer == Answer::Refused && new_enough);
        let severity = if *optional { Severity::Wanted } else { Severity::Needed };
        let fix = if new_enough {
            "run outside of that container, or allow the call there".to_owned()
        } else {
            format!("a kernel of at least {}.{}", version.0, version.1)
        };
        Finding::new("kernel", *name, found).weighs(severity).missing_unless(ok, *costs, fix)
    };
    let mut findings: Vec<Finding> = CALLS.iter().map(find).collect();
    findings.push(landlock(ground.landlock));
    findings
}

fn landlock(abi: u32) -> Finding {
    let found = if abi == 0 { "none".to_owned() } else { format!("ABI {abi}") };
    Finding::new("kernel", "Landlock", found)
        .weighs(Severity::Wanted)
        .missing_unless(abi >= 2, "no second wall behind the mounts; nothing keeps programs on a shared network from the host's abstract sockets, nor a taken-over dynod from files and ports that its user may reach", "CONFIG_SECURITY_LANDLOCK=y, and landlock in lsm= on the kernel's command line (Linux 5.19)")
        .limited_unless(abi >= 4, "programs on a shared network reach its owner's abstract unix sockets; a taken-over dynod connects to any TCP port", "a kernel of at least 6.12 (ABI 6)")
        .limited_unless(abi >= 6, "programs on a shared network, and a taken-over dynod, reach abstract unix sockets of others", "a kernel of at least 6.12 (ABI 6)")
}

/// What came with a version and cannot be asked for; without it there is another way, at that price.
const VERSIONS: &[(&str, (u32, u32), &str)] = &[
    ("idmapped squashfs layers", (6, 2), "images cannot be given the sandbox's ids"),
    ("idmapped tmpfs", (6, 3), "writable layers in memory cannot be given other ids"),
    ("overlay layers by descriptor", (6, 13), "layers are attached for a moment and named by path: starts take longer"),
    ("detached overlay layers", (6, 15), "layers are attached for a moment: starts take longer"),
    ("cgroup.kill", (5, 14), "on cgroup v2 groups are emptied process by process"),
    ("memory.peak", (5, 19), "on cgroup v2 exit records do not tell the highest use of memory"),
];

pub(super) fn versions(ground: &Ground) -> Vec<Finding> {
    let find = |(name, (major, minor), costs): &(&str, (u32, u32), &str)| {
        let ok = ground.is_linux(*major, *minor);
        let found = if ok { "there, by the kernel's version".to_owned() } else { format!("came with {major}.{minor}") };
        Finding::new("kernel", *name, found).weighs(Severity::Note).limited_unless(ok, *costs, format!("a kernel of at least {major}.{minor}"))
    };
    VERSIONS.iter().map(find).collect()
}

/// Name in /proc/self/ns, in /proc/sys/user, and the kernel's option.
const NAMESPACES: &[(&str, &str, &str)] = &[
    ("user", "user", "USER_NS"),
    ("mnt", "mnt", "NAMESPACES"),
    ("pid", "pid", "PID_NS"),
    ("net", "net", "NET_NS"),
    ("ipc", "ipc", "IPC_NS"),
    ("uts", "uts", "UTS_NS"),
    ("cgroup", "cgroup", "CGROUPS"),
];

/// Fewer than this are not enough for a busy host.
const FEW: u64 = 1024;

pub(super) fn namespaces(ground: &Ground) -> Vec<Finding> {
    let find = |(name, limit, option): &(&str, &str, &str)| {
        let most = ground.number(&format!("/proc/sys/user/max_{limit}_namespaces"));
        let found = most.map_or_else(|| "no limit is told".to_owned(), |n| format!("at most {n}"));
        let key = format!("user.max_{limit}_namespaces");
        Finding::new("namespaces", *name, found)
            .missing_unless(ground.exists(&format!("/proc/self/ns/{name}")), "every sandbox has one of its own", format!("CONFIG_{option}=y"))
            .missing_unless(most != Some(0), "none can be made", format!("sysctl -w {key}=15000"))
            .limited_unless(most.is_none_or(|n| n >= FEW), "that many sandboxes at a time, for all together", format!("sysctl -w {key}=15000"))
    };
    let mut findings: Vec<Finding> = NAMESPACES.iter().map(find).collect();
    findings.push(unprivileged(ground));
    findings
}

/// Who is not root needs to be allowed user namespaces.
fn unprivileged(ground: &Ground) -> Finding {
    let switches = [("kernel.unprivileged_userns_clone", 1), ("kernel.apparmor_restrict_unprivileged_userns", 0)];
    let wrong = switches.iter().find(|(key, open)| ground.number(&format!("/proc/sys/{}", key.replace('.', "/"))).is_some_and(|is| is != *open));
    let found = wrong.map_or_else(|| "allowed".to_owned(), |(key, open)| format!("{key} = {}", 1 - open));
    let severity = if ground.root_user { Severity::Note } else { Severity::Needed };
    let fix = wrong.map_or_else(String::new, |(key, open)| format!("sysctl -w {key}={open}; persistently in /etc/sysctl.d/"));
    Finding::new("namespaces", "for ordinary users", found).weighs(severity).missing_unless(wrong.is_none(), "only root can start sandboxes", fix)
}
