//! Walls that a process of ours puts around itself: a daemon that reads what foreigners send, and should it be taken over, reaches what
//! it needs for its work and nothing else.
//!
//! A sandbox is for somebody else's program; this is for the thread that calls it and for all that it starts from then on. Landlock
//! holds files, TCP ports, abstract sockets and signals; the filter `service.json` holds system calls, and shuts the ways around Landlock that
//! are known (MPTCP, MSG_FASTOPEN). Neither can be taken down. What the kernel lacks is told and not an error; what it has and does not do is one.
//! Each wall is tried once it stands: what it must refuse is attempted.

mod proof;
#[cfg(test)]
mod tests;

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    seccomp::{self, ProfileData},
    sys::{self, Handled, Ruleset, access},
};

/// What is left to the caller. Files that are open stay open, and sockets that listen go on listening.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Files and directories, with what may be done at and below each.
    pub files: Vec<(PathBuf, Access)>,
    /// TCP ports that may be connected to, at any address (Linux 6.7). None may be bound any more.
    pub connect: Vec<u16>,
}

/// What may be done with files. Nothing can be executed, and no links, devices or FIFOs be made anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read files; directories are not listed.
    Read,
    /// Read, list, make, write, move and remove files and directories.
    Write,
    /// As [`Self::Write`], and make sockets.
    Sockets,
}

/// What stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walls {
    /// Landlock's ABI, 0 where the kernel has none that is of use here.
    pub landlock: u32,
    /// What this kernel cannot hold, each in words for a log; empty on Linux 6.12 and newer.
    pub lacking: Vec<String>,
}

/// Puts the calling thread, and all that it starts from now on, behind the walls; sets no_new_privs.
///
/// # Errors
/// [`ErrorKind::Wall`] for one that the kernel has and that did not rise, or rose and does not hold; [`ErrorKind::Io`] for a path that cannot be opened.
/// Some of the walls may then stand: end the process.
pub fn confine(what: &Confinement) -> Result<Walls> {
    rustix::thread::set_no_new_privs(true).wall(|| "prctl(PR_SET_NO_NEW_PRIVS, 1)".to_owned())?;
    let abi = landlock_abi()?;
    if abi > 0 {
        let before = proof::Before::look()?;
        raise_landlock(what, abi)?;
        before.landlock_holds(abi)?;
    }
    let program = seccomp::service(&service()?)?;
    sys::install_filter(&program).wall(|| format!("seccomp(SECCOMP_SET_MODE_FILTER, {} instructions)", program.len()))?;
    proof::filter_holds()?;
    Ok(Walls { landlock: abi, lacking: lacking(abi) })
}

/// The system calls that are left.
pub(crate) fn service() -> Result<ProfileData> {
    ProfileData::parse(include_str!("service.json")).map_err(|e| Error::refused(ErrorKind::Invalid, format!("service.json: {e}")))
}

/// 0 without Landlock, or with one that forbids all moving between directories (ABI 1). A filter around this process that hides it is
/// no kernel without it.
fn landlock_abi() -> Result<u32> {
    let asked =
        || "landlock_create_ruleset(LANDLOCK_CREATE_RULESET_VERSION); does a system-call filter around this process allow Landlock?".to_owned();
    sys::landlock_abi().wall(asked).map(|abi| if abi < 2 { 0 } else { abi })
}

fn lacking(abi: u32) -> Vec<String> {
    let since = [
        (2, "Landlock does not hold files (Linux 5.19)"),
        (4, "Landlock does not hold TCP ports (Linux 6.7)"),
        (5, "Landlock does not hold controls of devices (Linux 6.10)"),
        (6, "Landlock does not hold abstract sockets and signals (Linux 6.12)"),
    ];
    since.iter().filter(|(needed, _)| abi < *needed).map(|(_, words)| (*words).to_owned()).collect()
}

fn raise_landlock(what: &Confinement, abi: u32) -> Result<()> {
    let handled = Handled { files: access::FILES, ports: access::PORTS, scoped: access::SCOPES };
    let ruleset = Ruleset::over(abi, handled).wall(|| format!("landlock_create_ruleset(ABI {abi})"))?;
    for (path, access) in &what.files {
        allow_files(&ruleset, abi, path, *access)?;
    }
    if abi >= 4 {
        for port in &what.connect {
            ruleset.allow_connecting(*port).wall(|| format!("landlock_add_rule(connect, port {port})"))?;
        }
    }
    ruleset.restrict_self().wall(|| "landlock_restrict_self".to_owned())
}

fn allow_files(ruleset: &Ruleset, abi: u32, path: &Path, how: Access) -> Result<()> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).io(|| format!("open({}, O_PATH)", path.display()))?;
    let kind = rustix::fs::fstat(&place).io(|| format!("fstat({})", path.display()))?.st_mode;
    let rights = match how {
        Access::Read => access::READ_FILE,
        Access::Write => access::KEEP_FILES,
        Access::Sockets => access::KEEP_FILES | access::MAKE_SOCK,
    };
    // The kernel takes no rule for what a file cannot have.
    let rights = if FileType::from_raw_mode(kind) == FileType::Directory { rights } else { rights & access::OF_A_FILE };
    ruleset.allow(abi, place.as_fd(), rights).wall(|| format!("landlock_add_rule({}, {rights:#x})", path.display()))
}
