//! The differences that are meant, each with the sentence that decides it. `docs/oci-differences.md` is made from this table.

use serde_json::Value;

use super::table::{Difference, Meant};

const fn row(other: &'static str, key: &'static str, when: fn(&Difference) -> bool, what: &'static str, because: &'static str) -> Meant {
    Meant { other, key, when, what, because }
}

/// The other oracle has nothing to say, because it refused.
fn alone(d: &Difference) -> bool {
    d.third.is_none_or(str::is_empty)
}

fn has(config: &Value, pointer: &str) -> bool {
    config.pointer(pointer).is_some_and(|v| !v.is_null())
}

/// The paths of a list of the configuration, as mountinfo writes them, have this one at the beginning of a fact's rest.
fn concerns(d: &Difference, list: &str) -> bool {
    let place = match d.key.strip_prefix("mount ").and_then(|rest| rest.split_once(": ")) {
        Some((place, _)) => place.rsplit_once(' ').map_or(place, |(place, _)| place),
        None => d.key.strip_prefix("stat ").unwrap_or_default(),
    };
    let paths = d.config.pointer(list).and_then(Value::as_array);
    paths.is_some_and(|paths| paths.iter().filter_map(Value::as_str).any(|p| p == place || (p == "/link" && place == "/data")))
}

fn said(d: &Difference, words: &[&str]) -> bool {
    d.ours == "done" && d.theirs != "done" && words.iter().any(|w| d.messages.iter().any(|m| m.contains(w)))
}

/// Of all mounts at a fact's place.
fn option(d: &Difference, names: &[&str]) -> bool {
    let mounts = d.config.pointer("/mounts").and_then(Value::as_array);
    mounts.is_some_and(|all| all.iter().filter_map(|m| m["options"].as_array()).flatten().any(|o| names.iter().any(|n| o == n)))
}

/// The same words but for these.
fn but_for(d: &Difference, separator: &str, words: &[&str]) -> bool {
    let of =
        |text: &str| text.split(separator).map(str::to_owned).filter(|w| !words.contains(&w.as_str())).collect::<std::collections::BTreeSet<_>>();
    of(d.ours) == of(d.theirs)
}

const USER: &str = "/linux/uidMappings";

/// Mode bits and access times are told apart from what the rest of a list of options says.
const ATIME: &[&str] = &["relatime", "noatime", "nodiratime", "strictatime"];

