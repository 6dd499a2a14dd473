//! The rest of `linux.resources`: processes, huge pages, RDMA, marks on packets, and v2 files by name.

use std::collections::BTreeMap;

use super::{Now, ask::Ask, refused};
use crate::{
    cgroup::{
        Version,
        knob::{Reads, page_bytes},
    },
    error::{Error, ErrorKind, Result},
    oci::spec::Resources,
};

/// 0 is written as 1, as runc does: the first process is there already, and no other one comes, with either. (With 0 it could not be born
/// in its v2 group.)
pub(super) fn pids(resources: &Resources, _: Version, _: Now<'_>) -> Result<Vec<Ask>> {
    let limit = resources.pids.as_ref().and_then(|pids| pids.limit);
    Ok(limit
        .map(|limit| match u64::try_from(limit) {
            Ok(limit) => Ask::number("pids.limit", "pids.max", limit.max(1)),
            Err(_) => Ask::new("pids.limit", "pids.max", "max").reads(Reads::Unlimited),
        })
        .into_iter()
        .collect())
}

/// Limits what is reserved, where the kernel counts that (Linux 5.7), and what is used.
pub(super) fn huge_pages(resources: &Resources, version: Version, _: Now<'_>) -> Result<Vec<Ask>> {
    let suffix = if version == Version::V1 { "limit_in_bytes" } else { "max" };
    let mut asks = Vec::new();
    for limit in &resources.hugepage_limits {
        let (size, bytes) = (&limit.page_size, limit.limit);
        let page = page_bytes(size);
        if page == 0 || !size.trim_end_matches(['K', 'M', 'G', 'B']).bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::refused(
                ErrorKind::Invalid,
                format!("linux.resources.hugepageLimits: {size:?} is no size of huge pages (64KB, 2MB, 1GB)"),
            ));
        }
        let whole = bytes / page * page;
        let reads = if whole >= 1 << 62 { Reads::Unlimited } else { Reads::Number(whole) };
        let ask = |file: String| {
            Ask::new("hugepageLimits", file, if whole >= 1 << 62 && version == Version::V2 { "max".to_owned() } else { bytes.to_string() })
                .reads(reads.clone())
        };
        asks.push(ask(format!("hugetlb.{size}.{suffix}")));
        asks.push(ask(format!("hugetlb.{size}.rsvd.{suffix}")).optional());
    }
    Ok(asks)
}

