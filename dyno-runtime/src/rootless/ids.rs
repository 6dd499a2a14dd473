//! The ids of an unprivileged user's sandboxes: a slice of its range in /etc/subuid, mapped by the setuid helpers newuidmap and
//! newgidmap (package uidmap), or only the user's own id.
//!
//! With a range, id 0 inside is the user itself, so that the files of its layers are owned as those of an image are; ids from 1 up are
//! of the range, and what runs as one of them can neither become the user nor touch its files. Without, the sandbox's one user is
//! the caller.

use std::{os::fd::BorrowedFd, process::Command};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    mount::{HostIds, Lease},
    spec::{Missing, Wall},
    sys::{self, Flags, clone_paused},
};

/// Ids of one sandbox beside id 0.
const SLICE: u32 = 65535;

/// What this user may map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    pub uid: u32,
    pub gid: u32,
    /// First and number of the subordinate user and group ids.
    pub range: Option<[(u32, u32); 2]>,
}

impl Ids {
    /// Those of the caller, and what they lack.
    pub fn find(missing: &mut Vec<Missing>) -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let name = name_of(uid, &read("/etc/passwd"));
        let range = range(&read("/etc/subuid"), uid, &name).zip(range(&read("/etc/subgid"), uid, &name));
        let helpers = ["newuidmap", "newgidmap"].into_iter().all(|name| Command::new(name).output().is_ok());
        let this = Self { uid, gid, range: range.filter(|_| helpers).map(|(uids, gids)| [uids, gids]) };
        let how = "install the package uidmap and give the user a range: usermod --add-subuids 100000-231071 --add-subgids 100000-231071 NAME";
        if this.range.is_none() {
            let why = if helpers { "/etc/subuid and /etc/subgid have no range for this user" } else { "newuidmap and newgidmap are not installed" };
            missing.push(Missing::new(Wall::IdRange, format!("{why}, so that the only id to map is the caller's own"), how));
            // setgroups(2) is denied before a group can be mapped without privilege (user_namespaces(7)).
            let groups = rustix::process::getgroups().unwrap_or_default();
            if groups.iter().any(|g| g.as_raw() != gid) {
                let why = "the caller's supplementary groups stay with the sandbox: without a range they cannot be given up";
                missing.push(Missing::new(Wall::Groups, why, how));
            }
        }
        if this.slots() < 2 {
            let why = format!("all sandboxes of this user have the same ids outside: its range is shorter than twice {SLICE}");
            missing.push(Missing::new(Wall::OwnIdRange, why, how));
        }
        this
    }

    /// How many sandboxes can have a slice of their own.
    pub fn slots(&self) -> u32 {
        self.range.map_or(0, |ranges| ranges.iter().map(|(_, count)| count / SLICE).min().unwrap_or(0))
    }

    /// A user namespace with the ids of slice `slot`; with no range, that of `inside` (user, group) alone.
    pub fn map(&self, slot: u32, inside: (u32, u32)) -> Result<Lease> {
        let holder = clone_paused(Flags::NEWUSER).map_err(|e| forbidden("clone3(CLONE_NEWUSER)", e))?;
        let proc = format!("/proc/{}", holder.pid);
        match self.range {
            Some([uids, gids]) => {
                by_helper("newuidmap", holder.pid, self.uid, uids, slot)?;
                by_helper("newgidmap", holder.pid, self.gid, gids, slot)?;
            }
            None => {
                let maps = [
                    ("setgroups", "deny".to_owned()),
                    ("gid_map", format!("{} {} 1", inside.1, self.gid)),
                    ("uid_map", format!("{} {} 1", inside.0, self.uid)),
                ];
                for (file, map) in maps {
                    std::fs::write(format!("{proc}/{file}"), &map).wall(|| format!("write {map:?} to {proc}/{file} (is this process dumpable?)"))?;
                }
            }
        }
        let userns = std::fs::File::open(format!("{proc}/ns/user")).wall(|| format!("open({proc}/ns/user)"))?;
        Ok(Lease::held(slot, userns.into(), self.on_host(slot)))
    }

    /// The host's ids of a sandbox with slice `slot`.
    pub fn on_host(&self, slot: u32) -> HostIds {
        match self.range {
            Some([(first, _), _]) => HostIds::Range { zero: self.uid, one: first + slot * SLICE },
            None => HostIds::One(self.uid),
        }
    }

    /// Whether id `id` can be had inside.
    pub fn has(&self, id: u32) -> bool {
        self.range.is_none_or(|ranges| ranges.iter().all(|(_, count)| id <= *count))
    }
}

