//! The tasks of containers: begun, looked at, signalled, ended, deleted.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Process,
    clients::{Outcome, Sayings, group},
    terminal::Terminal,
    until,
};

use super::Containerd;

/// Seconds for a key press on a busy host.
const SOON: u64 = 15;

pub fn statuses(containerd: &Containerd) -> Result<Outcome> {
    let said = containerd.run(&[], &[])?;
    ensure!(said.status == 0 && said.stdout == "made by hand\n", "{said:?}");
    for (script, status) in [("exit 7", 7), ("exit 255", 255), ("sh -c 'kill -9 $$'", 137)] {
        let said = containerd.run(&[], &["sh", "-c", &format!("{script}; exit $?")])?;
        ensure!(said.status == status, "{script}: {said:?}");
    }
    let said = containerd.run(&[], &["sh", "-c", "echo out; echo err >&2"])?;
    ensure!(said.stdout == "out\n" && said.stderr == "err\n", "{said:?}");
    Ok(Outcome::Seen)
}

/// The shim reads the runtime's log for the reason.
pub fn cannot(containerd: &Containerd) -> Result<Outcome> {
    let ways = [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/bin/plain", "permission denied"),
        ("/data", ""),
    ];
    for (program, reason) in ways {
        let said = containerd.run(&[], &[program])?;
        ensure!(said.status == 1 && said.stderr.contains(program) && said.stderr.contains(reason), "{program}: {said:?}");
    }
    ensure!(containerd.ok(&["tasks", "ls", "--quiet"])?.is_empty());
    Ok(Outcome::Seen)
}

pub fn tasks(containerd: &Containerd) -> Result<Outcome> {
    let groups = containerd.with("task", &[], &["sleep", "1000"], |pid| {
        ensure!(containerd.task("task")? == (pid, "RUNNING".to_owned()));
        ensure!(fs::read(format!("/proc/{pid}/cmdline"))? == b"sleep\x001000\0");
        let groups = group(pid)?;
        ensure!(groups.is_below(containerd.desk.name()), "{groups:?}");
        // A second container of that name is refused, and hurts the first in no way.
        let runtime = containerd.desk.runtime().display().to_string();
        let said = containerd.say(&containerd.arguments(&runtime, &["--detach"], "task", &["true"]))?;
        ensure!(said.status == 1 && said.stderr.contains("already exists"), "{said:?}");
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "task"])?;
        until(10, "it has ended", || Ok((containerd.task("task")?.1 == "STOPPED").then_some(())))?;
        let said = containerd.ends(0, &["tasks", "rm", "task"])?;
        ensure!(said.stderr.contains("non-zero exit code 137"), "{said:?}");
        ensure!(containerd.task("task").is_err());
        // The container is still known, and begins once more.
        containerd.ok(&["tasks", "start", "--detach", "task"])?;
        ensure!(containerd.pid("task")? != pid);
        Ok(groups)
    })?;
    ensure!(groups.left().is_empty(), "{groups:?}");
    Ok(Outcome::Seen)
}

pub fn exec(containerd: &Containerd) -> Result<Outcome> {
    containerd.with("executed", &["--env", "A=1"], &["sleep", "1000"], |pid| {
        let in_it =
            |options: &[&str], program: &[&str]| containerd.say(&[&["tasks", "exec", "--exec-id", "e"], options, &["executed"], program].concat());
        let said = in_it(&["--cwd", "/data"], &["sh", "-c", "pwd; echo $A; cat words; readlink /proc/self/ns/pid; exit 9"])?;
        let theirs = fs::read_link(format!("/proc/{pid}/ns/pid"))?;
        ensure!(said.status == 9 && said.stdout == format!("/data\n1\none two three\n{}\n", theirs.display()), "{said:?}");
        let said = in_it(&["--user", "app"], &["id", "-u"])?;
        ensure!(said.status == 0 && said.stdout == "1000\n", "{said:?}");
        let said = in_it(&[], &["no-such-program"])?;
        ensure!(said.status == 1 && said.stderr.contains("executable file not found in $PATH"), "{said:?}");
        let said = in_it(&["--detach"], &["sleep", "999"])?;
        ensure!(said.status == 0, "{said:?}");
        let listed = containerd.ok(&["tasks", "ps", "executed"])?;
        ensure!(listed.lines().count() == 3 && listed.contains(&pid.to_string()), "{listed}");
        containerd.ok(&["tasks", "kill", "--exec-id", "e", "--signal", "KILL", "executed"])?;
        until(10, "the second process has ended", || Ok((containerd.ok(&["tasks", "ps", "executed"])?.lines().count() == 2).then_some(())))
    })?;
    Ok(Outcome::Seen)
}

