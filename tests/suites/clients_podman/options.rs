//! Options of podman that end in less common members of a `config.json`.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use dyno_tests::{
    Said,
    clients::{Engine, Outcome, Sayings, group, mount_options, skip},
};

use super::Podman;

pub fn uncommon(podman: &Podman) -> Result<Outcome> {
    ensure!(podman.shell(&["--umask", "0077"], "umask")? == "0077\n");
    // What the image has there is copied up by the runtime.
    let told = podman.shell(&["--tmpfs", "/data"], "cat /data/words; > /data/new; cat /proc/mounts")?;
    ensure!(told.starts_with("one two three\n") && mount_options(&told, "/data")?[0] == "tmpfs", "{told}");
    let told = podman.shell(&["--mount", "type=devpts,destination=/pts"], "cat /proc/mounts")?;
    ensure!(mount_options(&told, "/pts")?[0] == "devpts", "{told}");
    let told = podman.shell(
        &["--security-opt", "mask=/data/words:/home", "--security-opt", "unmask=/sys/firmware"],
        "wc -c < /data/words; ls /home; cat /proc/mounts",
    )?;
    ensure!(
        told.starts_with("0\n") && mount_options(&told, "/sys/firmware").is_err() && mount_options(&told, "/home")?[..2] == ["tmpfs", "ro"],
        "{told}"
    );
    let told = podman.shell(&["--security-opt", "unmask=ALL", "--security-opt", "proc-opts=hidepid=2"], "cat /proc/mounts")?;
    ensure!(mount_options(&told, "/proc/sys").is_err(), "{told}");
    ensure!(mount_options(&told, "/proc")?.iter().any(|option| *option == "hidepid=2" || *option == "hidepid=invisible"), "{told}");
    let host = podman.desk.path("lower");
    fs::create_dir_all(&host)?;
    fs::write(host.join("file"), "lower\n")?;
    let told = podman.shell(&["--volume", &format!("{}:/over:O", host.display())], "echo upper > /over/file; cat /over/file; cat /proc/mounts")?;
    ensure!(told.starts_with("upper\n") && mount_options(&told, "/over")?[0] == "overlay", "{told}");
    ensure!(fs::read_to_string(host.join("file"))? == "lower\n");
    Ok(Outcome::Seen)
}

/// Descriptors of the caller's, and no others.
pub fn descriptors(podman: &Podman) -> Result<Outcome> {
    let arguments = podman.arguments("run", &["--rm", "--preserve-fds", "1"], &["sh", "-c", "cat <&3; ls /proc/self/fd | tr '\\n' ' '"]);
    let command = podman.command(&arguments);
    let file = podman.desk.write("given", "of the caller\n", 0o644)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "file=$1; shift; exec 3< \"$file\"; exec \"$@\"", "sh"]).arg(file).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let said = Said::of(shell.output()?)?;
    // 4 is ls's own.
    ensure!(said.stdout == "of the caller\n0 1 2 3 4 ", "{said:?}");
    Ok(Outcome::Seen)
}

/// `--cgroups`: none of its own, which podman asks for by an option of crun's, or one beside conmon's.
pub fn without_groups(podman: &Podman) -> Result<Outcome> {
    podman.with("apart", &["--cgroups", "no-conmon"], &["sleep", "1000"], |pid| {
        ensure!(group(pid)?.is_below(podman.desk.name()), "{:?}", group(pid)?);
        Ok(())
    })?;
    let help = Said::of(Command::new(podman.desk.runtime()).arg("--help").output()?)?;
    if !help.stdout.contains("--cgroup-manager") {
        return skip("--cgroups disabled: the runtime has no option --cgroup-manager");
    }
    let own = fs::read_to_string("/proc/self/cgroup")?;
    podman.with("groupless", &["--cgroups", "disabled"], &["sleep", "1000"], |pid| {
        let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        ensure!(theirs == own, "the caller's: {own}\nits own: {theirs}");
        ensure!(podman.ok(&["exec", "groupless", "echo", "x"])? == "x");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

/// A volume whose owners are those of the container, on disk those of the host. Debian's runc cannot; a runtime that can says so.
pub fn idmapped(podman: &Podman) -> Result<Outcome> {
    let said = Said::of(Command::new(podman.desk.runtime()).arg("features").output()?)?;
    let features: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_default();
    if !features["mountOptions"].as_array().is_some_and(|options| options.iter().any(|option| option == "idmap")) {
        return skip("idmapped volumes: the runtime does not name the option idmap among its features");
    }
    let host = podman.desk.path("mapped-volume");
    fs::create_dir_all(&host)?;
    fs::write(host.join("roots"), "")?;
    let volume = format!("{}:/v:idmap", host.display());
    let told =
        podman.shell(&["--uidmap", "0:300000:3000", "--gidmap", "0:300000:3000", "--volume", &volume], "stat -c %u /v/roots; > /v/new; id -u")?;
    ensure!(told == "0\n0\n", "{told}");
    ensure!(fs::metadata(host.join("new"))?.uid() == 0, "on disk it belongs to {}", fs::metadata(host.join("new"))?.uid());
    Ok(Outcome::Seen)
}

/// Many at once: ids, control groups and state directories are nobody else's.
pub fn many(podman: &Podman) -> Result<Outcome> {
    let names: Vec<String> = (0..8).map(|n| format!("many-{n}")).collect();
    let mut children = Vec::new();
    for name in &names {
        let script = format!("echo {name}; exit {}", name.len());
        let all = podman.arguments("run", &["--rm", "--name", name], &["sh", "-c", &script]);
        let mut command = podman.command(&all);
        children.push(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    }
    for (child, name) in children.into_iter().zip(&names) {
        let said = Said::of(child.wait_with_output()?)?;
        ensure!(said.stdout == format!("{name}\n") && said.status == 6, "{name}: {said:?}");
    }
    ensure!(podman.ok(&["ps", "--all", "--quiet"])?.is_empty());
    Ok(Outcome::Seen)
}
