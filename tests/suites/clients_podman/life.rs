//! A container's life: made, run, looked at, stopped, started again.

use std::fs;

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    clients::{Engine, Outcome, Sayings, field, group, status},
    until,
};

use super::{IMAGE, Podman};

/// A build's RUN lines are containers as well, of another kind than those of `podman run`.
pub fn built(podman: &Podman) -> Result<Outcome> {
    let said = podman.run(&[], &[])?;
    ensure!(said.status == 0 && said.stdout == "made from scratch\n", "{said:?}");
    let text = format!(
        "FROM {IMAGE}\nWORKDIR /data\nRUN echo $(pwd) $WHO $(id -u) > /made\nUSER app\nRUN id -u > /tmp/me\nENTRYPOINT [\"cat\"]\nCMD [\"/made\", \"/tmp/me\"]\n"
    );
    podman.desk.write("Second", &text, 0o644)?;
    let (file, here, runtime) = (podman.desk.text("Second"), podman.desk.text("."), podman.desk.runtime().display().to_string());
    let limits = ["--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    podman.ok(&[&["build", "--quiet", "--tag", "second", "--file", &file, "--runtime", &runtime], &limits[..], &[&here]].concat())?;
    let said = podman.ok(&["run", "--rm", "--network", "none", "--cgroup-parent", &podman.parent, "second"])?;
    ensure!(said == "/data image 0\n1000", "{said:?}");
    podman.ok(&["rmi", "second"])?;
    Ok(Outcome::Seen)
}

/// podman reads the runtime's words to tell 126 from 127.
pub fn cannot(podman: &Podman) -> Result<Outcome> {
    for (program, status) in [("no-such-program", 127), ("/no/such/program", 127), ("/bin/plain", 126), ("/data", 126)] {
        let said = podman.run(&[], &[program])?;
        ensure!(said.status == status, "run {program}: {said:?}");
        ensure!(said.stderr.contains(program), "run {program}: it is not named: {said:?}");
    }
    podman.with("cannot", &[], &["sleep", "1000"], |_| {
        for (program, status) in [("no-such-program", 127), ("/no/such/program", 127), ("/bin/plain", 126), ("/data", 126)] {
            podman.ends(status, &["exec", "cannot", program])?;
        }
        Ok(())
    })?;
    let said = podman.run(&["--workdir", "/data/words"], &["true"])?;
    ensure!(said.status == 126 || said.status == 127, "a file as working directory: {said:?}");
    Ok(Outcome::Seen)
}

pub fn detached(podman: &Podman) -> Result<Outcome> {
    podman.with("waited", &["--hostname", "somewhere"], &["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"], |pid| {
        ensure!(fs::read(format!("/proc/{pid}/cmdline"))?.starts_with(b"sh\0-c\0"), "pid {pid} is another process");
        ensure!(group(pid)?.is_below(podman.desk.name()), "{:?}", group(pid)?);
        let seen = podman.inspect("waited")?;
        ensure!(seen["State"]["Status"] == "running" && seen["OCIRuntime"] == "tested", "{seen:#}");
        let listed = podman.ok(&["ps", "--noheading", "--format", "{{.Names}} {{.Status}}"])?;
        ensure!(listed.starts_with("waited Up"), "{listed:?}");
        ensure!(podman.ok(&["top", "waited", "hpid", "comm"])?.contains(&format!("{pid} ")), "top does not know {pid}");
        until(10, "it is up", || Ok((podman.ok(&["logs", "waited"])? == "up").then_some(())))?;
        podman.ok(&["kill", "--signal", "TERM", "waited"])?;
        ensure!(podman.ok(&["wait", "waited"])? == "5");
        let seen = podman.inspect("waited")?;
        ensure!(seen["State"]["Status"] == "exited" && seen["State"]["ExitCode"] == 5, "{seen:#}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn exec(podman: &Podman) -> Result<Outcome> {
    podman.with("executed", &["--env", "A=1"], &["sleep", "1000"], |pid| {
        let in_it = |options: &[&str], script: &str| podman.ok(&[&["exec"], options, &["executed", "sh", "-c", script]].concat());
        let told = in_it(&[], "id; pwd; echo $A $B $WHO")?;
        ensure!(told.starts_with("uid=0(root) gid=0(root)") && told.ends_with("\n/\n1 image"), "{told:?}");
        let told = in_it(&["--user", "app", "--workdir", "/data", "--env", "B=2"], "id; pwd; echo $A $B")?;
        ensure!(
            told == "uid=1000(app) gid=1000(app) groups=2000(extra)\n/data\n1 2"
                || told == "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n/data\n1 2",
            "{told:?}"
        );
        podman.ends(9, &["exec", "executed", "sh", "-c", "exit 9"])?;
        let said = podman.ends(137, &["exec", "executed", "sh", "-c", "echo gone >&2; kill -9 $$"])?;
        ensure!(said.stderr.starts_with("gone\n"), "{said:?}");
        // Beside it, not in a copy of it: same processes, same namespaces, same control group.
        let mine = in_it(&[], "for n in pid mnt net ipc uts; do readlink /proc/self/ns/$n; done; cat /proc/1/comm")?;
        let theirs: Vec<String> = ["pid", "mnt", "net", "ipc", "uts"]
            .iter()
            .map(|kind| Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string()))
            .collect::<Result<_>>()?;
        ensure!(mine == format!("{}\nsleep", theirs.join("\n")), "{mine} {theirs:?}");
        podman.ok(&["exec", "--detach", "executed", "sh", "-c", "cat /proc/self/cgroup > /tmp/there; exec sleep 999"])?;
        let there = until(10, "what was left in the background has begun", || Ok(in_it(&[], "cat /tmp/there").ok()))?;
        ensure!(there == fs::read_to_string(format!("/proc/{pid}/cgroup"))?.trim_end(), "{there}");
        let input = podman.ok(&["exec", "--privileged", "executed", "sh", "-c", "grep CapEff /proc/self/status"])?;
        let plain = in_it(&[], "grep CapEff /proc/self/status")?;
        ensure!(input > plain, "privileged: {input}, plain: {plain}");
        Ok(())
    })?;
    podman.ends(125, &["exec", "executed", "true"])?;
    Ok(Outcome::Seen)
}

pub fn logs(podman: &Podman) -> Result<Outcome> {
    podman.ok(&podman.arguments(
        "create",
        &["--name", "logged", "--log-driver", "k8s-file"],
        &["sh", "-c", "for i in 1 2 3; do echo line $i; done; echo odd >&2; printf unended"],
    ))?;
    podman.ok(&["start", "logged"])?;
    podman.ok(&["wait", "logged"])?;
    let said = podman.say(&["logs", "logged"])?;
    ensure!(said.stdout.trim_end() == "line 1\nline 2\nline 3\nunended" && said.stderr == "odd\n", "{said:?}");
    let last = podman.say(&["logs", "--tail", "1", "logged"])?;
    ensure!(last.stdout.is_empty() && last.stderr == "odd\n", "{last:?}");
    podman.ok(&["rm", "logged"])?;
    Ok(Outcome::Seen)
}

pub fn health(podman: &Podman) -> Result<Outcome> {
    let options = ["--health-cmd", "test -e /tmp/well", "--health-interval", "disable", "--health-retries", "1"];
    podman.with("patient", &options, &["sleep", "1000"], |_| {
        podman.ends(1, &["healthcheck", "run", "patient"])?;
        ensure!(
            podman.inspect("patient")?["State"]["Healthcheck"]["Status"] == "unhealthy"
                || podman.inspect("patient")?["State"]["Health"]["Status"] == "unhealthy"
        );
        podman.ok(&["exec", "patient", "touch", "/tmp/well"])?;
        podman.ok(&["healthcheck", "run", "patient"])?;
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

/// podman hands the hooks of a directory to the runtime; those of all kinds but createContainer and startContainer run outside.
pub fn hooks(podman: &Podman) -> Result<Outcome> {
    let log = podman.desk.text("hooks.log");
    let script = podman.desk.write("hook", &format!("#!/bin/sh\nstate=$(cat)\necho \"$1 $state\" >> {log}\n"), 0o755)?;
    fs::create_dir_all(podman.desk.path("hooks.d"))?;
    for stage in ["prestart", "createRuntime", "poststart", "poststop"] {
        let hook =
            serde_json::json!({"version": "1.0.0", "hook": {"path": script, "args": ["hook", stage]}, "when": {"always": true}, "stages": [stage]});
        podman.desk.write(&format!("hooks.d/{stage}.json"), &hook.to_string(), 0o644)?;
    }
    let dir = podman.desk.text("hooks.d");
    podman.ok(&[&["--hooks-dir", &dir], &podman.arguments("run", &["--rm"], &["true"])[..]].concat())?;
    let text = fs::read_to_string(&log)?;
    let mut seen = Vec::new();
    for line in text.lines() {
        let (stage, state) = line.split_once(' ').context("a state")?;
        let state: serde_json::Value = serde_json::from_str(state).with_context(|| line.to_owned())?;
        ensure!(state["id"].is_string() && state["bundle"].is_string() && state["ociVersion"].is_string(), "{line}");
        seen.push((stage, state["status"].as_str().unwrap_or_default().to_owned()));
    }
    let stages: Vec<&str> = seen.iter().map(|(stage, _)| *stage).collect();
    ensure!(stages == ["prestart", "createRuntime", "poststart", "poststop"], "{seen:?}");
    ensure!(seen[3].1 == "stopped", "{seen:?}");
    // A hook that fails ends the container before it has begun.
    podman.desk.write("hook", "#!/bin/sh\necho no such luck >&2\nexit 1\n", 0o755)?;
    let said = podman.say(&[&["--hooks-dir", &dir], &podman.arguments("run", &["--rm"], &["echo", "begun"])[..]].concat())?;
    ensure!(said.status != 0 && !said.stdout.contains("begun"), "{said:?}");
    Ok(Outcome::Seen)
}

pub fn init(podman: &Podman) -> Result<Outcome> {
    podman.with("reaped", &["--init"], &["sh", "-c", "sleep 1000 & exec sleep 1000"], |pid| {
        ensure!(field(&status(pid)?, "Name")? == "podman-init", "{}", status(pid)?);
        podman.ok(&["exec", "reaped", "sh", "-c", "(sleep 0 &)"])?;
        let zombies = || podman.ok(&["exec", "reaped", "sh", "-c", "grep -l 'State:.Z' /proc/[0-9]*/status || true"]);
        until(10, "no zombie is left", || Ok(zombies()?.is_empty().then_some(())))
    })?;
    Ok(Outcome::Seen)
}
