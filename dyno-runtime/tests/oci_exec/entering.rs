//! Who enters, with what, and what is refused.

use std::{
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixListener},
    },
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::json;

use crate::{
    support::{PROGRAM, Stage, same},
    world::{Container, awaited, comes_true, ends, failed, groups, said, until},
};

pub fn statuses(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    same("output", said(container.exec(&[], &["say", "hello", "beside"]))?, "hello beside\n".into())?;
    for (args, status) in [(vec!["exit", "0"], 0), (vec!["exit", "7"], 7), (vec!["exit", "255"], 255), (vec!["abort"], 134)] {
        same(&format!("{args:?}"), failed(container.exec(&[], &args))?.0, status)?;
    }
    Ok(())
}

pub fn what_cannot_be_run(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    fs::write(stage.rootfs().join("data/text"), "no program")?;
    fs::write(stage.rootfs().join("data/shell"), "#!/bin/nothing\n")?;
    std::os::unix::fs::chown(stage.rootfs().join("data/shell"), Some(1000), None)?;
    fs::set_permissions(stage.rootfs().join("data/shell"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let leaky = open("/proc", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let outside = format!("/proc/self/fd/{}", leaky.as_raw_fd());
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&[], &["nosuch"], "executable file not found in $PATH"),
        (&[], &["/bin/nosuch"], "no such file or directory"),
        (&[], &["/data/text"], "permission denied"),
        (&[], &["/data"], "permission denied"),
        (&[], &["/data/shell"], "no such file or directory"),
        (&["--cwd", "/nowhere"], &[PROGRAM], "no such file or directory"),
        (&["--cwd", "nowhere"], &[PROGRAM], "cwd"),
        (&["--cwd", &outside], &[PROGRAM], "cwd"),
        (&["--user", "4294967295"], &[PROGRAM], "4294967295"),
        (&["--user", "root"], &[PROGRAM], "root"),
        (&["--preserve-fds", "1000"], &[PROGRAM], "preserve"),
        (&["--tty", "--detach"], &[PROGRAM], "console"),
        (&["--console-socket", "/nowhere"], &[PROGRAM], "console"),
        (&["--cgroup", "../other"], &[PROGRAM], "cgroup"),
        (&["--cgroup", "nowhere"], &[PROGRAM], "cgroup"),
        (&["--process", "/nowhere"], &[], "no such file or directory"),
        (&["--process", "/proc/self/status"], &[], "--process"),
        (&[], &[], "program"),
    ];
    for (options, program, words) in cases {
        let (status, complaint) = failed(container.execute(options, program))?;
        same(&format!("status of {options:?} {program:?} ({complaint})"), status, 255)?;
        ensure!(complaint.to_lowercase().contains(&words.to_lowercase()), "{options:?} {program:?}: {complaint:?} instead of {words:?}");
        same(&format!("lines of {complaint:?}"), complaint.trim_end().lines().count(), 1)?;
    }
    same("the container is as before", said(container.exec(&[], &["say", "--"]))?, "--\n".into())
}

/// What tells walls apart, of the process `pid`.
fn walls(pid: u32) -> Result<Vec<String>> {
    let (status, group) = (fs::read_to_string(format!("/proc/{pid}/status"))?, fs::read_to_string(format!("/proc/{pid}/cgroup"))?);
    let wanted = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Umask", "Sig"];
    let mut all: Vec<String> =
        status.lines().filter(|l| wanted.iter().any(|w| l.starts_with(w)) && !l.starts_with("SigQ")).map(str::to_owned).collect();
    all.extend(group.lines().map(str::to_owned));
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        all.push(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string());
    }
    for link in ["root", "cwd", "exe"] {
        all.push(fs::read_link(format!("/proc/{pid}/{link}"))?.display().to_string());
    }
    all.extend(fs::read_to_string(format!("/proc/{pid}/limits"))?.lines().filter(|l| l.contains("open files")).map(str::to_owned));
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    all.extend(environment.split(|b| *b == 0).map(|e| String::from_utf8_lossy(e).into_owned()));
    Ok(all)
}

