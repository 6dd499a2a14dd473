//! PR, FD: procfs, other processes, what is inherited.

use dyno_runtime::broken::Part;

use super::super::row::{Change::*, Control, Row, Want::*};

/// Files of procfs that anybody may read, and that are masked.
const OPEN: [&str; 5] = ["config.gz", "interrupts", "kallsyms", "cmdline", "modules"];
/// … that show each user namespace its own, so that there is nothing to see of the host's.
const OWN: [&str; 2] = ["keys", "key-users"];
/// … that only root may read: the mask is the first wall, the mode the second.
const ROOTS: [&str; 4] = ["kcore", "slabinfo", "timer_list", "vmallocinfo"];
/// Directories.
const DIRECTORIES: [&str; 3] = ["acpi", "asound", "scsi"];
/// Made read-only.
pub const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new("PR-1", "other_processes", "processes beside its own", "others", "pid namespace, and a procfs of its own", Nothing)
            .falls(&[Without(Part::PidNamespace)]),
        Row::new(
            "PR-2",
            "environment_of_pid_1",
            "/proc/1/environ",
            "read /proc/1/environ",
            "pid 1 cannot be looked into (not dumpable)",
            Errno(libc::EACCES),
        )
        .falls(&[Without(Part::Undumpable)])
        .bare("read /proc/{pid}/environ"),
        Row::new("PR-2", "descriptors_of_pid_1", "/proc/1/fd", "list /proc/1/fd", "pid 1 cannot be looked into (not dumpable)", Errno(libc::EACCES))
            .falls(&[Without(Part::Undumpable)])
            .bare("list /proc/{pid}/fd"),
        Row::new(
            "PR-3",
            "sysctl_of_its_network",
            "a sysctl that the sandbox's own network namespace has, by its uid 0",
            "open-to-write /proc/sys/net/ipv4/ip_forward",
            "/proc/sys is read-only",
            Errno(libc::EROFS),
        )
        .given(&[Root, Grant("NET_ADMIN")])
        .falls(&[Uncovered("/proc/sys")])
        .control(Control::Apart),
        Row::new(
            "PR-4",
            "core_pattern",
            "kernel.core_pattern is opened for writing, by uid 0",
            "open-to-write /proc/sys/kernel/core_pattern",
            "uid 0 inside is not the host's",
            Errno(libc::EACCES),
        )
        .given(&[Root])
        .then(&[Uncovered("/proc/sys")], Errno(libc::EACCES)),
        Row::new(
            "PR-6",
            "sysrq",
            "/proc/sysrq-trigger is opened for writing, by uid 0",
            "open-to-write /proc/sysrq-trigger",
            "uid 0 inside is not the host's",
            Errno(libc::EACCES),
        )
        .given(&[Root])
        .vacuous(&[libc::ENOENT]),
        Row::new(
            "PR-7",
            "core_dump_handler",
            "a limit of core files at which the host's handler would run",
            "core-limit",
            "RLIMIT_CORE is 1",
            Nothing,
        )
        .falls(&[Without(Part::CoreLimit)]),
        Row::new("PR-8", "kernel_log", "the kernel's log by syslog(2)", "call 103 10 0 0", "system-call filter", Errno(libc::EPERM))
            .then(&[Allow("syslog")], Errno(libc::EPERM)),
        Row::new("PR-9", "session_keyring", "keyctl(2): a session keyring is joined", "call 250 1 0", "system-call filter", Errno(libc::EPERM))
            .falls(&[Allow("keyctl")])
            .vacuous(&[libc::ENOSYS]),
        Row::new(
            "PR-9",
            "key_of_the_starter",
            "a key in the session keyring of whoever started the sandbox",
            "key",
            "a session keyring of its own",
            Errno(libc::ENOKEY),
        )
        .given(&[Allow("keyctl")])
        .falls(&[Without(Part::Keyring)])
        .vacuous(&[libc::ENOSYS]),
        Row::new(
            "PR-13",
            "unmask",
            "a mask is taken off by one who may mount",
            "unmount /proc/interrupts",
            "mounts that a stronger user namespace made are locked",
            Errno(libc::EINVAL),
        )
        .given(&[NoFilter, Grant("SYS_ADMIN")])
        .control(Control::Apart)
        .bare("unmount /proc"),
        Row::new(
            "PR-13",
            "second_procfs",
            "a procfs without masks is mounted by one who may mount",
            "mount proc {tmp}",
            "the kernel lets nobody uncover what is masked",
            Errno(libc::EPERM),
        )
        .given(&[NoFilter, Grant("SYS_ADMIN")])
        .control(Control::Apart),
        Row::new("PR-14", "place_in_the_groups", "where in the host's control groups it is", "group-path", "cgroup namespace", Nothing)
            .falls(&[Without(Part::CgroupNamespace)])
            .control(Control::None("bare it is wherever the test is")),
        Row::new("PR-14", "control_groups", "the control groups' files", "list /sys/fs/cgroup", "no sysfs, no cgroup mount", Errno(libc::ENOENT)),
        Row::new(
            "FD-1",
            "inherited_descriptor",
            "a descriptor that the starter left inheritable",
            "descriptors",
            "close_range before the init",
            Nothing,
        )
        .falls(&[Without(Part::Descriptors)]),
        Row::new(
            "FD-7",
            "program_of_pid_1",
            "/proc/1/exe is opened for writing (CVE-2019-5736)",
            "open-to-write /proc/1/exe",
            "pid 1 cannot be looked into (not dumpable)",
            Errno(libc::EACCES),
        )
        .then(&[Without(Part::Undumpable)], Errno(libc::ETXTBSY))
        .control(Control::None("no kernel lets a program that runs be written; the seals are tested by images")),
        Row::new(
            "FD-9",
            "environment",
            "a variable of the starter's environment",
            "environment DYNO_BATTERY_SECRET",
            "the whole environment is given",
            Nothing,
        ),
    ];
    let mask = |name: &&'static str, attack: &str, uncovered| {
        let path: &'static str = leak(format!("/proc/{name}"));
        Row::new("PR-8", leak(format!("masked_{}", name.replace(['.', '-'], "_"))), path, leak(format!("{attack} {path}")), "masked", Nothing)
            .then(&[Uncovered(path)], uncovered)
            .vacuous(&[libc::ENOENT])
    };
    rows.extend(OPEN.iter().map(|name| mask(name, "read", Succeeds)));
    rows.extend(OWN.iter().map(|name| mask(name, "read", Nothing)));
    rows.extend(ROOTS.iter().map(|name| mask(name, "read", Errno(libc::EACCES))));
    // Reading it takes lines away from whoever else reads it.
    rows.push(mask(&"kmsg", "read", Errno(libc::EACCES)).control(Control::Machine));
    rows.extend(DIRECTORIES.iter().map(|name| mask(name, "list", Succeeds)));
    rows.extend(READ_ONLY.iter().chain(&OWN).map(|name| {
        let path: &'static str = leak(format!("/proc/{name}"));
        Row::new(
            "OP-5",
            leak(format!("read_only_{}", name.replace('-', "_"))),
            leak(format!("{path} as the mount table has it: anything but ro")),
            leak(format!("mount-lacks {path} ro")),
            "made read-only",
            Nothing,
        )
        .falls(&[Uncovered(path)])
        .bare(leak(format!("open {path}")))
        .vacuous(&[libc::ENOENT])
    }));
    rows
}

/// The rows live as long as the program.
fn leak(text: String) -> &'static str {
    text.leak()
}
