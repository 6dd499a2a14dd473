//! Below which group of a hierarchy ours are made.
//!
//! Under systemd the groups are systemd's, each process may change only what was delegated to it (the single-writer rule,
//! systemd.io/CGROUP_DELEGATION), and on v2 a group that hands controllers to its children holds no processes itself
//! (cgroup-v2.rst, "No Internal Process Constraint"). So whoever was delegated a group steps aside into a leaf of it:
//!
//! ```text
//! app.service            delegated; from now on without processes
//! ├── supervisor         this process and what was with it
//! └── NAME               our parent group
//!     ├── web.1
//!     └── web.2
//! ```
//!
//! Plain writes to directories that are ours: works without privileges.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, getxattr, open, stat},
    io::Errno,
};

use super::{
    Version,
    file::{make_dir, open_dir, read_file, write_file},
    mounts::Mounted,
};
use crate::error::{Context, Error, ErrorKind, Result};

/// Where an instance has its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupParent {
    /// At the top of each hierarchy. Needs root, and a host where nobody else minds: under systemd those are systemd's own.
    #[default]
    Root,
    /// Below the group that this process is in.
    ///
    /// On v2 it must be this process's to divide: `Delegate=yes` in its unit (systemd marks the group with the extended attribute
    /// `user.delegate`, before version 251 `trusted.delegate`), or a group of its own uid, or the root of its cgroup namespace. All
    /// processes in it move to a new group `supervisor` below it, where they stay: the group itself may have none any more.
    /// A group below the delegated one will do (`DelegateSubgroup=`, systemd 254); nothing moves then.
    ///
    /// On v1 each controller's group is taken as it is.
    Delegated,
}

/// The leaf for those who divide a delegated group.
const SUPERVISOR: &str = "supervisor";

/// How often is looked for processes that came after the first look.
const LOOKS: usize = 100;

impl CgroupParent {
    /// The directory below which our parent group is made. None for a v2 tree that is not ours to use.
    pub(super) fn place(self, mounted: &Mounted, cgroup: &str) -> Option<String> {
        if self == Self::Root {
            return Some(mounted.point.clone());
        }
        let own = join(&mounted.point, &mounted.place(cgroup)?);
        if mounted.version == Version::V1 {
            return Some(own);
        }
        let above = own.rsplit_once('/').map(|(above, _)| above.to_owned()).filter(|above| own != mounted.point && is_marked(above));
        // A namespace's root, or the host's: whoever made it so meant it for who is in it.
        let ours = own == mounted.point || is_marked(&own) || is_owned(&own);
        match above {
            Some(above) if !ours || own.ends_with(&format!("/{SUPERVISOR}")) => Some(above),
            _ if own.ends_with(&format!("/{SUPERVISOR}")) && ours => own.rsplit_once('/').map(|(above, _)| above.to_owned()),
            _ => ours.then_some(own),
        }
    }
}

fn join(point: &str, below: &str) -> String {
    if below.is_empty() { point.to_owned() } else { format!("{point}/{below}") }
}

/// Delegated by systemd.
fn is_marked(path: &str) -> bool {
    let mut value = [0u8; 8];
    // A value other than "1" would be a size error or another text: neither says yes.
    ["user.delegate", "trusted.delegate"].iter().any(|name| matches!(getxattr(path, *name, &mut value[..]), Ok(1)) && value[0] == b'1')
}

/// Somebody gave it to this user. Of root's groups that tells nothing.
fn is_owned(path: &str) -> bool {
    let uid = rustix::process::geteuid();
    !uid.is_root() && stat(path).is_ok_and(|stat| stat.st_uid == uid.as_raw())
}

/// Empties the v2 group at `path`, so that its controllers can be handed down. The top of the tree is exempt: only other groups
/// have a file `cgroup.type`.
pub(super) fn step_aside(dir: &OwnedFd, path: &str) -> Result<()> {
    if !Path::new(path).join("cgroup.type").exists() {
        return Ok(());
    }
    let procs = |dir: &OwnedFd| read_file(dir, "cgroup.procs").wall(|| format!("cgroup: read {path}/cgroup.procs"));
    if procs(dir)?.is_empty() {
        return Ok(());
    }
    make_dir(dir, SUPERVISOR).wall(|| format!("cgroup: mkdir({path}/{SUPERVISOR})"))?;
    let leaf = open_dir(dir, SUPERVISOR).wall(|| format!("cgroup: open({path}/{SUPERVISOR})"))?;
    for _ in 0..LOOKS {
        let pids = procs(dir)?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids.lines() {
            match write_file(&leaf, "cgroup.procs", pid) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(e).wall(|| format!("cgroup: write {pid:?} to {path}/{SUPERVISOR}/cgroup.procs")),
            }
        }
    }
    Err(Error::refused(ErrorKind::Wall, format!("cgroup {path}: new processes come into it faster than they can be moved to {SUPERVISOR}")))
}

/// Opens the directory of a group by its path, once.
pub(super) fn open_place(path: &str) -> Result<OwnedFd> {
    open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("open({path})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Controller;

    #[test]
    fn v1_groups_are_taken_as_they_are() {
        let mounted =
            Mounted { point: "/sys/fs/cgroup/memory".into(), root: "/".into(), version: Version::V1, controllers: vec![Controller::Memory] };
        let cgroup = "4:memory:/a/b\n0::/c\n";
        assert_eq!(CgroupParent::Root.place(&mounted, cgroup).as_deref(), Some("/sys/fs/cgroup/memory"));
        assert_eq!(CgroupParent::Delegated.place(&mounted, cgroup).as_deref(), Some("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(CgroupParent::Delegated.place(&mounted, "0::/c\n"), None);
    }

    /// Directories of plain files: which one is chosen, not what the kernel makes of it.
    #[test]
    fn a_v2_group_must_be_delegated() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().to_str().unwrap().to_owned();
        let service = dir.path().join("app.service");
        std::fs::create_dir_all(service.join("sub")).unwrap();
        std::fs::create_dir_all(service.join(SUPERVISOR)).unwrap();
        let mounted = Mounted { point: point.clone(), root: "/".into(), version: Version::V2, controllers: Vec::new() };
        let place = |path: &str| CgroupParent::Delegated.place(&mounted, &format!("0::{path}\n")).map(|p| p[point.len()..].to_owned());
        assert_eq!(place("/"), Some(String::new()));
        if rustix::process::geteuid().is_root() {
            assert_eq!(place("/app.service"), None);
        }
        match rustix::fs::setxattr(&service, "user.delegate", b"1", rustix::fs::XattrFlags::empty()) {
            Ok(()) => {}
            Err(e) => return println!("skipped: setxattr(user.delegate) in {point}: {e}"),
        }
        for from in ["/app.service", "/app.service/sub", "/app.service/supervisor"] {
            assert_eq!(place(from).as_deref(), Some("/app.service"), "{from}");
        }
        rustix::fs::setxattr(&service, "user.delegate", b"0", rustix::fs::XattrFlags::empty()).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(place("/app.service"), None);
        }
    }

    /// Order of writing only: in a plain directory nobody moves.
    #[test]
    fn an_empty_group_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let fd = open_place(path).unwrap();
        step_aside(&fd, path).unwrap();
        std::fs::write(dir.path().join("cgroup.type"), "domain\n").unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        step_aside(&fd, path).unwrap();
        assert!(!dir.path().join(SUPERVISOR).exists());
    }
}
