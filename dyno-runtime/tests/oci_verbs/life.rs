//! A container's life, verb by verb.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    support::{Stage, same},
    world::{World, answer_of, awaits, comes_true},
};

pub fn from_create_to_delete(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    let pid_file = world.bundle.join("pid");
    let config = world.place("web")?;
    let made = answer_of(world.command(&["create", "--pid-file", &pid_file.to_string_lossy(), "--config", &config.to_string_lossy(), "web"]))?;
    ensure!(made.status == 0, "{made:?}");
    let state = world.state("web")?;
    let pid = state["pid"].as_u64().context("pid")?;
    let members = ["ociVersion", "id", "status", "bundle", "annotations", "rootfs", "owner"].map(|name| state[name].clone());
    let want = [
        json!("1.2.0"),
        json!("web"),
        json!("created"),
        json!(world.bundle),
        json!({"org.example.test": "yes"}),
        json!(stage.rootfs()),
        json!("root"),
    ];
    same("state", members, want)?;
    same("pid file", fs::read_to_string(&pid_file)?, pid.to_string())?;
    ensure!(state["created"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{state}");
    let program = fs::metadata(stage.rootfs().join("bin/program"))?.ino();
    same("not yet the program", fs::metadata(format!("/proc/{pid}/exe"))?.ino() == program, false)?;
    world.must(&["start", "web"])?;
    same("running", world.status("web")?.as_str(), "running")?;
    same("the program, once start has returned", fs::metadata(format!("/proc/{pid}/exe"))?.ino(), program)?;
    same("its arguments", fs::read_to_string(format!("/proc/{pid}/cmdline"))?, "/bin/program\0forever\0".into())?;
    world.must(&["kill", "web", "KILL"])?;
    world.ended("web")?;
    same("no pid", world.state("web")?["pid"].clone(), json!(0))?;
    world.must(&["delete", "web"])?;
    world.fails(&["state", "web"], "container does not exist")?;
    world.is_empty()
}

pub fn refusals(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps", "update", "events"] {
        world.fails(&[verb, "web"], "container does not exist")?;
    }
    same("delete --force", world.must(&["delete", "--force", "web"])?, String::new())?;
    world.create("web")?;
    world.fails(&["create", "--bundle", &world.bundle.to_string_lossy(), "web"], "container with id web already exists")?;
    world.fails(&["resume", "web"], "container not paused")?;
    world.must(&["start", "web"])?;
    world.fails(&["start", "web"], "cannot start an already running container")?;
    world.fails(&["delete", "web"], "cannot delete container web that is not stopped: running")?;
    world.fails(&["resume", "web"], "container not paused")?;
    world.must(&["pause", "web"])?;
    world.fails(&["pause", "web"], "container not running")?;
    world.fails(&["start", "web"], "cannot start an already running container")?;
    world.fails(&["delete", "web"], "cannot delete container web that is not stopped: paused")?;
    world.must(&["resume", "web"])?;
    world.must(&["kill", "web", "9"])?;
    world.ended("web")?;
    world.fails(&["start", "web"], "cannot start a container that has stopped")?;
    for verb in ["kill", "pause", "update"] {
        world.fails(&[verb, "web"], "container not running")?;
    }
    world.fails(&["events", "--stats", "web"], "container web is not running")?;
    world.must(&["kill", "--all", "web", "KILL"])?;
    world.must(&["delete", "web"])?;
    // One that was never started, and one without a program.
    world.create("new")?;
    world.must(&["delete", "new"])?;
    world.create("waits")?;
    world.must(&["kill", "waits"])?;
    // No handler: TERM does nothing to the first process of a pid namespace.
    same("still there", world.status("waits")?.as_str(), "created")?;
    world.must(&["kill", "waits", "KILL"])?;
    world.ended("waits")?;
    world.fails(&["start", "waits"], "cannot start a container that has stopped")?;
    world.must(&["delete", "waits"])?;
    let empty = World::new(stage, &[], |config| drop(config.as_object_mut().and_then(|config| config.remove("process"))))?;
    empty.create("no-program")?;
    empty.fails(&["start", "no-program"], "cannot start a container without a program")?;
    empty.must(&["delete", "no-program"])?;
    world.is_empty()
}

pub fn signals(stage: &Stage) -> Result<()> {
    // Without a pid namespace a signal does what it does anywhere.
    let world = World::new(stage, &["forever"], |config| config["linux"]["namespaces"] = json!([{"type": "mount"}]))?;
    for (n, signal) in ["TERM", "sigusr1", "2", "SIGRTMIN+3", "QUIT"].into_iter().enumerate() {
        let id = format!("s{n}");
        world.start(&id)?;
        world.must(&["kill", &id, "0"])?;
        world.must(&["kill", &id, signal])?;
        world.ended(&id)?;
        world.must(&["delete", &id])?;
    }
    world.start("x")?;
    for wrong in ["NOSUCH", "65", "-1", ""] {
        world.fails(&["kill", "--", "x", wrong], "unknown signal")?;
    }
    world.must(&["delete", "--force", "x"])?;
    world.is_empty()
}

/// Those that outlive the first process, where no pid namespace ends them.
pub fn all_processes(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["children", "2", "100000"], |config| config["linux"]["namespaces"] = json!([{"type": "mount"}]))?;
    for by in ["kill", "delete"] {
        world.start("web")?;
        let all = || -> Result<Vec<u32>> { Ok(serde_json::from_str(&world.must(&["ps", "--format", "json", "web"])?)?) };
        comes_true("three processes", || Ok(all()?.len() == 3))?;
        let (pids, first) = (all()?, world.pid("web")?);
        world.must(&["kill", "web", "KILL"])?;
        awaits(first)?;
        same("stopped", world.status("web")?.as_str(), "stopped")?;
        same("the others", all()?, pids.iter().copied().filter(|pid| *pid != first).collect())?;
        if by == "kill" {
            world.must(&["kill", "--all", "web", "KILL"])?;
        }
        world.must(&["delete", "web"])?;
        for pid in pids {
            awaits(pid)?;
        }
    }
    world.is_empty()
}

