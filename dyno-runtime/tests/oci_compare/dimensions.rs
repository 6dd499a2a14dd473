//! The dimensions of a configuration but for its mounts: each adds to a draft on its own.

use serde_json::json;

use super::draw::{Draft, Draw, Host};

/// How often it is drawn, in percent, and what it adds.
pub type Dimension = (usize, fn(&mut Draw, &mut Draft, &Host));

/// In this order: what comes later looks at what is there.
pub const ALL: &[Dimension] = &[
    (100, namespaces),
    (20, user_namespace),
    (100, super::mounts::add),
    (40, protected_paths),
    (35, devices),
    (40, rlimits),
    (60, capabilities),
    (40, no_new_privileges),
    (30, oom_score),
    (40, identity),
    (40, surroundings),
    (40, names),
    (30, sysctls),
    (35, seccomp),
    (60, resources),
    (25, annotations),
    (30, hooks),
    (40, root),
    (10, scheduling),
    (18, endings),
];

pub const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn namespaces(draw: &mut Draw, draft: &mut Draft, host: &Host) {
    let mut kinds = vec![json!({ "type": "mount" })];
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")] {
        match draw.below(10) {
            0..6 => kinds.push(json!({ "type": kind })),
            6 | 7 => kinds.push(json!({ "type": kind, "path": format!("{}/{file}", host.namespaces) })),
            _ => {}
        }
    }
    if draw.percent(4) {
        kinds.push(json!({ "type": "time" }));
        draft.at("/linux/timeOffsets", json!({ "boottime": { "secs": draw.below(1000), "nanosecs": draw.below(1000) }, "monotonic": { "secs": 7 } }));
    }
    let order = draw.shuffled((0..kinds.len()).collect());
    draft.at("/linux/namespaces", order.into_iter().map(|n| kinds[n].clone()).collect());
}

/// A user namespace owns the namespaces that are made with it; with the host's or a joined one the kernel refuses most mounts.
fn user_namespace(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    let kinds: Vec<_> = ["mount", "pid", "network", "ipc", "uts", "cgroup", "user"].map(|kind| json!({ "type": kind })).into();
    draft.at("/linux/namespaces", json!(kinds));
    if let Some(linux) = draft.config["linux"].as_object_mut() {
        linux.remove("timeOffsets");
    }
    let base = 100_000 + 65536 * draw.below(4);
    let size = draw.one(&[65536, 1000]);
    let map = match draw.below(3) {
        0 => json!([{ "containerID": 0, "hostID": base, "size": 10 }, { "containerID": 10, "hostID": base + 70000, "size": size }]),
        _ => json!([{ "containerID": 0, "hostID": base, "size": size }]),
    };
    draft.at("/linux/uidMappings", map.clone());
    draft.at("/linux/gidMappings", map);
    draft.owner = base as u32;
}

fn protected_paths(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    const PATHS: &[&str] = &[
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/acpi",
        "/proc/bus",
        "/proc/sys",
        "/data",
        "/data/one",
        "/etc/file",
        "/missing",
        "/missing/deeper",
        "/link",
        "/tmp",
        "/proc/irq",
    ];
    for list in ["maskedPaths", "readonlyPaths"] {
        let paths = draw.some(PATHS, 5);
        for path in &paths {
            for what in ["stat", "read", "write"] {
                draft.look(what, path);
            }
        }
        draft.at(&format!("/linux/{list}"), json!(draw.shuffled(paths)));
    }
}

