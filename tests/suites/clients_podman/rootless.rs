//! podman of an ordinary user, who has a range of subordinate ids and no right to make control groups.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Process,
    clients::{Desk, Outcome, Sayings, field, path_of, private, skip, status},
};

use super::{LIMITS, Podman};

/// A user that this host does not know; podman sees a `/etc/passwd` that does.
const UID: u32 = 4242;

/// First of the subordinate ids.
const SUBORDINATE: u32 = 800_000;

struct Rootless<'a> {
    desk: &'a Desk,
}

impl Sayings for Rootless<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        let id = UID.to_string();
        command.args(["--kill-after=2", "60", "setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "env", "--ignore-environment"]);
        for (name, value) in [
            ("HOME", "user/home"),
            ("XDG_RUNTIME_DIR", "user/run"),
            ("CONTAINERS_CONF", "user/containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "user/storage.conf"),
        ] {
            command.arg(format!("{name}={}", self.desk.text(value)));
        }
        command.arg("PATH=/usr/bin:/usr/sbin:/bin:/sbin").arg("podman").args(arguments);
        let files = ["passwd", "group", "subid", "subid"].map(|name| self.desk.path(&format!("user/{name}")));
        let over = ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"];
        let mounts: Vec<(&Path, &str)> = files.iter().map(|file| file.as_path()).zip(over).collect();
        let mut command = private(&mounts, &command);
        // A place that the user may be in.
        command.current_dir(self.desk.path("user/home"));
        command
    }
}

pub fn rootless(podman: &Podman) -> Result<Outcome> {
    if path_of("newuidmap").is_none() {
        return skip("no newuidmap on this host (package uidmap)");
    }
    prepare(&podman.desk)?;
    let user = Rootless { desk: &podman.desk };
    let result = look(&user);
    user.ok(&["rm", "--force", "--all", "--time", "0"])?;
    user.ok(&["rmi", "--force", "--all"])?;
    // Who holds the user's namespaces between two commands; it would stay until the host is shut down.
    let pause = fs::read_to_string(podman.desk.path("user/run/libpod/tmp/pause.pid"))?;
    if let Some(pause) = Process::find(pause.trim().parse()?) {
        pause.kill()?;
    }
    result?;
    Ok(Outcome::Seen)
}

fn prepare(desk: &Desk) -> Result<()> {
    for (dir, mode) in [("user", 0o755), ("user/home", 0o700), ("user/run", 0o700)] {
        fs::create_dir(desk.path(dir))?;
        fs::set_permissions(desk.path(dir), Permissions::from_mode(mode))?;
        chown(desk.path(dir), Some(UID), Some(UID))?;
    }
    // Where the runtime was built, other users may have no way to.
    fs::copy(desk.runtime(), desk.path("user/runtime")).context("copy the runtime")?;
    let (passwd, group) = (fs::read_to_string("/etc/passwd")?, fs::read_to_string("/etc/group")?);
    let runtime = desk.text("user/runtime");
    // As podman knows runc and crun: errors are asked for as JSON.
    let conf = format!(
        "[containers]\n{LIMITS}\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\nruntime = \"tested\"\nruntime_supports_json = [\"tested\"]\n[engine.runtimes]\ntested = [\"{runtime}\"]\n"
    );
    desk.write("user/containers.conf", &conf, 0o644)?;
    desk.write("user/storage.conf", "[storage]\ndriver = \"vfs\"\n", 0o644)?;
    desk.write("user/passwd", &format!("{passwd}rootless:x:{UID}:{UID}::{}:/bin/sh\n", desk.text("user/home")), 0o644)?;
    desk.write("user/group", &format!("{group}rootless:x:{UID}:\n"), 0o644)?;
    desk.write("user/subid", &format!("rootless:{SUBORDINATE}:65536\n"), 0o644)?;
    Ok(())
}

fn look(user: &Rootless) -> Result<()> {
    let archive = user.desk.archive()?.display().to_string();
    user.ok(&["import", "--quiet", &archive, "bench"])?;
    let run = |options: &[&str], program: &[&str]| user.say(&[&["run", "--rm", "--network", "none"], options, &["bench"], program].concat());
    let said = run(&[], &["sh", "-c", "id -u; cat /proc/self/uid_map; stat -c %u /data/words; echo x > /data/new && cat /data/new; exit 7"])?;
    let words: Vec<&str> = said.stdout.split_whitespace().collect();
    ensure!(said.status == 7 && words == ["0", "0", "4242", "1", "1", "800000", "65536", "0", "x"], "{said:?}");
    let said = run(&["--userns", "keep-id"], &["sh", "-c", "id -u; id -g; > /tmp/mine; stat -c %u /tmp/mine"])?;
    ensure!(said.status == 0 && said.stdout == "4242\n4242\n4242\n", "{said:?}");
    let said = run(&["--user", "app", "--read-only", "--cap-drop", "all"], &["sh", "-c", "id -u; grep CapEff /proc/self/status; echo x > /x"])?;
    ensure!(said.status == 1 && said.stdout == "1000\nCapEff:\t0000000000000000\n", "{said:?}");
    ensure!(run(&[], &["no-such-program"])?.status == 127);
    user.ok(&["run", "--detach", "--name", "theirs", "--network", "none", "--user", "app", "bench", "sleep", "1000"])?;
    let pid: u32 = user.ok(&["inspect", "--format", "{{.State.Pid}}", "theirs"])?.parse()?;
    // 0 is the user, 1 the first of the subordinate ids.
    ensure!(field(&status(pid)?, "Uid")?.starts_with(&format!("{}\t", SUBORDINATE + 999)), "{}", status(pid)?);
    let said = user.ends(4, &["exec", "theirs", "sh", "-c", "id -u; readlink /proc/self/ns/user; exit 4"])?;
    ensure!(said.stdout == format!("1000\n{}\n", fs::read_link(format!("/proc/{pid}/ns/user"))?.display()), "{said:?}");
    user.ok(&["stop", "--time", "0", "theirs"])?;
    user.ok(&["start", "theirs"])?;
    user.ok(&["kill", "theirs"])?;
    ensure!(user.ok(&["wait", "theirs"])? == "137");
    Ok(())
}
