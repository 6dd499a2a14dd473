//! The leak check: what this process and the kernel hold for one instance, before and after.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use sha2::{Digest, Sha256};

/// Everything that one instance makes and could forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Mount points at or below the instance's directory.
    mounts: Vec<String>,
    /// Loop devices over files below the tests' directory.
    loops: BTreeSet<String>,
    /// Control groups of the instance.
    cgroups: BTreeSet<String>,
    /// State directories, leases and what else lies in the instance's directory.
    files: BTreeSet<String>,
    /// Descendants of this process, zombies too, and who else is in the instance's groups.
    processes: BTreeSet<String>,
    /// Descriptors of this process: a forgotten one keeps a mount, a namespace or a process alive.
    descriptors: Vec<String>,
    /// Interfaces of links, and what sandboxes have in the tables of the host, of this process's network namespace.
    links: BTreeSet<String>,
}

/// Looks at the instance in `run` with cgroups `name` and images below `work`, between two works of its workshop.
pub fn snapshot(run: &Path, name: &str, work: &Path) -> Result<Snapshot> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let rested = workshops_rest();
        let (_, before) = leases(run);
        let seen = look(run, name, work, before)?;
        // Whatever was made from beginning to end meanwhile is a lease more.
        let busy =
            !rested || !workshops_rest() || leases(run).1 != before || seen.processes.iter().any(|process| process.ends_with(" dyno-workshop"));
        if !busy || Instant::now() > end {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the threads of that name in this process wait to be woken (proc_pid_syscall(5)): those at work hold what nobody else knows of.
fn workshops_rest() -> bool {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    let of = |task: &Path, file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
    tasks.map(|task| task.path()).filter(|task| of(task, "comm").trim() == "dyno-workshop").all(|task| {
        let call = of(&task, "syscall");
        // Empty: it has ended meanwhile.
        call.is_empty() || call.starts_with(&format!("{} ", libc::SYS_futex))
    })
}

fn look(run: &Path, name: &str, work: &Path, spares: usize) -> Result<Snapshot> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4));
    let mut files = BTreeSet::new();
    collect(run, &mut files);
    files.extend(leases(run).0);
    Ok(Snapshot {
        mounts: points.filter(|p| Path::new(p).starts_with(run)).map(str::to_owned).collect(),
        loops: loops(work)?,
        cgroups: cgroups(name),
        files,
        processes: processes(name)?,
        descriptors: descriptors(spares)?,
        links: links(run)?,
    })
}

