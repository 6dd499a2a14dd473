//! Checkpoint and restore: what CRIU is asked for, by a script in its place; and a life across both, where CRIU itself works.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    support::{Stage, same},
    world::{World, answer_of, awaits},
};

/// Tells its arguments; `dump` ends the container as CRIU does, `restore` starts a process where it is.
const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = --version ] && exit 0
dir=$(dirname "$0")
printf '%s\n' "$@" > "$dir/args"
cat /proc/self/cgroup > "$dir/groups"
grep " $ROOTFS " /proc/self/mountinfo > "$dir/mounts"
action=$1
while [ $# -gt 0 ]; do
    case $1 in
        --tree) pid=$2 ;;
        --pidfile) file=$2 ;;
        --work-dir) work=$2 ;;
        --leave-running) stay=yes ;;
    esac
    shift
done
[ -e "$dir/fails" ] && { echo "Error (script:1): not today" > "$work/$action.log"; exit 1; }
case $action in
    dump) [ "$stay" ] || kill -9 "$pid" ;;
    restore) sleep 1000 > /dev/null 2>&1 & echo $! > "$file" ;;
esac
"#;

pub fn asked_for(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(json!({"destination": "/data", "type": "bind", "source": "/usr/share", "options": ["rbind", "ro"]}));
        }
    })?;
    let script = world.bundle.join("criu");
    fs::write(&script, SCRIPT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let criu = script.display().to_string();
    let images = world.bundle.join("images").display().to_string();
    let args = || -> Result<Vec<String>> { Ok(fs::read_to_string(world.bundle.join("args"))?.lines().map(str::to_owned).collect()) };
    let has = |args: &[String], pair: [&str; 2]| args.windows(2).any(|window| window == pair);
    // In place of its own, so that control groups and `restore` are of one configuration.
    fs::copy(world.place("web")?, world.bundle.join("config.json"))?;
    world.start("web")?;
    let pid = world.pid("web")?.to_string();
    world.must(&["--criu", &criu, "checkpoint", "--image-path", &images, "--leave-running", "--tcp-established", "web"])?;
    let asked = args()?;
    ensure!(asked[0] == "dump" && has(&asked, ["--tree", &pid]) && has(&asked, ["--images-dir", &images]), "{asked:?}");
    ensure!(has(&asked, ["--external", "mnt[/data]:/data"]) && asked.contains(&"--tcp-established".into()), "{asked:?}");
    same("it goes on", world.status("web")?.as_str(), "running")?;
    fs::write(world.bundle.join("fails"), "")?;
    world.fails(&["--criu", &criu, "checkpoint", "--image-path", &images, "web"], "criu: exit status: 1: ")?;
    same("after a failure", world.status("web")?.as_str(), "running")?;
    fs::remove_file(world.bundle.join("fails"))?;
    world.fails(
        &["--criu", "/nowhere/criu", "checkpoint", "--image-path", &images, "web"],
        "checkpoint and restore are CRIU's work, and /nowhere/criu is not there",
    )?;
    world.must(&["--criu", &criu, "checkpoint", "--image-path", &images, "web"])?;
    awaits(pid.parse()?)?;
    world.is_empty()?;
    restored(stage, &world, &criu, &images)
}

fn restored(stage: &Stage, world: &World, criu: &str, images: &str) -> Result<()> {
    let pid_file = world.bundle.join("pid").display().to_string();
    let restore = ["--criu", criu, "restore", "-d", "--image-path", images, "--pid-file", &pid_file, "web"];
    fs::write(world.bundle.join("fails"), "")?;
    world.fails(&restore, "criu: exit status: 1: Error (script:1): not today: see ")?;
    world.is_empty()?;
    fs::remove_file(world.bundle.join("fails"))?;
    let rootfs = stage.rootfs().display().to_string();
    let answer = answer_of({
        let mut command = world.command(&restore);
        command.env("ROOTFS", &rootfs);
        command
    })?;
    ensure!(answer.status == 0, "{answer:?}");
    same("running", (world.status("web")?.as_str(), world.pid("web")?.to_string()), ("running", fs::read_to_string(&pid_file)?))?;
    let args = fs::read_to_string(world.bundle.join("args"))?;
    ensure!(args.starts_with("restore\n") && args.contains("--external\nmnt[/data]:/usr/share\n") && args.contains("--restore-sibling\n"), "{args}");
    let groups = fs::read_to_string(world.bundle.join("groups"))?;
    ensure!(groups.lines().all(|line| line.ends_with("/web") || !line.contains(":pids:")), "{groups}");
    ensure!(!fs::read_to_string(world.bundle.join("mounts"))?.is_empty(), "the root was no mount");
    ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains(&format!(" {rootfs} ")), "a mount is left");
    world.must(&["delete", "--force", "web"])?;
    world.is_empty()
}

/// A program that counts goes on counting.
pub fn across(stage: &Stage) -> Result<()> {
    let check = Command::new("criu").arg("check").stdin(Stdio::null()).output();
    match check {
        Err(_) => {
            println!("skipped: criu is not installed");
            return Ok(());
        }
        Ok(check) if !check.status.success() => {
            let said = String::from_utf8_lossy(&check.stderr).into_owned();
            println!("skipped: criu check: {}", said.lines().next().unwrap_or_default());
            return Ok(());
        }
        Ok(_) => {}
    }
    let world = World::new(stage, &["forever"], |_| {})?;
    fs::copy(world.place("web")?, world.bundle.join("config.json"))?;
    world.start("web")?;
    let images = world.bundle.join("images").display().to_string();
    let ns = |pid: u32| fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/pid")).context("ns");
    let before = ns(world.pid("web")?)?;
    world.must(&["checkpoint", "--image-path", &images, "web"])?;
    world.is_empty()?;
    let answer = answer_of(world.command(&["restore", "-d", "--image-path", &images, "web"]))?;
    ensure!(answer.status == 0, "{answer:?}");
    let pid = world.pid("web")?;
    same("running", world.status("web")?.as_str(), "running")?;
    same("its arguments", fs::read_to_string(format!("/proc/{pid}/cmdline"))?, "/bin/program\0forever\0".into())?;
    ensure!(ns(pid)? != before, "it is where it was");
    world.must(&["delete", "--force", "web"])?;
    world.is_empty()
}
