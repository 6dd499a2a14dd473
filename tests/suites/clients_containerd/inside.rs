//! What a container of `ctr run` finds inside.

use std::fs;

use anyhow::{Result, ensure};
use dyno_tests::clients::{Outcome, Sayings, field, group, mount_options, status};

use super::Containerd;

pub fn options(containerd: &Containerd) -> Result<Outcome> {
    let told = containerd.shell(&["--env", "B=2", "--cwd", "/data"], "pwd; echo $WHO $B; ls /sys/class/net; ls /proc/self/fd | tr '\\n' ' '")?;
    ensure!(told == "/data\nimage 2\nlo\n0 1 2 3 ", "{told}");
    let host = containerd.desk.path("shared");
    fs::create_dir_all(&host)?;
    fs::write(host.join("file"), "of the host\n")?;
    let mount = |at: &str, options: &str| format!("type=bind,src={},dst={at},options={options}", host.display());
    let (rw, ro, tmp) = (mount("/rw", "rbind:rw"), mount("/ro", "rbind:ro:nosuid"), "type=tmpfs,src=tmpfs,dst=/small,options=size=64k:mode=1750");
    let options = ["--read-only", "--mount", &rw, "--mount", &ro, "--mount", tmp];
    let told = containerd.shell(&options, "cat /rw/file /ro/file; echo back > /rw/back; echo x > /ro/x || echo refused; echo x > /data/x || echo refused; stat -c %a /small; cat /proc/mounts")?;
    ensure!(told.starts_with("of the host\nof the host\nrefused\nrefused\n1750\n"), "{told}");
    ensure!(mount_options(&told, "/")?.contains(&"ro") && mount_options(&told, "/small")?.contains(&"size=64k"), "{told}");
    ensure!(mount_options(&told, "/ro")?.contains(&"ro") && mount_options(&told, "/ro")?.contains(&"nosuid"), "{told}");
    Ok(Outcome::Seen)
}

pub fn rights(containerd: &Containerd) -> Result<Outcome> {
    let told = containerd.shell(&[], "cat /proc/self/status")?;
    ensure!(field(&told, "NoNewPrivs")? == "1" && field(&told, "Seccomp")? == "0", "{told}");
    let (usual, net_admin) = (u64::from_str_radix(field(&told, "CapEff")?, 16)?, 1 << 12);
    let told =
        containerd.shell(&["--cap-add", "CAP_NET_ADMIN", "--cap-drop", "CAP_CHOWN", "--seccomp", "--allow-new-privs"], "cat /proc/self/status")?;
    ensure!(u64::from_str_radix(field(&told, "CapEff")?, 16)? == (usual | net_admin) & !1, "{told}");
    ensure!(field(&told, "NoNewPrivs")? == "0" && field(&told, "Seccomp")? == "2", "{told}");
    let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
    let file = containerd.desk.write("seccomp.json", &profile.to_string(), 0o644)?.display().to_string();
    let said = containerd.run(&["--seccomp", "--seccomp-profile", &file], &["mkdir", "/tmp/x"])?;
    ensure!(said.status == 1 && said.stderr.contains("No space left"), "{said:?}");
    let told = containerd.shell(&["--privileged"], "mkdir /mnt; mount -t tmpfs none /mnt && grep -c ' /mnt ' /proc/mounts")?;
    ensure!(told == "1\n", "{told}");
    Ok(Outcome::Seen)
}

pub fn limits(containerd: &Containerd) -> Result<Outcome> {
    let cgroup = format!("/{}/by-hand", containerd.desk.name());
    containerd.with(
        "limited",
        &["--memory-limit", "67108864", "--cpus", "0.5", "--cpu-shares", "512", "--cgroup", &cgroup],
        &["sleep", "1000"],
        |pid| {
            let group = group(pid)?;
            ensure!(group.is_below("/by-hand"), "{group:?}");
            ensure!(group.read(&["memory.limit_in_bytes", "memory.max"])? == "67108864");
            let (quota, shares) = (group.read(&["cpu.cfs_quota_us", "cpu.max"])?, group.read(&["cpu.shares", "cpu.weight"])?);
            ensure!((quota == "50000" || quota == "50000 100000") && (shares == "512" || shares == "20"), "{quota} {shares}");
            Ok(())
        },
    )?;
    Ok(Outcome::Seen)
}

pub fn namespaces(containerd: &Containerd) -> Result<Outcome> {
    containerd.with("other", &[], &["sleep", "1000"], |pid| {
        let (net, ipc) = (format!("network:/proc/{pid}/ns/net"), format!("ipc:/proc/{pid}/ns/ipc"));
        let told =
            containerd.shell(&["--with-ns", &net, "--with-ns", &ipc], "readlink /proc/self/ns/net /proc/self/ns/ipc; readlink /proc/self/ns/ipc")?;
        let theirs = |kind: &str| Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string());
        ensure!(told.contains(&theirs("net")?) || told.contains(&theirs("ipc")?), "{told}");
        Ok(())
    })?;
    let own = fs::read_link("/proc/self/ns/net")?.display().to_string();
    ensure!(containerd.shell(&["--net-host"], "readlink /proc/self/ns/net")?.trim_end() == own);
    Ok(Outcome::Seen)
}

pub fn mapped(containerd: &Containerd) -> Result<Outcome> {
    let options = ["--uidmap", "0:300000:3000", "--gidmap", "0:300000:3000"];
    containerd.with("mapped", &options, &["sleep", "1000"], |pid| {
        ensure!(field(&status(pid)?, "Uid")?.starts_with("300000\t"), "{}", status(pid)?);
        let told = containerd.ok(&["tasks", "exec", "--exec-id", "e", "mapped", "sh", "-c", "cat /proc/self/uid_map; stat -c %u /data/words"])?;
        ensure!(told.split_whitespace().collect::<Vec<_>>() == ["0", "300000", "3000", "0"], "{told}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

/// `--rootfs`: no snapshot below the container, so the root is no mount point until the runtime makes it one.
pub fn directory(containerd: &Containerd) -> Result<Outcome> {
    let (root, runtime) = (containerd.desk.rootfs().display().to_string(), containerd.desk.runtime().display().to_string());
    let said = containerd.ok(&[
        "run",
        "--rm",
        "--runc-binary",
        &runtime,
        "--rootfs",
        "--read-only",
        &root,
        "plain",
        "/bin/sh",
        "-c",
        "cat /data/words; echo x > /x || echo refused",
    ])?;
    ensure!(said == "one two three\nrefused", "{said}");
    let said = containerd.ok(&["run", "--rm", "--runc-binary", &runtime, "--rootfs", "--no-pivot", &root, "plain", "/bin/cat", "/data/words"])?;
    ensure!(said == "one two three", "{said}");
    Ok(Outcome::Seen)
}
