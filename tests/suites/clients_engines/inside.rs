//! What a container finds inside, whichever engine has made it: its root, mounts, rights, filters, devices, names.

use std::fs;

use anyhow::{Result, ensure};
use dyno_tests::clients::{Engine, Outcome, field, mount_options};

pub fn nothing<E: Engine>(engine: &E) -> Result<Outcome> {
    let told =
        engine.shell(&["--hostname", "bench"], "ls /sys/class/net; hostname; ls -d /proc/[0-9]* | wc -l; ls /dev | tr '\\n' ' '; ulimit -n")?;
    let lines: Vec<&str> = told.lines().collect();
    ensure!(lines[0] == "lo" && lines[1] == "bench", "{told}");
    ensure!(lines[2].parse::<u32>()? < 6, "processes of others: {told}");
    for device in ["full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero", "fd", "mqueue"] {
        ensure!(lines[3].split(' ').any(|name| name == device), "no /dev/{device}: {told}");
    }
    let mounts = engine.shell(&[], "cat /proc/mounts")?;
    ensure!(mount_options(&mounts, "/proc/sys")?.contains(&"ro"), "{mounts}");
    ensure!(mount_options(&mounts, "/sys")?.contains(&"ro"), "{mounts}");
    ensure!(mount_options(&mounts, "/sys/firmware")?[..2] == ["tmpfs", "ro"], "{mounts}");
    let told =
        engine.shell(&[], "echo x > /proc/sys/kernel/hostname; cat /proc/keys /proc/timer_list; wc -c /proc/keys < /dev/null; echo still here")?;
    ensure!(told.ends_with("still here\n"), "{told}");
    let descriptors = engine.shell(&[], "ls /proc/self/fd | tr '\\n' ' '")?;
    ensure!(descriptors.trim() == "0 1 2 3", "3 is ls's own: {descriptors}");
    Ok(Outcome::Seen)
}

pub fn read_only<E: Engine>(engine: &E) -> Result<Outcome> {
    let told = engine
        .shell(&["--read-only", "--tmpfs", "/tmp"], "echo x > /data/new || echo refused; echo y > /tmp/new && cat /tmp/new; cat /proc/mounts")?;
    ensure!(told.starts_with("refused\ny\n"), "{told}");
    ensure!(mount_options(&told, "/")?.contains(&"ro") && mount_options(&told, "/tmp")?[0] == "tmpfs", "{told}");
    Ok(Outcome::Seen)
}

pub fn volumes<E: Engine>(engine: &E) -> Result<Outcome> {
    let host = engine.desk().path("shared");
    fs::create_dir_all(host.join("below"))?;
    fs::write(host.join("file"), "of the host\n")?;
    let (rw, ro) = (format!("{}:/rw", host.display()), format!("{}:/ro:ro", host.display()));
    let options = ["--volume", &rw, "--volume", &ro, "--tmpfs", "/small:size=64k,mode=1750", "--volume", "kept:/kept"];
    let told = engine.shell(&options, "cat /rw/file /ro/file; echo back > /rw/back; echo x > /ro/x || echo refused; stat -c %a /small; head -c 100000 /dev/zero > /small/x || echo full; echo 1 > /kept/it; cat /proc/mounts")?;
    ensure!(told.starts_with("of the host\nof the host\nrefused\n1750\nfull\n"), "{told}");
    for (at, options) in [("/ro", &["ro"][..]), ("/small", &["tmpfs", "nosuid", "nodev", "size=64k"]), ("/rw", &["rw"])] {
        let seen = mount_options(&told, at)?;
        ensure!(options.iter().all(|option| seen.contains(option)), "{at}: {seen:?} is not {options:?}");
    }
    ensure!(fs::read_to_string(host.join("back"))? == "back\n");
    ensure!(engine.shell(&["--volume", "kept:/kept:ro"], "cat /kept/it")? == "1\n");
    engine.ok(&["volume", "rm", "kept"])?;
    // A single file.
    let file = format!("type=bind,source={}/file,target=/one,ro", host.display());
    let told = engine.shell(&["--mount", &file], "cat /one; echo x > /one || echo refused")?;
    ensure!(told == "of the host\nrefused\n", "{told}");
    Ok(Outcome::Seen)
}