/// Fails when the host does not come to look as `before`. The kernel frees loop devices and emptied groups a moment after
/// their last user and tells nobody, so this is the one place that has to look again.
pub fn must_become(before: &Snapshot, look: impl Fn() -> Result<Snapshot>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let now = look()?;
        if now == *before {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("something was left or is missing\nbefore: {before:#?}\nnow: {now:#?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fails when anything is left of an instance that was taken down.
pub fn must_be_gone(run: &Path, name: &str, work: &Path) -> Result<()> {
    let now = snapshot(run, name, work)?;
    let nothing = Snapshot {
        mounts: Vec::new(),
        loops: BTreeSet::new(),
        cgroups: BTreeSet::new(),
        files: BTreeSet::new(),
        processes: BTreeSet::new(),
        links: BTreeSet::new(),
        ..now
    };
    must_become(&nothing, || snapshot(run, name, work))?;
    ensure!(!run.exists(), "{} is left", run.display());
    let tables = rules(&["list", "tables"])?;
    ensure!(!tables.contains("dyno_"), "rules are left: {tables}");
    Ok(())
}

/// Loop devices over files below `work`.
pub fn loops(work: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for device in fs::read_dir("/sys/block")?.filter_map(Result::ok) {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(file.trim()).starts_with(work) {
            found.insert(format!("{} {}", device.file_name().to_string_lossy(), file.trim()));
        }
    }
    Ok(found)
}

fn collect(dir: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_name() == ".lock" || entry.file_name() == "ip_forward" {
            continue; // made once, with the first image or the first link
        }
        files.insert(entry.path().display().to_string());
        // Images are foreign trees.
        let image = dir.file_name().is_some_and(|n| n == "images");
        if !image && entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(&entry.path(), files);
        }
    }
}

/// Id ranges of the instance, and of this process while they are being taken; and how many lie ready for the next start. All instances of
/// a host have theirs in one directory.
fn leases(run: &Path) -> (Vec<String>, usize) {
    let ticket = format!(".{}-", std::process::id());
    let entries = fs::read_dir("/run/dyno-leases").into_iter().flatten().filter_map(Result::ok);
    let (mut taken, mut spares) = (Vec::new(), 0);
    for entry in entries {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let (instance, owner) = text.split_once('\n').unwrap_or_default();
        let ours = Path::new(instance) == run;
        if ours && owner.starts_with(&format!("spare {} ", std::process::id())) {
            spares += 1;
        } else if ours || entry.file_name().to_string_lossy().starts_with(&ticket) {
            taken.push(entry.path().display().to_string());
        }
    }
    (taken, spares)
}

fn cgroups(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(Result::ok) {
        for group in [hierarchy.path().join(name), hierarchy.path()] {
            if !group.ends_with(name) || !group.is_dir() {
                continue;
            }
            found.insert(group.display().to_string());
            let inner = fs::read_dir(&group).into_iter().flatten().filter_map(Result::ok);
            found.extend(inner.filter(|e| e.path().is_dir()).map(|e| e.path().display().to_string()));
        }
    }
    found
}

fn processes(name: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let me = std::process::id();
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let ours = fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|text| text.contains(&format!("/{name}/")));
        if pid != me && (ours || descends(pid, me)) {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.insert(format!("{pid} {}", comm.trim()));
        }
    }
    Ok(found)
}

/// What is there of every sandbox of the instance in `run` that has a link, and not the table that they share.
fn links(run: &Path) -> Result<BTreeSet<String>> {
    // Other instances' come and go.
    let hash = Sha256::digest(run.as_os_str().as_encoded_bytes());
    let prefix = format!("dy{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2]);
    let table = fs::read_to_string("/proc/self/net/dev")?;
    let names = table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    let mut found: BTreeSet<String> = names.filter(|name| name.starts_with(&prefix)).collect();
    // Forwarding is on as soon as there is a table to look at.
    let raised = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?.trim() == "1";
    let rules = if raised { rules(&["list", "ruleset"])? } else { String::new() };
    let own = |line: &&str| line.contains("elements = ") || line.trim_start().starts_with("chain of_");
    found.extend(rules.lines().filter(own).map(|line| line.trim().to_owned()));
    Ok(found)
}

/// What nft says, in the lab: elsewhere nothing here makes rules.
fn rules(question: &[&str]) -> Result<String> {
    if !super::lab::is_inside() {
        return Ok(String::new());
    }
    let output = std::process::Command::new("/usr/sbin/nft").args(question).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn descends(mut pid: u32, ancestor: u32) -> bool {
    while pid > 1 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        pid = parent.unwrap_or(0);
        if pid == ancestor {
            return true;
        }
    }
    false
}

/// What they are, without their numbers, and without the user namespaces that lie ready and the /dev ("/": attached nowhere) of each.
fn descriptors(spares: usize) -> Result<Vec<String>> {
    let entries = fs::read_dir("/proc/self/fd")?.filter_map(Result::ok);
    let mut found: Vec<String> = entries.filter_map(|e| Some(fs::read_link(e.path()).ok()?.display().to_string())).collect();
    found.retain(|target| !target.starts_with("/proc/"));
    found.sort();
    let mut left = [spares; 2];
    found.retain(|target| {
        let kind = match target.as_str() {
            "/" => 0,
            namespace if namespace.starts_with("user:[") => 1,
            _ => return true,
        };
        let ready = left[kind] > 0;
        left[kind] -= usize::from(ready);
        !ready
    });
    Ok(found)
}
