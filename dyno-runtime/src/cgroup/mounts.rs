//! Which hierarchies this host has, and in which group of each a process is: from the text of two files of procfs.

use super::{Controller, Version};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Where.
    pub point: String,
    /// Which group of the hierarchy is seen at its mount point; `/` but for containers.
    pub root: String,
    pub version: Version,
    /// v1: what it limits, of what we know. (v2: its file `cgroup.controllers` tells.)
    pub controllers: Vec<Controller>,
}

/// The hierarchies in the order of the mount table, each once. Those of v1 without a controller that we know (systemd's) are
/// left out.
pub(super) fn hierarchies(mountinfo: &str) -> Vec<Mounted> {
    let mut found: Vec<Mounted> = Vec::new();
    for mounted in lines(mountinfo).filter_map(hierarchy) {
        let known = found.iter().any(|f| match mounted.version {
            Version::V1 => f.version == Version::V1 && mounted.controllers.iter().any(|c| f.controllers.contains(c)),
            Version::V2 => f.version == Version::V2,
        });
        if !known {
            found.push(mounted);
        }
    }
    found
}

fn hierarchy(line: Line<'_>) -> Option<Mounted> {
    let (point, root, version) = (line.point.to_owned(), line.root.to_owned(), line.version);
    if version == Version::V2 {
        return Some(Mounted { point, root, version, controllers: Vec::new() });
    }
    let has = |c: &Controller| line.options.split(',').any(|option| option == c.name(Version::V1));
    let controllers: Vec<Controller> = Controller::KNOWN.into_iter().filter(has).collect();
    (!controllers.is_empty()).then_some(Mounted { point, root, version, controllers })
}

/// A line of the mount table that is a hierarchy's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'t> {
    /// Which group of the hierarchy is seen at its mount point.
    pub root: &'t str,
    /// Where.
    pub point: &'t str,
    /// By the type of the file system.
    pub version: Version,
    /// Of the super block: v1's controllers and `name=` are among them.
    pub options: &'t str,
}

/// proc_pid_mountinfo(5): `id parent major:minor root mount-point options … - type source super-options`.
pub(crate) fn lines(mountinfo: &str) -> impl Iterator<Item = Line<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - cgroup")?;
        let (version, after) = match after.strip_prefix("2 ") {
            Some(after) => (Version::V2, after),
            None => (Version::V1, after.strip_prefix(' ')?),
        };
        let mut before = before.split(' ').skip(3);
        Some(Line { root: before.next()?, point: before.next()?, version, options: after.split(' ').nth(1)? })
    })
}

/// Where, below a mount point that shows `root`, the group `path` of the same hierarchy is; None when it is not seen there.
pub(crate) fn seen_below<'p>(root: &str, path: &'p str) -> Option<&'p str> {
    // A group outside the cgroup namespace is shown as /.. (cgroup_namespaces(7)).
    let below = path.strip_prefix(root.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let below = below.trim_start_matches('/');
    (!below.split('/').any(|part| part == "..")).then_some(below)
}

/// The controllers of ours that `cgroup.controllers` or `cgroup.subtree_control` lists.
pub(super) fn listed(text: &str) -> Vec<Controller> {
    let controllers = Controller::KNOWN.into_iter().filter(|c| !Controller::BUILT_IN.contains(c));
    controllers.filter(|c| text.split_whitespace().any(|word| word == c.name(Version::V2))).collect()
}

impl Mounted {
    /// Where, below its mount point, the process is whose /proc/PID/cgroup this is (cgroups(7): `id:controllers:path`). Empty at
    /// the mount point itself; None when it is in a group that is not seen here.
    pub fn place(&self, cgroup: &str) -> Option<String> {
        let path = cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let ours = match self.version {
                Version::V1 => names.split(',').any(|name| self.controllers.iter().any(|c| c.name(Version::V1) == name)),
                Version::V2 => names.is_empty(),
            };
            ours.then_some(path)
        })?;
        seen_below(&self.root, path).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &str = "\
31 25 0:28 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
37 31 0:32 / /mnt/again rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
42 31 0:39 / /proc rw - proc proc rw";

    #[test]
    fn hierarchies_are_found_by_type_and_mount_options() {
        let found = hierarchies(LEGACY);
        let points: Vec<&str> = found.iter().map(|m| m.point.as_str()).collect();
        assert_eq!(points, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/blkio", "/sys/fs/cgroup/unified"]);
        assert_eq!(found[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
        assert_eq!(found[2].controllers, [Controller::Io]);
        assert_eq!(found[3].version, Version::V2);
        assert!(hierarchies("no mount table").is_empty());
    }

    #[test]
    fn controllers_of_the_v2_tree() {
        let all = listed("cpuset cpu io memory hugetlb pids rdma misc\n");
        assert_eq!(all.len(), 6);
        assert_eq!(listed("\n"), []);
        assert_eq!(listed("hugetlb"), [Controller::Hugetlb]);
        // v1's name for it.
        assert_eq!(listed("blkio"), []);
    }

    #[test]
    fn where_a_process_is() {
        let cgroup = "12:cpu,cpuacct:/a\n4:memory:/user.slice/b:c\n1:name=systemd:/x\n0::/system.slice/d.service\n";
        let check = |root: &str, version, controllers: &[Controller], cgroup: &str, place: Option<&str>| {
            let mounted = Mounted { point: "/mnt".into(), root: root.into(), version, controllers: controllers.to_vec() };
            assert_eq!(mounted.place(cgroup).as_deref(), place, "{root} {version:?} {controllers:?}");
        };
        check("/", Version::V1, &[Controller::Cpu], cgroup, Some("a"));
        check("/", Version::V1, &[Controller::Memory], cgroup, Some("user.slice/b:c"));
        check("/", Version::V1, &[Controller::Pids], cgroup, None);
        check("/", Version::V2, &[], cgroup, Some("system.slice/d.service"));
        check("/system.slice", Version::V2, &[], cgroup, Some("d.service"));
        check("/system", Version::V2, &[], cgroup, None);
        check("/other", Version::V2, &[], cgroup, None);
        check("/", Version::V2, &[], "0::/\n", Some(""));
        check("/", Version::V2, &[], "0::/../elsewhere\n", None);
    }
}
