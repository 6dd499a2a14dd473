//! A container's life: made, run, looked at, stopped, started again.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Process,
    clients::{Outcome, Sayings, field, group, status},
    until,
};

use super::{Docker, IMAGE, arguments, has_all_capabilities};

pub fn registered(docker: &Docker) -> Result<Outcome> {
    let info = docker.ok(&["info", "--format", "{{.DefaultRuntime}} {{(index .Runtimes \"tested\").Path}} {{.CgroupDriver}}"])?;
    ensure!(info == format!("tested {} cgroupfs", docker.desk.runtime().display()), "{info}");
    let said = docker.run(&[], &[])?;
    ensure!(said.status == 0 && said.stdout == "made by hand\n", "{said:?}");
    Ok(Outcome::Seen)
}

/// A build's RUN lines are containers of the default runtime.
pub fn built(docker: &Docker) -> Result<Outcome> {
    let text = format!("FROM {IMAGE}\nWORKDIR /data\nRUN echo $(pwd) $WHO $(id -u) > /made\nUSER app\nRUN id -u > /tmp/me\nENTRYPOINT [\"cat\"]\nCMD [\"/made\", \"/tmp/me\"]\n");
    fs::create_dir_all(docker.desk.path("context"))?;
    docker.desk.write("context/Dockerfile", &text, 0o644)?;
    docker.ok(&["build", "--quiet", "--network", "none", "--tag", "second", &docker.desk.text("context")])?;
    let said = docker.ok(&["run", "--rm", "--network", "none", "second"])?;
    ensure!(said == "/data image 0\n1000", "{said:?}");
    docker.ok(&["rmi", "second"])?;
    Ok(Outcome::Seen)
}

pub fn statuses(docker: &Docker) -> Result<Outcome> {
    for (script, status) in [("true", 0), ("exit 7", 7), ("exit 255", 255), ("sh -c 'kill -9 $$'", 137), ("sh -c 'kill -15 $$'", 143)] {
        let said = docker.run(&[], &["sh", "-c", &format!("{script}; exit $?")])?;
        ensure!(said.status == status, "{script}: {said:?}");
    }
    let said = docker.run(&[], &["sh", "-c", "echo out; echo err >&2"])?;
    ensure!(said.stdout == "out\n" && said.stderr == "err\n", "{said:?}");
    Ok(Outcome::Seen)
}

/// The engine reads the runtime's words to tell 126 from 127.
pub fn cannot(docker: &Docker) -> Result<Outcome> {
    for (program, status) in [("no-such-program", 127), ("/no/such/program", 127), ("/bin/plain", 126), ("/data", 126)] {
        let said = docker.run(&[], &[program])?;
        ensure!(said.status == status, "run {program}: {said:?}");
        ensure!(said.stderr.contains(program), "run {program}: it is not named: {said:?}");
    }
    docker.with("cannot", &[], &["sleep", "1000"], |_| {
        for (program, status) in [("no-such-program", 126), ("/bin/plain", 126), ("/data", 126)] {
            let said = docker.say(&["exec", "cannot", program])?;
            ensure!(said.status == status || said.status == 127, "exec {program}: {said:?}");
            ensure!((said.stdout + &said.stderr).contains(program), "exec {program}: it is not named");
        }
        Ok(())
    })?;
    // Nothing is left of what could not be started.
    ensure!(docker.ok(&["ps", "--all", "--quiet"])?.is_empty());
    Ok(Outcome::Seen)
}

