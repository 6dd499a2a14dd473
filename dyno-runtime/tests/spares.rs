//! Groups made ahead: as good as those made at a start, nobody's before it, and gone when their maker is.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{
    HostOptions, IoLimit, Limits,
    cgroup::{Cgroups, Group},
};

use support::{Case, Stage, groups, same};

const CASES: &[Case] = &[
    ("a_thousand_leave_nothing", a_thousand_leave_nothing),
    ("a_claimed_one_is_as_a_created_one", a_claimed_one_is_as_a_created_one),
    ("refused_limits_take_the_spare_along", refused_limits_take_the_spare_along),
    ("one_that_somebody_removed_is_no_group", one_that_somebody_removed_is_no_group),
    ("a_name_that_is_taken", a_name_that_is_taken),
    ("one_with_a_process_changes_its_name", one_with_a_process_changes_its_name),
    ("what_a_killed_maker_leaves_is_removed", what_a_killed_maker_leaves_is_removed),
];

/// Tells this program to be the maker that is killed: the name of the cgroups.
const MAKER: &str = "DYNO_TEST_SPARES_OF";

fn main() -> ExitCode {
    match std::env::var(MAKER) {
        Ok(name) => make_and_wait(&name),
        Err(_) => support::suite("spares", &["sleep"], CASES),
    }
}

/// With the v2 tree and, where controllers are on v1, without it.
fn each_way(stage: &Stage, work: impl Fn(&Cgroups) -> Result<()>) -> Result<()> {
    for v2_tree in [false, true] {
        let cgroups = Cgroups::open(&stage.name, &HostOptions { v2_tree, ..HostOptions::default() })?;
        work(&cgroups).with_context(|| format!("v2_tree {v2_tree}"))?;
    }
    Ok(())
}

/// The tops of all hierarchies, and what else is mounted beside them.
fn tops() -> Result<BTreeSet<PathBuf>> {
    let tops = fs::read_dir("/sys/fs/cgroup")?.map(|entry| Ok(entry?.path())).collect::<Result<BTreeSet<_>>>()?;
    Ok(tops.into_iter().chain(groups::tree()).collect())
}

/// The group's directory in each hierarchy, by the hierarchy's name.
fn directories(stage: &Stage, id: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for top in tops()? {
        for entry in fs::read_dir(top.join(&stage.name)).into_iter().flatten() {
            let path = entry?.path();
            let mut owner = [0; 64];
            let owned = rustix::fs::getxattr(&path, "user.dyno", &mut owner[..]).is_ok_and(|n| &owner[..n] == id.as_bytes());
            if path.is_dir() && (path.ends_with(id) || owned) {
                found.insert(top.display().to_string(), path);
            }
        }
    }
    Ok(found)
}