fn same_walls(container: &Container) -> Result<()> {
    let pid_file = container.file("beside").display().to_string();
    said(container.exec(&["--detach", "--pid-file", &pid_file], &["forever"]))?;
    let beside: u32 = fs::read_to_string(&pid_file)?.parse()?;
    // Rust's own start, which has signals its way, is done.
    let up = |pid: u32| -> Result<bool> { Ok(fs::read_to_string(format!("/proc/{pid}/status"))?.contains("SigCgt:\t0000000000000440")) };
    comes_true("both programs are up", || Ok(up(container.pid)? && up(beside)?))?;
    let (first, second) = (walls(container.pid)?, walls(beside)?);
    ensure!(first.iter().any(|line| line.contains("Seccomp:\t2")), "a filter: {first:?}");
    same("walls", second, first)
}

pub fn behind_the_same_walls(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    same_walls(&container)?;
    same("the filter works", failed(container.exec(&[], &["call", "121", "0"]))?.0, 9)?;
    same("so does what it lets through", failed(container.exec(&[], &["call", "39"]))?.0, 0)
}

pub fn behind_the_same_walls_in_a_user_namespace(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |config| {
        if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
            all.push(json!({ "type": "user" }));
        }
        let map = json!([{ "containerID": 0, "hostID": 2_000_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })?;
    same_walls(&container)
}

pub fn options(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let env = said(container.exec(&["--env", "MORE=1", "-e", "OF=exec"], &["env"]))?;
    let mut lines: Vec<&str> = env.lines().collect();
    lines.sort_unstable();
    same("environment", lines, vec!["HOME=/", "MORE=1", "OF=exec", "PATH=/bin"])?;
    same("directory", said(container.exec(&["--cwd", "/data"], &["cwd"]))?, "/data\n".into())?;
    let options = ["--user", "5:6", "--additional-gids", "9", "--cap", "CAP_CHOWN", "--no-new-privs=false"];
    let status = said(container.exec(&options, &["read", "/proc/self/status"]))?;
    for line in ["Uid:\t5\t5\t5\t5", "Gid:\t6\t6\t6\t6", "Groups:\t7 8 9", "CapBnd:\t0000000000000021", "CapInh:\t0000000000000000", "NoNewPrivs:\t0"]
    {
        ensure!(status.contains(line), "{line:?} is not in {status}");
    }
    // Nothing is effective after the exec of a program by another user than root, unless it is ambient.
    ensure!(status.contains("CapEff:\t0000000000000000") && status.contains("CapAmb:\t0000000000000000"), "{status}");
    let root = said(container.exec(&["--user", "0", "--cap", "CAP_CHOWN"], &["read", "/proc/self/status"]))?;
    ensure!(root.contains("CapEff:\t0000000000000021") && root.contains("Groups:\t7 8 "), "{root}");
    let short = said(container.exec(&["-u", "5", "-g", "9", "-c", "chown"], &["read", "/proc/self/status"]))?;
    ensure!(short.contains("Gid:\t1001") && short.contains("Groups:\t7 8 9") && short.contains("CapBnd:\t0000000000000021"), "{short}");
    Ok(())
}

pub fn process_file(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let file = container.file("process.json");
    let process = |change: serde_json::Value| {
        let mut process = json!({ "cwd": "/data", "args": [PROGRAM, "read", "/proc/self/status"], "env": ["A=B"], "user": { "uid": 3, "gid": 4 } });
        process.as_object_mut().context("an object")?.extend(change.as_object().context("an object")?.clone());
        Ok::<_, anyhow::Error>(fs::write(&file, process.to_string())?)
    };
    let name = file.display().to_string();
    process(json!({}))?;
    let status = said(container.execute(&["--process", &name], &[]))?;
    // What it leaves out is the container's.
    for line in ["Uid:\t3\t3\t3\t3", "Gid:\t4\t4\t4\t4", "Groups:\t \n", "CapBnd:\t0000000000000021", "NoNewPrivs:\t0"] {
        ensure!(status.contains(line), "{line:?} is not in {status}");
    }
    process(json!({ "capabilities": {}, "noNewPrivileges": true, "user": { "uid": 3, "gid": 4, "additionalGids": [5], "umask": 0o27 } }))?;
    let status = said(container.execute(&["--process", &name], &[]))?;
    for line in ["Groups:\t5", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Umask:\t0027"] {
        ensure!(status.contains(line), "{line:?} is not in {status}");
    }
    process(json!({ "args": [PROGRAM, "env"] }))?;
    same("environment", said(container.execute(&["--process", &name], &[]))?, "A=B\nHOME=/\n".into())?;
    process(json!({ "execCPUAffinity": { "initial": "0", "final": "0" } }))?;
    let status = said(container.execute(&["--process", &name], &[]))?;
    ensure!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    Ok(())
}

/// A descriptor of ours that our children get.
fn leaking(path: &str) -> Result<OwnedFd> {
    Ok(open(path, OFlags::RDONLY, Mode::empty())?)
}

pub fn descriptors(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let _leaky = (0..200).map(|_| leaking("/etc")).collect::<Result<Vec<_>>>()?;
    // The last is the one by which it looks.
    same("open inside", said(container.exec(&[], &["list", "/proc/self/fd"]))?, "0 1 2 3\n".into())?;
    for name in ["DYNO_SECRET", "LD_PRELOAD_NOT"] {
        let mut command = container.exec(&[], &["env"]);
        command.env(name, "1");
        ensure!(!said(command)?.contains(name), "{name} of the caller is inside");
    }
    Ok(())
}

/// Before the first namespace is joined (CVE-2016-9962), the process has closed everything but what it uses for entering: of the numbers that it has not
/// closed, each is used by a call between there and its program.
pub fn lets_go_first(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let _leaky = (0..20).map(|_| leaking("/etc")).collect::<Result<Vec<_>>>()?;
    let (inner, traced) = (container.exec(&[], &["exit", "0"]), container.file("traced"));
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-o"]).arg(&traced).arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
    said(command)?;
    let text = fs::read_to_string(&traced)?;
    let of = |line: &str, call: &str| line.split_whitespace().nth(1).is_some_and(|word| word.starts_with(&format!("{call}(")));
    let entering = text.lines().rfind(|line| of(line, "setns")).context("no setns")?;
    let pid = entering.split_whitespace().next().unwrap_or_default();
    let calls: Vec<&str> = text.lines().filter(|line| line.split_whitespace().next() == Some(pid)).collect();
    let joins = calls.iter().position(|line| of(line, "setns")).context("setns of the process")?;
    let numbers = |line: &str| -> Vec<u64> { line.split(['(', ',', ')']).skip(1).map_while(|word| word.trim().parse().ok()).collect() };
    let closed: Vec<Vec<u64>> = calls[..joins].iter().filter(|line| of(line, "close_range")).map(|line| numbers(line)).collect();
    ensure!(closed.iter().any(|range| range.get(1) == Some(&u64::from(u32::MAX))), "it has closed {closed:?}");
    let left = (3..200).filter(|n| !closed.iter().any(|range| (range[0]..=range[1]).contains(n)));
    let used = |n: u64| {
        calls[..].iter().any(|line| ["setns", "sendmsg", "recvmsg", "write"].iter().any(|call| of(line, call)) && numbers(line).first() == Some(&n))
    };
    let idle: Vec<u64> = left.filter(|n| !used(*n)).collect();
    same("left open, used by nothing", idle, Vec::new())
}

pub fn preserved(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    // As a shell redirects; the standard library's Command has no way to.
    let script = r#"exec 3</etc/hostname 4</proc/version 6</etc/passwd; exec "$0" "$@""#;
    let through = |options: &[&str], args: &[&str]| {
        let inner = container.exec(options, args);
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", script]).arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    };
    same("two", said(through(&["--preserve-fds", "2"], &["list", "/proc/self/fd"]))?, "0 1 2 3 4 5\n".into())?;
    same("the first", said(through(&["--preserve-fds", "2"], &["read", "/proc/self/fd/3"]))?, fs::read_to_string("/etc/hostname")?)?;
    same("none", said(through(&[], &["list", "/proc/self/fd"]))?, "0 1 2 3\n".into())?;
    let (status, complaint) = failed(through(&["--preserve-fds", "3"], &["say"]))?;
    ensure!(status == 255 && complaint.contains("descriptor 5 is not open"), "{status} {complaint}");
    Ok(())
}

/// As `echo > /dev/stdout` does.
pub fn streams_of_the_user(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    for user in ["0", "1000", "7"] {
        let output = container.exec(&["--user", user], &["write", "/dev/stdout", "mine"]).output()?;
        ensure!(output.status.success() && output.stdout == b"mine", "{user}: {output:?}");
    }
    let output = container.exec(&[], &["write", "/dev/stderr", "mine"]).output()?;
    ensure!(output.status.success() && output.stderr == b"mine", "{output:?}");
    let first = Container::bundle(stage, &["write", "/dev/stdout", "first"], |_| {})?;
    let output = first.run(&["--keep"]).stdout(Stdio::piped()).output()?;
    ensure!(output.status.success() && output.stdout == b"first", "{output:?}");
    // Files stay their owner's.
    let file = container.file("output");
    let mut command = container.exec(&["--user", "7"], &["say", "mine"]);
    let status = command.stdout(fs::File::create(&file)?).status()?;
    ensure!(status.success(), "{status}");
    same("owner", (fs::read_to_string(&file)?, fs::metadata(&file)?.uid()), ("mine\n".into(), 0))
}

/// The filter's listener gets a descriptor for each process, and is told whose it is.
pub fn listener(stage: &Stage) -> Result<()> {
    let path = stage.work().join("listener");
    let listens = UnixListener::bind(&path)?;
    let container = Container::created(stage, &["forever"], |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "of the test",
            "syscalls": [{ "names": ["getpgid"], "action": "SCMP_ACT_NOTIFY" }]
        });
    })?;
    let first = told(&listens)?;
    same("of the first process", (&first["pid"], &first["state"]["status"]), (&json!(container.pid), &json!("creating")))?;
    said(container.runtime(&["start", &container.id]))?;
    let pid_file = container.file("beside").display().to_string();
    said(container.exec(&["--detach", "--pid-file", &pid_file], &["forever"]))?;
    let second = told(&listens)?;
    same("of the other", second["pid"].to_string(), fs::read_to_string(&pid_file)?)?;
    same("its container", (&second["state"]["pid"], &second["state"]["status"]), (&json!(container.pid), &json!("running")))?;
    same("metadata", (&second["metadata"], &second["fds"]), (&json!("of the test"), &json!(["seccompFd"])))?;
    // A listener that nobody listens at: the program does not begin.
    drop(listens);
    let (status, complaint) = failed(container.exec(&[], &["say", "unwatched"]))?;
    ensure!(status == 255 && complaint.contains("listener"), "{status} {complaint}");
    Ok(())
}

