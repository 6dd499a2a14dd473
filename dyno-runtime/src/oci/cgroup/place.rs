//! Where the groups of a container are: from the mount table, the runtime's own groups and `linux.cgroupsPath`.
//!
//! ```text
//! /a/b                below the top of each hierarchy, as it is mounted
//! a/b, absent (=ID)   v1: below the runtime's own group. v2: beside it, because a group with processes hands no controllers down
//! slice:prefix:name   with systemd: prefix-name.scope in slice
//! ```

use std::{fs::File, io::Read, path::PathBuf};

use rustix::io::Errno;

use super::{Manager, Record};
use crate::{
    cgroup::{
        Version,
        mounts::{self, Line},
    },
    error::{Context, Error, ErrorKind, Result},
};

/// Those that v1 hierarchies are mounted with; other words among their options are none.
const V1: [&str; 14] =
    ["cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "net_cls", "perf_event", "net_prio", "hugetlb", "pids", "rdma", "misc"];

/// Longest name of a group (NAME_MAX).
const NAME_MAX: usize = 255;

impl Record {
    /// Where the groups of container `id` will be. Nothing is created.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a path that leads elsewhere or is no path; [`ErrorKind::Wall`] where no hierarchy is mounted.
    pub fn plan(id: &str, cgroups_path: Option<&str>, manager: Manager) -> Result<Self> {
        if manager == Manager::Disabled {
            return Ok(Self::default());
        }
        // In one piece on most hosts: procfs makes these texts anew for each reading.
        let read = |path: &str| {
            let mut text = String::with_capacity(1 << 13);
            File::open(path).and_then(|mut file| file.read_to_string(&mut text)).wall(|| format!("read {path}"))?;
            Ok(text)
        };
        Self::among(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, id, cgroups_path, manager)
    }

    /// [`Record::plan`] on a host with this mount table, for a process in these groups.
    fn among(mountinfo: &str, own: &str, id: &str, cgroups_path: Option<&str>, manager: Manager) -> Result<Self> {
        let wanted = cgroups_path.filter(|path| !path.is_empty());
        let mut record = Self { named: wanted.is_some(), ..Self::default() };
        let place = match manager {
            Manager::Systemd => {
                let scope = Scope::parse(id, wanted)?;
                let below = scope.path()?;
                (record.unit, record.slice) = (Some(scope.unit), Some(scope.slice));
                Place::Top(below)
            }
            _ => Place::parse(id, wanted)?,
        };
        for hierarchy in hierarchies(mountinfo) {
            let own = hierarchy.own(own);
            record.groups.push((PathBuf::from(place.within(&hierarchy, own)), hierarchy.controllers));
        }
        if record.groups.is_empty() {
            return Err(Error::refused(ErrorKind::Wall, "no control group hierarchy is mounted (see --cgroup-manager=disabled)"));
        }
        Ok(record)
    }
}

/// Whether an unprivileged user who named no place goes without: the hierarchy is not his.
pub(super) fn is_withheld(e: &Error) -> bool {
    matches!(e.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)) && !is_privileged()
}

/// Whether the host's root asks.
pub(super) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root() && !in_user_namespace()
}

/// user_namespaces(7): the initial one maps every id to itself.
fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Who asks, as those outside of this user namespace see it: rootless engines start runtimes as root of one of theirs.
pub(super) fn outer_uid() -> u32 {
    let uid = rustix::process::geteuid().as_raw();
    std::fs::read_to_string("/proc/self/uid_map").ok().and_then(|map| mapped(&map, uid)).unwrap_or(uid)
}

/// Lines of first id inside, first id outside, count.
fn mapped(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Within every hierarchy the same.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Below its top.
    Top(String),
    /// Below or beside the runtime's own group.
    Own(String),
}

impl Place {
    fn parse(id: &str, wanted: Option<&str>) -> Result<Self> {
        let path = wanted.unwrap_or(id);
        let invalid = |why: &str| Error::refused(ErrorKind::Invalid, format!("linux.cgroupsPath {path:?}: {why}"));
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return Err(invalid("it must not contain `..`"));
        }
        // The kernel refuses a line feed, because /proc/PID/cgroup could not be read with it.
        if path.contains(['\0', '\n']) || names.iter().any(|name| name.len() > NAME_MAX) || path.len() >= 4096 {
            return Err(invalid("no name of a control group"));
        }
        if names.is_empty() {
            return Err(invalid("the top of a hierarchy is everybody's"));
        }
        let below = names.join("/");
        Ok(if path.starts_with('/') { Self::Top(below) } else { Self::Own(below) })
    }

    fn within(&self, hierarchy: &Hierarchy, own: &str) -> String {
        let (base, below) = match (self, hierarchy.version) {
            (Self::Top(below), _) => ("", below),
            (Self::Own(below), Version::V1) => (own, below),
            (Self::Own(below), Version::V2) => (own.rsplit_once('/').map_or("", |(above, _)| above), below),
        };
        let slash = if base.is_empty() { "" } else { "/" };
        format!("{}/{base}{slash}{below}", hierarchy.point.trim_end_matches('/'))
    }
}

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    point: String,
    root: String,
    version: Version,
    /// v1's; none for the v2 tree, whose groups tell themselves.
    controllers: Vec<String>,
}

