//! What holds of every configuration: small parts against slow and plain versions of themselves, whole ones against what those who carry
//! them out rely on.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{
    list, member,
    mount_options::{Attributes, KNOWN, attr, meaning},
    namespaces::check_mapping,
    *,
};
use crate::oci::spec::{IdMapping, Spec, parse};

/// Parts of paths that lead astray.
fn path() -> impl Strategy<Value = String> {
    vec(prop::sample::select(vec!["/", "//", ".", "..", "a", "b", "proc", "dev", " ", "\u{0}", "ä", "\n"]), 0..8).prop_map(|parts| parts.concat())
}

/// Where a path leads if nothing is a link: step by step.
fn walked(path: &str) -> PathBuf {
    let mut at: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(at.pop()),
            name => at.push(name),
        }
    }
    PathBuf::from(format!("/{}", at.join("/")))
}

/// A configuration whose members come from short lists of good and bad values.
fn config() -> impl Strategy<Value = Value> {
    let option = prop::sample::select([KNOWN, &["size=1", "x", "", "mode=0\u{0}"]].concat());
    let kind = prop::sample::select(vec!["", "none", "bind", "tmpfs", "proc", "cgroup", "overlay"]);
    let mount = (path(), kind, path(), vec(option, 0..4))
        .prop_map(|(to, kind, from, options)| json!({"destination": to, "type": kind, "source": from, "options": options}));
    let namespace = prop::sample::select(vec!["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time", "net"]);
    let namespaces = prop::sample::subsequence(vec!["network", "mount", "ipc", "uts", "user", "time"], 0..6);
    let odd = vec(namespace, 0..3);
    let sysctl =
        prop::sample::select(vec!["net.ipv4.ip_forward", "net/../kernel", "kernel.sem", "kernel.hostname", "vm.x", "fs.mqueue.a", "net.a..b"]);
    let names = vec(prop::sample::select(vec!["CAP_CHOWN", "CAP_BPF", "CAP_KILL", "cap_chown", "X"]), 0..4);
    let sets = (names.clone(), names.clone(), names.clone(), names.clone(), names);
    let process = (sets, any::<u32>(), prop::sample::select(vec!["/", "x", ""]));
    (vec(mount, 0..4), namespaces, odd, vec(sysctl, 0..2), process, vec(path(), 0..2)).prop_map(|(mounts, some, odd, sysctls, process, covered)| {
        let ((bounding, effective, inheritable, permitted, ambient), uid, cwd) = process;
        let namespaces: Vec<Value> = some.iter().chain(odd.iter().filter(|_| odd.len() == 2)).map(|kind| json!({"type": kind})).collect();
        let with_user = some.contains(&"user");
        let map = if with_user { json!([{"containerID": 0, "hostID": 1, "size": u32::MAX - 1}]) } else { json!([]) };
        let sysctls: serde_json::Map<String, Value> = sysctls.into_iter().map(|key| (key.to_owned(), json!("1"))).collect();
        json!({
            "ociVersion": "1.3.0", "root": {"path": "rootfs"}, "mounts": mounts,
            "process": {"args": ["a"], "cwd": cwd, "user": {"uid": uid}, "capabilities": {
                "bounding": bounding, "effective": effective, "inheritable": inheritable, "permitted": permitted, "ambient": ambient}},
            "linux": {"namespaces": namespaces, "uidMappings": map, "gidMappings": map, "sysctl": sysctls, "maskedPaths": covered},
        })
    })
}

