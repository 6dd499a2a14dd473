//! The ids of a container's user namespace, written by the runtime: `/proc/PID/uid_map` and `gid_map` take each one write.

use std::{fs, process::Command};

use rustix::io::Errno;

use super::{
    plan::{Container, Namespace},
    spec::IdMapping,
};
use crate::error::{Context, Error, ErrorKind, Result};

/// Maps the ids of process `pid`, which is in the container's new user namespace. Without one nothing is done.
///
/// # Errors
/// EPERM for ids that this runtime may not map, which then newuidmap(1) refuses too; EINVAL for ranges that overlap.
pub fn map(container: &Container, pid: u32) -> Result<()> {
    if container.namespaces.user != Namespace::New {
        return Ok(());
    }
    let proc = format!("/proc/{pid}");
    if write(&format!("{proc}/gid_map"), &container.gid_map).is_err() {
        // Without privileges: one's own group only if setgroups(2) is denied (user_namespaces(7)), others by the setuid helper.
        let denied = single(&container.gid_map)
            && fs::write(format!("{proc}/setgroups"), "deny").is_ok()
            && write(&format!("{proc}/gid_map"), &container.gid_map).is_ok();
        if !denied {
            by_helper("newgidmap", "linux.gidMappings", pid, &container.gid_map)?;
        }
    }
    if write(&format!("{proc}/uid_map"), &container.uid_map).is_err() {
        by_helper("newuidmap", "linux.uidMappings", pid, &container.uid_map)?;
    }
    Ok(())
}

fn single(map: &[IdMapping]) -> bool {
    matches!(map, [only] if only.size == 1)
}

fn lines(map: &[IdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

fn write(file: &str, map: &[IdMapping]) -> std::result::Result<(), Errno> {
    // One write(2), as the kernel wants it.
    let file = rustix::fs::open(file, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    rustix::io::write(&file, lines(map).as_bytes()).map(drop)
}

/// The helper's own words are the error's when it refuses; as root it is not asked, because it could only say no in other words.
fn by_helper(helper: &str, field: &str, pid: u32, map: &[IdMapping]) -> Result<()> {
    let what = || format!("{field}: write {:?} to the map of process {pid}", lines(map));
    if rustix::process::geteuid().is_root() {
        let file = format!("/proc/{pid}/{}", if helper == "newuidmap" { "uid_map" } else { "gid_map" });
        return write(&file, map).context(ErrorKind::Wall, what);
    }
    let numbers = map.iter().flat_map(|m| [m.container_id, m.host_id, m.size]).map(|n| n.to_string());
    let output = Command::new(helper).arg(pid.to_string()).args(numbers).output().wall(|| format!("{}: run {helper} (package uidmap)", what()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::refused(ErrorKind::Wall, format!("{}: {helper}: {}", what(), String::from_utf8_lossy(&output.stderr).trim())))
}
