//! `linux.namespaces`, the mappings of a user namespace, and the clocks of a time namespace.

use std::path::Path;

use super::{
    Namespace, Namespaces,
    member::{absolute, quoted, refuse},
};
use crate::{
    Result,
    oci::spec::{self, IdMapping, Linux},
};

/// One for each kind.
pub fn lower(given: &[spec::Namespace]) -> Result<Namespaces> {
    let mut all = Namespaces::default();
    for (i, one) in given.iter().enumerate() {
        let member = format!("linux.namespaces[{i}]");
        let slot = match one.kind.as_str() {
            "mount" => &mut all.mount,
            "pid" => &mut all.pid,
            "network" => &mut all.network,
            "ipc" => &mut all.ipc,
            "uts" => &mut all.uts,
            "user" => &mut all.user,
            "cgroup" => &mut all.cgroup,
            "time" => &mut all.time,
            other => {
                return refuse(format!("{member}.type"), format!("{} is none of mount, pid, network, ipc, uts, user, cgroup, time", quoted(other)));
            }
        };
        if *slot != Namespace::Host {
            return refuse(format!("{member}.type"), format!("{} is given twice", quoted(&one.kind)));
        }
        *slot = match one.path.as_deref().filter(|path| *path != Path::new("")) {
            None => Namespace::New,
            Some(path) => {
                absolute(format!("{member}.path"), path)?;
                Namespace::Join(path.to_owned())
            }
        };
    }
    Ok(all)
}

/// Mappings of uids and gids of a new user namespace. An existing one has its own: what is given beside it is passed over, because
/// containerd and CRI-O repeat there what the namespace was made with.
pub fn mappings(linux: &Linux, namespaces: &Namespaces) -> Result<(Vec<IdMapping>, Vec<IdMapping>)> {
    match namespaces.user {
        Namespace::Host => {
            for (member, given) in [("linux.uidMappings", &linux.uid_mappings), ("linux.gidMappings", &linux.gid_mappings)] {
                if !given.is_empty() {
                    return refuse(member, "needs a user namespace: linux.namespaces has none");
                }
            }
            Ok((vec![], vec![]))
        }
        Namespace::Join(_) => Ok((vec![], vec![])),
        Namespace::New => {
            for (member, given) in [("linux.uidMappings", &linux.uid_mappings), ("linux.gidMappings", &linux.gid_mappings)] {
                if given.is_empty() {
                    return refuse(member, "is missing: a new user namespace has no ids without it");
                }
                check_mapping(member, given)?;
            }
            Ok((linux.uid_mappings.clone(), linux.gid_mappings.clone()))
        }
    }
}

/// What the kernel would refuse of `uid_map` and `gid_map` (user_namespaces(7)).
pub fn check_mapping(member: &str, given: &[IdMapping]) -> Result<()> {
    // UID_GID_MAP_MAX_EXTENTS, and one write(2) of less than a page.
    const MOST: usize = 340;
    const PAGE: usize = 4096;
    if given.len() > MOST {
        return refuse(member, format!("has {} entries: the kernel takes {MOST}", given.len()));
    }
    for (i, one) in given.iter().enumerate() {
        if one.size == 0 {
            return refuse(format!("{member}[{i}].size"), "is 0");
        }
        // (uid_t) -1 is no id: the last one that a run can hold is 2^32 - 2.
        for (name, first) in [("containerID", one.container_id), ("hostID", one.host_id)] {
            if first.checked_add(one.size).is_none() {
                return refuse(format!("{member}[{i}]"), format!("{name} and size go beyond the last id"));
            }
        }
    }
    if let Some(i) = overlap(given, |m| m.container_id).or_else(|| overlap(given, |m| m.host_id)) {
        return refuse(format!("{member}[{i}]"), "overlaps another entry");
    }
    let written: usize = given.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size).len()).sum();
    if written >= PAGE {
        return refuse(member, format!("is {written} bytes long for the kernel, which takes {}", PAGE - 1));
    }
    Ok(())
}

/// The later one of two runs that share an id.
fn overlap(given: &[IdMapping], first: impl Fn(&IdMapping) -> u32) -> Option<usize> {
    let mut order: Vec<usize> = (0..given.len()).collect();
    order.sort_by_key(|&i| first(&given[i]));
    order.windows(2).find(|w| first(&given[w[0]]) + given[w[0]].size > first(&given[w[1]])).map(|w| w[0].max(w[1]))
}

/// Whether an id inside has one outside; always where no mapping is known.
pub fn is_mapped(map: &[IdMapping], id: u32) -> bool {
    map.is_empty() || map.iter().any(|m| id >= m.container_id && id - m.container_id < m.size)
}

/// Lines of `timens_offsets`.
pub fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(&'static str, i64, u32)>> {
    if linux.time_offsets.is_empty() {
        return Ok(vec![]);
    }
    if namespaces.time != Namespace::New {
        return refuse("linux.timeOffsets", "needs a new time namespace: linux.namespaces has none");
    }
    let mut lines = Vec::new();
    for (clock, offset) in &linux.time_offsets {
        let clock = match clock.as_str() {
            "monotonic" => "monotonic",
            "boottime" => "boottime",
            other => return refuse("linux.timeOffsets", format!("{} is neither monotonic nor boottime", quoted(other))),
        };
        if offset.nanosecs >= 1_000_000_000 {
            return refuse(format!("linux.timeOffsets.{clock}.nanosecs"), format!("{} is a second or more", offset.nanosecs));
        }
        lines.push((clock, offset.secs, offset.nanosecs));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(runs: &[(u32, u32, u32)]) -> Vec<IdMapping> {
        runs.iter().map(|&(container_id, host_id, size)| IdMapping { container_id, host_id, size }).collect()
    }

    #[test]
    fn runs_of_ids() {
        for good in [&[(0, 100_000, 65536)][..], &[(0, 1000, 1), (1, 100_000, 65535)], &[(0, 0, u32::MAX)], &[(5, 5, 5), (0, 0, 5)]] {
            check_mapping("m", &map(good)).unwrap();
        }
        for bad in [&[(0, 0, 0)][..], &[(0, 0, 10), (9, 100, 1)], &[(0, 100, 10), (10, 109, 10)], &[(1, 0, u32::MAX)], &[(0, 2, u32::MAX - 1)]] {
            assert!(check_mapping("m", &map(bad)).is_err(), "{bad:?}");
        }
        let many = |n: u32| map(&(0..n).map(|i| (i, i, 1)).collect::<Vec<_>>());
        check_mapping("m", &many(300)).unwrap();
        assert!(check_mapping("m", &many(341)).is_err());
        assert!(check_mapping("m", &map(&(0..340).map(|i| (i * 1_000_000, i * 1_000_000, 1)).collect::<Vec<_>>())).is_err());
    }

    #[test]
    fn ids_with_and_without_a_place_outside() {
        let some = map(&[(0, 1000, 1), (100, 2000, 10)]);
        let check = |id, mapped| assert_eq!(is_mapped(&some, id), mapped, "{id}");
        check(0, true);
        check(1, false);
        check(99, false);
        check(109, true);
        check(110, false);
        assert!(is_mapped(&[], 7));
    }
}