fn devices(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    const DEVICES: &[(&str, &str, u32, u32)] = &[
        ("/dev/fuse", "c", 10, 229),
        ("/dev/loopx", "b", 7, 3),
        ("/dev/dir/deep", "c", 1, 8),
        ("/dev/pipe", "p", 0, 0),
        ("/nul", "c", 1, 3),
        ("/dev/full", "c", 1, 7),
        ("/dev/u", "u", 1, 9),
    ];
    for (path, kind, major, minor) in draw.some(DEVICES, 3) {
        let mut device = json!({ "path": path, "type": kind });
        if kind != "p" {
            (device["major"], device["minor"]) = (json!(major), json!(minor));
        }
        if draw.percent(70) {
            device["fileMode"] = json!(draw.one(&[0o600, 0o666, 0o644, 0o640]));
        }
        if draw.percent(50) {
            (device["uid"], device["gid"]) = (json!(draw.below(5)), json!(draw.below(5)));
        }
        draft.push("/linux/devices", device);
        draft.look("stat", path);
    }
}

fn rlimits(draw: &mut Draw, draft: &mut Draft, host: &Host) {
    let picked = draw.some(&(0..host.limits.len()).collect::<Vec<_>>(), 4);
    for (name, most) in draw.shuffled(picked).into_iter().map(|n| host.limits[n]) {
        // The program is to start at all.
        let least = match name {
            "RLIMIT_CPU" => 100,
            "RLIMIT_NOFILE" => 64,
            "RLIMIT_NPROC" => 400,
            "RLIMIT_AS" | "RLIMIT_DATA" => 1 << 36, // as runc's own, being written in Go
            "RLIMIT_STACK" | "RLIMIT_FSIZE" => 1 << 22,
            _ => 0,
        };
        let hard = if draw.percent(30) { most } else { most.min(least + draw.below(100_000) as u64) };
        let soft = hard.min(least + draw.below(1000) as u64);
        draft.push("/process/rlimits", json!({ "type": name, "hard": hard, "soft": soft }));
    }
}

fn capabilities(draw: &mut Draw, draft: &mut Draft, host: &Host) {
    let most = draw.one(&[2, 8, 41]);
    let bounding = draw.some(&host.capabilities, most);
    let permitted = draw.some(&bounding, bounding.len());
    let effective = draw.some(&permitted, permitted.len());
    let inheritable = draw.some(&permitted, permitted.len());
    let ambient = draw.some(&inheritable, inheritable.len());
    let mut sets =
        vec![("bounding", bounding), ("permitted", permitted), ("effective", effective), ("inheritable", inheritable), ("ambient", ambient)];
    if draw.percent(15) {
        sets.remove(draw.below(5)); // sets that do not fit each other are the kernel's to judge
    }
    for (set, numbers) in sets {
        let names: Vec<String> = numbers.iter().filter_map(|n| Some(format!("CAP_{}", CAPABILITIES.get(*n)?))).collect();
        draft.at(&format!("/process/capabilities/{set}"), json!(names));
    }
}

fn no_new_privileges(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    draft.at("/process/noNewPrivileges", json!(draw.percent(70)));
}

fn oom_score(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    let score = draw.one(&[0, 1, 500, 999, 1000]);
    draft.at("/process/oomScoreAdj", json!(score));
}

fn identity(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    let user = json!({ "uid": draw.one(&[0, 1, 999]), "gid": draw.one(&[0, 5, 999]) });
    draft.at("/process/user", user);
    if draw.percent(50) {
        let umask = draw.one(&[0, 0o22, 0o77, 0o27, 0o777]);
        draft.at("/process/user/umask", json!(umask));
    }
    if draw.percent(50) {
        let groups = draw.some(&[1, 5, 10, 44, 100, 998], 5);
        draft.at("/process/user/additionalGids", json!(groups));
    }
}

fn surroundings(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    let cwd = draw.one(&["/", "/tmp", "/data/sub", "/not/there/yet", "/link/sub", "/proc", "/etc/../data", "/dev"]);
    draft.at("/process/cwd", json!(cwd));
    if cwd == "/not/there/yet" {
        draft.look("stat", "/not");
        draft.look("stat", "/not/there/yet");
    }
    const VARIABLES: &[&str] = &[
        "HOME=/elsewhere",
        "A=1",
        "A=2",
        "EMPTY=",
        "SPACE= a b ",
        "NEWLINE=x\ny",
        "UNICODE=hëllo",
        "EQUALS=a=b=c",
        "TERM=dumb",
        "LD_PRELOAD=/none.so",
        "LISTEN_PID=5",
        "NOTIFY_SOCKET=/x",
        "_LIBCONTAINER_X=1",
    ];
    for variable in draw.some(VARIABLES, 6) {
        draft.push("/process/env", json!(variable));
    }
}

