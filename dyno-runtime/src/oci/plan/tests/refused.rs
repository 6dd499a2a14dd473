//! What is refused: one member of the example replaced at a time.

use super::*;

/// The example with one member replaced: the error must begin with the member's name, and be one line.
fn refused(pointer: &str, value: Value, member: &str) {
    let mut config = serde_json::to_value(example(None).unwrap()).unwrap();
    set(&mut config, pointer, value);
    let text = config.to_string();
    let error = match parse::<Spec>(text.as_bytes()).and_then(|spec| lower(&spec)) {
        Err(error) => error,
        Ok(_) => panic!("{pointer}: {} was taken", &text[..text.len().min(2000)]),
    };
    let said = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{said}");
    assert!(said.starts_with(&format!("{member}: ")), "{pointer}: {said}");
    assert!(said.len() < 1000 && !said.contains(char::is_control), "{pointer}: {said}");
}

/// Sets what is at a JSON pointer, making objects on the way; `-` is past the end of an array.
fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for key in pointer.split('/').skip(1) {
        at = match at {
            Value::Array(all) => {
                let i = key.parse().unwrap_or(all.len());
                all.resize(all.len().max(i + 1), Value::Null);
                &mut all[i]
            }
            Value::Object(_) | Value::Null => at.as_object_mut().map_or_else(|| unreachable!(), |o| o.entry(key).or_insert_with(|| json!({}))),
            other => panic!("{pointer}: {other}"),
        };
    }
    *at = value;
}

#[test]
fn bad_roots_and_names() {
    for version in ["", "9.9.9", "1.0", "1.2.0\n", "invalid"] {
        refused("/ociVersion", json!(version), "ociVersion");
    }
    refused("/ociVersion", Value::Null, "ociVersion");
    refused("/root", Value::Null, "root");
    refused("/root/path", json!(""), "root.path");
    refused("/root/path", json!("a\0b"), "root.path");
    refused("/root/path", json!("x".repeat(5000)), "root.path");
    refused("/hostname", json!("h".repeat(65)), "hostname");
    refused("/hostname", json!("a\0b"), "hostname");
    refused("/domainname", json!("d".repeat(65)), "domainname");
    refused("/linux/namespaces", json!([]), "hostname");
    refused("/linux/rootfsPropagation", json!("everywhere"), "linux.rootfsPropagation");
    refused("/linux/mountLabel", json!("a\0"), "linux.mountLabel");
    refused("/linux/cgroupsPath", json!("a\0"), "linux.cgroupsPath");
    refused("/linux/cgroupsPath", json!("a\nb"), "linux.cgroupsPath");
    refused("/linux/cgroupsPath", json!("a".repeat(4096)), "linux.cgroupsPath");
}

