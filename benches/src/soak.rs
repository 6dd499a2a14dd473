//! What ten minutes of starts and ends leave: nothing, neither in the process that asks for them nor in the kernel.
//!
//! Counted once what is kept for good is there, and again at the end: descriptors, threads, mounts, files and memory of the process, and of the
//! kernel what a sandbox is made of. An object left by every hundredth start is seen; what other processes of the host do meanwhile is not told
//! apart, and is what the allowances are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::leaks;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    agent::{Agent, READY, Request, Setup, Tier},
    machine::Machine,
    null_device::NullDevice,
    peers::setup,
    stage::Stage,
};

/// Who starts: one for each processor of the goal's host.
const THREADS: usize = 2;

/// One piece of the time; each has its rate.
const SLICE: u64 = 30;

/// Namespaces are taken apart after the starts that had them: waited for until none has gone for as long as this, and how long at most.
const STILL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// Kinds of kernel objects that a start makes, by their caches in slabinfo(5). All are freed with what they are of; none is a cache that the
/// kernel keeps filled for later.
const OBJECTS: [&str; 13] = [
    "task_struct",
    "pid",
    "pid_namespace",
    "net_namespace",
    "user_namespace",
    "uts_namespace",
    "nsproxy",
    "mnt_cache",
    "mem_cgroup",
    "task_group",
    "ovl_inode",
    "shmem_inode_cache",
    "key_jar",
];

/// What the kernel keeps of removed control groups until memory is short or the group above them goes: shown, and no fault of who removed them.
/// mkdir, a read and rmdir of two thousand groups, by nobody of ours, left 4266 (Linux 6.18).
const CACHED: &str = "kernfs_node_cache";

/// Memory that the kernel cannot take back by itself (proc_meminfo(5)).
const MEMORY: [&str; 4] = ["SUnreclaim", "Percpu", "KernelStack", "PageTables"];

/// What is soaked, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Seconds for each tier, after a tenth of them to fill what is kept.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// What stands ready when a start is asked for.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["cold", "recycled"])]
    pub tier: Vec<Tier>,
    /// Directory in which `soak.md` is written.
    #[arg(long)]
    pub out: Option<std::path::PathBuf>,
}

/// How a count may differ at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Unit {
    /// By what a tier keeps ready, of the process's own: how much of it lies there changes from moment to moment.
    Own,
    /// Objects: one in a hundred starts, and what the kernel keeps in hand for each processor.
    Objects,
    /// As the kernel likes.
    Cached,
    /// KB: a twentieth of one for each start, and what a host's other work moves.
    Kilobytes,
}

impl Unit {
    fn allows(self, starts: f64) -> f64 {
        match self {
            Self::Own => 2.0 * READY as f64,
            Self::Objects => (starts / 100.0).max(500.0),
            Self::Cached => f64::INFINITY,
            Self::Kilobytes => (starts / 20.0).max(8192.0),
        }
    }
}

type Counts = BTreeMap<String, (Unit, f64)>;

/// A tier's soak.
struct Soaked {
    tier: Tier,
    starts: f64,
    rates: Vec<f64>,
    before: Counts,
    after: Counts,
}

/// Soaks each tier, prints the tables, writes the page.
///
/// # Errors
/// When something has grown, or something is left when all is over.
pub fn run(options: &Options) -> Result<()> {
    let before = leaks::snapshot()?;
    let null = NullDevice::remember()?;
    let stage = Stage::set(None)?;
    let soaked = options.tier.iter().map(|tier| soak(&stage, *tier, options.seconds)).collect::<Result<Vec<_>>>()?;
    drop((stage, null));
    leaks::compare(&before, &leaks::snapshot()?)?;
    let page = page(&soaked);
    println!("{page}");
    if let Some(out) = &options.out {
        fs::create_dir_all(out)?;
        fs::write(out.join("soak.md"), page).with_context(|| format!("write {}/soak.md", out.display()))?;
    }
    let grown: Vec<String> = soaked.iter().flat_map(|soaked| soaked.grown().map(|what| format!("{what} ({:?})", soaked.tier))).collect();
    ensure!(grown.is_empty(), "grown with the number of starts: {}", grown.join(", "));
    Ok(())
}