/// Directories that are nobody's.
fn unclaimed(stage: &Stage) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for top in tops()? {
        for entry in fs::read_dir(top.join(&stage.name)).into_iter().flatten() {
            let path = entry?.path();
            let claimed = rustix::fs::getxattr(&path, "user.dyno", &mut [0; 64][..]).is_ok();
            if path.is_dir() && !claimed && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

/// Groups per controller, those that are still dying too.
fn counted() -> Result<BTreeMap<String, i64>> {
    let table = fs::read_to_string("/proc/cgroups")?;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(((*fields.first()?).to_owned(), fields.get(2)?.parse().ok()?))
    };
    Ok(table.lines().skip(1).filter_map(line).collect())
}

fn a_thousand_leave_nothing(stage: &Stage) -> Result<()> {
    let before = counted()?;
    let (rounds, at_once) = if support::emulated() { (4, 10) } else { (20, 50) };
    each_way(stage, |cgroups| {
        for _ in 0..rounds {
            let spares = (0..at_once).map(|_| cgroups.make_spare()).collect::<dyno_runtime::Result<Vec<_>>>()?;
            same("whole", spares.iter().filter(|spare| spare.is_whole()).count(), at_once)?;
            same("names of dynos", cgroups.names()?, Vec::new())?;
        }
        same("left", unclaimed(stage)?, Vec::new())
    })?;
    // The kernel frees an emptied group a moment later; other tests of this host have groups too.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let now = counted()?;
        let grown = now.iter().filter(|(name, n)| **n > before.get(*name).copied().unwrap_or(0) + 300).collect::<Vec<_>>();
        if grown.is_empty() {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < end, "before {before:?}, now {now:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Every file of a group that can be read, and what it says, but for the periods of a quota, which the clock counts.
fn files(dir: &PathBuf) -> Result<BTreeMap<String, Option<String>>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?.collect::<std::io::Result<Vec<_>>>()?;
    let says = |path: PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        Some(text.lines().filter(|line| !line.starts_with("nr_periods ")).collect::<Vec<_>>().join("\n"))
    };
    Ok(entries.into_iter().map(|e| (e.file_name().to_string_lossy().into_owned(), says(e.path()))).collect())
}

fn kinds_of_limits(stage: &Stage) -> Vec<Limits> {
    let none = Limits { memory: None, pids: None, cpu_weight: None, ..Limits::default() };
    let disk = groups::disk_of(stage.work()).map(|device| IoLimit { device, read_bytes: Some(1 << 20), writes: Some(99), ..IoLimit::default() });
    vec![
        Limits::default(),
        Limits { memory: Some(32 << 20), ..none.clone() },
        Limits { memory: Some(32 << 20), memory_high: Some(16 << 20), swap: 4 << 20, ..none.clone() },
        Limits { pids: Some(7), ..none.clone() },
        Limits { cpu_weight: Some(250), ..none.clone() },
        Limits { cpu_millis: Some(1500), ..none.clone() },
        Limits { cpus: Some("0".into()), memory_nodes: Some("0".into()), ..none.clone() },
        Limits { cpu_ms: Some(1000), ..none.clone() },
        Limits { io: disk.into_iter().collect(), ..none.clone() },
        Limits { io_weight: Some(50), ..none.clone() },
        Limits { hugetlb: [("2MB".to_owned(), 4 << 20)].into(), ..none.clone() },
        none,
    ]
}

fn a_claimed_one_is_as_a_created_one(stage: &Stage) -> Result<()> {
    each_way(stage, |cgroups| {
        for limits in kinds_of_limits(stage) {
            let created = Group::create(cgroups, "made", &limits).map_err(|e| e.to_string().replace("/made/", "/ID/"));
            let claimed = Group::from_spare(cgroups.make_spare()?, "kept", &limits).map_err(|e| e.to_string().replace("/kept/", "/ID/"));
            match (created, claimed) {
                (Ok(created), Ok(claimed)) => {
                    let (made, kept) = (directories(stage, "made")?, directories(stage, "kept")?);
                    same("hierarchies", kept.keys().collect::<Vec<_>>(), made.keys().collect())?;
                    ensure!(made.len() >= groups::tree().map_or(3, |_| 1), "{made:?}");
                    for (top, dir) in &made {
                        same(top, files(&kept[top])?, files(dir)?).with_context(|| format!("{limits:?}"))?;
                    }
                    same("found again", cgroups.reopen("kept")?.map(|group| group.name().to_owned()), Some("kept".into()))?;
                    same("names", cgroups.names()?.iter().filter(|name| *name == "kept" || *name == "made").count(), 2)?;
                    claimed.remove()?;
                    created.remove()?;
                }
                (Err(created), Err(claimed)) => same("refused", &claimed, &created)?,
                (created, claimed) => anyhow::bail!("{limits:?}: created {created:?}, claimed {claimed:?}"),
            }
            same("left", (directories(stage, "kept")?.len(), unclaimed(stage)?), (0, Vec::new()))?;
        }
        Ok(())
    })
}

fn refused_limits_take_the_spare_along(stage: &Stage) -> Result<()> {
    each_way(stage, |cgroups| {
        let limits = Limits { cpus: Some("4000".into()), ..Limits::default() };
        let e = Group::from_spare(cgroups.make_spare()?, "t", &limits).err().context("accepted")?;
        ensure!(e.to_string().contains("cpuset.cpus"), "{e}");
        same("left", (directories(stage, "t")?.len(), unclaimed(stage)?.len()), (0, 0))
    })
}

fn one_that_somebody_removed_is_no_group(stage: &Stage) -> Result<()> {
    each_way(stage, |cgroups| {
        let spare = cgroups.make_spare()?;
        let dirs = unclaimed(stage)?;
        ensure!(!dirs.is_empty(), "no spare");
        dirs.iter().try_for_each(fs::remove_dir)?;
        same("whole", spare.is_whole(), false)?;
        let e = Group::from_spare(spare, "t", &Limits::default()).err().context("accepted")?;
        ensure!(matches!(e.errno(), Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV)), "{e}");
        same("left", (directories(stage, "t")?.len(), unclaimed(stage)?.len()), (0, 0))
    })
}