pub const TABLE: &[Meant] = &[
    row(
        "",
        "state ",
        |d| d.key.ends_with("ociVersion"),
        "`ociVersion` of the state",
        "runtime-spec, State: \"ociVersion is version of the Open Container Initiative Runtime Specification with which the state complies\": that of the configuration, as it stands; runc says its own, crun `1.0`",
    ),
    row("", "hook ", |d| d.key.ends_with("ociVersion"), "`ociVersion` of a hook's state", "as in the state"),
    row(
        "",
        "hook ",
        |d| d.key.contains(" env.") && d.ours.is_empty(),
        "Environment of a hook that has no `env`",
        "config.md, POSIX-platform Hooks: \"env with the same semantics as IEEE Std 1003.1-2008's environ\": none given, none there. runc and crun hand on their caller's (the class of CVE-2025-23266)",
    ),
    row(
        "",
        "hook createContainer",
        |d| d.key.ends_with(" cwd"),
        "Working directory of createContainer hooks",
        "the specification is silent: runc has the root's, crun the bundle, this runtime its caller's",
    ),
    row(
        "",
        "hook poststop",
        |d| d.key.ends_with(" cwd"),
        "Working directory of poststop hooks",
        "the specification is silent: runc has its caller's and so has this runtime, because the bundle may be gone; crun has the bundle",
    ),
    row(
        "",
        "hook ",
        |d| d.key.ends_with("state: status"),
        "`status` of a hook's state",
        "runtime-spec, State: \"creating: the container is being created (step 2 in the lifecycle)\", \"created: the runtime has finished the create operation (after step 2)\", \"running: the container process has executed the user-specified program\": so creating until createRuntime, created until the program runs, running with poststart",
    ),
    row(
        "crun",
        "hook ",
        |d| {
            (d.theirs == "/" || d.key.contains("Container"))
                && (d.key.ends_with(" cwd") || d.key.ends_with("state: bundle") || d.key.ends_with("state: pid"))
        },
        "`bundle` and `pid` of hooks inside",
        "runtime-spec, State: \"bundle is the absolute path to the container's bundle directory\"; config.md, Hooks: the pid as the hook's namespace has it. crun 1.8.1 gives `/` and 0",
    ),
    row(
        "",
        "hooks in order",
        |d| but_for(d, " ", &[]),
        "startContainer before poststart",
        "runtime-spec, Lifecycle, steps 7 to 9: startContainer, the program, poststart. runc and crun run poststart as soon as they have opened their FIFO",
    ),
    row(
        "runc",
        "group file devices.list",
        |d| but_for(d, "; ", &["c 10:200 rwm", "c 5:1 rwm"]),
        "Devices that are always allowed",
        "config-linux.md, Default Devices: `/dev/console` is one of them, `/dev/net/tun` is not. runc 1.1.5 has it the other way round",
    ),
    row(
        "crun",
        "group file devices.list",
        |d| d.theirs.contains('*') || but_for(d, "; ", &["c 5:1 rwm"]),
        "Device rules without any in the configuration",
        "config-linux.md, Allowed Device list: rules are those of the configuration; with none, runc and this runtime allow the default devices only, crun every one",
    ),
    row(
        "crun",
        "group v2",
        |_| true,
        "The group of the v2 tree",
        "crun cannot run on a host with both trees: the tests take the v2 tree away from it",
    ),
    row("crun", "cgroup ", |d| d.key.trim_end() == "cgroup", "The group of the v2 tree, from inside", "the same"),
    row(
        "",
        "group file memory.kmem.tcp",
        |_| true,
        "`memory.kernelTCP`",
        "config-linux.md, Memory: \"kernelTCP sets hard limit for kernel TCP buffer memory\"",
    ),
    row(
        "",
        "group file pids.max",
        |d| d.config.pointer("/linux/resources/pids/limit") == Some(&Value::from(0)),
        "`pids.limit` of 0",
        "config-linux.md, PIDs: \"limit specifies the maximum number of tasks in the cgroup\"; where it is absent there is none, so 0 is a number (1 is the least that a container can start with). runc 1.1.5 and crun 1.8.1 take it for absent",
    ),
    row(
        "runc",
        "group file devices.list",
        |d| has(d.config, "/linux/devices") && but_for(d, "; ", &["c 10:200 rwm", "c 5:1 rwm", "c 1:7 rwm"]),
        "A default device that is in `linux.devices` as well",
        "config-linux.md, Default Devices: always there; runc 1.1.5 forgets its rule",
    ),
    row(
        "crun",
        "group file",
        |d| d.key.contains("notify") || d.key.contains("clone_children"),
        "Files of the group that no configuration names",
        "the specification is silent",
    ),
    row("crun", "group file hugetlb", |d| d.theirs.is_empty(), "Limits of huge pages on v2", "as above"),
    row(
        "crun",
        "hook",
        |d| {
            d.theirs.is_empty() && d.ours != d.theirs && d.key.contains("poststop")
                || d.ours.strip_prefix(d.theirs).is_some_and(|more| more.trim_start().starts_with("poststop"))
        },
        "poststop after a hook that fails",
        "runtime-spec, Lifecycle, steps 3 to 5: \"continue the lifecycle at step 12\", and step 13: \"The poststop hooks MUST be invoked by the runtime\"; crun 1.8.1 does not",
    ),
    row(
        "",
        "list ",
        |d| has(d.config, "/hooks/poststart"),
        "What poststart hooks wrote, seen by the program",
        "runtime-spec, Lifecycle, steps 8 and 9: they run beside the program, now earlier, now later",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["mount /tmp/a/b"]),
        "A read-only path below one that was mounted over",
        "config.md, Mounts, `ro` of a mount that is there: runc 1.1.5 looks for it by its path again",
    ),
    row(
        "crun",
        "status.SigBlk",
        |d| d.ours == "0000000000000000",
        "Blocked signals",
        "signal(7): a mask outlives execve(2), so it is emptied; crun 1.8.1 leaves SIGCHLD blocked after hooks",
    ),
    row("crun", "timens_offsets", |_| true, "`timeOffsets`", "config-linux.md, Offset for Time Namespace (1.1): unknown to crun 1.8.1"),
    row(
        "",
        "hook poststop",
        |d| d.key.ends_with("state: pid"),
        "`pid` after the end",
        "runtime-spec, State: \"pid (int, REQUIRED when status is created or running on Linux, OPTIONAL on other platforms)\"",
    ),
    row(
        "",
        "verb start",
        |d| {
            d.ours.starts_with("refused")
                && d.messages.iter().any(|m| m.contains("error running startContainer") || m.contains("error running poststart"))
        },
        "A startContainer or poststart hook fails",
        "runtime-spec, Lifecycle, steps 7 and 9: \"the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12\"; runc 1.1.5 and crun 1.8.1 let `start` succeed",
    ),
    row("crun", "list /sys/fs/cgroup", |_| true, "Links of v1 controllers", "crun makes net_cls and net_prio whether they are there or not"),
    row(
        "",
        "list ",
        |d| d.ours.starts_with("- size") && d.theirs.starts_with("- size"),
        "Sizes of what the hooks wrote",
        "follow from the differences of hooks",
    ),
    row(
        "crun",
        "dev /dev/core",
        |d| d.ours.is_empty(),
        "`/dev/core`",
        "config-linux.md, Dev symbolic links, has four, and not this one (`/proc/kcore` is one of the paths that engines mask)",
    ),
    row(
        "crun",
        "list ",
        |d| d.key.ends_with("/core") || d.theirs.starts_with("d ") || d.ours.parse::<u32>().is_ok(),
        "What is in a directory that holds them",
        "the same",
    ),
    row("crun", "image /dev/core", |d| d.ours.is_empty(), "`/dev/core` in an image without a `/dev` of its own", "the same"),
    row(
        "",
        "dev /dev/",
        |d| has(d.config, USER),
        "Owners of device files in a user namespace",
        "config-linux.md, Devices: \"uid: id of device owner in the container namespace\": 0 by default. runc and crun bind the host's files, whose owner is nobody inside; this runtime makes them before it gives privilege up",
    ),
    row(
        "",
        "stat /",
        |d| has(d.config, USER) && d.ours.starts_with("c ") && d.theirs.starts_with("c "),
        "Owners of device files in a user namespace, where they are mounted",
        "the same",
    ),
    row("", "mount /dev", |d| has(d.config, USER), "Device files in a user namespace are no mounts", "the same"),
    row("", "image /dev/", |d| has(d.config, USER), "Places of device files in a user namespace", "the same"),
    row(
        "",
        "dev /dev/",
        |d| d.ours.ends_with(" 666 0:0") && has(d.config, "/process/user"),
        "Owner of `/dev/null`",
        "config-linux.md, Default Devices. runc 1.1.5 and crun 1.8.1 give the file behind an inherited stream to the container's user, though it be a device",
    ),
    row("", "stat /", |d| d.ours.starts_with("c 1:3 666 0:0"), "Owner of `/dev/null`, where it masks a file", "the same"),
    row("", "image /dev/", |d| d.ours.starts_with("20666 0:0"), "Owner of `/dev/null` in an image without a `/dev` of its own", "the same"),
    row(
        "",
        "image /",
        |d| (d.ours.starts_with("40755") && d.theirs.starts_with("41755")) || d.ours.starts_with("100644") && d.theirs.starts_with("1007"),
        "Modes of what is made in the image to mount upon",
        "the specification says that the destination is made, not how; crun 1.8.1 sets the sticky bit of directories, both make files executable",
    ),
    row(
        "",
        "keyring",
        |d| d.ours.ends_with(";3f030000;_ses of its own"),
        "Name, owner and rights of the session keyring",
        "keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: as the kernel makes one, for the container's root. runc lets everybody of the same uid search it, crun names it as the container",
    ),
    row(
        "",
        "mount ",
        |d| concerns(d, "/linux/maskedPaths"),
        "What masks a path",
        "config-linux.md, Masked Paths: \"will mask over the provided paths inside the container so that they cannot be read\". A directory gets a tmpfs of one inode, files a null device that is verified or the runtime's own, never one of the image (CVE-2025-31133)",
    ),
    row("", "stat /", |d| concerns(d, "/linux/maskedPaths"), "What masks a path, as stat(2) has it", "the same"),
    row(
        "",
        "mount ",
        |d| d.key.ends_with("file system") && but_for(d, ",", &["ro", "rw"]),
        "`ro` of a new file system is the mount's",
        "mount_setattr(2): MOUNT_ATTR_RDONLY of the mount; runc and crun set the file system's as well. Nobody but the container has the file system",
    ),
    row(
        "",
        "mount ",
        |d| d.key.ends_with(": options") && but_for(d, ",", ATIME) && option(d, &["strictatime", "relatime", "noatime"]),
        "Contradicting options about access times",
        "mount(8): of options that exclude each other the last counts; as flags of mount(2), MS_STRICTATIME wins wherever it stands",
    ),
    row(
        "",
        "mount ",
        |d| d.key.ends_with("file system") && but_for(d, ",", &["mode=755", "ro", "rw"]),
        "Mode of a tmpfs without one",
        "runc takes over the destination's where there is one, this runtime does so everywhere",
    ),
    row(
        "",
        "mount /sys/fs/cgroup",
        |_| true,
        "`/sys/fs/cgroup` on v1",
        "config.md, Mounts: options are the mount's: `ro` holds for the tmpfs too, and the flags of each hierarchy are `nosuid,nodev,noexec` as the host has them",
    ),
    row("", "mount ", |d| d.key.ends_with(": source") && d.key.contains("systemd"), "Name of the source of a cgroup mount", "the kernel ignores it"),
    row(
        "",
        "dev /dev/mqueue",
        |d| has(d.config, USER),
        "Owner of `/dev/mqueue` in a user namespace",
        "clone(2) with CLONE_NEWUSER and CLONE_NEWIPC makes the queues' file system before ids are mapped; its mode is 1777",
    ),
    row(
        "",
        "domainname",
        |d| has(d.config, "/domainname"),
        "`domainname`",
        "config.md, Domainname (1.1): neither runc 1.1.5 nor crun 1.8.1 knows it",
    ),
    row("", "ioprio", |d| has(d.config, "/process/ioPriority"), "`process.ioPriority`", "config.md, Linux Process (1.1): unknown to both"),
    row(
        "",
        "verb create",
        |d| d.theirs == "done" && d.messages.iter().any(|m| m.contains("ioprio_set")),
        "`process.ioPriority` that may not be had",
        "ioprio_set(2): IOPRIO_CLASS_RT takes CAP_SYS_ADMIN or CAP_SYS_NICE over the host",
    ),
    row(
        "",
        "verb create",
        |d| d.theirs == "done" && d.messages.iter().any(|m| m.contains("because it is inside /proc")),
        "Mounts upon a second procfs, at another place",
        "nothing is mounted upon procfs, wherever that is (CVE-2019-16884, CVE-2025-52881): by what the place is and not by its path",
    ),
    row("", "sched", |d| has(d.config, "/process/scheduler"), "`process.scheduler`", "config.md, Linux Process (1.1): unknown to both"),
    row("runc", "personality", |d| has(d.config, "/linux/personality"), "`linux.personality`", "config-linux.md, Personality: unknown to runc 1.1.5"),
    row(
        "",
        "verb create",
        |d| said(d, &["apply caps: operation not permitted", "capset: Operation not permitted"]),
        "Capabilities that cannot be granted",
        "config.md, Linux Process: \"Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted\"; they are warned of",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["\"time"]) || said(d, &["time"]) && has(d.config, "/linux/timeOffsets"),
        "Time namespaces",
        "config-linux.md, Namespaces (1.1): unknown to runc 1.1.5",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["seccomp flags are not yet supported"]),
        "`seccomp.flags`",
        "config-linux.md, Seccomp: unknown to runc 1.1.5",
    ),
    row(
        "",
        "verb create",
        |d| said(d, &["hugetlb"]),
        "`hugepageLimits` where that controller is on v2 and others on v1",
        "the kernel has each controller on one tree; runc and crun look for it on v1 only",
    ),
    row(
        "",
        "verb create",
        |d| said(d, &["error creating device nodes", "/dev/dir/deep", "/dev/loopx", "/nul", "/dev/pipe"]),
        "Device files in a user namespace that the host has not",
        "config-linux.md, Devices: \"The runtime MAY supply them however it likes (with mknod, by bind mounting from the runtime mount namespace, ...)\"",
    ),
    row(
        "crun",
        "verb create",
        |d| said(d, &["cfs_quota_us", "pids.max", "devices.allow"]),
        "Order and form of what is written to v1 files",
        "cpu.cfs_quota_us takes no quota that does not fit the period of before: the period goes first; `max` is how v1 spells no limit of processes",
    ),
    row(
        "crun",
        "verb create",
        |d| said(d, &["it must be mounted at the root"]),
        "Destinations below symbolic links",
        "config.md, Mounts: \"destination: path inside container\": symbolic links are the image's, resolved inside it",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["error preparing rootfs"]),
        "`rootfsPropagation` of `unbindable`",
        "config-linux.md, Rootfs Mount Propagation: it is set when the mounts are made; runc 1.1.5 sets it first and then cannot bind its root",
    ),
    row(
        "",
        "verb create",
        |d| d.third == Some(d.ours) && d.ours != "done",
        "Refused by this runtime and by one of the others",
        "each with the kernel's error",
    ),
    row(
        "crun",
        "verb create",
        |d| said(d, &["sync socket", "mount_setattr"]),
        "Recursive flags and clones of read-only trees",
        "config.md, Linux Mount Options, has them; crun 1.8.1 fails with EINVAL or without a word",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["resource temporarily unavailable", "pthread_create failed"]),
        "RLIMIT_NPROC below the runtime's own threads",
        "setrlimit(2): it counts the threads of the user; a program in Go has several",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["create failed: error running hook"]),
        "poststart hooks in `create`",
        "runtime-spec, Lifecycle, step 9: after the program began; runc 1.1.5 runs them when the container was not started yet",
    ),
    row(
        "",
        "verb create",
        |d| d.ours == "done" && d.theirs == "refused with 255",
        "crun ends without a word",
        "nothing to decide: the others run it",
    ),
    row(
        "crun",
        "verb create",
        |d| said(d, &["timeout expired for `"]) && d.ours == "done",
        "A hook that has ended, and is waited for",
        "config.md, POSIX-platform Hooks: `timeout` is the hook's; crun 1.8.1 now and then misses the end of one and waits until its time is over",
    ),
    row(
        "crun",
        "verb create",
        |d| said(d, &["mount `"]) && said(d, &["Invalid argument"]),
        "Options beyond the specification's table",
        "as with runc above",
    ),
    row(
        "",
        "hostname",
        |d| d.config.get("hostname").is_none() && super::draw::namespace(d.config, "uts").is_some_and(|n| n.get("path").is_some()),
        "Host name of a UTS namespace that is joined",
        "the namespace is the tests' own, and their other worker names it at the same time",
    ),
    row(
        "",
        "prctl.dumpable",
        |d| (d.ours, d.theirs) == ("1", "0"),
        "PR_GET_DUMPABLE of a program with capabilities",
        "execve(2) clears it for a program that gains some by being executed: the first process waits in a launcher, which has gained them already",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["panic: runtime error"]) || d.ours == "done" && d.theirs.starts_with("broken"),
        "runc 1.1.5 crashes or is killed in its first process",
        "nothing to decide: the others run it",
    ),
    row(
        "runc",
        "verb create",
        |d| said(d, &["invalid argument"]) && option(d, &["defaults", "nosymfollow", "lazytime", "noiversion"]),
        "Options beyond the specification's table",
        "mount(8): `defaults`, `lazytime` and others are flags or nothing; runc 1.1.5 gives them to the file system",
    ),
    row(
        "crun",
        "",
        |d| alone(d) && ["mount ", "stat /dev", "state ", "read ", "write ", "list "].iter().any(|k| d.key.starts_with(k)),
        "As in the three rows below, where runc refused",
        "the same",
    ),
    row(
        "crun",
        "mount ",
        |d| d.third == Some(d.ours),
        "Flags and propagation of mounts, where runc agrees",
        "config.md, Mounts: \"options: mount options of the filesystem to be used\": crun 1.8.1 leaves flags of bind mounts of files, propagation of clones and superfluous flags as they happen to be",
    ),
    row(
        "runc",
        "mount ",
        |d| d.third == Some(d.ours),
        "Order of mounts, where crun agrees",
        "config.md, Mounts: \"The runtime MUST mount entries in the listed order\"",
    ),
    row(
        "",
        "",
        |d| {
            d.third == Some(d.ours)
                && ["stat ", "list ", "write ", "read ", "image ", "state ", "group file", "dev "].iter().any(|k| d.key.starts_with(k))
        },
        "What follows from mounts and default modes, where one of the others agrees",
        "the same, and config-linux.md, Devices: fileMode is 0666 if it is absent, as runc has it",
    ),
    row(
        "",
        "verb create",
        |d| said(d, &["operation not permitted"]) && has(d.config, USER),
        "Bind mounts with fewer flags than the host's in a user namespace",
        "mount_setattr(2) before the user namespace owns the clone: no flag is locked yet",
    ),
];
