//! System calls and sockets: the seccomp profile answers before the kernel's own code is reached.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Result, ensure};
use dyno_tests::{Platform, inline};

use super::{APP, deployed, inside};

/// Runs the probe and compares each line with `rows`; both must name the same attempts.
fn compare(platform: &Platform, what: &str, rows: &[(&str, &str)]) -> Result<()> {
    let output = inside(platform, &format!("python3 probe.py {what}"))?;
    let got: BTreeMap<&str, &str> = output.lines().filter_map(|l| l.rsplit_once(": ")).collect();
    let want: BTreeMap<&str, &str> = rows.iter().copied().collect();
    let names = |map: &BTreeMap<&str, &str>| map.keys().map(|k| (*k).to_owned()).collect::<Vec<_>>();
    ensure!(names(&got) == names(&want), "the probe and the table differ: {got:#?}");
    let differ = |(name, wanted): &(&&str, &&str)| got[**name] != **wanted && got[**name] != "absent";
    let wrong: Vec<String> = want.iter().filter(differ).map(|(n, w)| format!("{n}: wanted {w}, got {}", got[n])).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    got.iter().filter(|(_, said)| **said == "absent").for_each(|(n, _)| println!("vacuous: {n}: this architecture has no such call"));
    Ok(())
}

/// Prints rows that this kernel would hold by itself: `path` is there only where it has the feature.
fn vacuous_without(path: &str, rows: &str) {
    if !Path::new(path).exists() {
        println!("vacuous: {rows}: this kernel has no {path}");
    }
}

#[rustfmt::skip]
const CALLS: &[(&str, &str)] = &[
    // Seccomp: not on the list of allowed calls. Behind it: max_*_namespaces are the host's, capabilities are empty.
    ("unshare user", "EPERM"), ("unshare mount", "EPERM"), ("unshare net", "EPERM"), ("unshare user, high bits", "EPERM"), ("setns", "EPERM"),
    // Seccomp: clone only without CLONE_NEW*; clone3 cannot be looked into, so ENOSYS sends C libraries back to clone.
    ("clone user", "EPERM"), ("clone pid", "EPERM"), ("clone user, high bits", "EPERM"), ("clone3", "ENOSYS"),
    // Seccomp. Behind it: the mount namespace belongs to the host's user namespace, so not even root inside could.
    ("mount", "EPERM"), ("umount2", "EPERM"), ("pivot_root", "EPERM"), ("chroot", "EPERM"), ("fsopen", "EPERM"), ("fsconfig", "EPERM"),
    ("fsmount", "EPERM"), ("open_tree", "EPERM"), ("move_mount", "EPERM"), ("mount_setattr", "EPERM"),
    // Seccomp. Behind it: the pid namespace (there is nobody else to look at) and a pid 1 that is not dumpable.
    ("ptrace", "EPERM"), ("process_vm_readv", "EPERM"), ("process_vm_writev", "EPERM"), ("pidfd_getfd", "EPERM"), ("kcmp", "EPERM"),
    // Seccomp: kernel surface that apps do not need.
    ("bpf", "EPERM"), ("perf_event_open", "EPERM"), ("userfaultfd", "EPERM"), ("memfd_secret", "EPERM"), ("fanotify_init", "EPERM"),
    ("modify_ldt", "EPERM"), ("personality without randomisation", "EPERM"),
    // Seccomp: keyrings have no namespace. Behind it: a session keyring of its own.
    ("keyctl", "EPERM"), ("add_key", "EPERM"), ("request_key", "EPERM"),
    // Seccomp: its calls go past seccomp. ENOSYS, as where a kernel lacks it: event loops fall back.
    ("io_uring_setup", "ENOSYS"), ("io_uring_enter", "ENOSYS"), ("io_uring_register", "ENOSYS"),
    // Seccomp: handles reach files by number, past every mount (CVE-2014-9357, "shocker").
    ("open_by_handle_at", "EPERM"), ("name_to_handle_at", "EPERM"),
    // Seccomp. Behind it: no capability.
    ("init_module", "EPERM"), ("finit_module", "EPERM"), ("delete_module", "EPERM"), ("kexec_load", "EPERM"), ("reboot", "EPERM"),
    ("swapon", "EPERM"), ("acct", "EPERM"), ("quotactl", "EPERM"), ("syslog", "EPERM"), ("settimeofday", "EPERM"),
    ("clock_settime", "EPERM"), ("sethostname", "EPERM"), ("iopl", "EPERM"), ("ioperm", "EPERM"),
    // Seccomp: numbers beyond the table, and those of another ABI.
    ("a number that no kernel has", "ENOSYS"), ("getpid by its x32 number", "ENOSYS"),
    // Seccomp, comparing the low 32 bits as the kernel does (CVE-2019-10063). Behind it: a terminal of its own.
    ("TIOCSTI", "EPERM"), ("TIOCSTI, high bits", "EPERM"), ("TIOCLINUX", "EPERM"), ("TIOCSETD", "EPERM"),
    // Seccomp. Behind it: no CAP_MKNOD, and nodev on every mount that can be written.
    ("character device", "EPERM"), ("character device, high bits", "EPERM"), ("block device", "EPERM"),
    // Not a wall: what must go on working.
    ("named pipe", "allowed"),
];