pub fn detached(docker: &Docker) -> Result<Outcome> {
    docker.with("waited", &["--hostname", "somewhere"], &["sh", "-c", "trap 'exit 5' TERM; echo up; echo odd >&2; while :; do sleep 0.05; done"], |pid| {
        ensure!(fs::read(format!("/proc/{pid}/cmdline"))?.starts_with(b"sh\0-c\0"), "pid {pid} is another process");
        ensure!(group(pid)?.is_below(docker.desk.name()), "{:?}", group(pid)?);
        let seen = docker.inspect("waited")?;
        ensure!(seen["State"]["Status"] == "running" && seen["HostConfig"]["Runtime"] == "tested", "{seen:#}");
        ensure!(docker.ok(&["top", "waited", "-eo", "pid,comm"])?.contains(&format!("{pid} ")), "top does not know {pid}");
        until(10, "it is up", || {
            let said = docker.say(&["logs", "waited"])?;
            Ok((said.stdout == "up\n" && said.stderr == "odd\n").then_some(()))
        })?;
        docker.ok(&["kill", "--signal", "TERM", "waited"])?;
        ensure!(docker.ok(&["wait", "waited"])? == "5");
        let seen = docker.inspect("waited")?;
        ensure!(seen["State"]["Status"] == "exited" && seen["State"]["ExitCode"] == 5, "{seen:#}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn exec(docker: &Docker) -> Result<Outcome> {
    docker.with("executed", &["--env", "A=1"], &["sleep", "1000"], |pid| {
        let in_it = |options: &[&str], script: &str| docker.ok(&[&["exec"], options, &["executed", "sh", "-c", script]].concat());
        let told = in_it(&[], "id -u; pwd; echo $A $B $WHO")?;
        ensure!(told == "0\n/\n1 image", "{told:?}");
        let told = in_it(&["--user", "app", "--workdir", "/data", "--env", "B=2"], "id -u; id -g; id -G; pwd; echo $A $B")?;
        ensure!(told == "1000\n1000\n1000 2000\n/data\n1 2", "{told:?}");
        docker.ends(9, &["exec", "executed", "sh", "-c", "exit 9"])?;
        docker.ends(137, &["exec", "executed", "sh", "-c", "kill -9 $$"])?;
        let mine = in_it(&[], "for n in pid mnt net ipc uts; do readlink /proc/self/ns/$n; done; cat /proc/1/comm")?;
        let theirs: Vec<String> = ["pid", "mnt", "net", "ipc", "uts"].iter().map(|kind| Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string())).collect::<Result<_>>()?;
        ensure!(mine == format!("{}\nsleep", theirs.join("\n")), "{mine} {theirs:?}");
        docker.ok(&["exec", "--detach", "executed", "sh", "-c", "cat /proc/self/cgroup > /tmp/there; exec sleep 999"])?;
        let there = until(10, "what was left in the background has begun", || Ok(in_it(&[], "cat /tmp/there").ok().filter(|text| text.ends_with(|c: char| c.is_ascii_alphanumeric()))))?;
        ensure!(there == fs::read_to_string(format!("/proc/{pid}/cgroup"))?.trim_end(), "{there}");
        let rights = |options: &[&str]| in_it(options, "grep CapEff /proc/self/status");
        ensure!(!has_all_capabilities()? || rights(&["--privileged"])? > rights(&[])?, "no more rights");
        Ok(())
    })?;
    docker.ends(1, &["exec", "executed", "true"])?;
    Ok(Outcome::Seen)
}

pub fn paused(docker: &Docker) -> Result<Outcome> {
    docker.with("paused", &[], &["sh", "-c", "while :; do echo >> /tmp/beats; sleep 0.01; done"], |pid| {
        docker.ok(&["pause", "paused"])?;
        ensure!(docker.inspect("paused")?["State"]["Status"] == "paused");
        ensure!(group(pid)?.is_frozen(), "its group is not frozen");
        let beats = || Ok::<_, anyhow::Error>(fs::metadata(format!("/proc/{pid}/root/tmp/beats"))?.len());
        let (before, end) = (beats()?, Instant::now() + Duration::from_millis(100));
        while Instant::now() < end {
            ensure!(beats()? == before, "it goes on while it is paused");
        }
        docker.ends(1, &["exec", "paused", "true"])?;
        docker.ok(&["unpause", "paused"])?;
        ensure!(docker.inspect("paused")?["State"]["Status"] == "running");
        until(10, "it goes on", || Ok((beats()? > before).then_some(())))?;
        // One that is paused can be removed as well: what follows is `rm --force`.
        docker.ok(&["pause", "paused"]).map(drop)
    })?;
    Ok(Outcome::Seen)
}

pub fn stopped(docker: &Docker) -> Result<Outcome> {
    let polite = "trap 'echo asked; exit 3' TERM; trap 'echo told' USR1; echo up; while :; do sleep 0.05; done";
    docker.with("polite", &[], &["sh", "-c", polite], |pid| {
        let up = |text: &str| until(10, "it says so", || Ok(docker.ok(&["logs", "polite"])?.contains(text).then_some(())));
        let (init, groups) = (Process::find(pid).context("init")?, group(pid)?);
        up("up")?;
        docker.ok(&["kill", "--signal", "USR1", "polite"])?;
        up("told")?;
        docker.ok(&["stop", "--time", "30", "polite"])?;
        ensure!(docker.inspect("polite")?["State"]["ExitCode"] == 3 && !init.runs());
        until(10, "its control groups are gone", || Ok(groups.left().is_empty().then_some(())))
    })?;
    docker.with("deaf", &[], &["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"], |_| {
        docker.ok(&["stop", "--time", "1", "deaf"])?;
        ensure!(docker.inspect("deaf")?["State"]["ExitCode"] == 137);
        docker.ends(1, &["kill", "deaf"])?;
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn restarted(docker: &Docker) -> Result<Outcome> {
    docker.with("again", &["--tmpfs", "/fresh"], &["sh", "-c", "echo >> /tmp/starts; exec sleep 1000"], |first| {
        let starts = || docker.ok(&["exec", "again", "sh", "-c", "wc -l < /tmp/starts; ls /fresh; > /fresh/file"]);
        until(10, "it has begun", || Ok((starts().is_ok_and(|n| n.starts_with('1'))).then_some(())))?;
        docker.ok(&["restart", "--time", "0", "again"])?;
        let second = docker.pid("again")?;
        ensure!(second != first && Process::find(first).is_none(), "{first} {second}");
        until(10, "it has begun", || Ok((starts()? == "2").then_some(())))?;
        docker.ok(&["stop", "--time", "0", "again"])?;
        docker.ok(&["start", "again"])?;
        until(10, "it has begun", || Ok((starts()? == "3").then_some(())))
    })?;
    let once = "test -e /tmp/once && exit 0; > /tmp/once; exit 1";
    docker.ok(&arguments(&["--detach", "--name", "policy", "--restart", "on-failure:3"], &["sh", "-c", once]))?;
    until(15, "it is started again, and is done", || {
        let seen = docker.inspect("policy")?;
        Ok((seen["RestartCount"] == 1 && seen["State"]["Status"] == "exited" && seen["State"]["ExitCode"] == 0).then_some(()))
    })?;
    docker.ok(&["rm", "policy"])?;
    Ok(Outcome::Seen)
}

pub fn health(docker: &Docker) -> Result<Outcome> {
    let options = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1"];
    docker.with("patient", &options, &["sleep", "1000"], |_| {
        let is = |wanted: &str| until(15, wanted, || Ok((docker.inspect("patient")?["State"]["Health"]["Status"] == wanted).then_some(())));
        is("unhealthy")?;
        docker.ok(&["exec", "patient", "touch", "/tmp/well"])?;
        is("healthy")
    })?;
    Ok(Outcome::Seen)
}

pub fn init(docker: &Docker) -> Result<Outcome> {
    docker.with("reaped", &["--init"], &["sh", "-c", "sleep 1000 & exec sleep 1000"], |pid| {
        ensure!(field(&status(pid)?, "Name")? == "docker-init", "{}", status(pid)?);
        docker.ok(&["exec", "reaped", "sh", "-c", "(sleep 0 &)"])?;
        let zombies = || docker.ok(&["exec", "reaped", "sh", "-c", "grep -l 'State:.Z' /proc/[0-9]*/status || true"]);
        until(10, "no zombie is left", || Ok(zombies()?.is_empty().then_some(())))
    })?;
    Ok(Outcome::Seen)
}

/// The engine deletes by the runtime what nobody can tell it of any more.
pub fn killed_shim(docker: &Docker) -> Result<Outcome> {
    docker.with("orphan", &[], &["sleep", "1000"], |pid| {
        let (process, groups) = (Process::find(pid).context("its process")?, group(pid)?);
        let shim: u32 = field(&status(pid)?, "PPid")?.parse()?;
        let comm = fs::read_to_string(format!("/proc/{shim}/comm"))?;
        ensure!(comm.starts_with("containerd-shim"), "the parent is {comm}");
        Process::find(shim).context("the shim")?.kill()?;
        until(15, "its process ends", || Ok((!process.runs()).then_some(())))?;
        until(15, "its control groups are gone", || Ok(groups.left().is_empty().then_some(())))?;
        until(15, "the engine knows", || Ok((docker.inspect("orphan")?["State"]["Status"] == "exited").then_some(())))?;
        docker.ok(&["start", "orphan"])?;
        ensure!(docker.pid("orphan")? != pid);
        Ok(())
    })?;
    Ok(Outcome::Seen)
}