fn told(listens: &UnixListener) -> Result<serde_json::Value> {
    let (_seccomp, text) = crate::terminals::received(listens)?;
    Ok(serde_json::from_str(&text)?)
}

pub fn detached(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let pid_file = container.file("detached");
    said(container.exec(&["-d", "--pid-file", &pid_file.display().to_string()], &["forever"]))?;
    let pid: i32 = fs::read_to_string(&pid_file)?.parse()?;
    let pidfd = pidfd_open(Pid::from_raw(pid).context("pid")?, PidfdFlags::empty())?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains("NSsid:") && !status.contains("PPid:\t0"), "{status}");
    // Killed with the container.
    drop(container);
    ensure!(awaited(&pidfd)?, "it outlives its container");
    Ok(())
}

pub fn group_below(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let (name, groups) = (&container.group, groups(&container.group));
    let own = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    ensure!(own.lines().all(|line| line.contains(name)), "{own}");
    for group in &groups {
        fs::create_dir(group.join("below"))?;
        // A group without processors and memory takes nobody in.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(value), true) = (fs::read_to_string(group.join(file)), group.join("cgroup.clone_children").exists()) {
                fs::write(group.join("below").join(file), value)?;
            }
        }
    }
    let own = said(container.exec(&["--cgroup", "below"], &["read", "/proc/self/cgroup"]))?;
    ensure!(own.lines().all(|line| line.ends_with("/below")), "{own}");
    if groups.len() > 1 {
        let own = said(container.exec(&["--cgroup", "pids:below"], &["read", "/proc/self/cgroup"]))?;
        ensure!(own.lines().all(|line| line.ends_with("/below") == line.contains(":pids:")), "{own}");
        let (status, complaint) = failed(container.exec(&["--cgroup", "nothing:below"], &["say"]))?;
        ensure!(status == 255 && complaint.contains("controllers"), "{status} {complaint}");
    }
    Ok(())
}

