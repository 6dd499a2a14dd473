//! A container's life: made, run, looked at, stopped, started again.

use std::fs;

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Process,
    clients::{Engine, Outcome, Sayings, field, group, status},
    until,
};

use super::{Docker, IMAGE, has_all_capabilities};

pub fn registered(docker: &Docker) -> Result<Outcome> {
    let info = docker.ok(&["info", "--format", "{{.DefaultRuntime}} {{(index .Runtimes \"tested\").Path}} {{.CgroupDriver}}"])?;
    ensure!(info == format!("tested {} cgroupfs", docker.desk.runtime().display()), "{info}");
    let said = docker.run(&[], &[])?;
    ensure!(said.status == 0 && said.stdout == "made by hand\n", "{said:?}");
    Ok(Outcome::Seen)
}

/// A build's RUN lines are containers of the default runtime.
pub fn built(docker: &Docker) -> Result<Outcome> {
    let text = format!(
        "FROM {IMAGE}\nWORKDIR /data\nRUN echo $(pwd) $WHO $(id -u) > /made\nUSER app\nRUN id -u > /tmp/me\nENTRYPOINT [\"cat\"]\nCMD [\"/made\", \"/tmp/me\"]\n"
    );
    fs::create_dir_all(docker.desk.path("context"))?;
    docker.desk.write("context/Dockerfile", &text, 0o644)?;
    docker.ok(&["build", "--quiet", "--network", "none", "--tag", "second", &docker.desk.text("context")])?;
    let said = docker.ok(&["run", "--rm", "--network", "none", "second"])?;
    ensure!(said == "/data image 0\n1000", "{said:?}");
    docker.ok(&["rmi", "second"])?;
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
    docker.with(
        "waited",
        &["--hostname", "somewhere"],
        &["sh", "-c", "trap 'exit 5' TERM; echo up; echo odd >&2; while :; do sleep 0.05; done"],
        |pid| {
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
        },
    )?;
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
        let theirs: Vec<String> = ["pid", "mnt", "net", "ipc", "uts"]
            .iter()
            .map(|kind| Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string()))
            .collect::<Result<_>>()?;
        ensure!(mine == format!("{}\nsleep", theirs.join("\n")), "{mine} {theirs:?}");
        docker.ok(&["exec", "--detach", "executed", "sh", "-c", "cat /proc/self/cgroup > /tmp/there; exec sleep 999"])?;
        let there = until(10, "what was left in the background has begun", || {
            Ok(in_it(&[], "cat /tmp/there").ok().filter(|text| text.ends_with(|c: char| c.is_ascii_alphanumeric())))
        })?;
        ensure!(there == fs::read_to_string(format!("/proc/{pid}/cgroup"))?.trim_end(), "{there}");
        let rights = |options: &[&str]| in_it(options, "grep CapEff /proc/self/status");
        ensure!(!has_all_capabilities()? || rights(&["--privileged"])? > rights(&[])?, "no more rights");
        Ok(())
    })?;
    docker.ends(1, &["exec", "executed", "true"])?;
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