fn soak(stage: &Stage, tier: Tier, seconds: u64) -> Result<Soaked> {
    let setup = setup(stage, tier, "soak");
    let mut agent = Agent::start(&setup, 0)?;
    let bar = ProgressBar::new(seconds).with_style(ProgressStyle::with_template("{spinner} {prefix:9} {bar:20} {pos:>4}/{len} s  {msg}")?);
    bar.set_prefix(format!("{tier:?}").to_lowercase());
    sustain(&mut agent, (seconds / 10).max(1))?;
    let before = counts(&agent, &setup)?;
    let (mut rates, mut starts) = (Vec::new(), 0.0);
    for from in (0..seconds).step_by(SLICE as usize) {
        let slice = SLICE.min(seconds - from);
        let rate = sustain(&mut agent, slice)?;
        starts += rate * slice as f64;
        rates.push(rate);
        bar.inc(slice);
        bar.set_message(format!("{rate:.0} starts/s"));
        if bar.is_hidden() {
            eprintln!("       {tier:?}: {} of {seconds} s, {rate:.0} starts/s", from + slice);
        }
    }
    let after = counts(&agent, &setup)?;
    bar.finish_and_clear();
    agent.finish()?;
    Ok(Soaked { tier, starts, rates, before, after })
}

fn sustain(agent: &mut Agent, seconds: u64) -> Result<f64> {
    agent.number(&Request::Sustain { threads: THREADS, seconds })
}

/// Once what the last starts have left is taken apart.
fn counts(agent: &Agent, setup: &Setup) -> Result<Counts> {
    let began = Instant::now();
    let (mut least, mut since) = (f64::INFINITY, Instant::now());
    while since.elapsed() < STILL && began.elapsed() < PATIENCE {
        let now = objects(&fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?, "net_namespace");
        if now.is_some_and(|now| now < least) {
            (least, since) = (now.unwrap_or_default(), Instant::now());
        }
        sleep(STILL / 10);
    }
    let mut counts = of_the_process(agent.pid())?;
    counts.insert("files of the state directory".into(), (Unit::Own, files(&setup.dir)? as f64));
    let groups = fs::read_to_string("/proc/cgroups")?;
    let groups: f64 = groups.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)?.parse::<f64>().ok()).sum();
    counts.insert("control groups of all hierarchies".into(), (Unit::Objects, groups));
    let slabs = fs::read_to_string("/proc/slabinfo")?;
    // Where the kernel merges caches of one size, some have no line.
    counts.extend(OBJECTS.into_iter().filter_map(|name| Some((format!("`{name}`"), (Unit::Objects, objects(&slabs, name)?)))));
    counts.extend(
        objects(&slabs, CACHED)
            .map(|kept| (format!("`{CACHED}`, which the kernel keeps of removed groups until memory is short"), (Unit::Cached, kept))),
    );
    let memory = fs::read_to_string("/proc/meminfo")?;
    counts.extend(MEMORY.into_iter().filter_map(|name| Some((format!("{name}, KB"), (Unit::Kilobytes, kilobytes(&memory, name)?)))));
    Ok(counts)
}

fn of_the_process(pid: u32) -> Result<Counts> {
    let proc = format!("/proc/{pid}");
    let entries =
        |what: &str| -> Result<f64> { Ok(fs::read_dir(format!("{proc}/{what}")).with_context(|| format!("{proc}/{what}"))?.count() as f64) };
    let mounts = fs::read_to_string(format!("{proc}/mountinfo"))?.lines().count() as f64;
    let memory = kilobytes(&fs::read_to_string(format!("{proc}/status"))?, "VmRSS").context("VmRSS")?;
    Ok(Counts::from([
        ("descriptors of the process".to_owned(), (Unit::Own, entries("fd")?)),
        ("threads of the process".to_owned(), (Unit::Own, entries("task")?)),
        ("mounts that it sees".to_owned(), (Unit::Own, mounts)),
        ("memory of the process, KB".to_owned(), (Unit::Kilobytes, memory)),
    ]))
}

/// Everything below a directory.
fn files(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += files(&entry.path())?;
        }
    }
    Ok(count)
}

