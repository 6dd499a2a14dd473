//! Settings of the kernel that bound how many sandboxes there can be, or how fast they start.

use super::{Finding, Severity, ground::Ground};

/// Key, the least that is right for a host of many sandboxes, what less costs.
const FLOORS: &[(&str, u64, &str)] = &[
    ("kernel.pid_max", 131_072, "processes and threads of all sandboxes together"),
    ("kernel.threads-max", 65_536, "processes and threads of all sandboxes together"),
    ("fs.file-max", 1 << 20, "open files of all sandboxes together"),
    ("fs.mount-max", 10_000, "mounts in one namespace"),
    ("fs.inotify.max_user_instances", 128, "inotify instances of one user of a sandbox"),
    ("fs.inotify.max_user_watches", 8192, "inotify watches of one user of a sandbox"),
    ("fs.aio-max-nr", 65_536, "asynchronous requests of all sandboxes together"),
    ("kernel.pty.max", 4096, "terminals of all sandboxes together"),
    ("kernel.keys.maxkeys", 200, "keys of one user: every sandbox has a session keyring"),
    ("kernel.keys.root_maxkeys", 10_000, "keys of root: every start makes a session keyring"),
    ("vm.max_map_count", 65_530, "mappings of one process"),
    ("net.core.somaxconn", 1024, "connections that wait for a server inside"),
    ("net.ipv4.neigh.default.gc_thresh3", 1024, "neighbours of all networks with a way out together"),
    ("net.netfilter.nf_conntrack_max", 65_536, "connections of all networks with a way out together"),
];

pub(super) fn sysctls(ground: &Ground) -> Vec<Finding> {
    let value = |key: &str| ground.number(&format!("/proc/sys/{}", key.replace('.', "/")));
    let persist = "persistently in /etc/sysctl.d/";
    let floor = |(key, least, what): &(&str, u64, &str)| {
        let is = value(key)?;
        let found = Finding::new("sysctls", *key, is.to_string()).weighs(Severity::Note);
        Some(found.limited_unless(is >= *least, format!("at most {is} {what}"), format!("sysctl -w {key}={least}; {persist}")))
    };
    let mut findings: Vec<Finding> = FLOORS.iter().filter_map(floor).collect();
    if let Some(mode) = value("vm.overcommit_memory") {
        let found = Finding::new("sysctls", "vm.overcommit_memory", mode.to_string()).weighs(Severity::Note);
        findings.push(found.limited_unless(
            mode != 2,
            "programs that reserve much memory and use little (Go, Java, Node) fail to start",
            format!("sysctl -w vm.overcommit_memory=0; {persist}"),
        ));
    }
    findings.extend(grace_periods(ground));
    findings
}

/// Ending a mount namespace and moving between groups wait for the kernel's RCU; how long is the host's choice.
fn grace_periods(ground: &Ground) -> Option<Finding> {
    let (normal, expedited) = (ground.number("/sys/kernel/rcu_normal")?, ground.number("/sys/kernel/rcu_expedited")?);
    let found = match (normal, expedited) {
        (0, 0) => "some are expedited (the default); echo 1 > /sys/kernel/rcu_expedited for all, which interrupts every processor",
        (0, _) => "all are expedited",
        _ => "none is expedited",
    };
    let finding = Finding::new("sysctls", "RCU grace periods", found).weighs(Severity::Note);
    Some(finding.limited_unless(
        normal == 0,
        "every wait of the kernel's takes 4 to 30 ms: starts, ends",
        "echo 0 > /sys/kernel/rcu_normal (1 is for real-time hosts)",
    ))
}
