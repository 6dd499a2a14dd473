//! Control groups: which controllers are where, and who may use them.

use super::{Finding, Severity, ground::Ground};

/// Name on v2, on v1, whether every sandbox needs it, what its absence costs.
const CONTROLLERS: &[(&str, &str, bool, &str)] = &[
    ("memory", "memory", true, "no limit of memory could be held"),
    ("pids", "pids", true, "no limit of processes could be held"),
    ("cpu", "cpu", true, "no share of the processors could be held"),
    ("cpuset", "cpuset", false, "limits.cpus and limits.memory_nodes are refused"),
    ("io", "blkio", false, "limits.io and limits.io_weight are refused; exit records do not tell of disks"),
    ("hugetlb", "hugetlb", false, "limits.hugetlb is refused"),
];

/// A hierarchy: where it is mounted, its v1 options or None for v2.
struct Hierarchy {
    point: String,
    v1: Option<Vec<String>>,
}

pub(super) fn cgroups(ground: &Ground) -> Vec<Finding> {
    let hierarchies = hierarchies(&ground.text("/proc/self/mountinfo").unwrap_or_default());
    let mut findings = vec![layout(&hierarchies)];
    findings.extend(CONTROLLERS.iter().map(|controller| self::controller(ground, &hierarchies, controller)));
    findings.push(freezer(&hierarchies));
    findings.push(writable(ground, &hierarchies));
    findings.push(swap(ground, &hierarchies));
    findings.push(
        Finding::new("cgroups", "pressure (PSI)", if ground.exists("/proc/pressure/memory") { "told" } else { "not told" })
            .weighs(Severity::Note)
            .missing_unless(
                ground.exists("/proc/pressure/memory"),
                "stats do not tell who waits for what",
                "CONFIG_PSI=y, and psi=1 on the kernel's command line",
            ),
    );
    findings
}

fn hierarchies(table: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.to_owned();
        let mut after = after.split(' ');
        match after.next()? {
            "cgroup" => Some(Hierarchy { point, v1: Some(after.nth(1)?.split(',').map(str::to_owned).collect()) }),
            "cgroup2" => Some(Hierarchy { point, v1: None }),
            _ => None,
        }
    };
    table.lines().filter_map(parse).collect()
}

fn layout(hierarchies: &[Hierarchy]) -> Finding {
    let (v1, v2) = (hierarchies.iter().any(|h| h.v1.is_some()), hierarchies.iter().any(|h| h.v1.is_none()));
    let found = match (v1, v2) {
        (false, false) => "none is mounted",
        (true, false) => "v1",
        (true, true) => "hybrid: v1, and a v2 tree beside it",
        (false, true) => "v2",
    };
    Finding::new("cgroups", "layout", found).missing_unless(v1 || v2, "no limit could be held", "mount -t cgroup2 none /sys/fs/cgroup")
}

fn controller(ground: &Ground, hierarchies: &[Hierarchy], (name, old, needed, costs): &(&str, &str, bool, &str)) -> Finding {
    let place = hierarchies.iter().find_map(|h| match &h.v1 {
        Some(options) => options.iter().any(|o| o == old).then(|| format!("v1, {}", h.point)),
        None => {
            let have = ground.text(&format!("{}/cgroup.controllers", h.point)).unwrap_or_default();
            have.split_whitespace().any(|c| c == *name).then(|| format!("v2, {}", h.point))
        }
    });
    let severity = if *needed { Severity::Needed } else { Severity::Wanted };
    let fix = format!(
        "a kernel with that controller, not switched off by cgroup_disable={name}; on v1: mount -t cgroup -o {old} none /sys/fs/cgroup/{old}"
    );
    let found = place.clone().unwrap_or_else(|| "not mounted".to_owned());
    Finding::new("cgroups", *name, found).weighs(severity).missing_unless(place.is_some(), *costs, fix)
}

/// Every v2 group can be frozen (Linux 5.2).
fn freezer(hierarchies: &[Hierarchy]) -> Finding {
    let v1 = hierarchies.iter().find(|h| h.v1.as_ref().is_some_and(|options| options.iter().any(|o| o == "freezer")));
    let v2 = hierarchies.iter().any(|h| h.v1.is_none());
    let found = v1.map_or_else(|| if v2 { "v2".to_owned() } else { "not mounted".to_owned() }, |h| format!("v1, {}", h.point));
    Finding::new("cgroups", "freezer", found).weighs(Severity::Wanted).missing_unless(
        v1.is_some() || v2,
        "sandboxes cannot be paused",
        "mount -t cgroup -o freezer none /sys/fs/cgroup/freezer",
    )
}

/// Root makes its groups at the top; anybody else needs a subtree that was given to them.
fn writable(ground: &Ground, hierarchies: &[Hierarchy]) -> Finding {
    if ground.root_user {
        let shut = hierarchies.iter().find(|h| !ground.writable(&h.point));
        let found = shut.map_or_else(|| "yes".to_owned(), |h| format!("{} is read-only", h.point));
        return Finding::new("cgroups", "groups can be made", found).missing_unless(
            shut.is_none(),
            "no sandbox can have limits",
            "mount -o remount,rw it; in a container: run with cgroups writable",
        );
    }
    let own = ground.text("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let tree = hierarchies.iter().find(|h| h.v1.is_none()).map(|h| format!("{}{path}", h.point));
    let group = tree.filter(|dir| ground.writable(dir));
    let controllers = group.as_ref().and_then(|dir| ground.text(&format!("{dir}/cgroup.controllers"))).unwrap_or_default();
    let lacking: Vec<&str> = CONTROLLERS.iter().filter(|c| c.2 && !controllers.split_whitespace().any(|have| have == c.0)).map(|c| c.0).collect();
    let found = match (&group, lacking.is_empty()) {
        (None, _) => "no group of this user's own (delegation)".to_owned(),
        (Some(dir), true) => format!("below {dir}"),
        (Some(dir), false) => format!("below {dir}, without {}", lacking.join(", ")),
    };
    let fix = "systemd-run --user --scope -p Delegate=yes …; for all controllers: Delegate=cpu cpuset io memory pids in /etc/systemd/system/user@.service.d/delegate.conf";
    Finding::new("cgroups", "groups can be made", found)
        .weighs(Severity::Wanted)
        .missing_unless(group.is_some(), "sandboxes of this user have no limits of memory, processes and processors", fix)
        .limited_unless(lacking.is_empty(), format!("sandboxes of this user have no limit by {}", lacking.join(", ")), fix)
}

/// The root group of v2 has no such file, its children do.
fn swap(ground: &Ground, hierarchies: &[Hierarchy]) -> Finding {
    let counted = hierarchies.iter().any(|h| match &h.v1 {
        Some(_) => ground.exists(&format!("{}/memory.memsw.limit_in_bytes", h.point)),
        None => {
            let children = std::fs::read_dir(ground.at(&h.point)).into_iter().flatten().filter_map(Result::ok);
            children.take(64).any(|child| child.path().join("memory.swap.max").exists())
        }
    });
    let used = ground.text("/proc/swaps").is_some_and(|text| text.lines().count() > 1);
    let found = match (counted, used) {
        (true, _) => "counted",
        (false, false) => "not counted; there is no swap to use",
        (false, true) => "not counted, and there is swap",
    };
    Finding::new("cgroups", "swap", found).weighs(Severity::Wanted).limited_unless(
        counted || !used,
        "a sandbox at its memory limit goes on in swap, as much as there is",
        "CONFIG_MEMCG_SWAP=y, and swapaccount=1 on the kernel's command line; or swapoff -a",
    )
}
