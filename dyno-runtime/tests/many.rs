//! Many starts: from many threads at once, and a thousand one after the other.

mod support;

use std::{collections::BTreeSet, fs, process::ExitCode, sync::Mutex};

use anyhow::{Context, Result, anyhow, ensure};
use dyno_runtime::{Dyno, Stdio};

use support::{Case, Stage, same};

const CASES: &[Case] = &[
    ("two_hundred_from_twenty_threads", two_hundred_from_twenty_threads),
    ("a_thousand_quick_ones", a_thousand_quick_ones),
    ("freed_by_other_threads", freed_by_other_threads),
];

fn main() -> ExitCode {
    support::suite("many", &[], CASES)
}

const THREADS: usize = 20;

/// All are alive at the same time, each with every wall, each with ids of its own.
fn two_hundred_from_twenty_threads(stage: &Stage) -> Result<()> {
    let all = Mutex::new(Vec::new());
    let each = if support::emulated() { 2 } else { 10 };
    let work = || -> Result<()> {
        for _ in 0..each {
            let dyno = stage.start(&stage.sandbox(&["forever"]), Stdio::Null)?;
            walls(&dyno).with_context(|| format!("dyno {}", dyno.id()))?;
            // While other threads start theirs, this one allocates, locks and looks into /proc.
            all.lock().map_err(|e| anyhow!("{e}"))?.push(dyno);
        }
        Ok(())
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect()
    });
    let dynos = all.into_inner()?;
    let slots: BTreeSet<u32> = dynos.iter().map(|d| d.record().slot).collect();
    let (count, alive) = (dynos.len(), dynos.iter().filter(|d| !d.has_ended()).count());
    for dyno in dynos {
        dyno.free()?;
    }
    results.into_iter().collect::<Result<()>>()?;
    same("started", count, THREADS * each)?;
    same("alive together", alive, THREADS * each)?;
    same("id ranges", slots.len(), THREADS * each)
}

fn walls(dyno: &Dyno) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", dyno.pid()))?;
    let uid = (1 << 20) + dyno.record().slot * 65536 + 1000;
    let want = [
        ("Uid:\t", format!("{uid}\t{uid}\t{uid}\t{uid}")),
        ("CapBnd:\t", "0".repeat(16)),
        ("CapEff:\t", "0".repeat(16)),
        ("NoNewPrivs:\t", "1".into()),
        ("Seccomp:\t", "2".into()),
    ];
    for (field, want) in &want {
        same(field, status.lines().find_map(|l| l.strip_prefix(field)), Some(want.as_str()))?;
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let (its, ours) = (fs::read_link(format!("/proc/{}/ns/{kind}", dyno.pid()))?, fs::read_link(format!("/proc/self/ns/{kind}"))?);
        ensure!(its != ours, "{kind} namespace is the host's");
    }
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", dyno.pid()))?;
    ensure!(groups.matches(&format!("/{}\n", dyno.id())).count() >= 1, "{groups}");
    Ok(())
}

/// Programs that end at once: whoever started them must not come too late to see them. Two threads, to have it meet itself.
fn a_thousand_quick_ones(stage: &Stage) -> Result<()> {
    let times = if support::emulated() { 50 } else { 500 };
    let work = |_| -> Result<()> {
        for n in 0..times {
            let dyno = stage.start(&stage.sandbox(&["exit", &(n % 100).to_string()]), Stdio::Null)?;
            same("status", dyno.wait()?.status, n % 100)?;
            dyno.free()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|n| scope.spawn(move || work(n)));
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn freed_by_other_threads(stage: &Stage) -> Result<()> {
    let dynos = (0..8).map(|_| stage.forever()).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = dynos.into_iter().map(|dyno| scope.spawn(|| dyno.free())).collect();
        threads.into_iter().try_for_each(|t| Ok(t.join().map_err(|_| anyhow!("a thread panicked"))??))
    })
}