pub fn paused(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    world.start("web")?;
    for _ in 0..3 {
        world.must(&["pause", "web"])?;
        same("paused", world.status("web")?.as_str(), "paused")?;
        world.must(&["resume", "web"])?;
        same("running", world.status("web")?.as_str(), "running")?;
    }
    world.must(&["pause", "web"])?;
    world.must(&["kill", "web", "KILL"])?;
    world.ended("web")?;
    world.must(&["delete", "web"])?;
    world.start("web")?;
    world.must(&["pause", "web"])?;
    world.must(&["delete", "--force", "web"])?;
    // One that was never started.
    world.create("web")?;
    world.must(&["pause", "web"])?;
    world.fails(&["start", "web"], "cannot start a container in the paused state")?;
    world.must(&["resume", "web"])?;
    world.must(&["start", "web"])?;
    world.must(&["delete", "--force", "web"])?;
    world.is_empty()
}

pub fn limits_and_stats(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    world.start("web")?;
    let stats = || -> Result<Value> { Ok(serde_json::from_str(&world.must(&["events", "--stats", "web"])?)?) };
    let first = stats()?;
    same("kind and id", (first["type"].clone(), first["id"].clone()), (json!("stats"), json!("web")))?;
    world.must(&["update", "--memory", "64m", "--pids-limit", "100", "--cpu-quota=50000", "--cpu-period", "100000", "web"])?;
    let now = stats()?;
    same("pids", now["data"]["pids"]["limit"].clone(), json!(100))?;
    same("memory", now["data"]["memory"]["usage"]["limit"].clone(), json!(64 << 20))?;
    let file = world.bundle.join("resources.json");
    fs::write(&file, r#"{"pids": {"limit": 50}, "memory": {}, "cpu": null}"#)?;
    world.must(&["update", "--resources", &file.to_string_lossy(), "web"])?;
    same("pids", stats()?["data"]["pids"]["limit"].clone(), json!(50))?;
    let mut child = world.command(&["update", "-r", "-", "web"]).stdin(Stdio::piped()).spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("stdin")?, br#"{"pids": {"limit": 40}}"#)?;
    ensure!(child.wait()?.success());
    same("pids", stats()?["data"]["pids"]["limit"].clone(), json!(40))?;
    for (args, words) in [
        (&["update", "--memory", "much", "web"][..], "--memory \"much\" is no size"),
        (&["update", "--pids-limit", "1.5", "web"], "--pids-limit \"1.5\" is no number"),
        (&["update", "--resources", "/nowhere", "web"], "--resources: "),
        (&["update", "--l3-cache-schema", "L3:0=f", "web"], "the container has no class of service"),
    ] {
        world.fails(args, words)?;
    }
    same("pids as before", stats()?["data"]["pids"]["limit"].clone(), json!(40))?;
    // Lines until it ends.
    let mut events = world.command(&["events", "--interval", "10ms", "web"]).spawn()?;
    let mut lines = BufReader::new(events.stdout.take().context("stdout")?).lines();
    for _ in 0..3 {
        let line: Value = serde_json::from_str(&lines.next().context("line")??)?;
        same("line", line["type"].clone(), json!("stats"))?;
    }
    world.must(&["kill", "web", "KILL"])?;
    ensure!(events.wait()?.success());
    world.must(&["delete", "--force", "web"])?;
    world.is_empty()
}

pub fn lists(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    same("nothing", (world.must(&["list", "-q"])?, world.must(&["list", "--format", "json"])?), (String::new(), "null\n".into()))?;
    world.create("b")?;
    world.start("a")?;
    same("ids", world.must(&["list", "--quiet"])?, "a\nb\n".into())?;
    let all: Value = serde_json::from_str(&world.must(&["list", "-f", "json"])?)?;
    let status = |n: usize| (all[n]["id"].clone(), all[n]["status"].clone(), all[n]["owner"].clone());
    same("a", status(0), (json!("a"), json!("running"), json!("root")))?;
    same("b", status(1), (json!("b"), json!("created"), json!("root")))?;
    let table = world.must(&["list"])?;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    same("head", words[0].clone(), vec!["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"])?;
    let pid = world.pid("a")?.to_string();
    same("row", words[1][..4].to_vec(), vec!["a", &pid, "running", &world.bundle.to_string_lossy()])?;
    // ps.
    same("numbers", serde_json::from_str::<Vec<u32>>(&world.must(&["ps", "a", "--format", "json"])?)?, vec![world.pid("a")?])?;
    let table = world.must(&["ps", "a"])?;
    ensure!(table.lines().count() == 2 && table.contains("/bin/program forever") && table.starts_with("UID"), "{table}");
    let table = world.must(&["ps", "a", "-o", "pid,comm"])?;
    same("chosen columns", table.split_whitespace().collect::<Vec<_>>(), vec!["PID", "COMMAND", &pid, "program"])?;
    world.fails(&["ps", "a", "-o", "nosuch"], "ps: ")?;
    world.fails(&["ps", "a", "-o", "comm"], "ps: its output has no column PID")?;
    // One whose runtime was killed before it wrote a record.
    fs::create_dir(world.root.join("c"))?;
    fs::write(world.root.join("c/lock"), "")?;
    same("ids", world.must(&["list", "-q"])?, "a\nb\nc\n".into())?;
    world.fails(&["state", "c"], "container does not exist")?;
    world.must(&["delete", "c"])?;
    fs::create_dir(world.root.join("d"))?;
    fs::write(world.root.join("d/lock"), "")?;
    fs::write(world.root.join("d/state.json"), "{")?;
    let answer = world.ask(&["list", "-q"])?;
    same("ids", (answer.status, answer.stdout), (0, "a\nb\nd\n".into()))?;
    let answer = world.ask(&["list"])?;
    ensure!(answer.status == 0 && answer.stderr.contains("container d: ") && answer.stdout.lines().count() == 3, "{answer:?}");
    fs::remove_dir_all(world.root.join("d"))?;
    Ok(())
}

pub fn by_regex(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    for id in ["t-1", "t-2", "other"] {
        world.start(id)?;
    }
    world.fails(&["delete", "--regex", "("], "\"(\" is no regular expression")?;
    world.must(&["kill", "--regex", "^t-[0-9]$", "KILL"])?;
    for id in ["t-1", "t-2"] {
        world.ended(id)?;
    }
    same("other", world.status("other")?.as_str(), "running")?;
    world.must(&["delete", "--regex", "^t-"])?;
    same("left", world.must(&["list", "-q"])?, "other\n".into())?;
    world.must(&["delete", "--force", "--regex", "."])?;
    world.is_empty()
}

pub fn run(stage: &Stage) -> Result<()> {
    for (args, want) in [(&["say", "hello"][..], (0, "hello\n")), (&["exit", "7"], (7, ""))] {
        let world = World::new(stage, args, |_| {})?;
        let config = world.place("web")?;
        let answer = world.ask(&["run", "--config", &config.to_string_lossy(), "web"])?;
        same(&format!("{args:?}"), (answer.status, answer.stdout.as_str()), want)?;
        world.is_empty()?;
    }
    let world = World::new(stage, &["exit", "3"], |_| {})?;
    let config = world.place("web")?.display().to_string();
    same("--keep", world.ask(&["run", "--keep", "--config", &config, "web"])?.status, 3)?;
    same("kept", world.status("web")?.as_str(), "stopped")?;
    world.fails(&["run", "--config", &config, "web"], "container with id web already exists")?;
    same("kept still", world.status("web")?.as_str(), "stopped")?;
    world.must(&["delete", "web"])?;
    let world = World::new(stage, &["forever"], |_| {})?;
    let (config, pid_file) = (world.place("web")?.display().to_string(), world.bundle.join("pid"));
    let made = answer_of(world.command(&["run", "-d", "--pid-file", &pid_file.to_string_lossy(), "--config", &config, "web"]))?;
    ensure!(made.status == 0, "{made:?}");
    same("pid file", fs::read_to_string(pid_file)?, world.pid("web")?.to_string())?;
    same("detached", world.status("web")?.as_str(), "running")?;
    world.must(&["delete", "--force", "web"])?;
    world.is_empty()
}

/// Its parent is somebody who does not wait for it.
pub fn zombie(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["exit", "0"], |_| {})?;
    // Whoever runs the runtime takes its orphans, and collects none.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    world.create("web")?;
    let pid = world.pid("web")?;
    world.must(&["start", "web"])?;
    awaits(pid)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let done = (|| {
        ensure!(stat.contains(") Z "), "{stat}");
        same("stopped", world.status("web")?.as_str(), "stopped")?;
        world.fails(&["kill", "web"], "container not running")?;
        world.must(&["delete", "web"])
    })();
    rustix::process::set_child_subreaper(None)?;
    rustix::process::waitpid(rustix::process::Pid::from_raw(pid.cast_signed()), rustix::process::WaitOptions::empty())?;
    done?;
    world.is_empty()
}