/// `newuidmap PID 0 OWN 1 1 FIRST COUNT`.
fn by_helper(helper: &str, pid: u32, own: u32, (first, count): (u32, u32), slot: u32) -> Result<()> {
    let count = count.min(SLICE);
    let numbers = [pid, 0, own, 1, 1, first + slot * SLICE, count];
    let output = Command::new(helper).args(numbers.map(|n| n.to_string())).output().wall(|| format!("run {helper}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!("{helper} {numbers:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Err(Error::refused(ErrorKind::Wall, text))
}

/// Words for a refused user namespace: which switch of the host forbids it.
pub(crate) fn forbidden(call: &str, errno: rustix::io::Errno) -> Error {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned();
    let switches: [(&str, &str, &str); 4] = [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=0 forbids user namespaces; raise it"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=0 forbids them to unprivileged users; set it to 1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=1 takes their capabilities away unless an AppArmor profile of the program allows `userns`",
        ),
        ("user/max_mnt_namespaces", "0", "user.max_mnt_namespaces=0 forbids mount namespaces; raise it"),
    ];
    let hint = switches.iter().find(|(file, forbids, _)| read(file) == *forbids).map(|(_, _, hint)| *hint);
    let hint = hint.unwrap_or(match errno {
        rustix::io::Errno::NOSPC => "a limit of namespaces is reached: user.max_user_namespaces and the like, or their depth",
        _ => "a seccomp filter, a security module or a chroot around this process forbids them",
    });
    Error::call(ErrorKind::Wall, format!("rootless sandboxes need user namespaces: {hint}: {call}"), errno)
}

/// The login name of `uid` in the text of passwd(5).
fn name_of(uid: u32, passwd: &str) -> String {
    let mut entries = passwd.lines().map(|line| line.split(':'));
    entries.find_map(|mut e| e.next().filter(|_| e.nth(1) == Some(&uid.to_string()))).unwrap_or_default().to_owned()
}

/// The longest range of a user in the text of subuid(5): `name-or-uid:first:count`.
fn range(text: &str, uid: u32, name: &str) -> Option<(u32, u32)> {
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().filter(|o| !o.is_empty() && (*o == name || *o == uid.to_string()));
        let (_, first, count) = (owner?, fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        first.checked_add(count).filter(|_| count > 0)?;
        Some((first, count))
    });
    ranges.max_by_key(|(_, count)| *count)
}

/// Hands the open file of `fd`, which is the caller's, to id `uid` inside.
pub(crate) fn give(fd: BorrowedFd<'_>, userns: BorrowedFd<'_>, uid: u32) -> Result<()> {
    struct Give<'a>(BorrowedFd<'a>, u32);
    impl sys::Visitor for Give<'_> {
        fn run(&mut self) -> std::result::Result<(), rustix::io::Errno> {
            rustix::fs::fchown(self.0, Some(rustix::fs::Uid::from_raw(self.1)), None)
        }
    }
    sys::visit(userns, &mut Give(fd, uid)).io(|| format!("fchown({uid}) in the sandbox's user namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_user() {
        let text = "# a comment\nroot:1:65536\nada:100000:65536\n1000:300000:131072\nada:1:x\nada:4294967295:2\n:9:9\n";
        assert_eq!(range(text, 1000, "ada"), Some((300_000, 131_072)));
        assert_eq!(range(text, 1001, "ada"), Some((100_000, 65536)));
        assert_eq!(range(text, 1002, ""), None);
        assert_eq!(name_of(1000, "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/:/bin/sh\n"), "ada");
        assert_eq!(name_of(7, "root:x:0:0::/root:/bin/sh\n"), "");
    }

    #[test]
    fn slices() {
        let slots = |uids: u32, gids: u32| Ids { uid: 1000, gid: 1000, range: Some([(1 << 20, uids), (1 << 20, gids)]) }.slots();
        assert_eq!([slots(65536, 65536), slots(131_070, 131_070), slots(131_070, 65536), slots(1000, 1000)], [1, 2, 1, 0]);
        let ids = Ids { uid: 1000, gid: 1000, range: Some([(1 << 20, 1000), (1 << 20, 65536)]) };
        assert!(ids.has(1000) && !ids.has(1001));
    }
}