pub(super) fn rdma(resources: &Resources, _: Version, _: Now<'_>) -> Result<Vec<Ask>> {
    let mut asks = Vec::new();
    for (device, limits) in &resources.rdma {
        one_word("rdma", device)?;
        let handles = limits.hca_handles.map(|n| format!(" hca_handle={n}"));
        let objects = limits.hca_objects.map(|n| format!(" hca_object={n}"));
        if handles.is_none() && objects.is_none() {
            return Err(Error::refused(ErrorKind::Invalid, format!("linux.resources.rdma: {device:?} has neither hcaHandles nor hcaObjects")));
        }
        asks.push(Ask::new("rdma", "rdma.max", format!("{device}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default())));
    }
    Ok(asks)
}

pub(super) fn packet_mark(resources: &Resources, _: Version, _: Now<'_>) -> Result<Vec<Ask>> {
    let mark = resources.network.as_ref().and_then(|network| network.class_id).filter(|mark| *mark != 0);
    Ok(mark.map(|mark| Ask::number("network.classID", "net_cls.classid", mark.into())).into_iter().collect())
}

pub(super) fn packet_priorities(resources: &Resources, _: Version, _: Now<'_>) -> Result<Vec<Ask>> {
    let priorities = resources.network.iter().flat_map(|network| &network.priorities);
    priorities
        .map(|priority| {
            one_word("network.priorities", &priority.name)?;
            Ok(Ask::new("network.priorities", "net_prio.ifpriomap", format!("{} {}", priority.name, priority.priority)))
        })
        .collect()
}

/// Blanks and line feeds would make two values of one.
fn one_word(member: &str, word: &str) -> Result<()> {
    if !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(Error::refused(ErrorKind::Invalid, format!("linux.resources.{member}: {word:?} is no name")))
}

/// Files of the v2 group by name, one write for each line. `offer` has a controller handed down and says whether that can be.
pub(super) fn unified(files: &BTreeMap<String, String>, offer: impl Fn(&str) -> Result<bool>) -> Result<Vec<Ask>> {
    let mut asks = Vec::new();
    for (file, text) in files {
        let member = format!("unified.{file:?}");
        let invalid = |why: &str| Err(Error::refused(ErrorKind::Invalid, format!("linux.resources.{member}: {why}")));
        let Some((controller, _)) = file.split_once('.').filter(|(controller, rest)| !controller.is_empty() && !rest.is_empty()) else {
            return invalid("must be CONTROLLER.PARAMETER");
        };
        if file.contains(['/', '\0']) {
            return invalid("must be a file name (no slashes)");
        }
        if controller != "cgroup" && !offer(controller)? {
            return Err(refused(format!("linux.resources.{member}: controller {controller:?} not available")));
        }
        asks.extend(text.lines().filter(|line| !line.is_empty()).map(|line| Ask::new(member.clone(), file.clone(), line)));
    }
    Ok(asks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::spec::{HugepageLimit, InterfacePriority, Network, Pids, Rdma};

    type Asks = fn(&Resources, Version, Now<'_>) -> Result<Vec<Ask>>;

    fn pairs(resources: &Resources, asks: Asks, version: Version) -> Vec<(String, String)> {
        asks(resources, version, &|_| None).unwrap().into_iter().map(|ask| (ask.files[0].clone(), ask.value)).collect()
    }

    fn check(resources: &Resources, asks: Asks, version: Version, want: &[(&str, &str)]) {
        assert_eq!(pairs(resources, asks, version), want.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect::<Vec<_>>());
    }

    #[test]
    fn processes() {
        for (limit, want) in [(5, "5"), (-1, "max"), (0, "1")] {
            check(&Resources { pids: Some(Pids { limit: Some(limit) }), ..Resources::default() }, pids, Version::V2, &[("pids.max", want)]);
        }
        check(&Resources { pids: Some(Pids { limit: None }), ..Resources::default() }, pids, Version::V1, &[]);
    }

    #[test]
    fn pages() {
        let of = |size: &str, limit| Resources { hugepage_limits: vec![HugepageLimit { page_size: size.into(), limit }], ..Resources::default() };
        check(&of("2MB", 5 << 20), huge_pages, Version::V2, &[("hugetlb.2MB.max", "5242880"), ("hugetlb.2MB.rsvd.max", "5242880")]);
        check(&of("1GB", 0), huge_pages, Version::V1, &[("hugetlb.1GB.limit_in_bytes", "0"), ("hugetlb.1GB.rsvd.limit_in_bytes", "0")]);
        let asks = huge_pages(&of("2MB", 5 << 20), Version::V2, &|_| None).unwrap();
        assert!(asks[0].reads.as_ref().unwrap().holds("4194304\n") && asks[1].optional && !asks[0].optional);
        for size in ["", "MB", "../2MB", "2mb", "2MBB", "2", "0MB", "+2MB"] {
            assert!(huge_pages(&of(size, 5), Version::V2, &|_| None).is_err(), "{size}");
        }
    }

    #[test]
    fn devices_and_interfaces_are_one_word() {
        let device = |name: &str, limits| Resources { rdma: [(name.to_owned(), limits)].into(), ..Resources::default() };
        let both = Rdma { hca_handles: Some(3), hca_objects: Some(10_000) };
        check(&device("mlx5_1", both.clone()), rdma, Version::V1, &[("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000")]);
        assert!(rdma(&device("mlx5_1", Rdma::default()), Version::V1, &|_| None).is_err());
        let network = |name: &str| Network { class_id: Some(1_048_577), priorities: vec![InterfacePriority { name: name.into(), priority: 500 }] };
        let resources = |name| Resources { network: Some(network(name)), ..Resources::default() };
        check(&resources("eth0"), packet_mark, Version::V1, &[("net_cls.classid", "1048577")]);
        check(&resources("eth0"), packet_priorities, Version::V1, &[("net_prio.ifpriomap", "eth0 500")]);
        for name in ["", "a b", "a\nb"] {
            assert!(
                rdma(&device(name, both.clone()), Version::V1, &|_| None).is_err()
                    && packet_priorities(&resources(name), Version::V1, &|_| None).is_err()
            );
        }
    }

    #[test]
    fn files_by_name() {
        let files = |file: &str, text: &str| BTreeMap::from([(file.to_owned(), text.to_owned())]);
        let there = |controller: &str| Ok(controller == "memory");
        let asks = unified(&files("memory.high", "5\n"), there).unwrap();
        assert_eq!((asks[0].files[0].as_str(), asks[0].value.as_str(), asks.len()), ("memory.high", "5", 1));
        assert_eq!(unified(&files("cgroup.max.depth", "1\n2\n"), there).unwrap().len(), 2);
        for file in ["memory", "memory.", ".high", "../memory.high", "memory.a/b", "io.max", ""] {
            assert!(unified(&files(file, "5"), there).is_err(), "{file}");
        }
    }
}
