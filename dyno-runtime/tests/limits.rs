//! Limits, as a program meets them.

pub(crate) mod support;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Cause, Dyno, ErrorKind, IoLimit, Limits, Sandbox, Stdio, Upper};

use support::{
    Case, Stage,
    groups::{disk_of, group_of, says, tree},
    same,
};

pub(crate) const CASES: &[Case] = &[
    ("processes_and_threads", processes_and_threads),
    ("open_files", open_files),
    ("cpu_quota", cpu_quota),
    ("writable_layer_in_bytes", writable_layer_in_bytes),
    ("writable_layer_in_files", writable_layer_in_files),
    ("writable_layer_counts_as_memory", writable_layer_counts_as_memory),
    ("the_least_memory_that_may_be_asked", the_least_memory_that_may_be_asked),
    ("usage_of_a_live_one", usage_of_a_live_one),
    ("no_limits", no_limits),
    ("what_the_kernel_holds", what_the_kernel_holds),
    ("cpus_and_memory_nodes", cpus_and_memory_nodes),
    ("ceilings_of_disks", ceilings_of_disks),
    ("weight_at_the_disks", weight_at_the_disks),
    ("huge_pages", huge_pages),
    ("what_the_kernel_refuses", what_the_kernel_refuses),
];

fn main() -> ExitCode {
    support::suite("limits", &[], CASES)
}

fn number(text: &str) -> Result<u64> {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).with_context(|| format!("no number: {text:?}"))
}

fn processes_and_threads(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["threads", "100"]);
    sandbox.limits.pids = Some(12);
    // Ours and the program's main thread are two of them.
    same("threads", stage.output(&sandbox)?.1, format!("10 errno {}\n", libc::EAGAIN))
}

fn open_files(stage: &Stage) -> Result<()> {
    for files in [16, 20, 300] {
        let mut sandbox = stage.sandbox(&["open-files"]);
        sandbox.limits.open_files = files;
        same("files", stage.output(&sandbox)?.1, format!("{} errno {}\n", files - 3, libc::EMFILE))?;
    }
    Ok(())
}

/// A tenth of a CPU: 100 ms of wall time of a busy loop that gets no more than its share of each period.
fn cpu_quota(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["spin", "500"]);
    sandbox.limits.cpu_millis = Some(100);
    let (exit, _) = stage.output(&sandbox)?;
    // Each begun period of 100 ms may give it 10 ms and a clock tick of overrun.
    ensure!(exit.cpu_us * 3 < exit.wall_us, "no quota held: {exit:?}");
    Ok(())
}

fn writable_layer_in_bytes(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["fill", "/tmp/file"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 20, inodes: 100 };
    let text = stage.output(&sandbox)?.1;
    ensure!(text.ends_with(&format!("errno {}\n", libc::ENOSPC)), "{text}");
    ensure!((1 << 20) - 65536 < number(&text)? && number(&text)? <= 1 << 20, "{text}");
    sandbox.argv[2] = "/dev/shm/file".into();
    sandbox.limits.memory = Some(256 << 20);
    same("shared memory", stage.output(&sandbox)?.1, format!("{} errno {}\n", 64 << 20, libc::ENOSPC))
}

fn writable_layer_in_files(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["files", "/tmp"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 20, inodes: 40 };
    let text = stage.output(&sandbox)?.1;
    ensure!(text.ends_with(&format!("errno {}\n", libc::ENOSPC)), "{text}");
    // Some are the overlay's own.
    ensure!((20..40).contains(&number(&text)?), "{text}");
    Ok(())
}

fn writable_layer_counts_as_memory(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["fill", "/tmp/file"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 30, inodes: 100 };
    sandbox.limits.memory = Some(24 << 20);
    let (exit, text) = stage.output(&sandbox)?;
    same("ended by", (exit.status, exit.cause), (137, Cause::Memory))?;
    same("said", text, String::new())
}

fn the_least_memory_that_may_be_asked(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["say", "small"]);
    sandbox.limits.memory = Some(4 << 20);
    for _ in 0..20 {
        let (exit, text) = stage.output(&sandbox)?;
        same("runs", (exit.status, text.as_str()), (0, "small\n"))?;
    }
    Ok(())
}

fn usage_of_a_live_one(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let usage = dyno.usage();
    ensure!(usage.memory.is_some_and(|m| m > 100_000) && usage.memory_peak >= usage.memory, "{usage:?}");
    same("nothing refused", (usage.oom_kills, usage.pids_refused), (0, 0))?;
    dyno.free()?;
    let mut sandbox = stage.sandbox(&["threads", "100"]);
    sandbox.limits.pids = Some(8);
    let dyno = stage.start(&sandbox, Stdio::Null)?;
    dyno.wait()?;
    ensure!(dyno.usage().pids_refused >= 1, "{:?}", dyno.usage());
    Ok(dyno.free()?)
}