fn names(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    if draft.has_new("uts") || draw.percent(5) {
        let host = draw.one(&["box", "a.b.c", "x234567890123456789012345678901234567890123456789012345678901234"]);
        draft.at("/hostname", json!(host));
        if draw.percent(15) {
            draft.at("/domainname", json!("nis.example"));
        }
    }
}

fn sysctls(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    const NETWORK: &[(&str, &str)] = &[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("net.ipv4.conf.all.rp_filter", "2"),
        ("net/ipv4/conf/lo/forwarding", "0"),
        ("net.core.somaxconn", "77"),
    ];
    const IPC: &[(&str, &str)] =
        &[("kernel.shmmax", "123456"), ("kernel.msgmnb", "20000"), ("fs.mqueue.msg_max", "20"), ("kernel.sem", "32001 1024000001 501 32001")];
    const UTS: &[(&str, &str)] = &[("kernel.domainname", "of.sysctl")];
    for (kind, list) in [("network", NETWORK), ("ipc", IPC), ("uts", UTS)] {
        // Without a namespace of its own they would be the host's: those are for the tests of bad input.
        if draft.has_new(kind) && !(kind == "uts" && draft.has("user")) && !(kind == "uts" && draft.config.get("domainname").is_some()) {
            for (name, value) in draw.some(list, 2) {
                let mut sysctl = draft.config.pointer("/linux/sysctl").cloned().unwrap_or(json!({}));
                sysctl[name] = json!(value);
                draft.at("/linux/sysctl", sysctl);
                let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
                draft.look("file", &format!("/proc/sys/{path}"));
            }
        }
    }
}

/// Calls that nothing needs on the way to the probe and inside it, by number: see the probe's `call`.
const CALLS: &[(&str, u32)] = &[
    ("getppid", 110),
    ("getpgrp", 111),
    ("sched_yield", 24),
    ("sync", 162),
    ("getuid", 102),
    ("times", 100),
    ("vhangup", 153),
    ("acct", 163),
    ("personality", 135),
];