#[test]
fn bad_processes() {
    refused("/process/args", json!([]), "process.args");
    refused("/process/args", Value::Null, "process.args");
    refused("/process/args", json!([""]), "process.args[0]");
    refused("/process/args", json!(["a", "\0"]), "process.args[1]");
    for env in ["no equals sign", "=x", "", "A\0=B"] {
        refused("/process/env", json!(["A=b", env]), "process.env[1]");
    }
    for cwd in ["", "relative", "..", "/a\0"] {
        refused("/process/cwd", json!(cwd), "process.cwd");
    }
    for uid in [json!(-1), json!(u32::MAX), json!(1_u64 << 32), json!(1.5), json!("0"), json!([])] {
        refused("/process/user/uid", uid, "process.user.uid");
    }
    refused("/process/user", json!([]), "process.user");
    refused("/process/user/additionalGids", json!([1, u32::MAX]), "process.user.additionalGids[1]");
    refused("/process/user/additionalGids", json!(vec![7; 65537]), "process.user.additionalGids");
    refused("/process/user/umask", json!(0o1000), "process.user.umask");
    refused(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}, {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]),
        "process.rlimits[1].type",
    );
    refused("/process/rlimits/0/type", json!("RLIMIT_FUN"), "process.rlimits[0].type");
    refused("/process/rlimits/0/soft", json!(1025), "process.rlimits[0].soft");
    refused("/process/rlimits/0/soft", json!(-1), "process.rlimits[0].soft");
    refused("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj");
    refused("/process/scheduler", json!({"policy": ""}), "process.scheduler.policy");
    refused("/process/scheduler", json!({"policy": "SCHED_ISO"}), "process.scheduler.policy");
    refused("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice");
    refused("/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 1}), "process.scheduler.priority");
    refused("/process/scheduler", json!({"policy": "SCHED_FIFO"}), "process.scheduler.priority");
    refused("/process/scheduler", json!({"policy": "SCHED_RR", "priority": 1, "runtime": 1}), "process.scheduler");
    refused("/process/scheduler", json!({"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 4000}), "process.scheduler");
    refused("/process/scheduler", json!({"policy": "SCHED_OTHER", "flags": ["X"]}), "process.scheduler.flags[0]");
    refused("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "process.ioPriority.priority");
    refused("/process/ioPriority", json!({"class": "x"}), "process.ioPriority.class");
    refused("/process/execCPUAffinity", json!({"initial": "0-99999999"}), "process.execCPUAffinity.initial");
    refused("/process/execCPUAffinity", json!({"final": ","}), "process.execCPUAffinity.final");
}

#[test]
fn bad_mounts() {
    let mount = |member: &str, value: Value| refused("/mounts/-", value, &format!("mounts[7]{member}"));
    for destination in ["", "/", "/..", "/a\0", "//", "/proc/self", "/proc/sys/kernel", &"/x".repeat(2500)] {
        mount(".destination", json!({"destination": destination, "type": "tmpfs"}));
    }
    mount(".destination", json!({"destination": "/proc", "type": "tmpfs"}));
    mount("", json!({}));
    mount(".type", json!({"destination": "/a"}));
    mount(".type", json!({"destination": "/a", "type": "none"}));
    mount(".type", json!({"destination": "/a", "type": "a\0"}));
    mount(".source", json!({"destination": "/a", "type": "bind"}));
    mount(".source", json!({"destination": "/a", "options": ["rbind"], "source": ""}));
    mount(".source", json!({"destination": "/a", "options": ["bind"], "source": "/a\0"}));
    mount(".source", json!({"destination": "/a", "type": "tmpfs", "source": "a\0"}));
    mount(".options[1]", json!({"destination": "/a", "type": "tmpfs", "options": ["ro", "size=\0"]}));
    mount(".options", json!({"destination": "/a", "type": "bind", "source": "/a", "options": ["idmap"]}));
    let map = |size: u32| json!([{"containerID": 0, "hostID": 1, "size": size}]);
    mount("", json!({"destination": "/a", "type": "bind", "source": "/a", "uidMappings": map(1)}));
    mount(".uidMappings[0].size", json!({"destination": "/a", "type": "bind", "source": "/a", "uidMappings": map(0), "gidMappings": map(1)}));
    for paths in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
        let member = format!("{}[0]", paths[1..].replace('/', "."));
        for path in ["/", "relative", "..", "", "/a/..", "/a\0"] {
            refused(paths, json!([path]), &member);
        }
    }
}

#[test]
fn bad_namespaces() {
    refused("/linux/namespaces/-", json!({"type": "pid"}), "linux.namespaces[6].type");
    refused("/linux/namespaces/-", json!({"type": "net"}), "linux.namespaces[6].type");
    refused("/linux/namespaces/-", json!({}), "linux.namespaces[6]");
    refused("/linux/namespaces/0/path", json!("relative"), "linux.namespaces[0].path");
    refused("/linux/namespaces/0/path", json!("/a\0"), "linux.namespaces[0].path");
    refused("/linux/namespaces/-", json!({"type": "user"}), "linux.uidMappings");
    refused("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "linux.uidMappings");
    refused("/linux/gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "linux.gidMappings");
    refused("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "linux.timeOffsets");
    let mut with_users = example(Some((1000, 1000))).unwrap();
    with_users.process.as_mut().unwrap().user.uid = 1;
    assert!(lower(&with_users).unwrap_err().to_string().starts_with("process.user.uid: 1 is not mapped"));
    with_users.process.as_mut().unwrap().user = crate::oci::spec::User { additional_gids: vec![0, 9], ..Default::default() };
    assert!(lower(&with_users).unwrap_err().to_string().starts_with("process.user.additionalGids[1]: 9 is not mapped"));
}

#[test]
fn bad_sysctls() {
    let sysctl = |key: &str, value: &str| refused("/linux/sysctl", json!({key: value}), &format!("linux.sysctl[{key:?}]"));
    for key in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net.ipv4../../kernel",
        "net/../kernel/core_pattern",
        "net/",
        "",
        "net//ipv4/ip_forward",
        "/net/ipv4/ip_forward",
        "kernel.hostname",
        "vm.swappiness",
        "fs.file-max",
        "netx.a",
        "net.ipv4.ip_forward\0",
    ] {
        sysctl(key, "1");
    }
    sysctl("net.ipv4.ip_forward", "1\0");
    // The name is looked at, the value is only written to the file of that name: CVE-2022-0811 was a caller that split it.
    let mut spec = example(None).unwrap();
    let set = |spec: &mut Spec, key: &str| spec.linux.as_mut().unwrap().sysctl = [(key.to_owned(), "1+kernel.core_pattern=|x".to_owned())].into();
    set(&mut spec, "net.ipv4.ip_forward");
    assert_eq!(lower(&spec).unwrap().sysctls, [("net/ipv4/ip_forward".to_owned(), "1+kernel.core_pattern=|x".to_owned())]);
    for (key, kind) in [("net.ipv4.ip_forward", "network"), ("kernel.sem", "ipc"), ("fs.mqueue.msg_max", "ipc"), ("kernel.domainname", "uts")] {
        let mut spec = Spec { hostname: None, ..example(None).unwrap() };
        set(&mut spec, key);
        lower(&spec).unwrap();
        spec.linux.as_mut().unwrap().namespaces.retain(|n| n.kind != kind);
        assert!(lower(&spec).unwrap_err().to_string().starts_with(&format!("linux.sysctl[{key:?}]: needs a")), "{key}");
    }
    set(&mut spec, "kernel.domainname");
    spec.domainname = Some("d".to_owned());
    assert!(lower(&spec).unwrap_err().to_string().contains("conflicts with the member domainname"));
}

#[test]
fn bad_devices_and_hooks() {
    let device = |member: &str, key: &str, value: Value| {
        let mut device = json!({"type": "c", "path": "/dev/x", "major": 1, "minor": 3});
        device[key] = value;
        refused("/linux/devices", json!([device]), &format!("linux.devices[0].{member}"));
    };
    device("type", "type", json!("x"));
    device("type", "type", json!("a"));
    device("major", "major", json!(-1));
    device("major", "major", json!(4096));
    device("minor", "minor", json!(1 << 20));
    device("minor", "minor", json!(i64::MIN));
    device("path", "path", json!("dev/x"));
    device("path", "path", json!("/"));
    device("path", "path", json!("/dev/.."));
    device("fileMode", "fileMode", json!(1 << 16));
    device("uid", "uid", json!(u32::MAX));
    let two =
        |minor: u32| json!([{"type": "c", "path": "/dev/x", "major": 1, "minor": 3}, {"type": "c", "path": "/dev/./x", "major": 1, "minor": minor}]);
    refused("/linux/devices", two(4), "linux.devices[1].path");
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let hook = |value: Value, member: &str| refused(&format!("/hooks/{kind}"), json!([value]), &format!("hooks.{kind}[0]{member}"));
        hook(json!({"path": "relative"}), ".path");
        hook(json!({"path": ""}), ".path");
        hook(json!({"path": "/a\0"}), ".path");
        hook(json!({}), "");
        hook(json!({"path": "/a", "timeout": 0}), ".timeout");
        hook(json!({"path": "/a", "timeout": -1}), ".timeout");
        hook(json!({"path": "/a", "args": ["\0"]}), ".args[0]");
        hook(json!({"path": "/a", "env": ["A=b", "\0"]}), ".env[1]");
    }
}

#[test]
fn bad_resources() {
    let refused_at =
        |pointer: &str, value: Value, member: &str| refused(&format!("/linux/resources{pointer}"), value, &format!("linux.resources{member}"));
    let rule = |value: Value, member: &str| refused_at("/devices", json!([value]), &format!(".devices[0].{member}"));
    rule(json!({"allow": true, "access": "rwz"}), "access");
    rule(json!({"allow": true, "access": "rrrr"}), "access");
    rule(json!({"allow": true, "type": "p"}), "type");
    rule(json!({"allow": true, "major": -2}), "major");
    rule(json!({"allow": true, "minor": 1 << 20}), "minor");
    for name in ["limit", "reservation", "swap"] {
        refused_at("/memory", json!({name: -2}), &format!(".memory.{name}"));
        refused_at("/memory", json!({name: 1_u64 << 63}), &format!(".memory.{name}"));
        refused_at("/memory", json!({name: 1e30}), &format!(".memory.{name}"));
    }
    refused_at("/memory", json!({"limit": 10, "swap": 5}), ".memory.swap");
    refused_at("/memory", json!({"swappiness": 101}), ".memory.swappiness");
    refused_at("/cpu", json!({"quota": -2}), ".cpu.quota");
    refused_at("/cpu", json!({"period": -1}), ".cpu.period");
    refused_at("/cpu", json!({"idle": 2}), ".cpu.idle");
    refused_at("/cpu", json!({"cpus": "0-"}), ".cpu.cpus");
    refused_at("/cpu", json!({"mems": "x"}), ".cpu.mems");
    refused_at("/pids", json!({"limit": -2}), ".pids.limit");
    refused_at("/blockIO", json!({"weight": 9}), ".blockIO.weight");
    refused_at("/blockIO", json!({"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 1001}]}), ".blockIO.weightDevice[0].leafWeight");
    refused_at("/blockIO", json!({"throttleReadIOPSDevice": [{"major": -1, "minor": 0, "rate": 1}]}), ".blockIO.throttleReadIOPSDevice[0]");
    for size in ["", "2", "B", "MB", "2PB", "../2MB", "2MBB", "2M", "22B"] {
        refused_at("/hugepageLimits", json!([{"pageSize": size, "limit": 1}]), ".hugepageLimits[0].pageSize");
    }
    refused_at("/network", json!({"priorities": [{"name": "a\nb", "priority": 1}]}), ".network.priorities[0].name");
    refused_at("/rdma", json!({"a b": {}}), ".rdma[\"a b\"]");
    for file in ["", "..", "a/b", "../memory.max", "a\0"] {
        refused_at("/unified", json!({file: "1"}), &format!(".unified[{file:?}]"));
    }
    refused_at("/unified", json!({"memory.max": "\0"}), ".unified[\"memory.max\"]");
}

#[test]
fn bad_rest() {
    refused("/linux/netDevices", json!({"a/b": {}}), "linux.netDevices[\"a/b\"]");
    refused("/linux/netDevices", json!({"eth0": {"name": "sixteen-bytes-xx"}}), "linux.netDevices[\"eth0\"].name");
    refused("/linux/netDevices", json!({"eth0": {"name": "e%d"}}), "linux.netDevices[\"eth0\"].name");
    refused("/linux/netDevices", json!({"a": {"name": "x"}, "b": {"name": "x"}}), "linux.netDevices[\"b\"].name");
    refused("/linux/intelRdt", json!({"closID": ".."}), "linux.intelRdt.closID");
    refused("/linux/intelRdt", json!({"closID": "a/b"}), "linux.intelRdt.closID");
    refused("/linux/personality", json!({"domain": "BSD"}), "linux.personality.domain");
    let policy = |value: Value, member: &str| refused("/linux/memoryPolicy", value, &format!("linux.memoryPolicy{member}"));
    policy(json!({"nodes": "0-7"}), "");
    policy(json!({"mode": "INTERLEAVE", "nodes": "0"}), ".mode");
    policy(json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["badflag"]}), ".flags[0]");
    policy(json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}), ".nodes");
    policy(json!({"mode": "MPOL_BIND", "nodes": ""}), ".nodes");
    policy(json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}), ".nodes");
    policy(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}), ".flags");
    policy(json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}), ".flags");
}