/// Each once, in the order of the mount table.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mounts::lines(mountinfo).filter_map(Hierarchy::of) {
        if !found.iter().any(|f| f.version == hierarchy.version && f.controllers == hierarchy.controllers) {
            found.push(hierarchy);
        }
    }
    found
}

impl Hierarchy {
    fn of(line: Line<'_>) -> Option<Self> {
        let name = |option: &str| V1.contains(&option).then(|| option.to_owned()).or_else(|| option.strip_prefix("name=").map(str::to_owned));
        let controllers: Vec<String> = if line.version == Version::V1 { line.options.split(',').filter_map(name).collect() } else { Vec::new() };
        let known = line.version == Version::V2 || !controllers.is_empty();
        known.then(|| Self { point: line.point.to_owned(), root: line.root.to_owned(), version: line.version, controllers })
    }

    /// The runtime's own group below the mount point; the top where it is not seen.
    fn own<'t>(&self, cgroup: &'t str) -> &'t str {
        let path = cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let serves = |c: &String| names.split(',').any(|name| name == c || name.strip_prefix("name=") == Some(c));
            let ours = if self.version == Version::V2 { names.is_empty() } else { self.controllers.iter().any(serves) };
            ours.then_some(path)
        });
        path.and_then(|path| mounts::seen_below(&self.root, path)).unwrap_or_default()
    }
}

/// A scope of systemd's.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    slice: String,
    unit: String,
}

impl Scope {
    fn parse(id: &str, wanted: Option<&str>) -> Result<Self> {
        let path = wanted.unwrap_or_default();
        let invalid = |why: &str| Error::refused(ErrorKind::Invalid, format!("linux.cgroupsPath {path:?}: {why}"));
        let (slice, prefix, name) = match path.split(':').collect::<Vec<_>>()[..] {
            [""] => ("", "dyno", id),
            [slice, prefix, name] => (slice, prefix, name),
            _ => return Err(invalid("with systemd it must be SLICE:PREFIX:NAME")),
        };
        let usual = if is_privileged() { "system.slice" } else { "user.slice" };
        let slice = if slice.is_empty() { usual } else { slice };
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        // systemd.unit(5): what a unit may be called.
        let allowed = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
        if name.is_empty() || !allowed(&unit) || !allowed(slice) || unit.len() > NAME_MAX {
            return Err(invalid("no name of a unit"));
        }
        if name.ends_with(".slice") {
            return Err(invalid("a container cannot be a slice"));
        }
        Ok(Self { slice: slice.to_owned(), unit })
    }

    /// systemd.slice(5): `a-b.slice` is in `a.slice`.
    fn path(&self) -> Result<String> {
        let invalid = || Error::refused(ErrorKind::Invalid, format!("linux.cgroupsPath: {:?} is no slice", self.slice));
        let name = self.slice.strip_suffix(".slice").filter(|name| !name.is_empty()).ok_or_else(invalid)?;
        let mut path = users_own();
        if name != "-" {
            let mut prefix = String::new();
            for part in name.split('-') {
                if part.is_empty() {
                    return Err(invalid());
                }
                prefix.push_str(part);
                path = format!("{path}{prefix}.slice/");
                prefix.push('-');
            }
        }
        Ok(format!("{path}{}", self.unit))
    }
}

