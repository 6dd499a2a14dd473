//! Hosts as data: the files that an examination would find there, and what it must say.

use super::*;
use crate::sys::Answer;

const FILES: &[(&str, &str)] = &[
    ("/proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"),
    ("/proc/self/cgroup", "0::/user.slice/app\n"),
    ("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n"),
    ("/sys/fs/cgroup/user.slice/memory.swap.max", "max\n"),
    ("/sys/fs/cgroup/user.slice/app/cgroup.controllers", "memory pids\n"),
    ("/proc/pressure/memory", "some\n"),
    ("/proc/swaps", "Filename\n/swapfile\n"),
    ("/proc/filesystems", "nodev\ttmpfs\nnodev\tdevpts\nnodev\toverlay\n\text4\n"),
    ("/lib/modules/6.18.44/modules.dep", "kernel/fs/squashfs/squashfs.ko.xz:\nkernel/drivers/block/loop.ko:\n"),
    ("/dev/loop-control", ""),
    ("/usr/sbin/mkfs.ext4", ""),
    ("/usr/bin/mksquashfs", ""),
    ("/usr/sbin/nft", ""),
    ("/usr/bin/newuidmap", ""),
    ("/usr/bin/newgidmap", ""),
    ("/etc/subuid", "somebody:100000:65536\n"),
    ("/etc/subgid", "somebody:100000:65536\n"),
    ("/proc/self/status", "CapEff:\t000001ffffffffff\n"),
    ("/proc/sys/net/ipv4/ip_forward", "1\n"),
    ("/proc/sys/kernel/pid_max", "4194304\n"),
    ("/proc/sys/fs/protected_regular", "2\n"),
    ("/proc/sys/kernel/unprivileged_bpf_disabled", "1\n"),
    ("/proc/sys/kernel/core_pattern", "core\n"),
    ("/sys/kernel/mm/ksm/run", "0\n"),
    ("/sys/devices/system/cpu/smt/active", "0\n"),
    ("/sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n"),
    ("/sys/kernel/rcu_normal", "0\n"),
    ("/sys/kernel/rcu_expedited", "0\n"),
];

/// A host on which all is well, in a directory of its own.
fn host(release: &str) -> (tempfile::TempDir, Ground) {
    let dir = tempfile::tempdir().unwrap();
    let all = [
        "clone3",
        "CLONE_INTO_CGROUP",
        "pidfd_open",
        "pidfd_send_signal",
        "pidfd_getfd",
        "openat2",
        "close_range",
        "fsopen",
        "open_tree",
        "move_mount",
        "mount_setattr",
        "seccomp user notification",
    ];
    let ground = Ground {
        root: dir.path().to_owned(),
        release: release.to_owned(),
        root_user: true,
        calls: all.map(|name| (name, Answer::There)).into(),
        landlock: 7,
        path: ["/usr/bin", "/usr/sbin"].map(Into::into).into(),
        links: Some(Vec::new()),
    };
    for (path, text) in FILES {
        put(&ground, path, text);
    }
    for (kind, limit) in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"].map(|k| (k, "63000")) {
        put(&ground, &format!("/proc/self/ns/{kind}"), "");
        put(&ground, &format!("/proc/sys/user/max_{kind}_namespaces"), limit);
    }
    (dir, ground)
}