fn no_limits(stage: &Stage) -> Result<()> {
    let limits = Limits { memory: None, pids: None, cpu_weight: None, cpu_millis: None, open_files: 1024, ..Limits::default() };
    let (exit, text) = stage.output(&Sandbox { limits, ..stage.sandbox(&["threads", "300"]) })?;
    same("threads", (exit.status, text.as_str()), (0, "300\n"))
}

/// What a control file of a dyno says: of which controller, by v2's name and by v1's.
fn file(dyno: &Dyno, controller: &str, names: [&str; 2]) -> Result<String> {
    says(&group_of(dyno.pid(), controller)?, names).with_context(|| format!("no {names:?}"))
}

fn limited(stage: &Stage, limits: Limits) -> Result<Dyno> {
    stage.here(&Sandbox { limits, ..stage.sandbox(&["forever"]) })
}

fn what_the_kernel_holds(stage: &Stage) -> Result<()> {
    let limits = Limits { memory: Some(40 << 20), memory_high: Some(30 << 20), swap: 8 << 20, ..Limits::default() };
    let dyno = limited(stage, limits)?;
    same("memory", file(&dyno, "memory", ["memory.max", "memory.limit_in_bytes"])?, (40 << 20).to_string())?;
    same("much memory", file(&dyno, "memory", ["memory.high", "memory.soft_limit_in_bytes"])?, (30 << 20).to_string())?;
    let v2 = group_of(dyno.pid(), "memory")?.join("memory.max").exists();
    match file(&dyno, "memory", ["memory.swap.max", "memory.memsw.limit_in_bytes"]) {
        Ok(swap) => same("swap", swap, if v2 { 8 << 20 } else { 48 << 20 }.to_string())?,
        Err(e) => println!("skipped: swap: {e}"),
    }
    if v2 {
        same("together", file(&dyno, "memory", ["memory.oom.group"; 2])?, "1".into())?;
    }
    Ok(dyno.free()?)
}

fn cpus_and_memory_nodes(stage: &Stage) -> Result<()> {
    let allowed = |limits: Limits| {
        let (exit, text) = stage.output(&Sandbox { limits, ..stage.sandbox(&["read", "/proc/self/status"]) })?;
        same("status", exit.status, 0)?;
        let line = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(|l| l.trim().to_owned()).context("no such line");
        anyhow::Ok((line("Cpus_allowed_list:")?, line("Mems_allowed_list:")?))
    };
    let all = allowed(Limits::default())?;
    let last = all.0.rsplit(['-', ',']).next().unwrap_or_default().to_owned();
    for cpu in ["0".to_owned(), last] {
        same("processors", allowed(Limits { cpus: Some(cpu.clone()), ..Limits::default() })?, (cpu, all.1.clone()))?;
    }
    same("nodes", allowed(Limits { memory_nodes: Some("0".into()), ..Limits::default() })?, (all.0.clone(), "0".into()))?;
    same("both", allowed(Limits { cpus: Some("0".into()), memory_nodes: Some("0".into()), ..Limits::default() })?, ("0".into(), "0".into()))
}

fn ceilings_of_disks(stage: &Stage) -> Result<()> {
    let Some(device) = disk_of(stage.work()) else {
        println!("skipped: {} is on no disk", stage.work().display());
        return Ok(());
    };
    let limit = IoLimit { device: device.clone(), read_bytes: Some(3 << 20), write_bytes: Some(2 << 20), reads: None, writes: Some(70) };
    let dyno = limited(stage, Limits { io: vec![limit], ..Limits::default() })?;
    let group = group_of(dyno.pid(), "blkio")?;
    let v1 = |name: &str| says(&group, [&format!("blkio.throttle.{name}_device"); 2]);
    match says(&group, ["io.max"; 2]) {
        Some(max) => same("ceilings", max, format!("{device} rbps=3145728 wbps=2097152 riops=max wiops=70"))?,
        None => {
            let is = ["read_bps", "write_bps", "read_iops", "write_iops"].map(v1);
            let line = |n: u64| Some(format!("{device} {n}"));
            same("ceilings", is, [line(3 << 20), line(2 << 20), Some(String::new()), line(70)])?;
        }
    }
    Ok(dyno.free()?)
}

