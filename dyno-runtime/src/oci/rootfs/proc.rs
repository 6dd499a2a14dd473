//! What may be mounted over procfs: nothing that could stand in for it, because security settings are written there.

use std::{os::fd::BorrowedFd, path::Path};

use rustix::fs::fstatfs;

use super::super::plan::Mount;
use crate::error::{Context, Error, ErrorKind, Result};

/// PROC_SUPER_MAGIC.
const PROC: i64 = 0x9fa0;
/// Files that lxcfs and others emulate; the same that runc and crun allow.
const EMULATED: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "net/dev",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Whether `fd` is of a procfs.
pub(super) fn is_procfs(fd: BorrowedFd<'_>) -> std::result::Result<bool, rustix::io::Errno> {
    #[allow(clippy::unnecessary_cast)] // The type differs between platforms.
    fstatfs(fd).map(|s| s.f_type as i64 == PROC)
}

/// Refuses a mount at or below `/proc`, by its name or by what its mount point is on.
pub(super) fn check(destination: &Path, place: BorrowedFd<'_>, what: &str) -> Result<()> {
    if destination.starts_with("/proc") || is_procfs(place).wall(|| format!("{what}: fstatfs(mount point)"))? {
        return Err(Error::refused(ErrorKind::Invalid, format!("{what} cannot be mounted because it is inside /proc")));
    }
    Ok(())
}

/// [`check`] for a bind mount, which may be a procfs itself or a file that is emulated.
pub(super) fn check_bind(mount: &Mount, source: BorrowedFd<'_>, place: BorrowedFd<'_>, what: &str) -> Result<()> {
    let to = &mount.destination;
    if EMULATED.iter().any(|name| to.strip_prefix("/proc").is_ok_and(|below| below == Path::new(name))) {
        return Ok(());
    }
    if to == Path::new("/proc") {
        return match is_procfs(source).wall(|| format!("{what}: fstatfs(source)"))? {
            true => Ok(()),
            false => Err(Error::refused(ErrorKind::Invalid, format!("{what} cannot be mounted because it is not of type proc"))),
        };
    }
    check(to, place, what)
}
