//! What the host must have: root and a few Debian packages, installed when missing.

use std::process::{Command, Stdio};

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