fn is_clean(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    text.len() > 1 && text.starts_with('/') && !text.contains('\0') && text[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_path_inside_stays_inside(path in path()) {
        match member::inside("m", Path::new(&path)) {
            Ok(inside) => {
                prop_assert_eq!(&inside, &walked(&path));
                prop_assert_eq!(&member::inside("m", &inside).unwrap(), &inside);
            }
            Err(e) => prop_assert!(path.is_empty() || path.contains('\0'), "{e}"),
        }
    }

    #[test]
    fn a_list_is_what_it_lists(numbers in prop::collection::btree_set(0_u32..300, 0..20), ranges in vec((0_u32..300, 0_u32..50), 0..4)) {
        let all: BTreeSet<u32> = numbers.iter().copied().chain(ranges.iter().flat_map(|&(from, more)| from..=from + more)).collect();
        let text: Vec<String> = numbers.iter().map(u32::to_string).chain(ranges.iter().map(|(from, more)| format!("{from}-{}", from + more))).collect();
        let bits = list::bits(&text.join(","), 350).unwrap();
        let listed: BTreeSet<u32> = (0..bits.len() as u32 * 64).filter(|n| bits[*n as usize / 64] >> (n % 64) & 1 == 1).collect();
        prop_assert_eq!(listed, all);
    }

    #[test]
    fn no_list_is_a_danger(text in "[-,0-9 a]{0,30}") {
        if let Ok(bits) = list::bits(&text, 1024) {
            prop_assert!(bits.len() <= 16);
        }
    }

    #[test]
    fn an_id_is_mapped_once(runs in vec((0_u32..40, 0_u32..40, 0_u32..6), 1..6)) {
        let map: Vec<IdMapping> = runs.iter().map(|&(container_id, host_id, size)| IdMapping { container_id, host_id, size }).collect();
        let once = |first: fn(&IdMapping) -> u32| {
            let all: Vec<u32> = map.iter().flat_map(|m| first(m)..first(m) + m.size).collect();
            all.iter().collect::<BTreeSet<_>>().len() == all.len()
        };
        let good = map.iter().all(|m| m.size > 0) && once(|m| m.container_id) && once(|m| m.host_id);
        prop_assert_eq!(check_mapping("m", &map).is_ok(), good);
    }

    #[test]
    fn attributes_never_contradict(options in vec(prop::sample::select(KNOWN.to_vec()), 0..12)) {
        let mut all = Attributes::default();
        for option in &options {
            if let Some((meaning, false)) = meaning(option) {
                all.apply(meaning);
            }
        }
        prop_assert_eq!(all.set & all.clear & !attr::ATIME, 0);
        // mount_setattr(2) wants all of the access times cleared before one is set.
        prop_assert!(all.set & attr::ATIME == 0 || all.clear & attr::ATIME == attr::ATIME);
        let last = options.iter().rev().find(|o| ["ro", "rw"].contains(*o));
        prop_assert_eq!(all.set & attr::RDONLY != 0, last == Some(&"ro"));
    }

    #[test]
    fn a_container_is_what_others_rely_on(config in config()) {
        let spec: Spec = parse(config.to_string().as_bytes()).unwrap();
        match Container::lower(&spec, Path::new("/srv/bundle")) {
            Err(e) => {
                let said = e.to_string();
                prop_assert!(e.kind() == crate::ErrorKind::Invalid && said.contains(": ") && !said.contains(char::is_control) && said.len() < 1000, "{said:?}");
            }
            Ok(c) => {
                prop_assert!(c.mounts.iter().all(|m| is_clean(&m.destination)));
                prop_assert!(c.masked.iter().chain(&c.readonly).all(|path| is_clean(path)));
                let relative = c.mounts.iter().any(|m| matches!(&m.source, Source::Bind { path, .. } if !path.is_absolute()));
                prop_assert!(!relative);
                prop_assert!(c.sysctls.is_empty() || c.namespaces.network != Namespace::Host || c.namespaces.ipc != Namespace::Host);
                prop_assert_eq!(c.uid_map.is_empty(), c.namespaces.user != Namespace::New);
                let p = c.process.unwrap();
                let sets = p.capabilities;
                prop_assert_eq!((sets.effective & !sets.permitted, sets.ambient & !(sets.permitted & sets.inheritable)), (0, 0));
                prop_assert!(p.uid != u32::MAX && p.cwd.is_absolute());
            }
        }
    }
}