/// Those in use, of slabinfo(5).
fn objects(slabs: &str, name: &str) -> Option<f64> {
    slabs.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split_whitespace().next()?.parse().ok())
}

/// A line of meminfo or of a process's status.
fn kilobytes(table: &str, name: &str) -> Option<f64> {
    table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
}

impl Soaked {
    /// What is more than it may be; where something is no longer told of, that too.
    fn grown(&self) -> impl Iterator<Item = &str> {
        self.before.iter().filter_map(|(what, (unit, before))| {
            let after = self.after.get(what).map_or(f64::INFINITY, |(_, after)| *after);
            (after - before > unit.allows(self.starts)).then_some(what.as_str())
        })
    }
}

fn page(soaked: &[Soaked]) -> String {
    let machine = Machine::look();
    let mut page = format!(
        "# What starts and ends leave\n\nWritten by `cargo xtask bench soak` on {}, Linux {}, {} processors; {THREADS} threads start a program that only ends, wait for it and give all back, again and again. \
         Counted after a tenth of the time more has gone before, and at the end.\n",
        machine.date, machine.kernel, machine.processors
    );
    for soaked in soaked {
        let grown: BTreeSet<&str> = soaked.grown().collect();
        let (first, last) = (soaked.rates.first().copied().unwrap_or(0.0), soaked.rates.last().copied().unwrap_or(0.0));
        let _ = write!(
            page,
            "\n## {:?}\n\n{:.0} starts; {first:.0} a second at first, {last:.0} at last.\n\n| | before | after | grown by | allowed | |\n|---|--:|--:|--:|--:|---|\n",
            soaked.tier, soaked.starts
        );
        for (what, (unit, before)) in &soaked.before {
            let after = soaked.after.get(what).map_or(f64::NAN, |(_, after)| *after);
            let verdict = if grown.contains(what.as_str()) { "**grows**" } else { "" };
            let allowed = if *unit == Unit::Cached { "any".to_owned() } else { format!("{:.0}", unit.allows(soaked.starts)) };
            let _ = writeln!(page, "| {what} | {before:.0} | {after:.0} | {:.0} | {allowed} | {verdict} |", after - before);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soaked(unit: Unit, before: f64, after: Option<f64>) -> Soaked {
        let counts = |count: Option<f64>| count.map(|count| ("x".to_owned(), (unit, count))).into_iter().collect();
        Soaked { tier: Tier::Cold, starts: 200_000.0, rates: vec![333.0], before: counts(Some(before)), after: counts(after) }
    }

    #[test]
    fn one_left_by_every_hundredth_start_is_seen() {
        let cases = [
            (Unit::Own, 10.0, Some(74.0), false),
            (Unit::Own, 10.0, Some(75.0), true),
            (Unit::Own, 10.0, Some(9.0), false),
            (Unit::Objects, 1000.0, Some(2900.0), false),
            (Unit::Objects, 1000.0, Some(3001.0), true),
            (Unit::Kilobytes, 50_000.0, Some(59_000.0), false),
            (Unit::Kilobytes, 50_000.0, Some(60_001.0), true),
            (Unit::Objects, 1000.0, None, true),
            (Unit::Cached, 1000.0, Some(99_000.0), false),
        ];
        for (unit, before, after, expected) in cases {
            let soaked = soaked(unit, before, after);
            assert_eq!(soaked.grown().count() == 1, expected, "{unit:?} {before} {after:?}");
            assert_eq!(page(&[soaked]).contains("**grows**"), expected);
        }
    }

    #[test]
    fn lines_of_the_kernel() {
        let slabs = "slabinfo - version: 2.1\npid_namespace          40     84    192 : tunables\npid   7   8\n";
        assert_eq!((objects(slabs, "pid"), objects(slabs, "pid_namespace"), objects(slabs, "none")), (Some(7.0), Some(40.0), None));
        assert_eq!(kilobytes("VmPeak:\t 9 kB\nVmRSS:\t  812 kB\n", "VmRSS"), Some(812.0));
        for name in MEMORY {
            assert!(kilobytes(&fs::read_to_string("/proc/meminfo").unwrap(), name).is_some(), "{name}");
        }
    }
}
