//! Control groups of containers on this host, whatever hierarchies it has: made, entered, limited, frozen, emptied, removed.

#[path = "oci_groups/rare.rs"]
mod rare;
mod support;

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{
    ErrorKind,
    oci::{
        cgroup::{Cgroup, Manager, Record, Seen},
        spec::{BlockIo, Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources, ThrottleDevice},
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};
use support::{Stage, suite};

const MIB: i64 = 1 << 20;

/// Groups of a container that are gone at the end, also when the case fails.
struct Made {
    record: Record,
    cgroup: Cgroup,
}

impl Made {
    fn new(stage: &Stage, name: &str, resources: &Resources) -> Result<Self> {
        let record = Record::plan(name, Some(&format!("/{}.oci/{name}", stage.name)), Manager::Files)?;
        Ok(Self { cgroup: Cgroup::create(&record, resources, None)?, record })
    }

    /// The directory for a controller.
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        let v1 = self.record.groups.iter().find(|(_, c)| c.iter().any(|c| c == controller));
        let v2 = || self.record.groups.iter().find(|(dir, c)| c.is_empty() && lists(dir, controller));
        v1.or_else(v2).map(|(dir, _)| dir.clone())
    }

    fn says(&self, controller: &str, files: &[&str]) -> Result<String> {
        let dir = self.dir(controller).with_context(|| format!("no {controller}"))?;
        let text = files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok());
        Ok(text.with_context(|| format!("none of {files:?} in {}", dir.display()))?.trim().to_owned())
    }

    /// A shell inside, which has said so.
    fn enter(&self, script: &str) -> Result<Child> {
        let file = |dir: &Path, controllers: &[String]| dir.join(if controllers.is_empty() { "cgroup.procs" } else { "tasks" });
        let enter: String = self.record.groups.iter().map(|(dir, c)| format!("echo 0 > {} && ", file(dir, c).display())).collect();
        let mut child =
            Command::new("sh").args(["-c", &format!("{enter} echo in || exit 9\n{script}")]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = [0; 3];
        child.stdout.as_mut().context("stdout")?.read_exact(&mut said)?;
        ensure!(said == *b"in\n", "{said:?}");
        Ok(child)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let removed = self.cgroup.remove();
        for (dir, _) in &self.record.groups {
            // A runtime leaves those above: they may be another's.
            let _gone = dir.parent().map(fs::remove_dir);
        }
        assert!(std::thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

fn lists(dir: &Path, controller: &str) -> bool {
    fs::read_to_string(dir.join("cgroup.controllers")).is_ok_and(|text| text.split_whitespace().any(|c| c == controller))
}

fn in_every_hierarchy(stage: &Stage) -> Result<()> {
    let container = Made::new(stage, "everywhere", &Resources::default())?;
    let mut shell = container.enter("read line")?;
    let places = fs::read_to_string(format!("/proc/{}/cgroup", shell.id()))?;
    let mounted = fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(" - cgroup")).count();
    let want = format!("/{}.oci/everywhere", stage.name);
    let there = places.lines().filter(|line| line.ends_with(&want)).count();
    ensure!(there == mounted && container.record.groups.len() == mounted, "{there} of {mounted}: {places}");
    ensure!(container.cgroup.pids(false)? == [shell.id()], "{:?}", container.cgroup.pids(true));
    shell.kill()?;
    shell.wait()?;
    container.cgroup.remove()?;
    ensure!(container.record.groups.iter().all(|(dir, _)| !dir.exists()), "something is left");
    ensure!(Cgroup::open(&container.record)?.is_gone());
    // Twice is no error.
    container.cgroup.remove()?;
    Ok(())
}

fn limits_are_the_kernels(stage: &Stage) -> Result<()> {
    let resources = Resources {
        memory: Some(Memory { limit: Some(64 * MIB), swap: Some(64 * MIB), reservation: Some(32 * MIB), ..Memory::default() }),
        cpu: Some(Cpu {
            shares: Some(1024),
            quota: Some(50_000),
            period: Some(100_000),
            cpus: Some("0".into()),
            mems: Some("0".into()),
            ..Cpu::default()
        }),
        pids: Some(Pids { limit: Some(7) }),
        ..Resources::default()
    };
    let container = Made::new(stage, "limited", &resources)?;
    let memory = (64 * MIB).to_string();
    ensure!(container.says("memory", &["memory.limit_in_bytes", "memory.max"])? == memory);
    ensure!(["0", &memory].contains(&container.says("memory", &["memory.memsw.limit_in_bytes", "memory.swap.max"])?.as_str()));
    ensure!(container.says("pids", &["pids.max"])? == "7");
    ensure!(["50000", "50000 100000"].contains(&container.says("cpu", &["cpu.cfs_quota_us", "cpu.max"])?.as_str()));
    ensure!(["1024", "100"].contains(&container.says("cpu", &["cpu.shares", "cpu.weight"])?.as_str()));
    ensure!(container.says("cpuset", &["cpuset.cpus"])? == "0");
    let mut shell = container.enter("for i in 1 2 3 4 5 6 7; do sleep 100 & done 2> /dev/null")?;
    ensure!(!shell.wait()?.success(), "eight processes ran at a limit of seven");
    container.cgroup.kill(Signal::KILL)?;
    // Up and down: whatever order the kernel wants.
    for (limit, quota, period) in [(128, 80_000, 200_000), (32, 2_000, 10_000), (256, 900_000, 1_000_000)] {
        let memory = Some(Memory { limit: Some(limit * MIB), swap: Some(limit * MIB), ..Memory::default() });
        let cpu = Some(Cpu { quota: Some(quota), period: Some(period), ..Cpu::default() });
        container.cgroup.update(&Resources { memory, cpu, ..Resources::default() })?;
        ensure!(container.says("memory", &["memory.limit_in_bytes", "memory.max"])? == (limit * MIB).to_string());
        ensure!(container.says("cpu", &["cpu.cfs_quota_us", "cpu.max"])?.starts_with(&quota.to_string()));
    }
    // The second of two is refused: the first has its former value again.
    let bad = Resources {
        memory: Some(Memory { limit: Some(64 * MIB), swap: Some(64 * MIB), ..Memory::default() }),
        pids: Some(Pids { limit: Some(i64::MAX) }),
        ..Resources::default()
    };
    let e = container.cgroup.update(&bad).err().context("pids.max took more than there can be")?;
    ensure!(e.to_string().contains("linux.resources.pids.limit"), "{e}");
    ensure!(container.says("memory", &["memory.limit_in_bytes", "memory.max"])? == (256 * MIB).to_string());
    Ok(())
}

fn a_used_or_frozen_group_is_refused(stage: &Stage) -> Result<()> {
    let container = Made::new(stage, "used", &Resources::default())?;
    let mut shell = container.enter("read line")?;
    let again = || Cgroup::create(&container.record, &Resources::default(), None).err().context("it was used twice");
    let e = again()?;
    ensure!(e.kind() == ErrorKind::Wall && e.to_string().contains("not empty"), "{e}");
    shell.kill()?;
    shell.wait()?;
    // Empty ones may be there before.
    Cgroup::create(&container.record, &Resources::default(), None)?;
    container.cgroup.freeze()?;
    ensure!(container.cgroup.is_frozen()? && again()?.to_string().contains("frozen"));
    container.cgroup.thaw()?;
    ensure!(!container.cgroup.is_frozen()?);
    Ok(())
}

fn all_are_frozen_and_killed(stage: &Stage) -> Result<()> {
    let container = Made::new(stage, "family", &Resources::default())?;
    let mut shell = container.enter("while :; do sleep 0.005 & sleep 0.005; done")?;
    for _ in 0..3 {
        container.cgroup.freeze()?;
        ensure!(Cgroup::open(&container.record)?.is_frozen()?);
        container.cgroup.thaw()?;
        ensure!(!container.cgroup.is_frozen()?);
    }
    container.cgroup.freeze()?;
    container.cgroup.kill(Signal::KILL)?;
    shell.wait()?;
    container.cgroup.remove()?;
    Ok(())
}

/// As on a host with v1 alone.
fn without_a_v2_tree(stage: &Stage) -> Result<()> {
    let mut record = Record::plan("v1", Some(&format!("/{}.oci/v1", stage.name)), Manager::Files)?;
    record.groups.retain(|(_, controllers)| !controllers.is_empty());
    if record.groups.is_empty() {
        println!("skipped: no v1 hierarchy");
        return Ok(());
    }
    let container = Made { cgroup: Cgroup::create(&record, &Resources::default(), None)?, record };
    ensure!(container.cgroup.birthplace().is_none());
    let mut shell = container.enter("while :; do sleep 0.005 & sleep 0.005; done")?;
    for _ in 0..3 {
        container.cgroup.freeze()?;
        ensure!(container.cgroup.is_frozen()? && Cgroup::stands_still(&container.record)?);
        container.cgroup.thaw()?;
        ensure!(!container.cgroup.is_frozen()?);
    }
    // Killed frozen: it must be let go on to die.
    container.cgroup.freeze()?;
    container.cgroup.kill(Signal::KILL)?;
    shell.wait()?;
    let mut shell = container.enter("trap 'exit 7' TERM; while :; do sleep 0.01; done")?;
    catches_term(shell.id())?;
    container.cgroup.kill(Signal::TERM)?;
    ensure!(shell.wait()?.code() == Some(7));
    // What is left is killed, and the groups go.
    let mut shell = container.enter("while :; do sleep 0.005 & sleep 0.005; done")?;
    container.cgroup.remove()?;
    ensure!(!shell.wait()?.success());
    Ok(())
}

/// Waits until process `pid` has a handler for SIGTERM.
fn catches_term(pid: u32) -> Result<()> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while std::time::Instant::now() < end {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        if caught.is_some_and(|bits| bits & (1 << 14) != 0) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    anyhow::bail!("process {pid} sets no handler")
}

fn other_signals_reach_all(stage: &Stage) -> Result<()> {
    let container = Made::new(stage, "signals", &Resources::default())?;
    let mut shell = container.enter("trap 'exit 7' TERM; while :; do sleep 0.01; done")?;
    catches_term(shell.id())?;
    container.cgroup.kill(Signal::TERM)?;
    ensure!(shell.wait()?.code() == Some(7));
    Ok(())
}

fn groups_made_inside_go_with_it(stage: &Stage) -> Result<()> {
    let container = Made::new(stage, "nested", &Resources::default())?;
    for (dir, _) in &container.record.groups {
        fs::create_dir_all(dir.join("a/b"))?;
        fs::create_dir_all(dir.join("c"))?;
    }
    let procs =
        container.record.groups.iter().find(|(_, c)| c.iter().any(|c| c == "pids") || c.is_empty()).context("pids")?.0.join("a/b/cgroup.procs");
    let mut sleep = Command::new("sleep").arg("1000").spawn()?;
    fs::write(&procs, sleep.id().to_string())?;
    ensure!(container.cgroup.pids(false)?.is_empty() && container.cgroup.pids(true)? == [sleep.id()]);
    // What is left inside is killed; a zombie counts for nothing.
    container.cgroup.remove()?;
    ensure!(!sleep.wait()?.success());
    ensure!(container.record.groups.iter().all(|(dir, _)| !dir.exists()), "something is left");
    Ok(())
}

fn devices_are_forbidden(stage: &Stage) -> Result<()> {
    let container = Made::new(stage, "devices", &Resources::default())?;
    let opens = || Ok::<bool, anyhow::Error>(container.enter("(: < /dev/kmsg) 2> /dev/null")?.wait()?.success());
    ensure!(container.enter("echo x > /dev/null && head -c 1 /dev/zero > /dev/null")?.wait()?.success(), "null and zero are everybody's");
    ensure!(!opens()?, "kmsg is not");
    let rule = |allow| DeviceRule { allow, kind: Some("c".into()), major: Some(1), minor: Some(11), access: Some("r".into()) };
    container.cgroup.update(&Resources { devices: vec![rule(true)], ..Resources::default() })?;
    ensure!(opens()?);
    container.cgroup.update(&Resources { devices: vec![rule(false)], ..Resources::default() })?;
    ensure!(!opens()?);
    container.cgroup.update(&Resources { devices: vec![DeviceRule { allow: true, ..DeviceRule::default() }], ..Resources::default() })?;
    ensure!(opens()?);
    Ok(())
}

fn what_this_host_lacks_is_named(stage: &Stage) -> Result<()> {
    let unified = Resources { unified: [("nosuch.max".to_owned(), "5".to_owned())].into(), ..Resources::default() };
    let e = Made::new(stage, "lacking", &unified).err().context("a controller that does not exist")?;
    ensure!(e.to_string().contains("nosuch"), "{e}");
    let mems = Resources { cpu: Some(Cpu { mems: Some("63".into()), ..Cpu::default() }), ..Resources::default() };
    let e = Made::new(stage, "lacking", &mems).err().context("a memory node that does not exist")?;
    ensure!(e.to_string().contains("linux.resources.cpu.mems"), "{e}");
    // Nothing is left of either.
    let record = Record::plan("lacking", Some(&format!("/{}.oci/lacking", stage.name)), Manager::Files)?;
    ensure!(Cgroup::open(&record)?.is_gone());
    for (dir, _) in &record.groups {
        let _none = dir.parent().map(fs::remove_dir);
    }
    Ok(())
}

fn figures_are_in_runcs_shape(stage: &Stage) -> Result<()> {
    let resources = Resources {
        memory: Some(Memory { limit: Some(64 * MIB), ..Memory::default() }),
        pids: Some(Pids { limit: Some(9) }),
        ..Resources::default()
    };
    let container = Made::new(stage, "figures", &resources)?;
    let mut shell = container.enter("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; read line")?;
    let mut done = [0];
    shell.stdout.as_mut().context("stdout")?.read_exact(&mut done)?;
    let stats = container.cgroup.stats()?;
    let number = |path: &str| stats.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
    ensure!(number("/pids/current") == 1 && number("/pids/limit") == 9, "{stats:#}");
    ensure!(number("/memory/usage/limit") == 64 * MIB.unsigned_abs() && number("/memory/usage/usage") > 0, "{stats:#}");
    ensure!(number("/cpu/usage/total") > 0 && stats.pointer("/cpu/usage/user").is_some(), "{stats:#}");
    ensure!(stats.pointer("/memory/raw").and_then(|raw| raw.as_object()).is_some_and(|raw| raw.len() > 10), "{stats:#}");
    let members: Vec<&String> = stats.as_object().context("no object")?.keys().collect();
    ensure!(members == ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"], "{members:?}");
    drop(shell.stdin.take());
    shell.wait()?;
    Ok(())
}

fn a_lack_of_memory_is_told(stage: &Stage) -> Result<()> {
    let resources = Resources { memory: Some(Memory { limit: Some(16 * MIB), swap: Some(16 * MIB), ..Memory::default() }), ..Resources::default() };
    let container = Made::new(stage, "oom", &resources)?;
    let mut oom = container.cgroup.events()?;
    ensure!(oom.look() != Seen::OutOfMemory);
    let mut shell = container.enter("head -c 100000000 /dev/zero | tail > /dev/null; read line")?;
    // Limits that are reached make it readable, too; v2 tells of that before it tells of the kill.
    while oom.look() != Seen::OutOfMemory {
        let ready = poll(&mut [PollFd::new(&oom, PollFlags::IN)], Some(&Timespec { tv_sec: 60, tv_nsec: 0 }))?;
        ensure!(ready == 1, "nothing was told");
    }
    drop(shell.stdin.take());
    shell.wait()?;
    container.cgroup.remove()?;
    ensure!(oom.look() == Seen::Gone);
    Ok(())
}

fn an_owner_divides_the_v2_group(stage: &Stage) -> Result<()> {
    let record = Record::plan("owned", Some(&format!("/{}.oci/owned", stage.name)), Manager::Files)?;
    let container = Made { cgroup: Cgroup::create(&record, &Resources::default(), Some((4321, 4322)))?, record };
    for (dir, controllers) in &container.record.groups {
        let want = if controllers.is_empty() { (4321, 4322) } else { (0, 0) };
        for file in ["", "cgroup.procs"] {
            let meta = fs::metadata(dir.join(file))?;
            ensure!((meta.uid(), meta.gid()) == want, "{}/{file}", dir.display());
        }
        // Limits are the host's.
        let limits = ["memory.max", "pids.max", "cgroup.type"].map(|file| dir.join(file));
        ensure!(limits.iter().filter_map(|file| fs::metadata(file).ok()).all(|meta| meta.uid() == 0));
    }
    Ok(())
}

fn files_by_name(stage: &Stage) -> Result<()> {
    let resources = Resources { unified: [("cgroup.max.descendants".to_owned(), "5".to_owned())].into(), ..Resources::default() };
    if !Path::new("/proc/self/cgroup").exists() || !fs::read_to_string("/proc/self/mountinfo")?.contains(" - cgroup2 ") {
        println!("skipped: no v2 tree");
        return Ok(());
    }
    let container = Made::new(stage, "unified", &resources)?;
    let (tree, _) = container.record.groups.iter().find(|(_, c)| c.is_empty()).context("no v2 group")?;
    ensure!(fs::read_to_string(tree.join("cgroup.max.descendants"))? == "5\n");
    Ok(())
}

fn main() -> ExitCode {
    suite(
        "oci-groups",
        &[],
        &[
            ("in_every_hierarchy", in_every_hierarchy),
            ("limits_are_the_kernels", limits_are_the_kernels),
            ("a_used_or_frozen_group_is_refused", a_used_or_frozen_group_is_refused),
            ("all_are_frozen_and_killed", all_are_frozen_and_killed),
            ("without_a_v2_tree", without_a_v2_tree),
            ("other_signals_reach_all", other_signals_reach_all),
            ("groups_made_inside_go_with_it", groups_made_inside_go_with_it),
            ("devices_are_forbidden", devices_are_forbidden),
            ("what_this_host_lacks_is_named", what_this_host_lacks_is_named),
            ("figures_are_in_runcs_shape", figures_are_in_runcs_shape),
            ("a_lack_of_memory_is_told", a_lack_of_memory_is_told),
            ("huge_pages_are_limited", rare::huge_pages_are_limited),
            ("an_owner_divides_the_v2_group", an_owner_divides_the_v2_group),
            ("files_by_name", files_by_name),
            ("weights_and_ceilings_of_disks", rare::weights_and_ceilings_of_disks),
            ("a_scope_of_systemds", rare::a_scope_of_systemds),
        ],
    )
}