pub fn paused(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    said(container.runtime(&["pause", &container.id]))?;
    let (status, complaint) = failed(container.exec(&[], &["say", "no"]))?;
    ensure!(status == 255 && complaint.contains("paused"), "{status} {complaint}");
    let mut waiting = container.exec(&["--ignore-paused"], &["say", "thawed"]).spawn()?;
    let mut pipe = waiting.stdout.take().context("stdout")?;
    frozen(&container, waiting.id())?;
    ensure!(waiting.try_wait()?.is_none(), "it does not wait");
    said(container.runtime(&["resume", &container.id]))?;
    until(&mut pipe, "thawed\n")?;
    same("status", ends(waiting)?, Some(0))
}

/// A program that nobody waits for any more does not begin.
pub fn abandoned(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    said(container.runtime(&["pause", &container.id]))?;
    let mut waiting = container.exec(&["--ignore-paused", "--user", "0"], &["write", "/tmp/begun", "it has"]).spawn()?;
    let pidfd = pidfd_open(Pid::from_raw(frozen(&container, waiting.id())?).context("pid")?, PidfdFlags::empty())?;
    waiting.kill()?;
    waiting.wait()?;
    said(container.runtime(&["resume", &container.id]))?;
    ensure!(awaited(&pidfd)?, "it lives on");
    ensure!(!stage.rootfs().join("tmp/begun").exists(), "the program has begun");
    Ok(())
}

