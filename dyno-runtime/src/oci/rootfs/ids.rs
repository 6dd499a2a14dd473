//! User namespaces for mounts with shifted ids, and the host's ids behind those inside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::{
    plan::{Container, IdMap, Namespace},
    spec::IdMapping,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{Flags, clone_paused},
};

/// Each distinct pair of maps with its namespace: mounts mostly share one.
#[derive(Default)]
pub(super) struct Shifts {
    made: Vec<(Vec<IdMapping>, Vec<IdMapping>, OwnedFd)>,
}

impl Shifts {
    /// The namespace for `map`; `what` names the mount.
    pub(super) fn namespace(&mut self, map: &IdMap, container: &Container, what: &str) -> Result<BorrowedFd<'_>> {
        let (uids, gids) = match (map.uids.is_empty() && map.gids.is_empty(), &container.namespaces.user) {
            (true, Namespace::New) => (&container.uid_map, &container.gid_map),
            (true, Namespace::Join(path)) => {
                let fd = std::fs::File::open(path).wall(|| format!("{what}: open({})", path.display()))?;
                self.made.push((Vec::new(), Vec::new(), fd.into()));
                return self.last(what);
            }
            (true, Namespace::Host) => {
                return Err(Error::refused(ErrorKind::Invalid, format!("{what}: idmap without mappings in a container without a user namespace")));
            }
            (false, _) => (&map.uids, &map.gids),
        };
        if let Some(i) = self.made.iter().position(|(u, g, _)| !u.is_empty() && u == uids && g == gids) {
            return self.made.get(i).map(|(_, _, fd)| fd.as_fd()).ok_or_else(|| Error::refused(ErrorKind::Wall, what));
        }
        let fd = make(uids, gids, what)?;
        self.made.push((uids.clone(), gids.clone(), fd));
        self.last(what)
    }

    fn last(&self, what: &str) -> Result<BorrowedFd<'_>> {
        self.made.last().map(|(_, _, fd)| fd.as_fd()).ok_or_else(|| Error::refused(ErrorKind::Wall, what))
    }
}

/// A user namespace with these maps. The process that holds it until it is opened ends here.
fn make(uids: &[IdMapping], gids: &[IdMapping], what: &str) -> Result<OwnedFd> {
    let holder = clone_paused(Flags::NEWUSER).wall(|| format!("{what}: clone3(CLONE_NEWUSER) for idmap"))?;
    for (file, map) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{}/{file}", holder.pid);
        let text = lines(map);
        std::fs::write(&path, &text).wall(|| format!("{what}: write {text:?} to {path}"))?;
    }
    let path = format!("/proc/{}/ns/user", holder.pid);
    Ok(std::fs::File::open(&path).wall(|| format!("{what}: open({path})"))?.into())
}

/// user_namespaces(7): `inside outside count` on each line.
fn lines(map: &[IdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

/// The host's id behind `id`; None for one that is not mapped. An empty map is that of a container without a user namespace.
pub(super) fn outside(map: &[IdMapping], id: u32) -> Option<u32> {
    if map.is_empty() {
        return Some(id);
    }
    map.iter().find_map(|m| id.checked_sub(m.container_id).filter(|offset| *offset < m.size)?.checked_add(m.host_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside() {
        let map = [IdMapping { container_id: 0, host_id: 1000, size: 1 }, IdMapping { container_id: 1, host_id: 100_000, size: 10 }];
        assert_eq!([0, 1, 10, 11].map(|id| outside(&map, id)), [Some(1000), Some(100_000), Some(100_009), None]);
        assert_eq!(outside(&[], 7), Some(7));
        assert_eq!(lines(&map), "0 1000 1\n1 100000 10\n");
    }
}
