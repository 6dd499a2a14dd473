//! What a container finds inside: its root, mounts, rights, filters, devices, names.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use dyno_tests::clients::{Engine, Outcome, Sayings, field, mount_options, private, status};

use super::Podman;

pub fn privileged(podman: &Podman) -> Result<Outcome> {
    let told = podman.shell(&["--privileged"], "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs none /mnt 2>/dev/null || { mkdir /mnt && mount -t tmpfs none /mnt; }; grep -c ' /mnt ' /proc/mounts; cat /proc/mounts")?;
    let own = fs::read_to_string("/proc/self/status")?;
    ensure!(field(&told, "CapEff")? == field(&own, "CapEff")? && field(&told, "Seccomp")? == "0", "{told}");
    ensure!(told.contains("\n1\n") && mount_options(&told, "/sys")?.contains(&"rw"), "{told}");
    Ok(Outcome::Seen)
}

pub fn mapped(podman: &Podman) -> Result<Outcome> {
    let told = podman.shell(
        &["--uidmap", "0:300000:3000", "--gidmap", "0:400000:3000"],
        "cat /proc/self/uid_map /proc/self/gid_map; stat -c '%u %g' /data/words; > /data/new; id -u",
    )?;
    let words: Vec<&str> = told.split_whitespace().collect();
    ensure!(words == ["0", "300000", "3000", "0", "400000", "3000", "0", "0", "0"], "{told}");
    podman.with("mapped", &["--uidmap", "0:300000:3000", "--gidmap", "0:400000:3000", "--user", "app"], &["sleep", "1000"], |pid| {
        ensure!(field(&status(pid)?, "Uid")?.starts_with("301000\t"), "{}", status(pid)?);
        let told = podman.ok(&["exec", "mapped", "id", "-u"])?;
        ensure!(told == "1000", "{told}");
        let told = podman.ok(&["exec", "--user", "root", "mapped", "sh", "-c", "cat /proc/self/uid_map; readlink /proc/self/ns/user"])?;
        let user = fs::read_link(format!("/proc/{pid}/ns/user"))?.display().to_string();
        ensure!(told.contains("300000") && told.ends_with(&user), "{told}");
        Ok(())
    })?;
    // A range of its own for each, from /etc/subuid, which this host's users keep as it is: podman sees another.
    let ranges = podman.desk.write("subid", "containers:700000:1000000\n", 0o644)?;
    let over: [(&Path, &str); 2] = [(&ranges, "/etc/subuid"), (&ranges, "/etc/subgid")];
    let arguments = podman.arguments("run", &["--rm", "--userns", "auto:size=3000"], &["cat", "/proc/self/uid_map"]);
    let output = private(&over, &podman.command(&arguments)).output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "--userns auto: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(told.split_whitespace().collect::<Vec<_>>() == ["0", "700000", "3000"], "{told}");
    Ok(Outcome::Seen)
}