/// The process that `runtime` has made, once it is in the container's group that stands still.
fn frozen(container: &Container, runtime: u32) -> Result<i32> {
    let mut found = 0;
    comes_true("its process is in the group", || {
        let children = fs::read_to_string(format!("/proc/{runtime}/task/{runtime}/children"))?;
        let Some(pid) = children.split_whitespace().next() else { return Ok(false) };
        found = pid.parse()?;
        // Born there on v2; the others it would enter next.
        Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?.contains(&container.group))
    })?;
    Ok(found)
}

/// What dies before its program begins is told of, and is no success.
pub fn killed(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    said(container.runtime(&["pause", &container.id]))?;
    let waiting = container.exec(&["--ignore-paused"], &["say", "never"]).spawn()?;
    let child = frozen(&container, waiting.id())?;
    pidfd_send_signal(pidfd_open(Pid::from_raw(child).context("pid")?, PidfdFlags::empty())?, Signal::KILL)?;
    said(container.runtime(&["resume", &container.id]))?;
    let output = waiting.wait_with_output()?;
    ensure!(output.status.code() == Some(255) && output.stdout.is_empty(), "{output:?}");
    same("one line", String::from_utf8(output.stderr)?.lines().count(), 1)
}

pub fn stopped(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    said(container.runtime(&["kill", &container.id, "KILL"]))?;
    comes_true("stopped", || Ok(!Path::new(&format!("/proc/{}", container.pid)).exists()))?;
    let (status, complaint) = failed(container.exec(&[], &["say"]))?;
    ensure!(status == 255 && complaint.contains("stopped"), "{status} {complaint}");
    let (status, complaint) = failed(container.runtime(&["exec", "no-such-container", PROGRAM]))?;
    ensure!(status == 255 && complaint.contains("does not exist"), "{status} {complaint}");
    Ok(())
}

pub fn created(stage: &Stage) -> Result<()> {
    let container = Container::created(stage, &["forever"], |_| {})?;
    same("beside it", said(container.exec(&[], &["say", "early"]))?, "early\n".into())?;
    same("its own root", said(container.exec(&[], &["list", "/"]))?, "bin data dev proc tmp\n".into())
}