/// Held only where a disk has a scheduler that knows weights.
fn weight_at_the_disks(stage: &Stage) -> Result<()> {
    let sandbox = Sandbox { limits: Limits { io_weight: Some(300), ..Limits::default() }, ..stage.sandbox(&["forever"]) };
    match stage.start(&sandbox, Stdio::Null) {
        Ok(dyno) => {
            let group = group_of(dyno.pid(), "blkio")?;
            let bfq = says(&group, ["io.bfq.weight", "blkio.bfq.weight"]).unwrap_or_default();
            let iocost = says(&group, ["io.weight"; 2]).unwrap_or_default();
            // 100 and a little of what is above it: BFQ ends at 1000.
            ensure!(bfq.ends_with("118") || iocost.ends_with("300"), "{bfq:?} {iocost:?}");
            Ok(dyno.free()?)
        }
        Err(e) => {
            println!("skipped: no disk of this host has a scheduler with weights");
            ensure!(
                e.kind() == ErrorKind::Wall && e.to_string().starts_with("limits.io_weight: no disk of this host heeds weights; choose BFQ"),
                "{e}"
            );
            Ok(())
        }
    }
}

fn huge_pages(stage: &Stage) -> Result<()> {
    if !std::fs::exists("/sys/kernel/mm/hugepages/hugepages-2048kB")? {
        println!("skipped: no huge pages of 2 MB");
        return Ok(());
    }
    let before = handed_down();
    let dyno = limited(stage, Limits { hugetlb: [("2MB".into(), 5 << 20)].into(), ..Limits::default() })?;
    same("whole pages", file(&dyno, "hugetlb", ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"])?, (4 << 20).to_string())?;
    let told = dyno.stats()?.hugetlb;
    ensure!(told.get("2MB").is_some_and(|h| (h.limit, h.now, h.refused) == (Some(4 << 20), Some(0), 0)), "{told:?}");
    dyno.update(&Limits::default())?;
    same("taken off", dyno.stats()?.hugetlb.get("2MB").map(|h| h.limit), Some(None))?;
    dyno.update(&Limits { hugetlb: [("2MB".into(), 8 << 20)].into(), ..Limits::default() })?;
    same("changed", dyno.stats()?.hugetlb.get("2MB").map(|h| h.limit), Some(Some(8 << 20)))?;
    dyno.free()?;
    hand_down_again(stage, &before)?;
    same("handed down", handed_down(), before)
}

fn what_the_kernel_refuses(stage: &Stage) -> Result<()> {
    let io = |device: &str, reads| vec![IoLimit { device: device.into(), reads: Some(reads), ..IoLimit::default() }];
    let cases = [
        ("cgroup: ", Limits { cpus: Some("4000".into()), ..Limits::default() }),
        ("cgroup: ", Limits { memory_nodes: Some("900".into()), ..Limits::default() }),
        ("cgroup: write \"259:65535 ", Limits { io: io("259:65535", 1), ..Limits::default() }),
        ("limits.hugetlb: this host has no huge pages of 3MB", Limits { hugetlb: [("3MB".into(), 1)].into(), ..Limits::default() }),
    ];
    let before = handed_down();
    for (want, limits) in cases {
        stage.leaves_nothing(|| {
            let error = stage.start(&Sandbox { limits: limits.clone(), ..stage.sandbox(&["forever"]) }, Stdio::Null).err();
            let error = error.with_context(|| format!("accepted: {limits:?}"))?;
            ensure!(error.to_string().starts_with(want) && error.kind() == ErrorKind::Wall, "want {want:?}, got {error}");
            Ok(())
        })?;
    }
    hand_down_again(stage, &before)
}

/// The controllers that the top of the v2 tree hands down.
fn handed_down() -> String {
    tree().and_then(|tree| std::fs::read_to_string(tree.join("cgroup.subtree_control")).ok()).unwrap_or_default()
}

/// The runtime leaves what it had handed down; the host gets back what it had.
fn hand_down_again(stage: &Stage, before: &str) -> Result<()> {
    let Some(tree) = tree() else { return Ok(()) };
    let more: Vec<String> =
        handed_down().split_whitespace().filter(|c| before.split_whitespace().all(|b| b != *c)).map(|c| format!("-{c}")).collect();
    for (dir, value) in [tree.join(&stage.name), tree].iter().flat_map(|dir| more.iter().map(move |value| (dir, value))) {
        std::fs::write(dir.join("cgroup.subtree_control"), value).with_context(|| format!("{value} in {}", dir.display()))?;
    }
    Ok(())
}