fn put(ground: &Ground, path: &str, text: &str) {
    let file = ground.at(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn find(report: &Report, area: &str, name: &str) -> Finding {
    report.findings.iter().find(|f| f.area == area && f.name == name).unwrap_or_else(|| panic!("{area} {name} is not in {report}")).clone()
}

#[test]
fn a_host_on_which_all_is_well() {
    let (_dir, ground) = host("6.18.44");
    let report = report(&ground);
    let faults: Vec<&Finding> = report.findings.iter().filter(|f| f.state != State::Ok).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(report.is_usable());
    assert!(!report.to_string().contains("What to do"), "{report}");
    assert_eq!(find(&report, "cgroups", "memory").found, "v2, /sys/fs/cgroup");
    assert_eq!(find(&report, "hardening", "fs.protected_regular").state, State::Ok);
    assert_eq!(find(&report, "hardening", "kernel.core_pattern").found, "a file");
    assert_eq!(find(&report, "storage", "squashfs").found, "a module that is loaded at its first use");
}

/// What is changed of the good host; what must be found then: area, name, state, whether sandboxes still start.
type Fault = (fn(&mut Ground), &'static str, &'static str, State, bool);

const FAULTS: &[Fault] = &[
    (|g| g.calls[0].1 = Answer::Absent, "kernel", "clone3", State::Missing, false),
    (|g| g.calls[4].1 = Answer::Absent, "kernel", "pidfd_getfd", State::Missing, true),
    (|g| g.calls.clear(), "kernel", "openat2", State::Missing, false),
    (|g| g.landlock = 0, "kernel", "Landlock", State::Missing, true),
    (|g| g.landlock = 4, "kernel", "Landlock", State::Limited, true),
    (|g| put(g, "/proc/sys/user/max_user_namespaces", "0"), "namespaces", "user", State::Missing, false),
    (|g| put(g, "/proc/sys/user/max_net_namespaces", "128"), "namespaces", "net", State::Limited, true),
    (|g| std::fs::remove_file(g.at("/proc/self/ns/user")).unwrap(), "namespaces", "user", State::Missing, false),
    (|g| put(g, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"), "namespaces", "for ordinary users", State::Missing, true),
    (|g| put(g, "/sys/fs/cgroup/cgroup.controllers", "cpu memory"), "cgroups", "pids", State::Missing, false),
    (|g| put(g, "/sys/fs/cgroup/cgroup.controllers", "cpu memory pids"), "cgroups", "io", State::Missing, true),
    (|g| put(g, "/proc/self/mountinfo", ""), "cgroups", "layout", State::Missing, false),
    (|g| std::fs::remove_file(g.at("/sys/fs/cgroup/user.slice/memory.swap.max")).unwrap(), "cgroups", "swap", State::Limited, true),
    (|g| std::fs::remove_file(g.at("/proc/pressure/memory")).unwrap(), "cgroups", "pressure (PSI)", State::Missing, true),
    (|g| put(g, "/proc/filesystems", "nodev\ttmpfs\n"), "storage", "overlay", State::Missing, false),
    (|g| put(g, "/lib/modules/6.18.44/modules.dep", ""), "storage", "squashfs", State::Missing, true),
    (|g| std::fs::remove_file(g.at("/dev/loop-control")).unwrap(), "storage", "loop devices", State::Limited, true),
    (|g| g.path.clear(), "storage", "mkfs.ext4", State::Missing, true),
    (|g| g.path.clear(), "network", "nft", State::Missing, true),
    (|g| g.links = Some(vec!["nf_tables".into()]), "network", "links", State::Missing, true),
    (|g| put(g, "/proc/sys/net/ipv4/ip_forward", "0"), "network", "ip_forward", State::Limited, true),
    (|g| put(g, "/proc/self/status", "CapEff:\t000001fffeffffff"), "user", "capabilities", State::Limited, true),
    (|g| put(g, "/proc/self/status", "CapEff:\t0"), "user", "capabilities", State::Missing, false),
    (|g| put(g, "/etc/subuid", ""), "user", "/etc/subuid", State::Missing, true),
    (|g| put(g, "/etc/subgid", "somebody:100000:10"), "user", "/etc/subgid", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/pid_max", "32768"), "sysctls", "kernel.pid_max", State::Limited, true),
    (|g| put(g, "/proc/sys/vm/overcommit_memory", "2"), "sysctls", "vm.overcommit_memory", State::Limited, true),
    (|g| put(g, "/proc/sys/dev/tty/legacy_tiocsti", "1"), "hardening", "dev.tty.legacy_tiocsti", State::Limited, true),
    (|g| put(g, "/proc/sys/dev/tty/ldisc_autoload", "1"), "hardening", "dev.tty.ldisc_autoload", State::Limited, true),
    (|g| put(g, "/proc/sys/fs/protected_symlinks", "0"), "hardening", "fs.protected_symlinks", State::Limited, true),
    (|g| put(g, "/proc/sys/fs/protected_hardlinks", "0"), "hardening", "fs.protected_hardlinks", State::Limited, true),
    (|g| put(g, "/proc/sys/fs/protected_fifos", "1"), "hardening", "fs.protected_fifos", State::Limited, true),
    (|g| put(g, "/proc/sys/fs/protected_regular", "1"), "hardening", "fs.protected_regular", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/io_uring_disabled", "1"), "hardening", "kernel.io_uring_disabled", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/unprivileged_bpf_disabled", "0"), "hardening", "kernel.unprivileged_bpf_disabled", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/perf_event_paranoid", "-1"), "hardening", "kernel.perf_event_paranoid", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/dmesg_restrict", "0"), "hardening", "kernel.dmesg_restrict", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/kptr_restrict", "0"), "hardening", "kernel.kptr_restrict", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/randomize_va_space", "1"), "hardening", "kernel.randomize_va_space", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/kexec_load_disabled", "0"), "hardening", "kernel.kexec_load_disabled", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/yama/ptrace_scope", "0"), "hardening", "kernel.yama.ptrace_scope", State::Limited, true),
    (|g| put(g, "/proc/sys/vm/unprivileged_userfaultfd", "1"), "hardening", "vm.unprivileged_userfaultfd", State::Limited, true),
    (|g| put(g, "/proc/sys/kernel/core_pattern", "|/usr/lib/handler %p"), "hardening", "kernel.core_pattern", State::Limited, true),
    (|g| put(g, "/sys/kernel/mm/ksm/run", "1"), "hardening", "same-page merging (KSM)", State::Limited, true),
    (|g| put(g, "/sys/devices/system/cpu/smt/active", "1"), "hardening", "processor siblings (SMT)", State::Limited, true),
    (
        |g| put(g, "/sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable: no microcode"),
        "hardening",
        "processor weaknesses",
        State::Limited,
        true,
    ),
    (|g| g.release = "6.18.20".into(), "hardening", "walks between namespaces (nsfs)", State::Limited, true),
    (|g| put(g, "/sys/kernel/rcu_normal", "1"), "sysctls", "RCU grace periods", State::Limited, true),
];

#[test]
fn every_fault_is_told_with_its_price_and_its_cure() {
    for (damage, area, name, state, usable) in FAULTS {
        let (_dir, mut ground) = host("6.18.44");
        damage(&mut ground);
        let report = report(&ground);
        let found = find(&report, area, name);
        assert_eq!((found.state, report.is_usable()), (*state, *usable), "{found:#?}");
        assert!(!found.costs.is_empty() && !found.fix.is_empty(), "{found:#?}");
        let text = report.to_string();
        assert!(text.contains(&found.costs) && text.contains(&found.fix), "{text}");
    }
}

#[test]
fn v1_and_an_older_kernel() {
    let (_dir, ground) = host("6.1.0-40-amd64");
    let mount = |name: &str| format!("30 24 0:26 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n");
    let table: String = ["cpu", "memory", "pids", "freezer", "blkio"].map(mount).concat();
    put(&ground, "/proc/self/mountinfo", &(table + "31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"));
    put(&ground, "/sys/fs/cgroup/unified/cgroup.controllers", "\n");
    put(&ground, "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "1\n");
    let report = report(&ground);
    let says = |name: &str| find(&report, "cgroups", name);
    assert_eq!(says("layout").found, "hybrid: v1, and a v2 tree beside it");
    assert_eq!((says("io").found, says("freezer").found), ("v1, /sys/fs/cgroup/blkio".into(), "v1, /sys/fs/cgroup/freezer".into()));
    assert_eq!((says("swap").state, says("cpuset").state), (State::Ok, State::Missing));
    assert_eq!(find(&report, "kernel", "overlay layers by descriptor").state, State::Limited);
    assert_eq!(find(&report, "kernel", "idmapped squashfs layers").state, State::Limited);
}

#[test]
fn an_ordinary_user() {
    let (_dir, mut ground) = host("6.18.44");
    ground.root_user = false;
    ground.calls.iter_mut().find(|(name, _)| *name == "fsopen").unwrap().1 = Answer::Refused;
    put(&ground, "/proc/sys/kernel/unprivileged_userns_clone", "1");
    let found = report(&ground);
    assert_eq!(find(&found, "kernel", "fsopen").state, State::Ok);
    let groups = find(&found, "cgroups", "groups can be made");
    assert_eq!((groups.state, groups.found.as_str()), (State::Limited, "below /sys/fs/cgroup/user.slice/app, without cpu"));
    assert!(found.is_usable());
    put(&ground, "/proc/sys/kernel/unprivileged_userns_clone", "0");
    let found = report(&ground);
    assert!(!found.is_usable());
    assert_eq!(find(&found, "namespaces", "for ordinary users").fix, "sysctl -w kernel.unprivileged_userns_clone=1; persistently in /etc/sysctl.d/");
}

#[test]
fn this_host() {
    let report = examine();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    // Whatever else it has: these tests' own process has these.
    assert_eq!(find(&report, "kernel", "pidfd_open").state, State::Ok);
    println!("{report}");
}