/// A service manager hears from `start` and `run` when the program is ready, and which process it is by the host's counting; the program has a
/// socket of its own, by a directory that it cannot write to.
pub fn ready(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["ready"], |_| {})?;
    let path = world.bundle.join("manager.sock");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(30)))?;
    let heard = || -> Result<String> {
        let mut text = [0; 256];
        let length = manager.recv(&mut text)?;
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    };
    let mut create = world.created("web");
    create.env("NOTIFY_SOCKET", &path);
    ensure!(answer_of(create)?.status == 0);
    let mut start = world.command(&["start", "web"]);
    start.env("NOTIFY_SOCKET", &path);
    ensure!(answer_of(start)?.status == 0);
    same("to the manager", heard()?, format!("READY=1\nMAINPID={}", world.pid("web")?))?;
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", world.pid("web")?))?;
    ensure!(mounts.lines().any(|line| line.contains(" /run/notify ro,nosuid,nodev,noexec")), "{mounts}");
    world.must(&["delete", "--force", "web"])?;
    // In the foreground, which goes on meanwhile.
    let config = world.place("front")?;
    let mut run = world.command(&["run", "--config", &config.to_string_lossy(), "front"]);
    let mut running = run.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    same("from the foreground", heard()?, format!("READY=1\nMAINPID={}", world.pid("front")?))?;
    world.must(&["kill", "front", "KILL"])?;
    same("its status", running.wait()?.code(), Some(137))?;
    world.is_empty()
}