fn a_name_that_is_taken(stage: &Stage) -> Result<()> {
    each_way(stage, |cgroups| {
        let first = Group::create(cgroups, "t", &Limits::default())?;
        let e = Group::from_spare(cgroups.make_spare()?, "t", &Limits::default()).err().context("accepted")?;
        same("errno", e.errno(), Some(rustix::io::Errno::EXIST))?;
        same("left", unclaimed(stage)?, Vec::new())?;
        ensure!(!directories(stage, "t")?.is_empty(), "the other one is gone");
        Ok(first.remove()?)
    })
}

/// A process in every directory of a group that nobody has asked for yet.
fn inhabit(dirs: &[String]) -> Result<Child> {
    let process = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    for dir in dirs {
        fs::write(format!("{dir}/cgroup.procs"), process.id().to_string())?;
    }
    Ok(process)
}

fn one_with_a_process_changes_its_name(stage: &Stage) -> Result<()> {
    each_way(stage, |cgroups| {
        let limits = Limits { cpu_ms: Some(1000), cpu_millis: Some(500), ..Limits::default() };
        let mut group = cgroups.make_spare()?.limited(&limits)?;
        let mut process = inhabit(&unclaimed(stage)?)?;
        same("in it", group.pids()?, vec![process.id()])?;
        group.rename("t")?;
        same("in it still", group.pids()?, vec![process.id()])?;
        same("found again", cgroups.reopen("t")?.context("gone")?.pids()?, vec![process.id()])?;
        same("a dyno's", cgroups.names()?, vec!["t".to_owned()])?;
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.id()))?;
        ensure!(groups.contains(&format!("/{}/t\n", stage.name)) || groups::tree().is_some(), "{groups}");
        process.kill()?;
        process.wait()?;
        group.remove()?;
        same("left", (directories(stage, "t")?.len(), unclaimed(stage)?.len()), (0, 0))
    })
}

/// Makes spares, one of them with a process in it, and waits for the end.
fn make_and_wait(name: &str) -> ExitCode {
    let work = || -> Result<()> {
        let cgroups = Cgroups::open(name, &HostOptions { v2_tree: true, ..HostOptions::default() })?;
        let spares = (0..8).map(|_| cgroups.make_spare()).collect::<dyno_runtime::Result<Vec<_>>>()?;
        let parked = cgroups.make_spare()?.limited(&Limits::default())?;
        let dirs = tops()?.into_iter().map(|top| top.join(name).join(parked.name()));
        let process = inhabit(&dirs.filter(|dir| dir.is_dir()).map(|dir| dir.display().to_string()).collect::<Vec<_>>())?;
        println!("{} {}", process.id(), parked.pids()?.len());
        std::thread::park();
        drop((spares, parked, process));
        Ok(())
    };
    work().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn what_a_killed_maker_leaves_is_removed(stage: &Stage) -> Result<()> {
    let mut maker = Command::new(std::env::current_exe()?).env(MAKER, &stage.name).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(maker.stdout.take().context("no pipe")?).read_line(&mut line)?;
    let (parked, inside) = line.trim().split_once(' ').with_context(|| format!("the maker failed: {line:?}"))?;
    same("in the group", inside, "1")?;
    let ours = Cgroups::open(&stage.name, &HostOptions::default())?;
    let spare = ours.make_spare()?;
    let all = unclaimed(stage)?.len();
    ensure!(all > 9, "{:?}", unclaimed(stage)?);
    maker.kill()?;
    maker.wait()?;
    same("before anybody looks", unclaimed(stage)?.len(), all)?;
    // As the next start of the platform does.
    Cgroups::open(&stage.name, &HostOptions::default())?;
    ensure!(spare.is_whole(), "a spare of a living process was removed");
    ensure!(unclaimed(stage)?.len() < all - 8, "{:?}", unclaimed(stage)?);
    drop(spare);
    same("left", unclaimed(stage)?, Vec::new())?;
    let state = fs::read_to_string(format!("/proc/{parked}/stat")).unwrap_or_default();
    ensure!(state.is_empty() || state.contains(") Z ") || !state.contains("(sleep)"), "what was in one still runs: {state}");
    Ok(())
}