/// Where the slices of a user's own systemd are.
fn users_own() -> String {
    match outer_uid() {
        0 => String::new(),
        uid => format!("user.slice/user-{uid}.slice/user@{uid}.service/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 25 0:28 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 31 0:32 / /mnt/again rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
42 31 0:39 / /proc rw - proc proc rw";
    const PURE: &str = "30 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot";
    const OWN: &str = "4:memory:/outer/inner\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/system.slice/ssh.service\n";

    fn paths(mountinfo: &str, path: Option<&str>) -> Vec<String> {
        let record = Record::among(mountinfo, OWN, "c1", path, Manager::Files).unwrap();
        record.groups.into_iter().map(|(path, _)| path.to_str().unwrap().trim_start_matches("/sys/fs/cgroup").to_owned()).collect()
    }

    #[test]
    fn absolute_is_below_the_top() {
        assert_eq!(paths(HYBRID, Some("/a/./b//")), ["/systemd/a/b", "/cpu,cpuacct/a/b", "/memory/a/b", "/unified/a/b"]);
        assert_eq!(paths(PURE, Some("/a")), ["/a"]);
    }

    #[test]
    fn relative_and_absent_are_below_ones_own_or_beside_it() {
        assert_eq!(paths(HYBRID, None), ["/systemd/x/c1", "/cpu,cpuacct/c1", "/memory/outer/inner/c1", "/unified/system.slice/c1"]);
        assert_eq!(paths(HYBRID, Some("a/b"))[2], "/memory/outer/inner/a/b");
        assert_eq!(paths(PURE, Some("")), ["/system.slice/c1"]);
        let top = Record::among(PURE, "0::/\n", "c1", None, Manager::Files).unwrap();
        assert_eq!(top.groups[0].0.to_str(), Some("/sys/fs/cgroup/c1"));
        // Of another cgroup namespace.
        let unseen = Record::among(PURE, "0::/../../x\n", "c1", None, Manager::Files).unwrap();
        assert_eq!(unseen.groups[0].0.to_str(), Some("/sys/fs/cgroup/c1"));
    }

    #[test]
    fn controllers_are_told() {
        let record = Record::among(HYBRID, OWN, "c1", None, Manager::Files).unwrap();
        let controllers: Vec<Vec<String>> = record.groups.iter().map(|(_, c)| c.clone()).collect();
        assert_eq!(controllers, [vec!["systemd"], vec!["cpu", "cpuacct"], vec!["memory"], vec![]]);
        assert!(!record.named && Record::among(HYBRID, OWN, "c1", Some("/x"), Manager::Files).unwrap().named);
        assert_eq!(Record::plan("c1", Some("/x"), Manager::Disabled).unwrap(), Record::default());
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in ["/a/../b", "..", "/..", "a/..", "/", "//", "./", "/a\0b", "/a\nb", &format!("/{}", "n".repeat(256)), &"/a".repeat(2048)] {
            let e = Record::among(HYBRID, OWN, "c1", Some(path), Manager::Files).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid, "{path:?}: {e}");
        }
        assert_eq!(Record::among("", OWN, "c1", None, Manager::Files).unwrap_err().kind(), ErrorKind::Wall);
        // Dots that lead nowhere.
        assert_eq!(paths(PURE, Some("/...")), ["/..."]);
    }

    #[test]
    fn ids_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!([mapped(map, 0), mapped(map, 1), mapped(map, 65_536), mapped(map, 65_537)], [Some(1000), Some(100_000), Some(165_535), None]);
        assert_eq!(mapped("0 0 4294967295\n", 1000), Some(1000));
    }

    #[test]
    fn scopes() {
        let scope = |path| Scope::parse("c1", path).map(|scope| (scope.path(), scope.unit));
        let home = users_own();
        let check = |path, want: &str, unit: &str| {
            let (is, named) = scope(path).unwrap();
            assert_eq!((is.unwrap(), named), (format!("{home}{want}"), unit.to_owned()), "{path:?}");
        };
        check(Some("machine.slice:libpod:abc"), "machine.slice/libpod-abc.scope", "libpod-abc.scope");
        check(Some("a-b.slice:x:y"), "a.slice/a-b.slice/x-y.scope", "x-y.scope");
        check(Some("-.slice::y"), "y.scope", "y.scope");
        for path in ["/a/b", "a:b", "a:b:c:d", "a.slice:x:", "a.slice:x:y/z", "a.slice:x:y.slice", "a.slice:x:\n"] {
            assert!(scope(Some(path)).is_err(), "{path}");
        }
        for path in ["a:x:y", ".slice:x:y", "a--b.slice:x:y", "-a.slice:x:y"] {
            assert!(scope(Some(path)).unwrap().0.is_err(), "{path}");
        }
        let record = Record::among(PURE, OWN, "c1", Some("user.slice:libpod:abc"), Manager::Systemd).unwrap();
        assert_eq!((record.unit.as_deref(), record.slice.as_deref()), (Some("libpod-abc.scope"), Some("user.slice")));
    }
}