pub fn capabilities<E: Engine>(engine: &E) -> Result<Outcome> {
    let sets = |options: &[&str]| -> Result<(u64, u64, u64)> {
        let told = engine.shell(options, "cat /proc/self/status")?;
        let set = |name| Ok::<_, anyhow::Error>(u64::from_str_radix(field(&told, name)?, 16)?);
        Ok((set("CapEff")?, set("CapBnd")?, set("CapInh")?))
    };
    let (usual, bounding, inheritable) = sets(&[])?;
    ensure!(usual == bounding && inheritable == 0 && usual & 1 == 1, "{usual:x} {bounding:x} {inheritable:x}");
    ensure!(sets(&["--cap-drop", "all"])? == (0, 0, 0));
    let net_admin = 1 << 12;
    ensure!(sets(&["--cap-drop", "all", "--cap-add", "net_admin"])?.0 == net_admin);
    ensure!(sets(&["--user", "1000"])?.0 == 0);
    let told = engine.shell(&["--user", "app", "--group-add", "3000"], "id -u; id -g; id -G; whoami")?;
    ensure!(
        told == "1000\n1000\n1000 2000 3000\napp\n" || told == "1000\n1000\n1000 3000 2000\napp\n" || told == "1000\n1000\n1000 3000\napp\n",
        "{told}"
    );
    let told = engine.shell(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status")?;
    ensure!(told == "NoNewPrivs:\t1\n", "{told}");
    Ok(Outcome::Seen)
}

pub fn filters<E: Engine>(engine: &E) -> Result<Outcome> {
    let told = engine.shell(&[], "grep Seccomp: /proc/self/status")?;
    ensure!(told == "Seccomp:\t2\n", "{told}");
    let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}, {"names": ["no_such_call"], "action": "SCMP_ACT_KILL"}]});
    let file = engine.desk().write("seccomp.json", &profile.to_string(), 0o644)?;
    let said = engine.run(&["--security-opt", &format!("seccomp={}", file.display())], &["mkdir", "/tmp/x"])?;
    ensure!(said.status == 1 && said.stderr.contains("No space left"), "{said:?}");
    let told = engine.shell(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status")?;
    ensure!(told == "Seccomp:\t0\n", "{told}");
    Ok(Outcome::Seen)
}

pub fn devices<E: Engine>(engine: &E) -> Result<Outcome> {
    let told = engine.shell(
        &["--device", "/dev/null:/dev/nothing:r"],
        "cat /dev/nothing && echo read; echo x > /dev/nothing || echo refused; stat -c '%t %T' /dev/nothing",
    )?;
    // The rule that lets everyone write to /dev/null is the stronger one; what counts is that the node is there.
    ensure!(told.starts_with("read\n") && told.ends_with("1 3\n"), "{told}");
    // Of what is not named, nothing but mknod is allowed.
    let told = engine.shell(&["--cap-add", "mknod"], "mknod /tmp/mem c 1 1; cat /tmp/mem || echo refused")?;
    ensure!(told == "refused\n", "{told}");
    let told = engine.shell(
        &["--sysctl", "net.ipv4.ip_default_ttl=77", "--sysctl", "kernel.msgmax=9000"],
        "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax",
    )?;
    ensure!(told == "77\n9000\n", "{told}");
    Ok(Outcome::Seen)
}

pub fn namespaces<E: Engine>(engine: &E) -> Result<Outcome> {
    engine.with("other", &["--ipc", "shareable"], &["sleep", "1000"], |pid| {
        let theirs = |kind: &str| Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string());
        let options = ["--network", "container:other", "--ipc", "container:other", "--pid", "container:other"];
        let told = engine.shell(&options, "for n in net ipc pid mnt; do readlink /proc/self/ns/$n; done; cat /proc/1/comm")?;
        ensure!(told.starts_with(&format!("{}\n{}\n{}\n", theirs("net")?, theirs("ipc")?, theirs("pid")?)), "{told}");
        ensure!(!told.contains(&theirs("mnt")?) && told.ends_with("sleep\n"), "{told}");
        Ok(())
    })?;
    let own = |kind: &str| Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string());
    let told = engine.shell(
        &["--pid", "host", "--network", "host", "--uts", "host", "--ipc", "host", "--cgroupns", "private"],
        "for n in pid net uts ipc cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup",
    )?;
    ensure!(told.starts_with(&format!("{}\n{}\n{}\n{}\n", own("pid")?, own("net")?, own("uts")?, own("ipc")?)), "{told}");
    ensure!(!told.contains(&own("cgroup")?) && told.contains(":/\n") && !told.contains(engine.desk().name()), "{told}");
    Ok(Outcome::Seen)
}