pub(super) fn system_calls(platform: &Platform) -> Result<()> {
    vacuous_without("/proc/self/ns/user", "unshare user, clone user");
    vacuous_without("/proc/sys/kernel/io_uring_disabled", "io_uring_*");
    vacuous_without("/proc/sys/kernel/unprivileged_bpf_disabled", "bpf");
    vacuous_without("/proc/sys/kernel/perf_event_paranoid", "perf_event_open");
    vacuous_without("/proc/sys/vm/unprivileged_userfaultfd", "userfaultfd");
    vacuous_without("/proc/keys", "keyctl, add_key, request_key");
    vacuous_without("/proc/modules", "init_module, finit_module, delete_module");
    if fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").is_ok_and(|text| text.trim() == "0") {
        println!("vacuous: TIOCSTI: dev.tty.legacy_tiocsti is 0");
    }
    compare(platform, "calls", CALLS)
}

/// All by seccomp: only families and types on its list. Behind it: the network namespace, and no CAP_NET_RAW.
#[rustfmt::skip]
const SOCKETS: &[(&str, &str)] = &[
    // What must work.
    ("stream", "allowed"), ("datagram", "allowed"), ("local", "allowed"), ("NETLINK_ROUTE", "allowed"),
    ("raw", "EPERM"), ("raw with flags", "EPERM"), ("raw, high bits", "EPERM"), ("raw IPv6", "EPERM"),
    ("packet", "EPERM"), ("packet, high bits", "EPERM"),
    // Has no namespace in most kernels: would reach the hypervisor.
    ("vsock", "EPERM"),
    ("alg", "EPERM"), ("netfilter", "EPERM"), ("audit", "EPERM"), ("bluetooth", "EPERM"), ("xdp", "EPERM"), ("tipc", "EPERM"), ("key", "EPERM"),
];

pub(super) fn sockets(platform: &Platform) -> Result<()> {
    let protocols = fs::read_to_string("/proc/net/protocols")?;
    for (protocol, row) in
        [("PACKET", "packet"), ("AF_VSOCK", "vsock"), ("ALG", "alg"), ("XDP", "xdp"), ("TIPC", "tipc"), ("KEY", "key"), ("HCI", "bluetooth")]
    {
        if !protocols.lines().any(|l| l.starts_with(protocol)) {
            println!("vacuous: {row}: this kernel has no such family loaded");
        }
    }
    compare(platform, "sockets", SOCKETS)
}

/// getpid by `int 0x80`: number 20 of i386. Prints what it gave.
const INT80: &str = "#include <stdio.h>\nint main(void) { long r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(20) : \"memory\"); printf(\"came back with %ld\\n\", r); return 0; }\n";

/// The filter looks at the architecture of each call (seccomp_data.arch) before its number: numbers of i386 mean other calls.
pub(super) fn other_architecture(platform: &Platform) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        println!("vacuous: int 0x80 is an instruction of x86");
        return Ok(());
    }
    vacuous_without("/proc/sys/abi/vsyscall32", "int 0x80");
    deployed(platform)?;
    let source = inline("cc -o \"$1/int80\" \"$1/int80.c\"", &[("int80.c", INT80), ("Procfile", "worker: ./int80\n")])?;
    platform.deploy("int80", source.path())?;
    let said = platform.try_dyno(&["run", "-a", "int80", "--no-tty", "--", "./int80; echo status $?"])?;
    platform.ok(&["apps:destroy", "-a", "int80", "--confirm", "int80"])?;
    let refused = ["came back with -1\n", "came back with -38\n", "status 159\n", "status 139\n"];
    let ran = said.stdout.lines().any(|l| l.strip_prefix("came back with ").is_some_and(|n| n.parse().is_ok_and(|n: i64| n >= 0)));
    ensure!(!ran && refused.iter().any(|r| said.stdout.contains(r)), "a call of i386 was carried out: {said:?}");
    ensure!(platform.seen(APP)?.len() == 2, "the other dynos are gone");
    Ok(())
}