pub fn signals(containerd: &Containerd) -> Result<Outcome> {
    let script = "trap '> /tmp/told' USR1; trap 'exit 4' TERM; > /tmp/up; while :; do sleep 0.05; done";
    containerd.with("signalled", &[], &["sh", "-c", script], |pid| {
        let there = |file: &str| until(10, file, || Ok(fs::exists(format!("/proc/{pid}/root/tmp/{file}"))?.then_some(())));
        there("up")?;
        containerd.ok(&["tasks", "kill", "--signal", "USR1", "signalled"])?;
        there("told")?;
        containerd.ok(&["tasks", "kill", "signalled"])?;
        until(10, "it has ended", || Ok((containerd.task("signalled")?.1 == "STOPPED").then_some(())))?;
        let said = containerd.ends(0, &["tasks", "rm", "signalled"])?;
        ensure!(said.stderr.contains("non-zero exit code 4"), "{said:?}");
        Ok(())
    })?;
    // A pid 1 does not hear what it has no handler for; the others of its container do.
    containerd.with("family", &[], &["sh", "-c", "sleep 1000 & sleep 1000 & wait; exit 8"], |pid| {
        let groups = group(pid)?;
        let sleeps = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
        until(10, "three processes run", || {
            let pids = groups.read(&["cgroup.procs"])?;
            Ok((pids.lines().count() == 3 && pids.lines().filter(|pid| sleeps(pid)).count() == 2).then_some(()))
        })?;
        containerd.ok(&["tasks", "kill", "--signal", "TERM", "family"])?;
        ensure!(groups.read(&["cgroup.procs"])?.lines().count() == 3, "the others were meant as well");
        containerd.ok(&["tasks", "kill", "--all", "--signal", "TERM", "family"])?;
        until(10, "it has ended", || Ok((containerd.task("family")?.1 == "STOPPED").then_some(())))?;
        let said = containerd.ends(0, &["tasks", "rm", "family"])?;
        ensure!(said.stderr.contains("non-zero exit code 8"), "{said:?}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn paused(containerd: &Containerd) -> Result<Outcome> {
    containerd.with("paused", &[], &["sh", "-c", "while :; do sleep 0.01; done"], |pid| {
        containerd.ok(&["tasks", "pause", "paused"])?;
        ensure!(containerd.task("paused")?.1 == "PAUSED");
        ensure!(group(pid)?.is_frozen(), "its group is not frozen");
        containerd.ok(&["tasks", "resume", "paused"])?;
        ensure!(containerd.task("paused")?.1 == "RUNNING");
        // One that is paused can be killed and deleted as well.
        containerd.ok(&["tasks", "pause", "paused"])?;
        let process = Process::find(pid).context("its process")?;
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "paused"])?;
        until(10, "it has ended", || {
            // Frozen processes of cgroup v1 die when they are thawed. Those of v2 die at once, and may be gone before they are asked to go on.
            if containerd.task("paused")?.1 == "PAUSED" {
                containerd.say(&["tasks", "resume", "paused"])?;
            }
            Ok((!process.runs()).then_some(()))
        })
    })?;
    Ok(Outcome::Seen)
}

pub fn metrics(containerd: &Containerd) -> Result<Outcome> {
    containerd.with("measured", &["--memory-limit", "67108864"], &["sleep", "1000"], |_| {
        let told = containerd.ok(&["tasks", "metrics", "measured"])?;
        let value = |names: [&str; 2]| {
            let line = told
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .find(|words| names.iter().any(|name| words.first() == Some(name)));
            line.and_then(|words| words.get(1)?.parse::<u64>().ok()).with_context(|| format!("no {names:?} in {told}"))
        };
        ensure!(value(["memory.limit_in_bytes", "memory.usage_limit"])? == 67_108_864, "{told}");
        ensure!(value(["memory.usage_in_bytes", "memory.usage"])? > 0 && value(["pids.current", "pids.current"])? == 1, "{told}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn terminals(containerd: &Containerd) -> Result<Outcome> {
    let runtime = containerd.desk.runtime().display().to_string();
    let arguments = containerd.arguments(&runtime, &["--rm", "--tty", "--env", "PS1=% "], "terminal", &["sh"]);
    let mut terminal = Terminal::open(&containerd.bare(&arguments), 33, 101)?;
    terminal.until("% ", SOON)?;
    terminal.keys("tty; until [ \"$(stty size)\" = '33 101' ]; do :; done; echo si''zed\r")?;
    // ctr leaves its own terminal's output processing on: a line ends in \r\r\n.
    terminal.until("/dev/pts/0\r", SOON)?;
    terminal.until("\nsized\r", SOON)?;
    terminal.keys("until [ \"$(stty size)\" = '20 60' ]; do :; done; echo re''sized\r")?;
    // ctr listens for changes some time after it has passed on the first size, and says nowhere when: it is told again until it has heard.
    let end = Instant::now() + Duration::from_secs(SOON);
    loop {
        terminal.resize(20, 61)?;
        terminal.resize(20, 60)?;
        match terminal.until("\nresized\r", 1) {
            Err(_) if Instant::now() < end => {}
            other => {
                other?;
                break;
            }
        }
    }
    let mut second = Terminal::open(&containerd.bare(&["tasks", "exec", "--tty", "--exec-id", "s", "terminal", "sh"]), 24, 80)?;
    second.until("% ", SOON)?;
    second.keys("tty; exit 6\r")?;
    second.until("/dev/pts/1\r", SOON)?;
    ensure!(second.status(SOON)? == 6);
    terminal.keys("exit 3\r")?;
    ensure!(terminal.status(SOON)? == 3);
    Ok(Outcome::Seen)
}

/// containerd deletes by the runtime what a shim can no longer tell it of.
pub fn killed_shim(containerd: &Containerd) -> Result<Outcome> {
    let runtime = containerd.desk.runtime().display().to_string();
    containerd.ok(&containerd.arguments(&runtime, &["--detach"], "orphan", &["sleep", "1000"]))?;
    let pid = containerd.pid("orphan")?;
    let (process, groups) = (Process::find(pid).context("its process")?, group(pid)?);
    let stat = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let shim: u32 = stat.lines().find_map(|line| line.strip_prefix("PPid:")).context("PPid")?.trim().parse()?;
    let comm = fs::read_to_string(format!("/proc/{shim}/comm"))?;
    ensure!(comm.starts_with("containerd-shim"), "the parent is {comm}");
    Process::find(shim).context("the shim")?.kill()?;
    until(15, "its process ends", || Ok((!process.runs()).then_some(())))?;
    until(15, "its control groups are gone", || Ok(groups.left().is_empty().then_some(())))?;
    until(15, "the task is gone", || Ok(containerd.task("orphan").is_err().then_some(())))?;
    containerd.ok(&["containers", "rm", "orphan"])?;
    Ok(Outcome::Seen)
}
