//! What the host must have: root and a few Debian packages, installed when missing.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// Packages of Debian 12, and the program of each that is looked for.
const PACKAGES: [(&str, &str); 9] = [
    ("mmdebstrap", "mmdebstrap"),
    ("squashfs-tools", "mksquashfs"),
    ("e2fsprogs", "mkfs.ext4"),
    ("util-linux", "unshare"),
    ("ca-certificates", "update-ca-certificates"),
    ("gcc", "cc"),
    ("nftables", "nft"),
    ("iproute2", "ip"),
    ("uidmap", "newuidmap"),
];

/// Those whose programs run containers with our runtime in the tests, the runtimes that it is compared with, what counts instructions, and what attacks.
const CLIENTS: [(&str, &str); 12] = [
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("catatonit", "catatonit"),
    ("containerd", "containerd-shim-runc-v2"),
    ("docker.io", "dockerd"),
    ("iptables", "iptables"),
    ("curl", "curl"),
    ("busybox-static", "busybox"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("valgrind", "valgrind"),
    ("stress-ng", "stress-ng"),
];

/// What invoke-rc.d and deb-systemd-invoke ask before they start a service (policy-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what all tasks need.
pub fn prepare() -> Result<()> {
    ensure!(is_root(), "this needs root: mounting images, namespaces and cgroups; run it with sudo");
    install(&PACKAGES)
}

/// Installs those of `packages` whose program is missing.
pub fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().filter(|(_, program)| !on_path(program)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(on_path("apt-get"), "please install: {} (this is not a Debian, so it is not done for you)", missing.join(", "));
    println!("-----> Installing Debian packages: {}", missing.join(", "));
    // An old package list names versions that are gone; one refresh, then one install.
    quiet(Command::new("apt-get").args(["-qq", "update"]))?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(missing).env("DEBIAN_FRONTEND", "noninteractive");
    quiet(&mut install)
}

/// Installs the clients of the runtime. Their services are not started: the tests start daemons of their own, and a docker engine that runs
/// changes the host's packet filter.
pub fn install_clients() -> Result<()> {
    install_quietly(&CLIENTS)
}

/// Installs those that are missing, and starts none of their services.
pub fn install_quietly(packages: &[(&str, &str)]) -> Result<()> {
    if packages.iter().all(|(_, program)| on_path(program)) {
        return Ok(());
    }
    let policy = OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
    let ours = match policy {
        // 101: the action is forbidden.
        Ok(mut file) => file.write_all(b"#!/bin/sh\nexit 101\n").map(|()| true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    };
    let ours = ours.with_context(|| format!("write {POLICY}"))?;
    let installed = install(packages);
    if ours && Path::new(POLICY).exists() {
        fs::remove_file(POLICY).with_context(|| format!("remove {POLICY}"))?;
    }
    installed
}

/// Whether `program` is in one of the directories of PATH.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|l| l.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")))
}

/// Runs a command and shows its output only when it fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {:?}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    bail!("{:?} failed ({}):\n{}", command.get_program(), output.status, String::from_utf8_lossy(&text))
}
