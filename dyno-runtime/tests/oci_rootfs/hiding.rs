//! Masked paths, read-only paths, kernel parameters.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use anyhow::{Result, ensure};
use rustix::fs::makedev;
use serde_json::json;

use super::{
    support::{Stage, same},
    world::Bundle,
};

/// Directories are empty and read-only, and share one file system; files are the null device; what is not there is passed over; what is
/// named twice is masked once.
pub fn masked(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    for dir in ["/secret", "/secret2"] {
        fs::create_dir(bundle.root(dir))?;
        fs::write(bundle.root(dir).join("inside"), "secret")?;
    }
    fs::write(bundle.root("/file"), "secret")?;
    symlink("/secret2", bundle.root("/link"))?;
    bundle.set(
        "/linux/maskedPaths",
        json!(["/secret", "/link", "/file", "/secret", "/file", "/nothing", "/bin/program/below", "/proc/kcore", "/proc/acpi", "/sys/firmware"]),
    );
    let created = bundle.create()?;
    for dir in ["/secret", "/secret2"] {
        same(dir, fs::read_dir(created.inside(dir))?.count(), 0)?;
        let is = created.at(dir)?;
        same(dir, (is.kind.as_str(), is.has("ro")), ("tmpfs", true))?;
        ensure!(fs::write(created.inside(dir).join("x"), "").is_err(), "{dir} can be written");
    }
    let device = |path: &str| fs::metadata(created.inside(path)).map(|m| m.dev());
    same("one file system for both", device("/secret")?, device("/secret2")?)?;
    same("the null device", fs::metadata(created.inside("/file"))?.rdev(), makedev(1, 3))?;
    let mounts = created.mounts()?;
    let times = |at: &str| mounts.iter().filter(|m| m.at == at).count();
    same("masked once", [times("/secret"), times("/file"), times("/nothing")], [1, 1, 0])?;
    created.delete()?;
    same("a masked file", bundle.ask(&["read", "/file"])?, String::new())
}

/// Read-only, with what they had of other attributes; what is not there is passed over.
pub fn readonly(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir(bundle.root("/kept"))?;
    bundle.mount("/strict", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
    bundle.set("/linux/readonlyPaths", json!(["/kept", "/strict", "/proc/sys", "/proc/bus", "/nothing"]));
    let created = bundle.create()?;
    for at in ["/kept", "/proc/sys"] {
        ensure!(created.at(at)?.has("ro"), "{at} is writable");
    }
    let is = created.at("/strict")?;
    same("attributes", ["ro", "nosuid", "nodev", "noexec"].map(|o| is.has(o)), [true; 4])?;
    ensure!(!created.at("/proc")?.has("ro"), "/proc itself is read-only");
    created.delete()?;
    let output = bundle.run(&["write", "/kept/x", "x"])?;
    same("a write", String::from_utf8_lossy(&output.stdout).trim(), "errno 30")
}

/// Written, before `/proc/sys` becomes read-only; also where the container has no `/proc` at all.
pub fn sysctls(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"})).set("/linux/readonlyPaths", json!(["/proc/sys"]));
    same("network", bundle.ask(&["read", "/proc/sys/net/ipv4/ip_forward"])?, "1\n".into())?;
    same("System V IPC", bundle.ask(&["read", "/proc/sys/kernel/shm_rmid_forced"])?, "1\n".into())?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.no_such_parameter": "1"}));
    let said = bundle.refused()?;
    ensure!(said.contains("no_such_parameter"), "{said:?}");
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).only(|at| at != "/proc");
    let created = bundle.create()?;
    let output = std::process::Command::new("nsenter")
        .args([&format!("--net=/proc/{}/ns/net", created.pid), "cat", "/proc/sys/net/ipv4/ip_forward"])
        .output()?;
    same("without a /proc", String::from_utf8_lossy(&output.stdout).trim(), "1")?;
    created.delete()
}