fn seccomp(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    let mut entries = Vec::new();
    for (name, number) in draw.some(CALLS, 4) {
        let mut entry = json!({ "names": [name, "no_such_call"], "action": draw.one(&["SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"]) });
        if draw.percent(50) && entry["action"] == "SCMP_ACT_ERRNO" {
            entry["errnoRet"] = json!(draw.one(&[2, 38, 99, 0]));
        }
        entries.push(entry);
        draft.looks.push(format!("call:{number},4294967295")); // personality(2): only a question; the others take none or fail
    }
    let conditions: &[(&str, u64, u64)] = &[
        ("SCMP_CMP_EQ", 16, 0),
        ("SCMP_CMP_NE", 16, 0),
        ("SCMP_CMP_LT", 17, 0),
        ("SCMP_CMP_LE", 16, 0),
        ("SCMP_CMP_GE", 16, 0),
        ("SCMP_CMP_GT", 16, 0),
        ("SCMP_CMP_MASKED_EQ", 0xf0, 0x10),
    ];
    let (op, value, two) = draw.one(conditions);
    let mut args = vec![json!({ "index": 0, "value": value, "valueTwo": two, "op": op })];
    if draw.percent(40) {
        args.push(json!({ "index": 1, "value": 3, "op": "SCMP_CMP_EQ" }));
    }
    if draw.percent(20) {
        args.push(json!({ "index": 0, "value": 40, "op": "SCMP_CMP_EQ" }));
    }
    // setns(2), by this number of arguments: closed descriptors and wrong kinds are answered by the kernel itself.
    entries.push(json!({ "names": ["setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88, "args": args }));
    for (fd, kind) in [(15u64, 3), (16, 3), (17, 3), (16, 4), (40, 3), (0x1_0000_0010, 3)] {
        draft.looks.push(format!("call:308,{fd},{kind}"));
    }
    let mut profile = json!({ "defaultAction": draw.one(&["SCMP_ACT_ALLOW", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"]), "syscalls": entries });
    if draw.percent(70) {
        profile["architectures"] = json!(draw.one(&[&["SCMP_ARCH_X86_64"][..], &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"][..]]));
    }
    if draw.percent(8) {
        profile["flags"] = json!(draw.some(&["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"], 2));
    }
    draft.at("/linux/seccomp", profile);
}

fn resources(draw: &mut Draw, draft: &mut Draft, host: &Host) {
    for (_, part) in super::limits::PARTS.iter().filter(|_| true) {
        part(draw, draft, host);
    }
}

fn annotations(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    for (name, value) in
        draw.some(&[("com.example.a", "1"), ("empty", ""), ("ünïcode", "line\nbreak"), ("org.opencontainers.image.stopSignal", "15")], 4)
    {
        let mut all = draft.config.get("annotations").cloned().unwrap_or(json!({}));
        all[name] = json!(value);
        draft.at("/annotations", all);
    }
}

fn hooks(draw: &mut Draw, draft: &mut Draft, host: &Host) {
    draft.push("/mounts", json!({ "destination": "/marks", "type": "bind", "source": format!("{}/marks", host.bundle), "options": ["bind", "rw"] }));
    for kind in draw.some(&["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"], 6) {
        for turn in 0..draw.one(&[1, 1, 2]) {
            let inside = kind == "startContainer";
            let fails = if draw.percent(4) { "3" } else { "0" };
            let dir = if inside { "/marks".to_owned() } else { format!("{}/marks", host.bundle) };
            let mut hook =
                json!({ "path": if inside { "/bin/probe" } else { &host.probe }, "args": ["probe", "hook", format!("{kind}{turn}"), dir, fails] });
            if draw.percent(50) {
                hook["env"] = json!(["OF=the hook", "PATH=/hook"]);
            }
            if draw.percent(30) {
                hook["timeout"] = json!(20);
            }
            draft.push(&format!("/hooks/{kind}"), hook);
        }
    }
}

fn root(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    draft.at("/root/readonly", json!(draw.percent(60)));
    if draw.percent(50) {
        let odd = draw.one(&["shared", "rshared", "unbindable", "runbindable"]);
        let kind = draw.one(&["private", "rprivate", "slave", "rslave", "rslave", "rprivate", odd]);
        draft.at("/linux/rootfsPropagation", json!(kind));
    }
}

/// What neither oracle knows: only the specification's model speaks of it.
fn scheduling(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    match draw.below(4) {
        0 => draft.at("/process/scheduler", json!({ "policy": draw.one(&["SCHED_OTHER", "SCHED_BATCH"]), "nice": draw.below(15) })),
        1 => draft.at("/process/scheduler", json!({ "policy": "SCHED_IDLE" })),
        2 => draft.at("/process/ioPriority", json!({ "class": draw.one(&["IOPRIO_CLASS_BE", "IOPRIO_CLASS_RT"]), "priority": draw.below(8) })),
        _ => draft.at("/linux/personality", json!({ "domain": draw.one(&["LINUX", "LINUX32"]) })),
    }
}

/// Programs that fail, end otherwise, or are not there.
fn endings(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    let words = |text: &str| Some(text.split(' ').map(str::to_owned).collect());
    draft.instead = match draw.below(9) {
        0 => words("/bin/probe signal 9"),
        1 => words("/bin/probe signal 15"),
        2 => words("/bin/nothing"),
        3 => words("nothing-in-path"),
        4 => words("/etc/file"),
        5 => words("/data"),
        6 => words("probe say found in path"),
        _ => {
            draft.status = draw.below(256) as u8;
            None
        }
    };
}
