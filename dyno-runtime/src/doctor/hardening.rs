//! What the host leaves open to whoever gets past a wall, or is given fewer of them: settings of the kernel, memory and processors that
//! tenants share. Nothing of it keeps a sandbox from starting.

use super::{Finding, Severity, ground::Ground};

/// What a setting must be.
enum Want {
    Is(i64),
    AtLeast(i64),
}

/// Key, what it must be, what another value opens. A key that a kernel does not have opens nothing.
const SETTINGS: &[(&str, Want, &str)] = &[
    ("dev.tty.legacy_tiocsti", Want::Is(0), "with the profiles docker and unconfined a program can type into a terminal that it shares with others"),
    (
        "dev.tty.ldisc_autoload",
        Want::Is(0),
        "with the profile unconfined a program with a terminal has the kernel load line disciplines (CVE-2017-2636)",
    ),
    ("fs.protected_symlinks", Want::Is(1), "programs of the host can be led astray by symlinks in directories such as /tmp"),
    ("fs.protected_hardlinks", Want::Is(1), "programs of the host can be led astray by hard links to files that their maker may not read"),
    ("fs.protected_fifos", Want::AtLeast(2), "programs of the host can be made to write into FIFOs that others put in directories such as /tmp"),
    ("fs.protected_regular", Want::AtLeast(2), "programs of the host can be made to write into files that others put in directories such as /tmp"),
    (
        "kernel.io_uring_disabled",
        Want::AtLeast(2),
        "with the profile unconfined a program reaches io_uring (CVE-2022-29582, CVE-2024-0582), whose calls no filter sees",
    ),
    ("kernel.unprivileged_bpf_disabled", Want::AtLeast(1), "with the profile unconfined a program can load BPF"),
    (
        "kernel.perf_event_paranoid",
        Want::AtLeast(3),
        "with the profile unconfined a program reaches perf_event_open; 3 is held by Debian's and Ubuntu's kernels, others stop at 2",
    ),
    (
        "kernel.dmesg_restrict",
        Want::Is(1),
        "every program of the host, and of a sandbox with the profile unconfined, reads the kernel's log and the addresses in it",
    ),
    ("kernel.kptr_restrict", Want::AtLeast(1), "every program of the host reads the addresses of the kernel (/proc/kallsyms is masked in sandboxes)"),
    ("kernel.randomize_va_space", Want::AtLeast(2), "programs are laid out where an attacker expects them"),
    ("kernel.kexec_load_disabled", Want::Is(1), "whoever becomes root of the host can put another kernel in place of this one"),
    ("kernel.yama.ptrace_scope", Want::AtLeast(1), "every program of the host can look into others of the same user"),
    ("vm.unprivileged_userfaultfd", Want::Is(0), "with the profile unconfined a program can hold the kernel at a page fault of its choice"),
];

/// The series and the number in it in which the walks from one namespace to the next (ioctls of nsfs) were mended.
const NSFS_MENDED: (u64, u64, u64) = (6, 18, 21);

pub(super) fn hardening(ground: &Ground) -> Vec<Finding> {
    let mut findings: Vec<Finding> = SETTINGS.iter().filter_map(|setting| self::setting(ground, setting)).collect();
    findings.extend(core_pattern(ground));
    findings.extend(shared_pages(ground));
    findings.extend(siblings(ground));
    findings.extend(processors(ground));
    findings.extend(nsfs(ground));
    findings
}

fn finding(name: &str, found: impl Into<String>) -> Finding {
    Finding::new("hardening", name, found).weighs(Severity::Note)
}

fn setting(ground: &Ground, (key, want, opens): &(&str, Want, &str)) -> Option<Finding> {
    let is: i64 = ground.text(&format!("/proc/sys/{}", key.replace('.', "/")))?.trim().parse().ok()?;
    let (ok, right) = match want {
        Want::Is(value) => (is == *value, value),
        Want::AtLeast(value) => (is >= *value, value),
    };
    Some(finding(key, is.to_string()).limited_unless(ok, *opens, format!("sysctl -w {key}={right}; persistently in /etc/sysctl.d/")))
}

/// Dynos' limit of core files keeps the kernel from running a handler for them (1, core(5)); an OCI container has the limit that its
/// configuration says.
fn core_pattern(ground: &Ground) -> Option<Finding> {
    let text = ground.text("/proc/sys/kernel/core_pattern")?;
    let found = if text.starts_with('|') { "a program of the host is run" } else { "a file" };
    let opens = "a crash in an OCI container whose configuration sets no RLIMIT_CORE of 1 runs a program of the host with the container's memory as input (CVE-2025-4598)";
    Some(finding("kernel.core_pattern", found).limited_unless(
        !text.starts_with('|'),
        opens,
        "sysctl -w kernel.core_pattern=core; persistently in /etc/sysctl.d/",
    ))
}

fn shared_pages(ground: &Ground) -> Option<Finding> {
    let on = ground.number("/sys/kernel/mm/ksm/run")? == 1;
    let found = finding("same-page merging (KSM)", if on { "on" } else { "off" });
    Some(found.limited_unless(!on, "how long a write takes tells what other sandboxes have in memory", "echo 2 > /sys/kernel/mm/ksm/run"))
}

fn siblings(ground: &Ground) -> Option<Finding> {
    let on = ground.number("/sys/devices/system/cpu/smt/active")? == 1;
    let found = finding("processor siblings (SMT)", if on { "on" } else { "off" });
    Some(found.limited_unless(
        !on,
        "two tenants on the siblings of one core see each other's use of its caches",
        "echo off > /sys/devices/system/cpu/smt/control; nosmt on the kernel's command line",
    ))
}

/// Weaknesses of the processor against which this kernel does nothing.
fn processors(ground: &Ground) -> Option<Finding> {
    let entries = std::fs::read_dir(ground.at("/sys/devices/system/cpu/vulnerabilities")).ok()?;
    let mut bare: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with("Vulnerable")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    bare.sort();
    let found = if bare.is_empty() { "none is left open".to_owned() } else { format!("open: {}", bare.join(", ")) };
    let fix = "new microcode; mitigations=auto on the kernel's command line";
    Some(finding("processor weaknesses", found).limited_unless(
        bare.is_empty(),
        "a tenant may read memory that is not its own, at the speed of a side channel",
        fix,
    ))
}

/// Only the series in which it is known from which number on is judged.
fn nsfs(ground: &Ground) -> Option<Finding> {
    let mut parts = ground.release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next().unwrap_or(0));
    let (mended_major, mended_minor, mended_patch) = NSFS_MENDED;
    if (major, minor) != (mended_major, mended_minor) {
        return None;
    }
    let found = finding("walks between namespaces (nsfs)", format!("Linux {major}.{minor}.{patch}"));
    let opens = "with the profile unconfined a program may learn of other namespaces (CVE-2026-43391, CVE-2026-43403)";
    Some(found.limited_unless(patch >= mended_patch, opens, format!("a kernel of at least {major}.{minor}.{mended_patch}")))
}
